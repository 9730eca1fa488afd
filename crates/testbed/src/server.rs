//! Real servers for the suites: each in a folder of its own, on a free port of the loopback, gone when dropped.

use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// A running server and its folder. Dropping it ends the process group and removes the folder; if a test is failing just
/// then, the log is printed first.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: PathBuf,
    keep_dir: bool,
}

/// What to start.
#[derive(Debug)]
pub struct Spec<'a> {
    /// The Debian package to name when it is missing.
    pub package: &'a str,
    /// The program, looked for in the usual places.
    pub binary: &'a str,
    /// Files for its folder; `$D` in them stands for the folder.
    pub files: Vec<(&'a str, String)>,
    /// Its arguments; `$D` as above.
    pub args: Vec<String>,
}

/// Where `binary` is; if nowhere, a visible skip on a user's machine, and a failure where the servers were promised.
pub fn find(package: &str, binary: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/lib/postfix/sbin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(binary)).find(|path| path.exists());
    if found.is_none() {
        assert!(!required(), "{binary} is missing: install {package} (cargo xtask testbed install)");
        println!("SKIPPED: {binary} is missing: install {package} (cargo xtask testbed install)");
    }
    found
}

/// Whether a missing server is a failure.
pub fn required() -> bool {
    std::env::var_os("PORTOLAN_REQUIRE_SERVERS").is_some()
}

/// A port of the loopback that was free just now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("loopback has a free port").local_addr().expect("it is bound").port()
}

/// A new folder for one server.
pub fn folder(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = std::env::temp_dir().join(format!("portolan-{name}-{}-{count}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the temp folder can be written");
    dir
}

impl Server {
    /// Starts it in a new folder; `None` if it is not installed. It is not yet ready: see [`ready`](Self::ready).
    pub fn start(spec: &Spec<'_>) -> Option<Self> {
        let dir = folder(spec.binary);
        let server = Self::start_in(spec, dir.clone());
        if server.is_none() {
            let _ = std::fs::remove_dir_all(dir);
        }
        server
    }

    /// The same in a folder that is there already.
    pub fn start_in(spec: &Spec<'_>, dir: PathBuf) -> Option<Self> {
        let path = find(spec.package, spec.binary)?;
        let here = |text: &str| text.replace("$D", &dir.display().to_string());
        for (name, text) in &spec.files {
            std::fs::write(dir.join(name), here(text)).expect("the folder can be written");
        }
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("the folder can be written");
        let child = Command::new(path)
            .args(spec.args.iter().map(|arg| here(arg)))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be had twice"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("an installed server starts");
        Some(Self { child, dir, keep_dir: false })
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits until `probe` says yes.
    pub fn ready(mut self, mut probe: impl FnMut() -> bool) -> Self {
        let started = Instant::now();
        while !probe() {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                panic!("{} ended before it was ready: {status}", self.dir.display());
            }
            assert!(started.elapsed() < START, "{} is not ready", self.dir.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        self
    }

    /// Waits until somebody accepts at `addr`.
    pub fn accepting(self, addr: SocketAddr) -> Self {
        self.ready(|| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok())
    }

    /// Ends it and leaves its folder, to be started again there.
    pub fn stop(mut self) -> PathBuf {
        self.keep_dir = true;
        self.dir.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        // The group was made for this server alone.
        let _ = Command::new("kill").args(["-TERM", "--", &group]).stderr(Stdio::null()).status();
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < Duration::from_secs(3) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            println!("--- log of {} ---\n{log}", self.dir.display());
        }
        if !self.keep_dir {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// What one real-peer test has proved, for docs/REGISTRY.md: appended to the file that `PORTOLAN_RECORD` names.
pub fn record(protocol: &str, kind: &str, peer: &str, config: &str, exchanges: u64) {
    let Some(file) = std::env::var_os("PORTOLAN_RECORD") else { return };
    let clean = |text: &str| text.replace(['\t', '\n', '\r'], " ");
    let line = format!("{protocol}\t{kind}\t{}\t{}\t{exchanges}\n", clean(peer), clean(config));
    let mut file = File::options().create(true).append(true).open(file).expect("the record can be written");
    file.write_all(line.as_bytes()).expect("the record can be written");
}

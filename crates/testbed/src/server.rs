//! Real servers for the suites: each in a folder of its own, on a free port of the loopback, gone when dropped, and gone
//! too when the test process is killed.

use std::fmt;
use std::fs::File;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::Certs;
use crate::guard::{Guard, signal};

/// How long a server may take until it answers.
const START: Duration = Duration::from_secs(30);

/// How long it may take to end when it is asked to.
const END: Duration = Duration::from_secs(3);

/// How much of a log is shown when a test fails.
const SHOWN: usize = 32 * 1024;

/// A running server and its folder. Dropping it ends the process group and removes the folder; if a test is failing just
/// then, the log is printed first. When the test process itself is killed, a guard does the same.
#[derive(Debug)]
pub struct Server {
    child: Child,
    dir: PathBuf,
    keep_dir: bool,
    guard: Guard,
}

/// What to start, as plain data; [`Service`] is more comfortable and can do more.
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

/// What to start, and how to see that it is ready. In files, arguments and variables `$D` stands for the server's folder.
///
/// ```ignore
/// let port = free_port();
/// let server = Service::new("redis-server", "redis-server")
///     .args(["--port", &port.to_string(), "--dir", "$D", "--tls-cert-file", "$D/server.pem"])
///     .tls(&certs)
///     .accepts(([127, 0, 0, 1], port).into())
///     .start();
/// let Some(server) = server else { return };
/// ```
pub struct Service {
    package: String,
    binary: String,
    files: Vec<(String, String)>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    dir: Option<PathBuf>,
    ready: Vec<Ready>,
}

/// Given the server's folder, whether it is ready.
type Probe = Box<dyn FnMut(&Path) -> bool>;

enum Ready {
    Accepts(SocketAddr),
    Says(String),
    Probe(Probe),
}

impl Service {
    /// A program, and the Debian package that holds it (`pip:NAME` for one of the Python index). It is looked for in the
    /// usual places, unless it is a whole path.
    pub fn new(package: impl Into<String>, binary: impl Into<String>) -> Self {
        Self {
            package: package.into(),
            binary: binary.into(),
            files: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            ready: Vec::new(),
        }
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// A file for its folder.
    #[must_use]
    pub fn file(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.files.push((name.into(), text.into()));
        self
    }

    /// `ca.pem`, `server.pem` and `server.key` for its folder.
    #[must_use]
    pub fn tls(self, certs: &Certs) -> Self {
        certs.server_files().into_iter().fold(self, |service, (name, text)| service.file(name, text))
    }

    /// A variable of its environment.
    #[must_use]
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A folder that is there already, made by [`folder`] or left by [`Server::stop`]. It is removed in the end.
    #[must_use]
    pub fn folder(mut self, dir: PathBuf) -> Self {
        self.dir = Some(dir);
        self
    }

    /// It is ready when it accepts TCP connections here.
    #[must_use]
    pub fn accepts(mut self, addr: SocketAddr) -> Self {
        self.ready.push(Ready::Accepts(addr));
        self
    }

    /// It is ready when this stands in its output.
    #[must_use]
    pub fn says(mut self, word: impl Into<String>) -> Self {
        self.ready.push(Ready::Says(word.into()));
        self
    }

    /// It is ready when this says so; what it is given is the server's folder.
    #[must_use]
    pub fn probe(mut self, probe: impl FnMut(&Path) -> bool + 'static) -> Self {
        self.ready.push(Ready::Probe(Box::new(probe)));
        self
    }

    /// Starts it and waits until it is ready; `None` if it is not installed. It fails the test if it ends before it is
    /// ready, or takes longer than 30 seconds.
    pub fn start(self) -> Option<Server> {
        let path = find(&self.package, &self.binary)?;
        let dir = self.dir.unwrap_or_else(|| {
            let name = Path::new(&self.binary).file_name().map(|name| name.to_string_lossy().into_owned());
            folder(&name.unwrap_or_default())
        });
        let here = |text: &str| text.replace("$D", &dir.display().to_string());
        for (name, text) in &self.files {
            std::fs::write(dir.join(name), here(text)).expect("the folder can be written");
        }
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("the folder can be written");
        let child = Command::new(path)
            .args(self.args.iter().map(|arg| here(arg)))
            .envs(self.env.iter().map(|(name, value)| (name, here(value))))
            .current_dir(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file can be had twice"))
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("an installed server starts");
        let guard = Guard::new(child.id(), &dir);
        let server = Server { child, dir, keep_dir: false, guard };
        Some(self.ready.into_iter().fold(server, Server::wait))
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("binary", &self.binary).field("args", &self.args).finish_non_exhaustive()
    }
}

impl From<&Spec<'_>> for Service {
    fn from(spec: &Spec<'_>) -> Self {
        let service = Self::new(spec.package, spec.binary).args(&spec.args);
        spec.files.iter().fold(service, |service, (name, text)| service.file(*name, text))
    }
}

/// Where `binary` is; if nowhere, a visible skip on a user's machine, and a failure where the servers were promised.
pub fn find(package: &str, binary: &str) -> Option<PathBuf> {
    let folders = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/lib/postfix/sbin"];
    // A whole path stays what it is when joined.
    let found = folders.iter().map(|folder| Path::new(folder).join(binary)).find(|path| path.exists());
    if found.is_none() {
        assert!(!required(), "{binary} is missing: install {package} (cargo xtask testbed install)");
        println!("SKIPPED: {binary} is missing: install {package} (cargo xtask testbed install)");
    }
    found
}

/// A python that has `module`: that of the environment of this name, which `cargo xtask testbed install` makes, or the system's. If
/// there is none, as with [`find`].
pub fn python(environment: &str, module: &str) -> Option<String> {
    let own = format!("/opt/portolan-testbed/{environment}/bin/python");
    let has = |python: &String| {
        let imported = Command::new(python).args(["-c", &format!("import {module}")]).output();
        imported.is_ok_and(|output| output.status.success())
    };
    let found = [own, "/usr/bin/python3".to_owned()].into_iter().find(has);
    if found.is_none() {
        let message = format!("{module} is missing: install pip:{environment} (cargo xtask testbed install)");
        assert!(!required(), "{message}");
        println!("SKIPPED: {message}");
    }
    found
}

/// Whether a missing server is a failure.
pub fn required() -> bool {
    std::env::var_os("PORTOLAN_REQUIRE_SERVERS").is_some()
}

/// A port of the loopback that was free just now, and that no socket gets which does not ask for it: Linux gives those from 32768 on.
/// A process gives each once in turn, and begins where others hardly do.
pub fn free_port() -> u16 {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let ours = std::process::id().wrapping_mul(7919) % COUNT;
    let mut ports = std::iter::repeat_with(|| FIRST + (ours + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT);
    let port = ports.by_ref().take(COUNT as usize).filter_map(|port| u16::try_from(port).ok());
    let mut free = port.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("loopback has a free port")
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
        Service::from(spec).start()
    }

    /// The same in a folder that is there already.
    pub fn start_in(spec: &Spec<'_>, dir: PathBuf) -> Option<Self> {
        Service::from(spec).folder(dir).start()
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read(self.dir.join("log")).map(|log| String::from_utf8_lossy(&log).into_owned()).unwrap_or_default()
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
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
        // A port that nobody listens on yet may be the one that the kernel gives to this very socket: it then meets itself.
        let other = |stream: std::net::TcpStream| stream.local_addr().ok() != stream.peer_addr().ok();
        self.ready(|| std::net::TcpStream::connect_timeout(&addr, Duration::from_millis(200)).is_ok_and(other))
    }

    fn wait(self, ready: Ready) -> Self {
        let dir = self.dir.clone();
        match ready {
            Ready::Accepts(addr) => self.accepting(addr),
            Ready::Says(word) => {
                let said = |log: Vec<u8>| log.windows(word.len().max(1)).any(|window| window == word.as_bytes());
                self.ready(|| std::fs::read(dir.join("log")).is_ok_and(said))
            }
            Ready::Probe(mut probe) => self.ready(|| probe(&dir)),
        }
    }

    /// Ends it and leaves its folder, to be started again there.
    pub fn stop(mut self) -> PathBuf {
        self.keep_dir = true;
        self.dir.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.guard.dismiss();
        // The group was made for this server alone.
        signal("TERM", self.child.id());
        let started = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && started.elapsed() < END {
            std::thread::sleep(Duration::from_millis(5));
        }
        signal("KILL", self.child.id());
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log();
            let from = (log.len().saturating_sub(SHOWN)..log.len()).find(|at| log.is_char_boundary(*at)).unwrap_or(0);
            println!("--- log of {} ---\n{}", self.dir.display(), &log[from..]);
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

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    /// Tells the test program that it is the one to be killed.
    const VICTIM: &str = "PORTOLAN_TEST_VICTIM";

    /// A server of two processes that don't end by themselves.
    fn sleepers() -> Service {
        Service::new("dash", "sh").args(["-c", "sleep 1000 & echo $GREETING; sleep 1000"]).env("GREETING", "here in $D")
    }

    /// Whether a process of this group is left; those that have ended and wait for their parent don't count.
    fn alive(group: u32) -> bool {
        let entries = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        let stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
        stats.into_iter().any(|stat| {
            let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
            fields.first().is_some_and(|state| *state != "Z") && fields.get(2) == Some(&group.to_string().as_str())
        })
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let started = Instant::now();
        while !holds() {
            assert!(started.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_service_is_ready_as_told_and_leaves_nothing_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let service = sleepers().says("here in /").accepts(listener.local_addr().unwrap());
        let service = service.file("conf", "in $D").probe(|dir| dir.join("conf").exists()).tls(&Certs::new());
        let server = service.start().unwrap();
        let (id, dir) = (server.id(), server.dir().to_owned());
        assert_eq!(server.log(), format!("here in {}\n", dir.display()));
        assert_eq!(std::fs::read_to_string(dir.join("conf")).unwrap(), format!("in {}", dir.display()));
        assert!(alive(id) && dir.join("server.key").exists());
        drop(server);
        until("both processes end", || !alive(id));
        assert!(!dir.exists());
    }

    #[test]
    fn one_that_ends_too_early_or_is_missing_is_told() {
        let early = std::panic::catch_unwind(|| {
            Service::new("dash", "sh").args(["-c", "echo no; exit 3"]).says("never").start();
        });
        let said = early.unwrap_err().downcast::<String>().unwrap();
        assert!(said.contains("ended before it was ready"), "{said}");
        if !required() {
            assert!(Service::new("nothing", "no-such-server").start().is_none());
        }
    }

    #[test]
    fn a_killed_test_leaves_no_server_behind() {
        if std::env::var_os(VICTIM).is_some() {
            let server = sleepers().says("here").start().unwrap();
            println!("\nvictim {} {}", server.id(), server.dir().display());
            loop {
                std::thread::park();
            }
        }
        let test = std::thread::current().name().unwrap().to_owned();
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([&test, "--exact", "--nocapture"])
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(victim.stdout.take().unwrap()).lines().map_while(Result::ok);
        let told = lines.find_map(|line| line.strip_prefix("victim ").map(str::to_owned)).unwrap();
        let (id, dir) = told.split_once(' ').unwrap();
        let (id, dir) = (id.parse().unwrap(), PathBuf::from(dir));
        assert!(alive(id) && dir.exists());
        victim.kill().unwrap();
        victim.wait().unwrap();
        until("the guard ends the server", || !alive(id) && !dir.exists());
    }
}

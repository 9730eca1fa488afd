//! Network namespaces: tests that need interfaces, privileged ports or raw sockets, without touching the machine's network.
//!
//! [`run`] gives a test a thread in a network of its own: a loopback, and whatever [`Net::link`] adds: a virtual cable to a
//! second namespace, the *far* side, where [`Net::far`] runs the peer. All of it is gone when the test ends.
//!
//! Entering a namespace takes CAP_SYS_ADMIN. Where the test process lacks it, the very same test is run again as a child,
//! root of a user namespace of its own (`unshare --user --map-root-user`). Where that is forbidden too, the test says why it
//! cannot run, and passes.

mod sys;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tells the child that it is one.
const CHILD: &str = "PORTOLAN_NETNS_CHILD";

/// How long a new cable may take to carry.
const CARRIER: Duration = Duration::from_secs(10);

/// A right of root that a test can give up, to see what happens without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Right {
    /// Ports below 1024.
    PrivilegedPorts,
    /// Raw sockets.
    RawSockets,
}

/// A network of its own, seen from its thread.
pub struct Net {
    far: File,
}

/// What runs on the far side.
#[derive(Debug)]
pub struct Far<T>(JoinHandle<T>);

/// Runs `work` in a new network namespace, on a thread with a tokio runtime of its own. False if that is not allowed here;
/// the reason is printed then. To be called by the test itself, not by a thread that it started.
pub fn run<F: Future<Output = ()>>(work: impl FnOnce(Net) -> F + Send + 'static) -> bool {
    let entered: io::Result<()> = on_thread(move || {
        sys::unshare_net()?;
        let net = Net::new()?;
        block_on(work(net));
        Ok(())
    });
    match entered {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && std::env::var_os(CHILD).is_none() => again(),
        Err(error) => {
            assert!(std::env::var_os(CHILD).is_none(), "root of a user namespace has no network of its own: {error}");
            unavailable(&format!("no network namespace: {error}"))
        }
    }
}

/// The test once more, as root of a user namespace.
fn again() -> bool {
    let unshare = |program: &std::ffi::OsStr| {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--"]).arg(program).env(CHILD, "1").stdin(Stdio::null());
        command
    };
    match unshare("true".as_ref()).output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return unavailable(String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => return unavailable(&format!("unshare (util-linux): {error}")),
    }
    let test = std::thread::current().name().expect("a test's thread has its name").to_owned();
    let program = std::env::current_exe().expect("the test program is known");
    let output =
        unshare(program.as_os_str()).args([&test, "--exact", "--nocapture"]).output().expect("it has just run");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.contains("1 passed"), "{test} in a user namespace:\n{said}");
    true
}

fn unavailable(reason: &str) -> bool {
    println!("UNAVAILABLE: network namespaces are not allowed here: {reason}");
    false
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(work)
}

/// A panic over there is one here.
fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(work).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl Net {
    fn new() -> io::Result<Self> {
        let far = on_thread(|| {
            sys::unshare_net()?;
            ip(&["link", "set", "lo", "up"]);
            // Holds the namespace after this thread.
            File::open("/proc/thread-self/ns/net")
        })?;
        ip(&["link", "set", "lo", "up"]);
        Ok(Self { far })
    }

    /// Lays a cable: an interface here and one on the far side, with these addresses (`192.0.2.1/24`), up and carrying.
    pub fn link(&self, near: &str, near_addrs: &[&str], far: &str, far_addrs: &[&str]) {
        let there = format!("/proc/{}/fd/{}", std::process::id(), self.far.as_raw_fd());
        ip(&["link", "add", near, "type", "veth", "peer", "name", far, "netns", &there]);
        configure(near, near_addrs);
        let (name, addrs) = (far.to_owned(), far_addrs.iter().map(|addr| (*addr).to_owned()).collect::<Vec<_>>());
        self.far(move || async move {
            let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
            configure(&name, &addrs);
        })
        .join();
        let started = Instant::now();
        let up = |said: String| said.contains("state UP");
        while !up(self.ip(&["-o", "link", "show", near])) || !up(self.far_ip(&["-o", "link", "show", far])) {
            assert!(started.elapsed() < CARRIER, "{near} has no carrier");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs `ip` (iproute2) here and gives what it said; a failure fails the test.
    pub fn ip(&self, args: &[&str]) -> String {
        ip(args)
    }

    /// Runs `ip` on the far side.
    pub fn far_ip(&self, args: &[&str]) -> String {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        self.far(move || async move { ip(&args.iter().map(String::as_str).collect::<Vec<_>>()) }).join()
    }

    /// Sets a value below `/proc/sys/net`, for this namespace alone: `ipv4/ping_group_range`.
    pub fn sysctl(&self, name: &str, value: &str) {
        std::fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }

    /// Runs this on the far side, on a thread and a runtime of its own.
    pub fn far<T, F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Far<T>
    where
        T: Send + 'static,
        F: Future<Output = T>,
    {
        let far = self.far.try_clone().expect("a descriptor can be had twice");
        Far(std::thread::spawn(move || {
            sys::enter_net(far.as_fd()).expect("the far side was entered before");
            block_on(work())
        }))
    }

    /// Takes a right from this thread for the rest of the test.
    pub fn give_up(&self, right: Right) {
        sys::give_up(match right {
            Right::PrivilegedPorts => sys::NET_BIND_SERVICE,
            Right::RawSockets => sys::NET_RAW,
        })
        .expect("a right can always be given up");
    }
}

impl<T> Far<T> {
    /// Waits for its end; a panic over there is one here. It blocks this thread: what it waits for must not be here.
    pub fn join(self) -> T {
        self.0.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl fmt::Debug for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Net").finish_non_exhaustive()
    }
}

fn configure(name: &str, addrs: &[&str]) {
    for addr in addrs {
        // Nobody else is on the cable: IPv6 need not look for a double of the address first.
        let nodad: &[&str] = if addr.contains(':') { &["nodad"] } else { &["broadcast", "+"] };
        ip(&[&["addr", "add", addr, "dev", name][..], nodad].concat());
    }
    ip(&["link", "set", name, "up"]);
}

fn ip(args: &[&str]) -> String {
    let output = Command::new("ip").args(args).stdin(Stdio::null()).output().expect("install iproute2");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {}", args.join(" "), said.trim());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

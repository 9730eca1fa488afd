//! Clients side by side in one run: what a request costs each of them.

#![allow(dead_code, unreachable_pub, reason = "each bench uses its part of this")]

use std::future::Future;
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Rounds of which the median counts.
pub const ROUNDS: usize = 5;

pub type Work = Pin<Box<dyn Future<Output = ()>>>;
pub type Make = fn(String, u64, u64) -> Work;
/// A client that is a program of its own.
pub type Program = fn(&str, u64, u64) -> Command;

/// CPU time, in all and in user mode: of this thread, since the client's runtime is a current-thread one, or of children that ended.
fn cpu(who: libc::c_int) -> (Duration, Duration) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    #[allow(unsafe_code, reason = "getrusage has no safe wrapper")]
    // SAFETY: `usage` is valid for writes of a whole rusage, which the call fills; zeroes are a valid rusage as well.
    let usage = unsafe {
        libc::getrusage(who, usage.as_mut_ptr());
        usage.assume_init()
    };
    let part = |t: libc::timeval| Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_usec).unwrap_or(0) * 1000);
    (part(usage.ru_utime) + part(usage.ru_stime), part(usage.ru_utime))
}

/// Interleaved rounds; the first contender is ours. Printed is the median.
pub fn measure(
    title: &str,
    url: &str,
    (tasks, each): (u64, u64),
    contenders: &[(&str, Make)],
    programs: &[(&str, Program)],
) {
    let mut results: Vec<Vec<(f64, f64, f64)>> = vec![Vec::new(); contenders.len() + programs.len()];
    for _ in 0..ROUNDS {
        let (ours, theirs) = results.split_at_mut(contenders.len());
        for ((_, make), results) in contenders.iter().zip(ours) {
            results.push(run(*make, url, tasks, each));
        }
        for ((_, program), results) in programs.iter().zip(theirs) {
            results.extend(run_program(program(url, tasks, each), tasks * each));
        }
    }
    println!("{title}");
    let mut base = None;
    let names = contenders.iter().map(|(name, _)| *name).chain(programs.iter().map(|(name, _)| *name));
    for (name, results) in names.zip(&mut results) {
        if results.is_empty() {
            println!("  {name:<12} is not here, or cannot do this");
            continue;
        }
        let (micros, rate, user) = median(results);
        let (base, base_user) = *base.get_or_insert((micros, user));
        println!(
            "  {name:<12} {micros:>9.2} us CPU/op, {user:>6.2} in user mode {rate:>10.0} ops/s   portolan/it = {:.2}, {:.2} in user mode",
            base / micros,
            base_user / user
        );
    }
}

/// A transfer of `bytes` by ours, by others, and by curl with `args`.
pub fn measure_download(title: &str, url: &str, bytes: usize, contenders: &[(&str, Make)], args: &[&str]) {
    let mut results: Vec<Vec<(f64, f64, f64)>> = vec![Vec::new(); contenders.len() + 1];
    for _ in 0..ROUNDS {
        for ((_, make), results) in contenders.iter().zip(&mut results) {
            results.push(run(*make, url, 1, 1));
        }
        if let (Some(curl), Some(results)) = (run_curl(url, args), results.last_mut()) {
            results.push(curl);
        }
    }
    println!("{title}");
    let gib = bytes as f64 / f64::from(1 << 30);
    let mut base = None;
    let names = contenders.iter().map(|(name, _)| *name).chain(["curl"]);
    for (name, results) in names.zip(&mut results) {
        if results.is_empty() {
            println!("  {name:<12} is not here, or cannot do this");
            continue;
        }
        let (micros, rate, _) = median(results);
        let (seconds, speed) = (micros / 1e6 / gib, rate * bytes as f64 / 1e6);
        let (base_cpu, base_speed) = *base.get_or_insert((seconds, speed));
        println!(
            "  {name:<12} {seconds:>9.3} s CPU/GiB {speed:>10.0} MB/s    portolan/it = {:.2} CPU, {:.2} speed",
            base_cpu / seconds,
            base_speed / speed
        );
    }
}

fn median(results: &mut [(f64, f64, f64)]) -> (f64, f64, f64) {
    let mut middle = |of: fn(&(f64, f64, f64)) -> f64| {
        results.sort_by(|a, b| of(a).total_cmp(&of(b)));
        of(&results[results.len() / 2])
    };
    (middle(|one| one.0), middle(|one| one.1), middle(|one| one.2))
}

/// Microseconds of CPU for each operation, operations a second, and the microseconds of them in user mode.
pub fn run(make: Make, url: &str, tasks: u64, each: u64) -> (f64, f64, f64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let local = tokio::task::LocalSet::new();
    let ((before, before_user), started) = (cpu(libc::RUSAGE_THREAD), Instant::now());
    local.block_on(&runtime, make(url.to_owned(), tasks, each));
    let ((after, after_user), wall) = (cpu(libc::RUSAGE_THREAD), started.elapsed());
    let operations = (tasks * each) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / operations;
    (micros(after - before), operations / wall.as_secs_f64(), micros(after_user - before_user))
}

fn run_curl(url: &str, args: &[&str]) -> Option<(f64, f64, f64)> {
    let mut curl = Command::new("curl");
    curl.args(["-s", "-f", "-o", "/dev/null", "--noproxy", "*"]).args(args).arg(url);
    run_program(curl, 1)
}

/// The same of a program that does `operations`.
fn run_program(mut program: Command, operations: u64) -> Option<(f64, f64, f64)> {
    let ((before, before_user), started) = (cpu(libc::RUSAGE_CHILDREN), Instant::now());
    let status = program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let ((after, after_user), wall) = (cpu(libc::RUSAGE_CHILDREN), started.elapsed());
    let operations = operations as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / operations;
    let result = (micros(after - before), operations / wall.as_secs_f64(), micros(after_user - before_user));
    status.is_ok_and(|status| status.success()).then_some(result)
}

/// Runs `tasks` callers, each `each` times.
pub async fn fan<F, Fut>(tasks: u64, each: u64, one: F)
where
    F: Fn() -> Fut + 'static,
    Fut: Future<Output = usize> + 'static,
{
    let one = Rc::new(one);
    let handles: Vec<_> = (0..tasks)
        .map(|_| {
            let one = one.clone();
            tokio::task::spawn_local(async move {
                for _ in 0..each {
                    assert_ne!(one().await, 0);
                }
            })
        })
        .collect();
    for handle in handles {
        handle.await.unwrap();
    }
}

/// System calls for each request at steady state: those of a longer run of this program less those of a shorter one, which
/// leaves out what a process and its connections cost.
pub fn syscalls(title: &str, client: &str, workload: &str, url: &str, tasks: u64) {
    let (few, many) = (50, 250);
    let counts = (strace(client, workload, url, tasks, few), strace(client, workload, url, tasks, many));
    match counts {
        (Some(less), Some(more)) => {
            let each = more.saturating_sub(less) as f64 / (tasks * (many - few)) as f64;
            println!("  {client:<12} {each:>9.2} system calls a request: {title}");
        }
        _ => println!("  {client:<12} system calls not counted (apt-get install strace): {title}"),
    }
}

fn strace(client: &str, workload: &str, url: &str, tasks: u64, each: u64) -> Option<u64> {
    let program = std::env::current_exe().ok()?;
    let summary = std::env::temp_dir().join(format!("portolan-strace-{}", std::process::id()));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-o"]).arg(&summary).arg(program).args(["at", client, workload, url]);
    strace.args([tasks.to_string(), each.to_string()]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let done = strace.status().is_ok_and(|status| status.success());
    let text = std::fs::read_to_string(&summary).unwrap_or_default();
    let _ = std::fs::remove_file(&summary);
    // `100.00    0.001234           1      1234        12 total`: the errors are a column that may be missing.
    let total = text.lines().find(|line| line.trim_end().ends_with("total"))?;
    total.split_whitespace().nth(3)?.parse().ok().filter(|_| done)
}

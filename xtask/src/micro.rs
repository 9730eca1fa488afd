//! Instructions of the hot codecs, counted by valgrind: they hold on a noisy machine, where times don't.

use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::run::{cargo, exists, output, run};

/// Where the last counts are kept.
const TABLE: &str = "benches/micro.tsv";
/// Two runs, whose difference leaves out what a process costs by itself.
const COUNTS: (u64, u64) = (200, 1200);
/// What a change of compilers or of the machine may do.
const TOLERANCE: f64 = 0.10;

/// Counts, shows each beside what is written down, and fails on one that has grown; `write` writes them down anew.
pub(crate) fn run_all(root: &Path, write: bool) -> Outcome {
    if !exists("valgrind", &["--version"]) {
        return Err("valgrind is missing: install valgrind".to_owned());
    }
    run(&mut cargo(root, &["build", "--release", "-p", "portolan-benches", "--bin", "micro"]))?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let program = target.join("release/micro");
    let names = output(Command::new(&program).arg("list"))?;
    let known = std::fs::read_to_string(root.join(TABLE)).unwrap_or_default();
    let known = |name: &str| -> Option<f64> {
        known.lines().find_map(|line| line.split_once('\t').filter(|(known, _)| *known == name)?.1.parse().ok())
    };
    let (mut table, mut grown) = (String::new(), Vec::new());
    for name in names.lines() {
        let (few, many) = (count(&program, name, COUNTS.0)?, count(&program, name, COUNTS.1)?);
        let each = (many.saturating_sub(few)) as f64 / (COUNTS.1 - COUNTS.0) as f64;
        let before = known(name);
        let change = before.map_or_else(String::new, |before| format!("{:+.1}%", (each / before - 1.0) * 100.0));
        println!("{name:<44} {each:>10.0} instructions {change:>8}");
        table.push_str(&format!("{name}\t{each:.0}\n"));
        if before.is_some_and(|before| each > before * (1.0 + TOLERANCE)) {
            grown.push(name.to_owned());
        }
    }
    if write {
        return std::fs::write(root.join(TABLE), table).map_err(|error| format!("{TABLE}: {error}"));
    }
    if grown.is_empty() { Ok(()) } else { Err(format!("more instructions than {TABLE} says: {}", grown.join(", "))) }
}

fn count(program: &Path, name: &str, times: u64) -> Outcome<u64> {
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]).arg(program).arg(name).arg(times.to_string());
    let done = command.output().map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&done.stderr);
    let found = text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    found.ok_or_else(|| format!("valgrind counted nothing for {name}:\n{text}"))
}

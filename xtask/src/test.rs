//! `cargo xtask test`: every suite, with its real servers when told to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use crate::Outcome;
use crate::record;
use crate::registry;
use crate::run::{Count, cargo, watch};
use crate::table::Table;
use crate::testbed;

/// What to run.
#[derive(Debug, Default)]
pub(crate) struct Options<'a> {
    /// Install the servers first, and fail where one is missing.
    pub(crate) install: bool,
    /// One family alone.
    pub(crate) family: Option<&'a str>,
    /// Only what needs no servers and little time.
    pub(crate) fast: bool,
}

impl<'a> Options<'a> {
    pub(crate) fn parse(words: &[&'a str]) -> Outcome<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--install" => options.install = true,
                "--fast" => options.fast = true,
                "--family" => options.family = Some(words.next().ok_or("--family needs a name")?),
                other => return Err(format!("test takes --install, --family NAME, --fast; not {other}")),
            }
        }
        Ok(options)
    }
}

/// Runs, and ends with the line that counts.
pub(crate) fn run(root: &Path, options: &Options<'_>) -> Outcome {
    let (count, result) = count(root, options);
    if let Err(error) = &result {
        println!("{error}");
    }
    let failed = if result.is_err() { count.failed.max(1) } else { count.failed };
    println!("{} passed, {failed} failed", count.passed);
    result.map_err(|_| "the tests failed".to_owned())
}

/// Runs, and gives what was counted along with the verdict.
pub(crate) fn count(root: &Path, options: &Options<'_>) -> (Count, Outcome) {
    let mut seen = Seen::default();
    let result = all(root, options, &mut seen);
    (seen.count, result)
}

#[derive(Default)]
struct Seen {
    count: Count,
    skipped: Vec<String>,
    /// What could not run on this machine.
    forbidden: Vec<String>,
    laws: BTreeMap<String, u64>,
    /// Inside what passed tests printed.
    quiet: bool,
}

fn all(root: &Path, options: &Options<'_>, seen: &mut Seen) -> Outcome {
    if options.install {
        testbed::install(root, options.family)?;
    }
    let file = record::file(root);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    // A run without all servers leaves the record of the last full one alone.
    let full = options.install && options.family.is_none() && !options.fast;
    let record = if full { file } else { file.with_extension("partial.tsv") };
    std::fs::write(&record, "").map_err(|error| format!("{}: {error}", record.display()))?;

    let mut good = true;
    for mut command in commands(root, options)? {
        command.args(["--", "--show-output"]).env(record::VARIABLE, &record);
        if options.install {
            command.env("PORTOLAN_REQUIRE_SERVERS", "1");
        }
        good &= watch(&mut command, |line| seen.line(line))?;
    }
    for skipped in seen.forbidden.iter().chain(&seen.skipped) {
        println!("{skipped}");
    }
    if !good || seen.count.failed > 0 {
        return Err("a suite failed".to_owned());
    }
    if options.install && !seen.skipped.is_empty() {
        return Err("a suite was skipped, though --install promises every server".to_owned());
    }
    if seen.count.passed == 0 {
        return Err("no test ran".to_owned());
    }
    if full {
        let mut text = std::fs::read_to_string(&record).map_err(|error| format!("{}: {error}", record.display()))?;
        let table = Table::load(root)?;
        for (module, laws) in &seen.laws {
            if let Some(row) = table.protocols.iter().find(|row| row.laws() == *module) {
                let _ = writeln!(text, "{}\tlaws\t\t\t{laws}", row.name);
            }
        }
        std::fs::write(&record, text).map_err(|error| format!("{}: {error}", record.display()))?;
        registry::write(root)?;
    }
    Ok(())
}

fn commands(root: &Path, options: &Options<'_>) -> Outcome<Vec<Command>> {
    let test = |args: &[&str]| {
        let mut command = cargo(root, &["test", "--all-features", "--no-fail-fast"]);
        command.args(args);
        command
    };
    let Some(name) = options.family else {
        let command = if options.fast {
            test(&["--workspace", "--lib", "--bins", "--exclude", "portolan-tests", "--exclude", "portolan-benches"])
        } else {
            test(&["--workspace"])
        };
        return Ok(vec![command]);
    };
    let table = Table::load(root)?;
    let family = table.family.get(name).ok_or_else(|| {
        let known: Vec<&str> = table.family.keys().map(String::as_str).collect();
        format!("no family {name}: {}", known.join(", "))
    })?;
    let rows = table.of(name);
    let packages: BTreeSet<&str> =
        family.package.as_deref().into_iter().chain(rows.iter().map(|row| table.package(row))).collect();
    let mut commands: Vec<Command> = packages.iter().map(|package| test(&["-p", package])).collect();
    // What core is proved by beyond its own tests are its hops.
    let suite = if name == "core" { "hops" } else { name };
    if !options.fast && root.join("tests").join(suite).join("main.rs").exists() {
        commands.push(test(&["-p", "portolan-tests", "--test", suite]));
    }
    Ok(commands)
}

impl Seen {
    fn line(&mut self, line: &str) {
        if line.starts_with("SKIPPED") {
            self.skipped.push(line.to_owned());
        }
        // What the machine forbids (a network of its own) no installation can mend.
        if line.starts_with("UNAVAILABLE") && !self.forbidden.iter().any(|known| known == line) {
            self.forbidden.push(line.to_owned());
        }
        if self.count.add_line(line) || line == "failures:" {
            self.quiet = false;
        } else if line == "successes:" {
            self.quiet = true;
        }
        if let Some(module) = record::law(line) {
            *self.laws.entry(module.to_owned()).or_default() += 1;
        }
        if !self.quiet {
            println!("{line}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skips_and_laws_are_seen_inside_what_passed_tests_printed() {
        let mut seen = Seen::default();
        let lines = [
            "test redis::tests::the_decoder_keeps_the_laws ... ok",
            "successes:",
            "SKIPPED: redis-server is missing: install redis-server",
            "UNAVAILABLE: network namespaces are not allowed here",
            "UNAVAILABLE: network namespaces are not allowed here",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ];
        lines.iter().for_each(|line| seen.line(line));
        assert_eq!(
            (seen.count.passed, seen.skipped.len(), seen.laws.get("redis"), seen.quiet),
            (2, 1, Some(&1), false)
        );
        assert_eq!(seen.forbidden.len(), 1);
    }

    #[test]
    fn words_that_mean_nothing_are_refused() {
        assert!(Options::parse(&["--instal"]).is_err());
        assert!(Options::parse(&["--family"]).is_err());
        let options = Options::parse(&["--family", "db", "--fast"]).unwrap();
        assert_eq!((options.family, options.fast, options.install), (Some("db"), true, false));
    }
}

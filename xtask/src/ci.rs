//! `cargo xtask ci`: every stage that a change must pass, timed; a stage that did not run has failed.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde::Deserialize;
use std::collections::BTreeMap;

use crate::run::{Count, cargo, exists, output, run, watch};
use crate::{Outcome, check, deps, record, registry, scaffold, test};

/// The version of cargo-deny that is installed where there is none.
const DENY: &str = "0.20.2";

/// Runs every stage, or those that are named, even after one has failed.
pub(crate) fn run_all(root: &Path, only: &[&str]) -> Outcome {
    type Stage<'a> = (&'a str, Box<dyn FnOnce() -> (Count, Outcome) + 'a>);
    let plain = |outcome: Outcome| (Count::default(), outcome);
    let stages: Vec<Stage<'_>> = vec![
        ("format", Box::new(|| plain(format(root)))),
        ("check", Box::new(|| plain(check::run(root)))),
        ("clippy", Box::new(|| plain(clippy(root)))),
        ("test", Box::new(|| test::count(root, &test::Options { install: true, ..Default::default() }))),
        ("registry", Box::new(|| plain(registry::check(root)))),
        ("tour", Box::new(|| plain(run(&mut cargo(root, &["run", "--quiet", "--example", "tour"]))))),
        ("fuzz", Box::new(|| fuzz(root))),
        ("docs", Box::new(|| plain(docs(root)))),
        ("features", Box::new(|| plain(features(root)))),
        ("deps", Box::new(|| plain(deps::run(root, "redis")))),
        ("deny", Box::new(|| plain(deny(root)))),
        ("scaffold", Box::new(|| plain(scaffold::trial(root)))),
    ];
    if let Some(unknown) = only.iter().find(|name| !stages.iter().any(|(stage, _)| stage == *name)) {
        let known: Vec<&str> = stages.iter().map(|(stage, _)| *stage).collect();
        return Err(format!("no stage {unknown}: {}", known.join(", ")));
    }
    let (mut table, mut total) = (Vec::new(), Count::default());
    for (name, stage) in stages.into_iter().filter(|(name, _)| only.is_empty() || only.contains(name)) {
        println!("--- {name}");
        let started = Instant::now();
        let (count, outcome) = stage();
        total.passed += count.passed;
        total.failed += count.failed;
        match &outcome {
            Ok(()) => total.passed += 1,
            Err(error) => {
                println!("{error}");
                total.failed += 1;
            }
        }
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        table.push(format!("{name:<10} {verdict:<7} {:>5} s", started.elapsed().as_secs()));
    }
    println!("---");
    for line in table {
        println!("{line}");
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    if total.failed == 0 { Ok(()) } else { Err("a stage failed".to_owned()) }
}

fn format(root: &Path) -> Outcome {
    run(&mut cargo(root, &["fmt", "--all", "--check"]))?;
    run(&mut cargo(&root.join("fuzz"), &["fmt", "--check"]))
}

fn clippy(root: &Path) -> Outcome {
    run(&mut cargo(
        root,
        &["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"],
    ))
}

fn docs(root: &Path) -> Outcome {
    let args = ["doc", "--workspace", "--no-deps", "--all-features", "--locked", "--exclude", "xtask"];
    run(cargo(root, &args).env("RUSTDOCFLAGS", "-D warnings"))
}

/// The bodies of the fuzz targets as ordinary tests, on any toolchain; the targets themselves where there is a nightly one.
fn fuzz(root: &Path) -> (Count, Outcome) {
    let mut count = Count::default();
    let mut tests = cargo(&root.join("fuzz"), &["test", "--lib", "--locked"]);
    let good = watch(tests.env("CARGO_TARGET_DIR", record::target(root)), |line| {
        count.add_line(line);
        println!("{line}");
    });
    let outcome = match good {
        Ok(true) if count.passed > 0 => {
            let mut check = cargo(&root.join("fuzz"), &["check", "--bins", "--locked"]);
            run(check.env("CARGO_TARGET_DIR", record::target(root)))
        }
        Ok(_) => Err("the fuzz bodies failed".to_owned()),
        Err(error) => Err(error),
    };
    (count, outcome)
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    features: BTreeMap<String, Vec<String>>,
}

/// Each feature of each library compiles alone, and so does none.
fn features(root: &Path) -> Outcome {
    let text = output(&mut cargo(root, &["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let libraries = root.join("crates");
    let mut failed = Vec::new();
    for package in metadata.packages.iter().filter(|package| Path::new(&package.manifest_path).starts_with(&libraries))
    {
        let named = package.features.keys().filter(|name| *name != "default");
        // What `dep:` makes of an optional dependency is no feature of its own in the metadata.
        for feature in std::iter::once("").chain(named.map(String::as_str)) {
            let args =
                ["check", "--quiet", "--locked", "-p", &package.name, "--no-default-features", "--features", feature];
            // Warnings are read rather than denied by RUSTFLAGS, which would build every dependency anew.
            let result = cargo(root, &args).output().map_err(|error| format!("cargo check: {error}"))?;
            let said = String::from_utf8_lossy(&result.stderr);
            if !result.status.success() || said.contains("warning:") {
                println!("{said}");
                failed.push(format!("{} with {feature:?} alone", package.name));
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(format!("does not compile without warnings: {}", failed.join(", "))) }
}

fn deny(root: &Path) -> Outcome {
    if !exists("cargo-deny", &["--version"]) && !exists("cargo", &["deny", "--version"]) {
        let args = ["install", "--locked", "--quiet", "cargo-deny", "--version", DENY, "--no-default-features"];
        run(&mut cargo(root, &args))?;
    }
    run(Command::new("cargo").args(["deny", "--locked", "check", "bans", "licenses", "sources"]).current_dir(root))
}

//! The tasks of this workspace: `cargo xtask help`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command-line tool prints, reads its environment and measures time"
)]

mod check;
mod ci;
mod deps;
mod markers;
mod micro;
mod record;
mod registry;
mod run;
mod scaffold;
mod sync;
mod table;
mod test;
mod testbed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Success, or what to tell the user.
pub(crate) type Outcome<T = ()> = Result<T, String>;

const HELP: &str = "cargo xtask COMMAND

  test [--install] [--family F] [--fast]
                                   every suite; --install installs the real servers and lets none be missing;
                                   --fast leaves out what needs servers
  testbed install [FAMILY] | list  the servers that the suites start: packages, found or missing, versions
  registry [--check | --write]     the table of protocols and what the last full run proved
  new-protocol FAMILY NAME [--small]
                                   row, module, tests, fuzz target and example of a new protocol
  new-protocol --trial             the same twice in a copy of the workspace, which must compile and pass
  sync [--check]                   write (or compare) what follows from protocols.toml
  check                            sync, layers, decoders, headers, sizes, seams, stubs: what no lint sees
  deps FEATURE                     what depending on one protocol compiles
  fuzz TARGET [ARGS..]             look for inputs that break a decoder (needs a nightly toolchain and cargo-fuzz)
  bench micro [--write]            instructions of the hot codecs, beside those of benches/micro.tsv
  bench peers redis | http | http3 side by side with the best clients there are
  ci [STAGE..]                     every stage that a change must pass, or those named, timed
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match dispatch(&root(), &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(root: &Path, words: &[&str]) -> Outcome {
    match words {
        ["sync"] => sync::run(root, false),
        ["sync", "--check"] => sync::run(root, true),
        ["check"] => check::run(root),
        ["test", rest @ ..] => test::run(root, &test::Options::parse(rest)?),
        ["testbed", "list"] => testbed::list(root),
        ["testbed", "install"] => testbed::install(root, None),
        ["testbed", "install", family] => testbed::install(root, Some(family)),
        ["registry"] => registry::show(root),
        ["registry", "--check"] => registry::check(root),
        ["registry", "--write"] => registry::write(root),
        ["new-protocol", family, name] => scaffold::run(root, family, name, false),
        ["new-protocol", family, name, "--small"] => scaffold::run(root, family, name, true),
        ["new-protocol", "--trial"] => scaffold::trial(root),
        ["deps", feature] => deps::run(root, feature),
        ["fuzz", target, rest @ ..] => fuzz(root, target, rest),
        ["bench", "micro"] => micro::run_all(root, false),
        ["bench", "micro", "--write"] => micro::run_all(root, true),
        ["bench", "peers", "http"] => bench(root, "http", &[]).and_then(|()| bench_http3(root, &[])),
        ["bench", "peers", "http", rest @ ..] => bench(root, "http", rest),
        ["bench", "peers", "http3", rest @ ..] => bench_http3(root, rest),
        ["bench", bin @ "peers", rest @ ..] => bench(root, bin, rest),
        ["ci", stages @ ..] => ci::run_all(root, stages),
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("no such command: {}\n\n{HELP}", other.join(" "))),
    }
}

fn bench(root: &Path, bin: &str, rest: &[&str]) -> Outcome {
    let mut command = run::cargo(root, &["run", "--release", "-p", "portolan-benches", "--bin", bin, "--"]);
    run::run(command.args(rest))
}

/// In its own folder, which has the flag of the compiler that reqwest asks for, and so with a target folder of its own.
fn bench_http3(root: &Path, rest: &[&str]) -> Outcome {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from).join("http3");
    let mut command = run::cargo(&root.join("benches/http3"), &["run", "--release", "--target-dir"]);
    run::run(command.arg(target).arg("--").args(rest))
}

fn fuzz(root: &Path, target: &str, rest: &[&str]) -> Outcome {
    if !run::exists("cargo", &["fuzz", "--version"]) {
        return Err("cargo install cargo-fuzz first".to_owned());
    }
    let seeds = format!("seeds/{target}");
    let mut command = std::process::Command::new("cargo");
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir", ".", target, &format!("corpus/{target}"), &seeds]);
    std::fs::create_dir_all(root.join("fuzz/corpus").join(target)).map_err(|error| format!("fuzz/corpus: {error}"))?;
    run::run(command.args(rest).current_dir(root.join("fuzz")))
}

/// The workspace: the folder above this package. Cargo says at run time which one, since a shared target folder may hand the
/// program of one checkout to another.
fn root() -> PathBuf {
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let here = Path::new(&here);
    here.parent().unwrap_or(here).to_owned()
}

/// A file as text, its name in the error.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

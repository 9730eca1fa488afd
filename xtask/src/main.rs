//! The tasks of this workspace: `cargo xtask help`.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a command-line tool prints, reads its environment and measures time"
)]

mod check;
mod markers;
mod run;
mod sync;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Success, or what to tell the user.
pub(crate) type Outcome<T = ()> = Result<T, String>;

const HELP: &str = "cargo xtask COMMAND

  sync [--check]                      write (or compare) what follows from protocols.toml
  check                               sync, layering, sizes, decoders, seams: what no lint sees
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
        [] | ["help" | "--help" | "-h"] => {
            print!("{HELP}");
            Ok(())
        }
        other => Err(format!("no such command: {}\n\n{HELP}", other.join(" "))),
    }
}

/// The workspace: the folder above this package.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A file as text, its name in the error.
pub(crate) fn read(path: &Path) -> Outcome<String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

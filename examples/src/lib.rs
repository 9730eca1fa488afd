//! What a user of portolan would run first: `cargo run --example dns -- @127.0.0.1:5353 example.org MX`.

use std::error::Error as _;
use std::process::ExitCode;

use portolan_core::{Error, Kind, Result};

/// Runs a program with at least `least` words, and ends it as people expect: `--help` shows how it is called, an error is in words,
/// with all that it came from, and the code is 2 for whoever called it wrong.
pub async fn start<F: Future<Output = Result<()>>>(
    usage: &str,
    least: usize,
    run: impl FnOnce(Vec<String>) -> F,
) -> ExitCode {
    let result = match arguments(usage, least) {
        Ok(args) => run(args).await,
        Err(error) => Err(error),
    };
    finish(result)
}

fn arguments(usage: &str, least: usize) -> Result<Vec<String>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "-h" || word == "--help") {
        #[allow(clippy::print_stdout, reason = "this is what was asked for")]
        {
            println!("{usage}");
        }
        std::process::exit(0);
    }
    if words.len() < least { Err(Error::usage(usage.to_owned())) } else { Ok(words) }
}

fn finish(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !words.contains(&more) {
            words.push_str(": ");
            words.push_str(&more);
        }
        cause = inner.source();
    }
    #[allow(clippy::print_stderr, reason = "this is what the program has to say")]
    {
        eprintln!("{words}");
    }
    ExitCode::from(if error.kind() == Kind::Usage { 2 } else { 1 })
}

//! `cargo xtask deps FEATURE`: what depending on one protocol compiles.

use std::collections::BTreeSet;
use std::path::Path;

use crate::Outcome;
use crate::run::{cargo, output};

/// The engines of other protocols, which no small protocol may bring along.
const FOREIGN: &[&str] = &["quinn", "quinn-proto", "h2", "h3", "hyper", "reqwest", "portolan-http2", "hickory-proto"];

/// The features that are made of these engines.
const OVER_HTTP: &[&str] = &["http", "http2", "http3", "websocket", "sse", "grpc", "ws-tunnel"];

/// Prints the count, and fails if something foreign is among them.
pub(crate) fn run(root: &Path, feature: &str) -> Outcome {
    let crates = crates(root, feature)?;
    for name in &crates {
        println!("  {name}");
    }
    println!("portolan with only {feature}: {} crates besides itself", crates.len());
    let foreign = foreign(&crates, feature);
    if foreign.is_empty() { Ok(()) } else { Err(format!("{feature} brings along {}", foreign.join(", "))) }
}

/// Names and versions of what is compiled for the default features and this one.
fn crates(root: &Path, feature: &str) -> Outcome<BTreeSet<String>> {
    let args =
        ["tree", "-p", "portolan", "-F", feature, "-e", "normal", "--prefix", "none", "--format", "{p}", "--locked"];
    let text = output(&mut cargo(root, &args))?;
    let names = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (name, version) = (words.next()?, words.next()?);
        (name != "portolan").then(|| format!("{name} {version}"))
    });
    Ok(names.collect())
}

fn foreign<'a>(crates: &'a BTreeSet<String>, feature: &str) -> Vec<&'a str> {
    let name = |text: &'a String| text.split(' ').next().unwrap_or_default();
    let own = |name: &str| (feature == "dns" && name == "hickory-proto") || OVER_HTTP.contains(&feature);
    crates.iter().map(name).filter(|name| FOREIGN.contains(name) && !own(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_alone_brings_neither_quinn_nor_h2() {
        let crates = crates(&crate::root(), "redis").unwrap();
        assert!(crates.iter().any(|name| name.starts_with("portolan-db ")), "{crates:?}");
        assert_eq!(foreign(&crates, "redis"), Vec::<&str>::new());
        assert!(crates.len() < 100, "{} crates", crates.len());
    }
}

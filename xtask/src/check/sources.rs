//! What the text of the sources must and must not hold.

use std::path::Path;

use crate::{Outcome, read};

/// Refused above this, without its tests.
const REFUSED: usize = 1_000;
/// Listed above this.
const REVIEWED: usize = 600;

/// What opens a socket or resolves a name.
const SEAMS: &[&str] = &[
    "TcpStream::connect",
    "TcpListener::bind",
    "UdpSocket::bind",
    "UnixStream::connect",
    "UnixListener::bind",
    "lookup_host",
    "to_socket_addrs",
    "Socket::new(",
];

/// What only looks like that: where it is, and its text.
const NO_SEAMS: &[(&str, &str)] = &[
    // quinn's face on a datagram path that core has opened.
    ("crates/http3/src/", "Socket::new(datagram, "),
];

/// Crates whose business that is: core, and those that start servers.
const FREE: &[&str] = &["crates/core/", "crates/testbed/", "tests/", "examples/", "benches/", "xtask/"];

/// A Rust file: where it is, and its text before its tests.
pub(super) struct Source {
    pub(super) path: String,
    pub(super) code: String,
    tests: String,
}

impl Source {
    fn new(path: String, text: &str) -> Self {
        let all_tests = path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/");
        let split = if all_tests { 0 } else { text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len()) };
        let (code, tests) = text.split_at(split);
        Self { path, code: code.to_owned(), tests: tests.to_owned() }
    }

    /// Part of what is published, and no test.
    pub(super) fn is_library(&self) -> bool {
        self.path.starts_with("crates/") && !self.path.starts_with("crates/testbed/") && !self.code.is_empty()
    }

    fn places<'a>(&'a self, needles: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
        places(&self.path, &self.code, 1, needles)
    }
}

fn places<'a>(path: &'a str, text: &'a str, first: usize, needles: &'a [&'a str]) -> impl Iterator<Item = String> + 'a {
    text.lines().enumerate().filter_map(move |(index, line)| {
        let code = line.trim_start();
        let found = !code.starts_with("//") && needles.iter().any(|needle| code.contains(needle));
        found.then(|| format!("{path}:{}: {code}", index + first))
    })
}

/// Every Rust file of the workspace.
pub(super) fn collect(root: &Path) -> Outcome<Vec<Source>> {
    let mut sources = Vec::new();
    for top in ["crates", "xtask", "tests", "examples", "benches", "fuzz"] {
        walk(root, &root.join(top), &mut sources)?;
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(sources)
}

fn walk(root: &Path, folder: &Path, out: &mut Vec<Source>) -> Outcome {
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry.map_err(|error| format!("{}: {error}", folder.display()))?.path();
        if path.is_dir() && !path.ends_with("target") {
            walk(root, &path, out)?;
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
            out.push(Source::new(shown, &read(&path)?));
        }
    }
    Ok(())
}

/// Files that are too large.
pub(super) fn sizes(sources: &[Source]) -> Vec<String> {
    let lines = sources.iter().map(|source| (source, source.code.lines().count()));
    let too_large = lines.filter(|(_, lines)| *lines > REFUSED);
    too_large.map(|(source, lines)| format!("{} has {lines} lines without its tests", source.path)).collect()
}

/// Files that are large enough to be looked at.
pub(super) fn large(sources: &[Source]) -> Vec<(&str, usize)> {
    let lines = sources.iter().map(|source| (source.path.as_str(), source.code.lines().count()));
    lines.filter(|(_, lines)| *lines > REVIEWED).collect()
}

/// Sockets opened or names resolved outside core.
pub(super) fn seams(sources: &[Source]) -> Vec<String> {
    // What a crate's benches measure against are servers and clients of others, on the loopback.
    let loose = ["/examples/", "/benches/"];
    let free =
        |path: &str| FREE.iter().any(|free| path.starts_with(free)) || loose.iter().any(|folder| path.contains(folder));
    let seam = |place: &String| !NO_SEAMS.iter().any(|(path, text)| place.starts_with(path) && place.contains(text));
    let watched = sources.iter().filter(|source| !free(&source.path));
    watched.flat_map(|source| source.places(SEAMS)).filter(seam).collect()
}

/// Helpers that exist once, in core or as a crate: percent encoding and base64.
pub(super) fn doubles(sources: &[Source]) -> Vec<String> {
    const HELPERS: &[&str] = &["%{byte:02X}", "0123456789ABCDEF", "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdef"];
    let watched = sources.iter().filter(|source| source.is_library() && source.path != "crates/core/src/url.rs");
    watched.flat_map(|source| source.places(HELPERS)).collect()
}

/// What isn't written yet, and tests that are switched off without a word.
pub(super) fn stubs(sources: &[Source]) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources {
        // These very needles are no stubs.
        if source.path == "xtask/src/check/sources.rs" {
            continue;
        }
        found.extend(source.places(&["todo!(", "unimplemented!("]));
        let first = source.code.lines().count() + 1;
        found.extend(places(&source.path, &source.tests, first, &["todo!(", "unimplemented!(", "#[ignore]"]));
        found.extend(source.places(&["#[ignore]"]));
        // What `new-protocol` leaves to be written, in comments too.
        let whole = source.code.lines().chain(source.tests.lines()).enumerate();
        let left = whole.filter(|(_, line)| line.contains("FILL IN") && !source.path.starts_with("xtask/"));
        found.extend(left.map(|(index, line)| format!("{}:{}: {}", source.path, index + 1, line.trim())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source::new(path.to_owned(), text)
    }

    #[test]
    fn tests_at_the_foot_do_not_count() {
        let text =
            format!("{}#[cfg(test)]\nmod tests {{\n{}}}\n", "let a = 1;\n".repeat(900), "let b = 2;\n".repeat(900));
        let file = [source("crates/x/src/a.rs", &text)];
        assert!(sizes(&file).is_empty());
        assert_eq!(large(&file), [("crates/x/src/a.rs", 900)]);
        assert_eq!(sizes(&[source("crates/x/src/a.rs", &"x\n".repeat(1_001))]).len(), 1);
        assert!(sizes(&[source("crates/x/src/tests.rs", &"x\n".repeat(1_001))]).is_empty());
    }

    #[test]
    fn a_socket_outside_core_is_found_and_one_in_a_test_is_not() {
        let opens = "fn f() {\n    TcpStream::connect(a)\n}\n";
        assert_eq!(seams(&[source("crates/db/src/x.rs", opens)]), ["crates/db/src/x.rs:2: TcpStream::connect(a)"]);
        assert!(seams(&[source("crates/core/src/x.rs", opens)]).is_empty());
        let face = "fn f() {\n    let socket = Socket::new(datagram, peer);\n}\n";
        assert!(seams(&[source("crates/http3/src/x.rs", face)]).is_empty());
        assert_eq!(seams(&[source("crates/http2/src/x.rs", face)]).len(), 1);
        assert_eq!(seams(&[source("crates/http3/src/x.rs", "Socket::new(Domain::IPV4)\n")]).len(), 1);
        assert!(seams(&[source("crates/db/src/tests.rs", opens)]).is_empty());
        assert!(seams(&[source("crates/db/src/x.rs", "/// not `TcpStream::connect`\n")]).is_empty());
    }

    #[test]
    fn a_second_helper_is_found() {
        let text = "let _ = write!(out, \"%{byte:02X}\");\n";
        assert_eq!(doubles(&[source("crates/http/src/x.rs", text)]).len(), 1);
        assert!(doubles(&[source("crates/core/src/url.rs", text)]).is_empty());
    }

    #[test]
    fn stubs_are_found_in_code_and_in_tests() {
        let text = "fn f() { todo!() }\n#[cfg(test)]\nmod tests {\n    #[ignore]\n}\n";
        assert_eq!(stubs(&[source("crates/x/src/a.rs", text)]).len(), 2);
        assert!(stubs(&[source("crates/x/src/a.rs", "#[ignore = \"needs root\"]\n")]).is_empty());
    }
}

//! Documents that suites write about what they met, a section each.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Names the document, where one is to be written.
const DOCUMENT: &str = "PORTOLAN_INTEROP";

const HEAD: &str = "# Interoperability

Written by the suites with `PORTOLAN_INTEROP=$PWD/docs/INTEROP.md`, a section each (`cargo test -p portolan-grpc --test interop`, \
`cargo test -p portolan-websocket --test real_peers --test autobahn`, `cargo test -p portolan-tests --test http events`), never by \
hand: each cell is an exchange with the server named, and a test that fails when it stops passing.
";

/// Puts `text` below the heading `title` into the document that the environment names, in place of what stood there; without
/// one it does nothing. Sections stand in the order of their titles.
pub fn section(title: &str, text: &str) {
    let Some(path) = std::env::var_os(DOCUMENT) else { return };
    // The tests of one binary run at once, the binaries one after the other.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let old = std::fs::read_to_string(&path).unwrap_or_default();
    std::fs::write(&path, with_section(&old, title, text)).expect("the document can be written");
}

/// Puts a row into the table of that heading. `head` is what stands above the rows: words, and the line of the columns' names.
pub fn row(title: &str, head: &str, row: &[&str]) {
    static ALL: Mutex<BTreeMap<String, BTreeSet<String>>> = Mutex::new(BTreeMap::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let rows = all.entry(title.to_owned()).or_default();
    rows.insert(format!("| {} |", row.join(" | ")));
    let rule = "---|".repeat(row.len());
    let rows: Vec<_> = rows.iter().map(String::as_str).collect();
    section(title, &format!("{head}\n|{rule}\n{}", rows.join("\n")));
}

fn with_section(document: &str, title: &str, text: &str) -> String {
    let old = document.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    let mut sections: Vec<(&str, &str)> = old.filter(|(name, _)| *name != title).collect();
    sections.push((title, text));
    sections.sort_by_key(|(name, _)| name.to_lowercase());
    let mut out = HEAD.to_owned();
    for (name, text) in sections {
        let _ = write!(out, "\n## {name}\n\n{}\n", text.trim());
    }
    out
}

/// A program that is made of sources once and kept: in a folder named after what went into it, so that it is made anew when that
/// changes. `make` makes it at the path it is given, and what it leaves half made is never used.
pub fn built(folder: &Path, name: &str, sources: &[&[u8]], make: impl FnOnce(&Path)) -> PathBuf {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    std::fs::create_dir_all(folder).expect("the folder can be written");
    let program = folder.join(format!("{name}-{:016x}", fingerprint(sources)));
    if !program.exists() {
        // Another process may be making the same: whoever is done last is right too.
        let begun = folder.join(format!("{name}-{}", std::process::id()));
        make(&begun);
        std::fs::rename(&begun, &program).expect("what was made is there");
    }
    program
}

/// FNV-1a: it need only differ where the sources do.
fn fingerprint(sources: &[&[u8]]) -> u64 {
    let bytes = sources.iter().flat_map(|source| source.iter().chain(&[0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_replaced_and_ordered() {
        let one = with_section("", "b", "one\n");
        let two = with_section(&one, "a", "two");
        assert_eq!(two, format!("{HEAD}\n## a\n\ntwo\n\n## b\n\none\n"));
        assert_eq!(with_section(&two, "b", "one"), two);
        assert_eq!(with_section(&two, "b", "new"), format!("{HEAD}\n## a\n\ntwo\n\n## b\n\nnew\n"));
    }

    #[test]
    fn programs_are_made_once_and_anew_when_their_sources_change() {
        let folder = crate::folder("built");
        let mut made = 0;
        for source in ["a", "a", "b", "b"] {
            let program = built(&folder, "x", &[source.as_bytes()], |path| {
                made += 1;
                std::fs::write(path, source).unwrap();
            });
            assert_eq!(std::fs::read_to_string(program).unwrap(), source);
        }
        assert_eq!(made, 2);
        std::fs::remove_dir_all(folder).unwrap();
    }
}

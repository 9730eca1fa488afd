//! `docs/proofs`: what is promised, and the tests that prove it. Each that is named must be there.

use std::path::Path;

use crate::{Outcome, read};

/// Every test named in a table of proofs that no file has, and every row that names none.
pub(super) fn check(root: &Path) -> Outcome<Vec<String>> {
    let folder = root.join("docs/proofs");
    let mut pages: Vec<_> = std::fs::read_dir(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.sort();
    let mut complaints = Vec::new();
    for page in pages {
        let name = page.file_name().unwrap_or_default().to_string_lossy();
        for (number, line) in read(&page)?.lines().enumerate() {
            let Some((behaviour, tests)) = row(line) else { continue };
            let mut named = tests.split('`').skip(1).step_by(2).peekable();
            if named.peek().is_none() {
                complaints.push(format!("docs/proofs/{name}:{}: no test for {behaviour:?}", number + 1));
            }
            for test in named.filter(|test| !exists(root, test)) {
                complaints.push(format!("docs/proofs/{name}:{}: there is no {test}", number + 1));
            }
        }
    }
    Ok(complaints)
}

/// The cells of a row: what is promised, and where it is proved.
fn row(line: &str) -> Option<(&str, &str)> {
    let (behaviour, tests) = line.strip_prefix('|')?.strip_suffix('|')?.rsplit_once('|')?;
    let head = behaviour.trim() == "behaviour" || behaviour.trim().starts_with("---");
    (!head).then_some((behaviour.trim(), tests))
}

/// Whether `path::name` is a function in that file, or the name of a case that a macro or a table of the file makes a test of.
fn exists(root: &Path, test: &str) -> bool {
    let Some((path, name)) = test.split_once("::") else { return false };
    let name = name.rsplit("::").next().unwrap_or(name);
    let Ok(text) = read(&root.join(path)) else { return false };
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].chars().next();
        let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
        !part(before) && !part(after)
    })
}

#[cfg(test)]
mod tests {
    use super::{exists, row};

    #[test]
    fn rows_are_told_from_heads() {
        assert_eq!(row("| behaviour | test |"), None);
        assert_eq!(row("|---|---|"), None);
        assert_eq!(row("text"), None);
        assert_eq!(row("| a `b` c | `x::y` |"), Some(("a `b` c", " `x::y` ")));
    }

    #[test]
    fn tests_are_looked_for_by_file_and_name() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(exists(root, "src/check/sources.rs::is_library"));
        assert!(exists(root, "src/check/sources.rs::tests::is_library"));
        assert!(!exists(root, "src/check/sources.rs::is_lib"));
        assert!(!exists(root, "src/check/none.rs::is_library"));
        assert!(!exists(root, "is_library"));
    }
}

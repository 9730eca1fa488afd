//! docs/REGISTRY.md: the facts of protocols.toml joined with what the last full run recorded.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use crate::record::{self, Proof};
use crate::table::{Status, Table};
use crate::{Outcome, read};

const PATH: &str = "docs/REGISTRY.md";

/// Prints the table of the last run, or the committed one where there was none here.
pub(crate) fn show(root: &Path) -> Outcome {
    let text = match std::fs::read_to_string(record::file(root)) {
        Ok(record) => render(&Table::load(root)?, &record::parse(&record)?),
        Err(_) => read(&root.join(PATH))?,
    };
    print!("{text}");
    Ok(())
}

/// Writes it from the last run's record.
pub(crate) fn write(root: &Path) -> Outcome {
    let table = Table::load(root)?;
    let proofs = record::parse(&read(&record::file(root))?)?;
    std::fs::write(root.join(PATH), render(&table, &proofs)).map_err(|error| format!("{PATH}: {error}"))?;
    println!("wrote {PATH}");
    Ok(())
}

/// Every row of protocols.toml that claims to work was met by a real peer in the last run, and stands in the committed table.
/// Versions may differ between machines, so the texts are not compared.
pub(crate) fn check(root: &Path) -> Outcome {
    let table = Table::load(root)?;
    let committed = read(&root.join(PATH))?;
    let record = std::fs::read_to_string(record::file(root));
    let proofs = record.map_or_else(|_| Ok(None), |text| record::parse(&text).map(Some))?;
    let mut missing = Vec::new();
    for row in table.ordered() {
        if !committed.contains(&format!("| {} |", row.name)) {
            missing.push(format!("{} is not in {PATH}: cargo xtask test --install", row.name));
        }
        let Some(proofs) = &proofs else { continue };
        let proven = proofs.get(&row.name).is_some_and(|proof| !proof.peers.is_empty());
        if proven && matches!(row.status, Status::Unproven) {
            missing.push(format!("{} met a real peer in this run: its status is no longer unproven", row.name));
        }
        if !proven && !matches!(row.status, Status::Unproven) {
            missing.push(format!("{} met no real peer in this run", row.name));
        }
    }
    if let Some(proofs) = &proofs {
        let unknown = proofs.keys().filter(|name| !table.protocols.iter().any(|row| row.name == **name));
        missing.extend(unknown.map(|name| format!("the run recorded {name}, which has no row")));
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n  ")) }
}

fn render(table: &Table, proofs: &BTreeMap<String, Proof>) -> String {
    let mut out = String::from(
        "# Registry\n\nWritten by `cargo xtask test --install` from `protocols.toml` and from what that run recorded; never by hand.\n\
         *Exchanges* are requests answered by the real peers; *faults* are replays of what a real peer had sent, cut, stalled or \
         garbled; *laws* are passed suites over the decoders.\n\n\
         | protocol | family | spec | port | transport | TLS | feature | status | real peers | exchanges | configurations | laws | \
         faults | hops |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    let nothing = Proof::default();
    let number = |n: u64| if n == 0 { "-".to_owned() } else { n.to_string() };
    let list = |items: &std::collections::BTreeSet<String>, between: &str| {
        if items.is_empty() {
            "-".to_owned()
        } else {
            items.iter().cloned().collect::<Vec<_>>().join(between).replace('|', "/")
        }
    };
    for row in table.ordered() {
        // Laws are recorded by module, which has `_` where the name has `-`.
        let proof = proofs.get(&row.name).unwrap_or(&nothing);
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.name,
            row.family,
            row.spec,
            row.port_text(),
            row.transport.word(),
            row.tls.word(),
            row.feature().unwrap_or("always"),
            row.status.word(),
            list(&proof.peers, ", "),
            number(proof.exchanges),
            list(&proof.configurations, "; "),
            number(proof.laws),
            number(proof.faults),
            list(&proof.hops, ", "),
        );
    }
    out
}

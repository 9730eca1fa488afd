//! `cargo xtask check`: the rules of the house that no lint sees.

mod layers;
mod proofs;
mod sources;

use std::path::Path;

use crate::sync;
use crate::table::{Table, folder};
use crate::{Outcome, read};

/// Runs every check, and fails with everything that was found.
pub(crate) fn run(root: &Path) -> Outcome {
    let table = Table::load(root)?;
    let sources = sources::collect(root)?;
    let checks: [(&str, Vec<String>); 9] = [
        ("sync", sync::run(root, true).err().into_iter().collect()),
        ("layers", layers::check(root, &table)?),
        ("decoders", decoders(&table, &sources)),
        ("rows", rows(root, &table)),
        ("sizes", sources::sizes(&sources)),
        ("seams", sources::seams(&sources)),
        ("doubles", sources::doubles(&sources)),
        ("stubs", sources::stubs(&sources)),
        ("proofs", proofs::check(root)?),
    ];
    let mut found = 0;
    for (name, complaints) in &checks {
        println!("{name:<9} {}", if complaints.is_empty() { "ok" } else { "FAILED" });
        for complaint in complaints {
            println!("  {complaint}");
        }
        found += complaints.len();
    }
    for (path, lines) in sources::large(&sources) {
        println!("to review: {path} has {lines} lines without its tests");
    }
    if found == 0 { Ok(()) } else { Err(format!("{found} complaints")) }
}

/// Codecs that take no stream of bytes apart: gRPC's turn one whole message, already bounded, into a value and back, by a
/// library of others (prost, serde).
const OF_MESSAGES: &[&str] = &[
    "crates/grpc/src/codec.rs",
    "crates/grpc/src/codec_json.rs",
    "crates/grpc/src/codec_prost.rs",
    "crates/grpc/src/dynamic.rs",
];

/// Every decoder of a library has its row, and every row its decoder.
fn decoders(table: &Table, sources: &[sources::Source]) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut decoders = Vec::new();
    for source in sources.iter().filter(|source| source.is_library() && !OF_MESSAGES.contains(&source.path.as_str())) {
        for line in source.code.lines() {
            let Some((head, name)) = line.split_once("Codec for ") else { continue };
            if !head.trim_start().starts_with("impl") {
                continue;
            }
            let name: String = name.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            decoders.push((source, name));
        }
    }
    for (source, name) in &decoders {
        let covered = table.decoders.iter().any(|row| {
            source.path.starts_with(&format!("{}/", folder(&row.package)))
                && (row.entry.contains(name.as_str()) || row.entry.to_lowercase().contains(&name.to_lowercase()))
        });
        if !covered {
            complaints.push(format!("{}: the codec {name} has no [[decoder]] row, so no fuzz target", source.path));
        }
    }
    complaints
}

/// Every row has its module with its header, and its example.
fn rows(root: &Path, table: &Table) -> Vec<String> {
    let mut complaints = Vec::new();
    for row in &table.protocols {
        if row.spec.contains("FILL IN") {
            complaints.push(format!("{}: its spec is not filled in", row.name));
        }
        if let Some(example) = &row.example
            && !root.join(format!("examples/{example}.rs")).exists()
        {
            complaints.push(format!("{}: examples/{example}.rs is missing", row.name));
        }
        if row.feature().is_none() || row.within.is_some() {
            continue;
        }
        let (folder, module) = (folder(table.package(row)), row.module());
        let places = if row.is_crate() {
            vec![format!("{folder}/src/lib.rs")]
        } else {
            vec![format!("{folder}/src/{module}/mod.rs"), format!("{folder}/src/{module}.rs")]
        };
        let Some(text) = places.iter().find_map(|place| read(&root.join(place)).ok()) else {
            complaints.push(format!("{}: there is no {}", row.name, places.join(" nor ")));
            continue;
        };
        let header: String = text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n");
        let mut after = 0;
        for part in ["**Port", "**What works**", "**What is not done**", "**Tested against**", "**Security**", "```"] {
            match header.get(after..).and_then(|rest| rest.find(part)) {
                Some(at) => after += at,
                None => complaints.push(format!("{}: its header lacks {part} at its place", row.name)),
            }
        }
    }
    complaints
}

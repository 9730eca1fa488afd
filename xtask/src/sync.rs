//! `cargo xtask sync`: everything that follows from `protocols.toml`, written between marker comments or into whole files.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::markers;
use crate::run::filter;
use crate::table::{Decoder, DecoderKind, Protocol, Table, folder, library};
use crate::{Outcome, read};

/// Writes what differs, or with `check` fails with its list.
pub(crate) fn run(root: &Path, check: bool) -> Outcome {
    let table = Table::load(root)?;
    let mut differing = Vec::new();
    for (path, text) in outputs(root, &table)? {
        let old = std::fs::read_to_string(&path).unwrap_or_default();
        if old == text {
            continue;
        }
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if check {
            differing.push(format!("{shown}{}", first_difference(&old, &text)));
        } else {
            write(&path, &text)?;
            println!("wrote {shown}");
        }
    }
    if differing.is_empty() {
        return Ok(());
    }
    Err(format!("not as protocols.toml says (cargo xtask sync mends it):\n  {}", differing.join("\n  ")))
}

/// Each file and what it should hold.
fn outputs(root: &Path, table: &Table) -> Outcome<Vec<(PathBuf, String)>> {
    let mut out = Vec::new();
    let mut between = |path: PathBuf, lines: &str| -> Outcome {
        let old = read(&path)?;
        let new = markers::replace(&old, lines).map_err(|error| format!("{}: {error}", path.display()))?;
        out.push((path, new));
        Ok(())
    };
    for (name, package) in table.family_crates() {
        let rows = table.of(name);
        let dir = root.join(folder(package));
        between(dir.join("Cargo.toml"), &family_features(&rows))?;
        between(dir.join("src/lib.rs"), &modules(&rows))?;
    }
    let umbrella = root.join("crates/portolan");
    between(umbrella.join("Cargo.toml"), &umbrella_features(table))?;
    between(umbrella.join("src/lib.rs"), &reexports(table))?;
    between(root.join("README.md"), &readme_table(table))?;
    between(root.join("fuzz/Cargo.toml"), &fuzz_manifest(table))?;
    let manifest = out.iter().find(|(path, _)| *path == umbrella.join("Cargo.toml"));
    let features = features_table(manifest.map_or("", |(_, text)| text.as_str()));
    out.push((umbrella.join("src/features.md"), features));
    out.push((umbrella.join("src/rows.rs"), rustfmt(&rows(table))?));
    out.push((root.join("fuzz/src/targets.rs"), rustfmt(&fuzz_list(&table.decoders))?));
    for decoder in &table.decoders {
        out.push((root.join(format!("fuzz/fuzz_targets/{}.rs", decoder.name)), fuzz_target(decoder)));
    }
    Ok(out)
}

fn family_features(rows: &[&Protocol]) -> String {
    let mut out = String::new();
    for row in rows {
        let needs: Vec<String> = row.needs.iter().map(|need| format!("{need:?}")).collect();
        let _ = writeln!(out, "## {}.\n{} = [{}]", row.title, row.name, needs.join(", "));
    }
    out
}

fn modules(rows: &[&Protocol]) -> String {
    let mut out = String::new();
    for row in rows {
        let _ = writeln!(out, "#[cfg(feature = {:?})]\npub mod {};", row.name, row.module());
    }
    out
}

fn umbrella_features(table: &Table) -> String {
    let mut out = String::new();
    let mut all = Vec::new();
    for (name, family) in table.families() {
        let rows: Vec<_> = table.of(name).into_iter().filter(|row| row.within.is_none()).collect();
        for row in &rows {
            let (package, feature) = (table.package(row), &row.name);
            let mut on = vec![format!("dep:{package}")];
            if row.is_crate() {
                on.extend(row.needs.iter().cloned());
            } else {
                on.push(format!("{package}/{feature}"));
                // A protocol that stands on another of its family brings it along.
                on.extend(row.needs.iter().filter(|need| rows.iter().any(|row| row.name == **need)).cloned());
            }
            let on: Vec<String> = on.iter().map(|item| format!("{item:?}")).collect();
            let _ = writeln!(out, "## {}.\n{feature} = [{}]", row.title, on.join(", "));
        }
        let names: Vec<String> =
            rows.iter().map(|row| &row.name).chain(&family.also).map(|name| format!("{name:?}")).collect();
        let _ = writeln!(out, "## Family: {}.\nall-{name} = [{}]", family.title.to_lowercase(), names.join(", "));
        all.push(format!("\"all-{name}\""));
    }
    let _ = writeln!(out, "## Every protocol.\nall = [{}]", all.join(", "));
    out
}

/// The documented features of a manifest: `## text` above `name = [..]`.
fn features_table(manifest: &str) -> String {
    let mut out = String::from("| feature | what it compiles |\n|---|---|\n");
    let mut lines = manifest.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(text) = line.strip_prefix("## ") else { continue };
        if let Some((name, _)) = lines.peek().and_then(|next| next.split_once(" = [")) {
            let _ = writeln!(out, "| `{name}` | {text} |");
        }
    }
    out
}

fn reexports(table: &Table) -> String {
    let mut lines = Vec::new();
    for (name, _) in table.families() {
        for row in table.of(name).into_iter().filter(|row| row.within.is_none()) {
            let (library, module) = (library(table.package(row)), row.module());
            let path = if row.is_crate() { format!("{library} as {module}") } else { format!("{library}::{module}") };
            lines.push((path, &row.name));
        }
    }
    // In rustfmt's order.
    lines.sort();
    lines.iter().map(|(path, name)| format!("#[cfg(feature = {name:?})]\npub use {path};\n")).collect()
}

fn readme_table(table: &Table) -> String {
    let mut out = String::from("\n| protocol | what | feature | port | transport | TLS |\n|---|---|---|---|---|---|\n");
    for row in table.ordered() {
        let feature = row.feature().map_or_else(|| "always".to_owned(), |name| format!("`{name}`"));
        let _ = writeln!(
            out,
            "| {} | {} | {feature} | {} | {} | {} |",
            row.name,
            row.title,
            row.port_text(),
            row.transport.word(),
            row.tls.word()
        );
    }
    out.push('\n');
    out
}

/// The registry as a Rust table.
fn rows(table: &Table) -> String {
    let mut out = String::from(
        "//! Written by `cargo xtask sync` from protocols.toml.\n\n\
         use crate::registry::{Protocol, Status, TlsForm, Transport};\n\npub(crate) static ROWS: &[Protocol] = &[\n",
    );
    for row in table.ordered() {
        let package = table.package(row);
        let _ = writeln!(
            out,
            "Protocol {{ name: {:?}, title: {:?}, family: {:?}, package: {package:?}, schemes: &{:?}, port: {:?}, \
             transport: Transport::{}, tls: TlsForm::{}, spec: {:?}, feature: {:?}, status: Status::{} }},",
            row.name,
            row.title,
            row.family,
            row.schemes,
            row.port,
            row.transport.variant(),
            row.tls.variant(),
            row.spec,
            row.feature(),
            row.status.variant()
        );
    }
    out.push_str("];\n");
    out
}

/// The families that have decoders, with what holds them, and a binary for each target.
fn fuzz_manifest(table: &Table) -> String {
    let mut out = String::new();
    for (_, name) in table.family_crates() {
        let own = table.decoders.iter().filter(|decoder| decoder.package == name);
        // The first part of the entry is the module, and so the feature.
        let features: BTreeSet<String> =
            own.filter_map(|decoder| decoder.entry.split("::").next()).map(|name| name.replace('_', "-")).collect();
        if !features.is_empty() {
            let features: Vec<String> = features.iter().map(|name| format!("{name:?}")).collect();
            let (path, features) = (folder(name), features.join(", "));
            let _ = writeln!(out, "[dependencies.{name}]\npath = \"../{path}\"\nfeatures = [{features}]\n");
        }
    }
    for Decoder { name, .. } in &table.decoders {
        let _ = writeln!(
            out,
            "[[bin]]\nname = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\ntest = false\ndoc = false\nbench = false\n"
        );
    }
    out
}

fn fuzz_list(decoders: &[Decoder]) -> String {
    let mut out = String::from("//! Written by `cargo xtask sync` from protocols.toml.\n\ncrate::targets! {\n");
    for decoder in decoders {
        let kind = match decoder.kind {
            DecoderKind::Codec => "codec",
            DecoderKind::Datagram => "datagram",
            DecoderKind::Free => "free",
        };
        // An entry without a path is a function of the fuzz crate itself, for decoders that take settings.
        let path = if decoder.entry.contains("::") {
            format!("{}::{}", decoder.library(), decoder.entry)
        } else {
            format!("crate::{}", decoder.entry)
        };
        let _ = writeln!(out, "    {kind} {} = {path};", decoder.name);
    }
    out.push_str("}\n");
    out
}

fn fuzz_target(decoder: &Decoder) -> String {
    format!(
        "//! Written by `cargo xtask sync` from protocols.toml.\n#![no_main]\n\nlibfuzzer_sys::fuzz_target!(|data: &[u8]| portolan_fuzz::{}(data));\n",
        decoder.name
    )
}

fn rustfmt(text: &str) -> Outcome<String> {
    filter("rustfmt", &["--edition", "2024", "--config", "max_width=120,use_small_heuristics=Max"], text)
}

fn write(path: &Path, text: &str) -> Outcome {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    }
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}

fn first_difference(old: &str, new: &str) -> String {
    let at = old.lines().zip(new.lines()).position(|(a, b)| a != b);
    let at = at.unwrap_or_else(|| old.lines().count().min(new.lines().count()));
    let line = |text: &str| text.lines().nth(at).unwrap_or("(end)").to_owned();
    format!(":{}\n    is        {}\n    should be {}", at + 1, line(old), line(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown_with_its_line() {
        let text = first_difference("a\nb\n", "a\nc\n");
        assert!(text.starts_with(":2") && text.contains("is        b") && text.ends_with("should be c"), "{text}");
        assert!(first_difference("a\n", "a\nb\n").contains("(end)"));
    }
}

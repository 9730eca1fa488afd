//! Who may use whom: downwards only.

use std::path::Path;

use serde::Deserialize;

use crate::Outcome;
use crate::run::{cargo, output};
use crate::table::Table;

/// The crates that are no family, and how high they stand; families stand beside the applications of HTTP.
const LAYERS: &[(&str, u8)] = &[
    ("portolan-core", 0),
    ("portolan-pool", 1),
    ("portolan-wire", 1),
    ("portolan-hpack", 1),
    ("portolan-http1", 2),
    ("portolan-http2", 2),
    ("portolan-http3", 2),
    ("portolan-http", 3),
    ("portolan-sse", FAMILIES),
    ("portolan-websocket", FAMILIES),
    ("portolan-grpc", FAMILIES),
    ("portolan-grpc-build", FAMILIES),
    // It rides on one of these.
    ("portolan-tunnel", 5),
    ("portolan", 6),
];
const FAMILIES: u8 = 4;

/// Never published, and so used by nobody; they use whom they like.
const TOOLS: &[&str] =
    &["portolan-testbed", "portolan-tests", "portolan-examples", "portolan-benches", "portolan-fuzz", "xtask"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    /// `None` is a normal dependency, otherwise `dev` or `build`.
    kind: Option<String>,
}

/// Every edge that doesn't point down.
pub(super) fn check(root: &Path, table: &Table) -> Outcome<Vec<String>> {
    let text = output(&mut cargo(root, &["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    let metadata: Metadata = serde_json::from_str(&text).map_err(|error| format!("cargo metadata: {error}"))?;
    let layer = |name: &str| {
        let family = || table.family_crates().any(|(_, package)| package == name);
        LAYERS
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, layer)| *layer)
            .or_else(|| family().then_some(FAMILIES))
    };
    let mut complaints = Vec::new();
    for package in metadata.packages.iter().filter(|package| !TOOLS.contains(&package.name.as_str())) {
        let Some(own) = layer(&package.name) else {
            complaints.push(format!(
                "{} is no family of protocols.toml and has no layer in xtask/src/check/layers.rs",
                package.name
            ));
            continue;
        };
        for dependency in package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev")) {
            let name = dependency.name.as_str();
            if TOOLS.contains(&name) {
                complaints.push(format!("{} uses {name}, which is never published", package.name));
            } else if layer(name).is_some_and(|other| other >= own) {
                complaints.push(format!("{} uses {name}, which is not below it", package.name));
            }
        }
    }
    Ok(complaints)
}

//! `protocols.toml`, read and checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::{Outcome, read};

/// All facts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    /// Packages for the suites of crates without rows.
    pub(crate) also: Vec<String>,
    pub(crate) family: BTreeMap<String, Family>,
    #[serde(rename = "protocol")]
    pub(crate) protocols: Vec<Protocol>,
    #[serde(rename = "decoder")]
    pub(crate) decoders: Vec<Decoder>,
}

/// Protocols that belong together: modules of one crate, or crates of their own.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Family {
    #[serde(rename = "crate")]
    pub(crate) package: Option<String>,
    pub(crate) title: String,
    /// Features of the umbrella, written by hand, that belong to it and are no protocols.
    #[serde(default)]
    pub(crate) also: Vec<String>,
}

/// A row.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) family: String,
    pub(crate) schemes: Vec<String>,
    pub(crate) port: Option<u16>,
    pub(crate) transport: Transport,
    pub(crate) tls: TlsForm,
    pub(crate) spec: String,
    /// Its own crate, where the family has none.
    #[serde(rename = "crate")]
    pub(crate) package: Option<String>,
    /// The protocol whose crate and feature hold it, where it has none of its own: a hop beside the client.
    pub(crate) within: Option<String>,
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// The module whose tests hold its decoder to the laws, where it isn't the one of its name.
    pub(crate) laws: Option<String>,
    pub(crate) example: Option<String>,
    pub(crate) status: Status,
    pub(crate) install: Vec<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Transport {
    Tcp,
    Udp,
    Both,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TlsForm {
    Never,
    Implicit,
    Starttls,
    Both,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Works,
    Partial,
    Legacy,
    Unproven,
}

/// A decoder and so a fuzz target.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Decoder {
    pub(crate) name: String,
    #[serde(rename = "crate")]
    pub(crate) package: String,
    pub(crate) kind: DecoderKind,
    pub(crate) entry: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DecoderKind {
    Codec,
    Datagram,
    Free,
}

impl Protocol {
    /// Its Cargo feature; rows of core are always there.
    pub(crate) fn feature(&self) -> Option<&str> {
        (self.family != "core").then(|| self.within.as_ref().unwrap_or(&self.name).as_str())
    }

    /// Its module.
    pub(crate) fn module(&self) -> String {
        self.name.replace('-', "_")
    }

    /// The module whose tests hold its decoder to the laws.
    pub(crate) fn laws(&self) -> String {
        self.laws.clone().unwrap_or_else(|| self.module())
    }

    /// Whether it is a crate, not a module of its family's.
    pub(crate) fn is_crate(&self) -> bool {
        self.package.is_some()
    }

    pub(crate) fn port_text(&self) -> String {
        self.port.map_or_else(|| "-".to_owned(), |port| port.to_string())
    }
}

impl Decoder {
    /// The crate's name in Rust.
    pub(crate) fn library(&self) -> String {
        library(&self.package)
    }
}

/// A crate's name in Rust.
pub(crate) fn library(package: &str) -> String {
    package.replace('-', "_")
}

/// The folder of a crate of this workspace.
pub(crate) fn folder(package: &str) -> String {
    format!("crates/{}", package.trim_start_matches("portolan-"))
}

impl Table {
    pub(crate) fn load(root: &Path) -> Outcome<Self> {
        let text = read(&root.join("protocols.toml"))?;
        let table: Self = toml::from_str(&text).map_err(|error| format!("protocols.toml: {error}"))?;
        table.validate()?;
        Ok(table)
    }

    /// The crate that speaks a protocol.
    pub(crate) fn package<'a>(&'a self, row: &'a Protocol) -> &'a str {
        let family = || self.family.get(&row.family).and_then(|family| family.package.as_deref());
        row.package.as_deref().or_else(family).unwrap_or_default()
    }

    /// The rows of a family, in the order of their names.
    pub(crate) fn of<'a>(&'a self, family: &'a str) -> Vec<&'a Protocol> {
        let mut rows: Vec<_> = self.protocols.iter().filter(|row| row.family == family).collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name));
        rows
    }

    /// The families whose rows are switched on by features: all but core.
    pub(crate) fn families(&self) -> impl Iterator<Item = (&String, &Family)> {
        self.family.iter().filter(|(name, _)| *name != "core")
    }

    /// Of these, the ones whose rows are modules of one crate: its name.
    pub(crate) fn family_crates(&self) -> impl Iterator<Item = (&String, &str)> {
        self.families().filter_map(|(name, family)| Some((name, family.package.as_deref()?)))
    }

    /// The rows family by family, core first.
    pub(crate) fn ordered(&self) -> Vec<&Protocol> {
        let rest = self.families().flat_map(|(name, _)| self.of(name));
        self.of("core").into_iter().chain(rest).collect()
    }

    fn validate(&self) -> Outcome {
        let mut names = BTreeSet::new();
        let mut schemes = BTreeSet::new();
        for row in &self.protocols {
            let well_formed = row.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if row.name.is_empty() || !well_formed {
                return Err(format!("protocols.toml: {:?} is no name: lower-case letters, digits, hyphens", row.name));
            }
            if !names.insert(&row.name) {
                return Err(format!("protocols.toml: two rows are named {}", row.name));
            }
            let Some(family) = self.family.get(&row.family) else {
                return Err(format!("protocols.toml: {} is of an unknown family {}", row.name, row.family));
            };
            let holder = row.within.as_ref().map(|name| self.protocols.iter().find(|row| row.name == *name));
            if let Some(holder) = holder
                && holder.is_none_or(|holder| holder.package != row.package || holder.within.is_some())
            {
                return Err(format!("protocols.toml: {} is within a row of another crate, or of none", row.name));
            }
            if family.package.is_some() == row.is_crate() {
                return Err(format!("protocols.toml: {} has no crate, or two: its own and its family's", row.name));
            }
            // A hop's URL is no server's: `http://` may be both.
            for scheme in &row.schemes {
                if !schemes.insert((row.family == "core", scheme)) {
                    return Err(format!("protocols.toml: the scheme {scheme} is used twice"));
                }
            }
        }
        let mut targets = BTreeSet::new();
        match self.decoders.iter().find(|decoder| !targets.insert(&decoder.name)) {
            Some(twice) => Err(format!("protocols.toml: two decoders are named {}", twice.name)),
            None => Ok(()),
        }
    }
}

macro_rules! words {
    ($($kind:ident: $($variant:ident $word:literal),+;)+) => {$(
        impl $kind {
            /// As tables say it.
            pub(crate) fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// As Rust says it.
            pub(crate) fn variant(self) -> &'static str {
                match self { $(Self::$variant => stringify!($variant)),+ }
            }
        }
    )+};
}

words! {
    Transport: Tcp "TCP", Udp "UDP", Both "TCP, UDP";
    TlsForm: Never "never", Implicit "implicit", Starttls "STARTTLS", Both "implicit, STARTTLS";
    Status: Works "works", Partial "partial", Legacy "legacy", Unproven "unproven";
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Outcome<Table> {
        let table: Table = toml::from_str(text).map_err(|error| error.to_string())?;
        table.validate().map(|()| table)
    }

    const FAMILY: &str = "[family.x]\ncrate = 'x'\ntitle = 'X'\n";

    fn row(name: &str, scheme: &str, family: &str) -> String {
        format!(
            "[[protocol]]\nname = '{name}'\ntitle = 'T'\nfamily = '{family}'\nschemes = ['{scheme}']\ntransport = 'udp'\n\
             tls = 'never'\nspec = 'S'\nstatus = 'works'\ninstall = []\n"
        )
    }

    #[test]
    fn rows_that_contradict_each_other_are_refused() {
        let decoders = "also = []\ndecoder = []\n";
        let good = format!("{decoders}{FAMILY}{}{}", row("b", "b", "x"), row("a", "a", "x"));
        let table = parse(&good).unwrap();
        assert_eq!(table.of("x").iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        for (rows, complaint) in [
            ([row("a", "a", "x"), row("a", "b", "x")], "two rows"),
            ([row("a", "a", "x"), row("b", "a", "x")], "used twice"),
            ([row("a", "a", "y"), row("b", "b", "x")], "unknown family"),
            ([row("A_", "a", "x"), row("b", "b", "x")], "no name"),
        ] {
            let error = parse(&format!("{decoders}{FAMILY}{}", rows.concat())).unwrap_err();
            assert!(error.contains(complaint), "{error}");
        }
    }

    #[test]
    fn a_protocol_lives_in_one_crate_its_own_or_its_familys() {
        let loose = "also = []\ndecoder = []\n[family.x]\ntitle = 'X'\nalso = ['client']\n";
        let own = row("a", "a", "x").replace("spec", "crate = 'portolan-a'\nspec");
        let table = parse(&format!("{loose}{own}")).unwrap();
        assert_eq!((table.package(&table.protocols[0]), table.family_crates().count()), ("portolan-a", 0));
        assert_eq!(folder(table.package(&table.protocols[0])), "crates/a");
        for both in [format!("{loose}{}", row("a", "a", "x")), format!("also = []\ndecoder = []\n{FAMILY}{own}")] {
            assert!(parse(&both).unwrap_err().contains("no crate, or two"));
        }
    }

    #[test]
    fn unknown_facts_are_refused() {
        let error = parse(&format!("also = []\ndecoder = []\n{FAMILY}colour = 'red'\n")).unwrap_err();
        assert!(error.contains("colour"), "{error}");
    }
}

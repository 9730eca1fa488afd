//! What a test run proved, line by line: `protocol TAB kind TAB peer TAB configuration TAB count`, where the
//! kind is `exchange` (or `peer`), `faults`, `laws` or `hop`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The variable that tells the suites where to append.
pub(crate) const VARIABLE: &str = "PORTOLAN_RECORD";

/// Where the last run left its record.
pub(crate) fn file(root: &Path) -> PathBuf {
    target(root).join("portolan-record.tsv")
}

/// The target folder of this workspace.
pub(crate) fn target(root: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// What is known of one protocol.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Proof {
    /// Programs and versions that bytes were exchanged with.
    pub(crate) peers: BTreeSet<String>,
    pub(crate) configurations: BTreeSet<String>,
    pub(crate) exchanges: u64,
    /// Runs of the fault replay.
    pub(crate) faults: u64,
    /// Tests of the decoder laws that passed.
    pub(crate) laws: u64,
    pub(crate) hops: BTreeSet<String>,
}

/// Reads a record; lines that make no sense are errors, since they would be missing from the registry.
pub(crate) fn parse(text: &str) -> Result<BTreeMap<String, Proof>, String> {
    let mut proofs: BTreeMap<String, Proof> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [protocol, kind, peer, configuration, exchanges] = fields[..] else {
            return Err(format!("the record has a line that is none: {line:?}"));
        };
        let count: u64 =
            exchanges.parse().map_err(|_| format!("the record counts {exchanges:?} exchanges: {line:?}"))?;
        let proof = proofs.entry(protocol.to_owned()).or_default();
        match kind {
            "peer" | "exchange" => {
                proof.peers.insert(peer.to_owned());
                proof.configurations.insert(configuration.to_owned());
                proof.exchanges += count;
            }
            "faults" => proof.faults += count,
            "laws" => proof.laws += count,
            "hop" => {
                proof.hops.insert(configuration.to_owned());
            }
            other => return Err(format!("the record has an unknown kind {other:?}: {line:?}")),
        }
    }
    Ok(proofs)
}

/// The protocol whose decoder laws a passed test proves: `test redis::tests::the_decoder_keeps_the_laws ... ok`.
pub(crate) fn law(line: &str) -> Option<&str> {
    let name = line.strip_prefix("test ")?.strip_suffix(" ... ok")?;
    let (module, test) = (name.split("::").next()?, name.rsplit("::").next()?);
    test.contains("the_laws").then_some(module)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_one_protocol_are_joined() {
        let text = "redis\tpeer\tredis 7\tplain\t3\nredis\tpeer\tredis 7\tTLS\t4\nredis\tfaults\tredis 7\tplain\t900\n\
                    redis\thop\tmicrosocks\tsocks5\t1\nredis\tlaws\t\t\t1\n";
        let proofs = parse(text).unwrap();
        let redis = &proofs["redis"];
        assert_eq!((redis.exchanges, redis.faults, redis.laws), (7, 900, 1));
        assert_eq!((redis.peers.len(), redis.configurations.len(), redis.hops.len()), (1, 2, 1));
    }

    #[test]
    fn a_broken_record_is_an_error() {
        assert!(parse("redis\tpeer\n").is_err());
        assert!(parse("redis\tpeer\ta\tb\tmany\n").is_err());
        assert!(parse("redis\twish\ta\tb\t1\n").is_err());
    }

    #[test]
    fn only_a_passed_law_counts() {
        assert_eq!(law("test redis::tests::the_decoder_keeps_the_laws ... ok"), Some("redis"));
        assert_eq!(law("test redis::tests::the_decoder_keeps_the_laws ... FAILED"), None);
        assert_eq!(law("test redis::tests::other ... ok"), None);
    }
}

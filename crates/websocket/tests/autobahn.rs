//! The Autobahn suite's own fuzzing server against this client: every case must be answered strictly.
//!
//! It needs a Python environment with autobahntestsuite 25.10.1, autobahn 21.3.1 and lib2to3 in
//! /opt/portolan-testbed/autobahntestsuite, and is skipped, and said so, without it: the suite is written in Python 2.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "helpers of tests fail by panicking")]

use std::net::SocketAddr;
use std::path::Path;

use portolan_core::Connector;
use portolan_testbed::{Server, Spec, folder, free_port};
use portolan_websocket::{Deflate, Message, Options, WebSocket};

const PYTHON: &str = "/opt/portolan-testbed/autobahntestsuite/bin/python";
/// Cases under way at once: most wait for timers of theirs.
const AT_ONCE: usize = 8;

async fn ask(base: &str, path: &str) -> String {
    let mut socket = WebSocket::connect(&Connector::default(), &format!("{base}{path}"), Options::new()).await.unwrap();
    let answer = socket.recv().await.unwrap().unwrap();
    answer.as_text().unwrap().to_owned()
}

/// Echoes until the end, whatever it is: the server judges.
async fn run(base: &str, case: usize, deflate: Deflate) {
    let url = format!("{base}/run?case={case}");
    let mut socket = WebSocket::connect(&Connector::default(), &url, Options::new().deflate(deflate)).await.unwrap();
    while let Ok(Some(message)) = socket.recv().await {
        if matches!(message, Message::Close(_)) {
            continue;
        }
        if socket.send(message).await.is_err() {
            // The reading side knows why.
            continue;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fuzzing_server_finds_no_fault() {
    if !Path::new(PYTHON).exists() {
        assert!(!portolan_testbed::required(), "autobahntestsuite is missing: cargo xtask testbed install");
        eprintln!("SKIPPED: no autobahntestsuite in {PYTHON}");
        return;
    }
    let port = free_port();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/autobahn_fuzz.py");
    let args = vec![PYTHON.to_owned(), script.display().to_string(), port.to_string(), "$D".to_owned()];
    let spec = Spec { package: "coreutils", binary: "env", files: Vec::new(), args };
    let server = Server::start_in(&spec, folder("autobahn")).unwrap();
    let _server = server.accepting(SocketAddr::from(([127, 0, 0, 1], port)));
    let base = format!("ws://127.0.0.1:{port}");
    let count: usize = ask(&base, "/count").await.parse().unwrap();
    assert!(count > 450, "{count}");
    let next = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(1));
    let workers: Vec<_> = (0..AT_ONCE)
        .map(|_| {
            let (base, next) = (base.clone(), next.clone());
            tokio::spawn(async move {
                let mut results = Vec::new();
                loop {
                    let case = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    if case > count {
                        return results;
                    }
                    // Some cases of group 13 are for clients that leave the takeover to the server.
                    run(&base, case, Deflate::new().threshold(0).client_context_takeover(case % 2 == 0)).await;
                    let result = ask(&base, &format!("/result?case={case}")).await;
                    results.push(result);
                }
            })
        })
        .collect();
    let mut results = Vec::new();
    for worker in workers {
        results.extend(worker.await.unwrap());
    }
    let verdicts = [
        r#""OK", "OK""#,
        r#""INFORMATIONAL", "OK""#,
        r#""INFORMATIONAL", "INFORMATIONAL""#,
        r#""UNIMPLEMENTED", "OK""#,
    ];
    let faults: Vec<_> = results.iter().filter(|result| !verdicts.iter().any(|good| result.contains(good))).collect();
    for verdict in verdicts {
        eprintln!("{verdict}: {}", results.iter().filter(|result| result.contains(verdict)).count());
    }
    portolan_testbed::record("websocket", "peer", "Autobahn testsuite 25.10", "its fuzzing server", count as u64);
    write_down(&results);
    assert!(faults.is_empty(), "{} of {count} cases: {faults:#?}", faults.len());
}

const HEAD: &str = "Every case of the Autobahn testsuite 25.10.1, its fuzzing server on one side and this client, which offers \
    permessage-deflate, on the other. *OK* is strict; *informational* cases judge nothing.\n\n\
    | group | about | cases | OK | informational |\n|---|---|---|---|---|\n";

/// The groups of the suite, and what they are about.
const GROUPS: &[(&str, &str)] = &[
    ("1", "framing"),
    ("2", "pings and pongs"),
    ("3", "reserved bits"),
    ("4", "opcodes"),
    ("5", "fragmentation"),
    ("6", "UTF-8"),
    ("7", "closing"),
    ("9", "limits and performance"),
    ("10", "auto-fragmentation"),
    ("12", "permessage-deflate, by size"),
    ("13", "permessage-deflate, by what is agreed on"),
];

/// Cases by group, for docs/INTEROP.md: each result begins with the case's name and its verdict.
fn write_down(results: &[String]) {
    let mut text = HEAD.to_owned();
    let mut all = 0;
    for (group, about) in GROUPS {
        let ours: Vec<_> = results.iter().filter(|result| result.starts_with(&format!("[\"{group}."))).collect();
        let of = |verdict: &str| ours.iter().filter(|result| result.contains(verdict)).count();
        let (ok, informational) = (of("\"OK\", \"OK\""), of("\"INFORMATIONAL\""));
        text += &format!("| {group} | {about} | {} | {ok} | {informational} |\n", ours.len());
        all += ours.len();
    }
    assert_eq!(all, results.len(), "a group without a name");
    portolan_testbed::section("WebSocket, Autobahn", &text);
}

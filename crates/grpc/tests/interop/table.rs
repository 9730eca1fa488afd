//! What was called where: docs/INTEROP.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

/// A server, what it was spoken with, and how the cases went.
#[derive(Clone)]
pub(crate) struct Column {
    pub(crate) server: String,
    pub(crate) protocol: &'static str,
    pub(crate) transport: &'static str,
    /// By case: the reason why it was left out, or none.
    pub(crate) cells: Vec<(&'static str, Option<&'static str>)>,
}

static ALL: Mutex<BTreeMap<String, Column>> = Mutex::new(BTreeMap::new());

/// Adds a column whose every case passed, or was left out for a reason.
pub(crate) fn add(column: Column) {
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    all.insert(format!("{} {} {}", column.server, column.protocol, column.transport), column);
    portolan_testbed::section("gRPC", &text(&all));
}

fn text(all: &BTreeMap<String, Column>) -> String {
    let mut out = String::from(
        "The cases of `doc/interop-test-descriptions.md` of the gRPC project (what needs a cloud is left out), and below them what \
         they don't ask for. `compression_probes` are requests that come otherwise than they say, which the server must refuse.\n\n\
         | # | server | protocol | transport |\n|---|---|---|---|\n",
    );
    for (at, column) in all.values().enumerate() {
        let _ = writeln!(out, "| {} | {} | {} | {} |", at + 1, column.server, column.protocol, column.transport);
    }
    let numbers: String = (1..=all.len()).map(|number| format!(" {number} |")).collect();
    let _ = writeln!(out, "\n| case |{numbers}\n|---|{}", "---|".repeat(all.len()));
    let mut notes: Vec<&str> = Vec::new();
    let names = all.values().next().into_iter().flat_map(|column| &column.cells).map(|(name, _)| *name);
    for (row, name) in names.enumerate() {
        let _ = write!(out, "| {name} |");
        for column in all.values() {
            let cell = match column.cells.get(row).and_then(|(_, why)| *why) {
                None => "yes".to_owned(),
                Some(why) => {
                    let at = notes.iter().position(|note| *note == why).unwrap_or_else(|| {
                        notes.push(why);
                        notes.len() - 1
                    });
                    format!("[{}]", at + 1)
                }
            };
            let _ = write!(out, " {cell} |");
        }
        out.push('\n');
    }
    out.push('\n');
    for (at, note) in notes.iter().enumerate() {
        let _ = writeln!(out, "{}. {note}", at + 1);
    }
    out
}

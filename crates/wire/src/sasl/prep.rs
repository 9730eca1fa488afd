//! Text before it is sent or hashed: what of SASLprep (RFC 4013) is done here, and the escapes of SCRAM names.

use portolan_core::{Error, Result};

/// Refuses text that holds one of `bad`: it would end a field early.
pub(super) fn refuse(what: &str, text: &str, bad: &[char]) -> Result<()> {
    match text.chars().find(|c| bad.contains(c)) {
        None => Ok(()),
        Some(c) => Err(Error::usage(format!("{what} holds the control character U+{:04X}", u32::from(c)))),
    }
}

/// Maps spaces and drops what maps to nothing (RFC 4013 2.1); refuses control characters (2.3).
pub(super) fn prepare(what: &str, text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // RFC 3454 C.1.2 becomes a space, B.1 nothing.
            '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200b}' | '\u{202f}' | '\u{205f}' | '\u{3000}' => out.push(' '),
            '\u{ad}'
            | '\u{34f}'
            | '\u{1806}'
            | '\u{180b}'..='\u{180d}'
            | '\u{200c}'
            | '\u{200d}'
            | '\u{2060}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}' => {}
            c if c.is_control() => {
                return Err(Error::usage(format!("{what} holds the control character U+{:04X}", u32::from(c))));
            }
            c => out.push(c),
        }
    }
    Ok(out)
}

/// A name as RFC 5802 5.1 writes it: `=` and `,` escaped.
pub(super) fn name(text: &str) -> String {
    text.replace('=', "=3D").replace(',', "=2C")
}

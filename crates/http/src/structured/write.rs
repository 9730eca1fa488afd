//! Writing, in the one form that each value has (RFC 9651 4.1).

use std::fmt::{self, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Bare, Dictionary, InnerList, Item, List, Member, Params};

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(value) => write!(f, "{value}"),
            Self::Decimal(thousandths) => {
                let (whole, rest) = (thousandths.unsigned_abs() / 1000, thousandths.unsigned_abs() % 1000);
                let fraction = format!("{rest:03}");
                let fraction = fraction.trim_end_matches('0');
                let sign = if *thousandths < 0 { "-" } else { "" };
                write!(f, "{sign}{whole}.{}", if fraction.is_empty() { "0" } else { fraction })
            }
            Self::String(text) => {
                f.write_char('"')?;
                for char in text.chars() {
                    if matches!(char, '"' | '\\') {
                        f.write_char('\\')?;
                    }
                    f.write_char(char)?;
                }
                f.write_char('"')
            }
            Self::Token(word) => f.write_str(word),
            Self::Bytes(bytes) => write!(f, ":{}:", STANDARD.encode(bytes)),
            Self::Boolean(yes) => f.write_str(if *yes { "?1" } else { "?0" }),
            Self::Date(seconds) => write!(f, "@{seconds}"),
            Self::Display(text) => {
                f.write_str("%\"")?;
                for byte in text.bytes() {
                    match byte {
                        b'%' | b'"' | ..0x20 | 0x7f.. => write!(f, "%{byte:02x}")?,
                        byte => f.write_char(char::from(byte))?,
                    }
                }
                f.write_char('"')
            }
        }
    }
}

impl fmt::Display for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.0 {
            write!(f, ";{name}")?;
            if *value != Bare::Boolean(true) {
                write!(f, "={value}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Item {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.value, self.params)
    }
}

impl fmt::Display for InnerList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('(')?;
        for (at, item) in self.items.iter().enumerate() {
            write!(f, "{}{item}", if at > 0 { " " } else { "" })?;
        }
        write!(f, "){}", self.params)
    }
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item(item) => item.fmt(f),
            Self::List(list) => list.fmt(f),
        }
    }
}

impl fmt::Display for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, member) in self.0.iter().enumerate() {
            write!(f, "{}{member}", if at > 0 { ", " } else { "" })?;
        }
        Ok(())
    }
}

impl fmt::Display for Dictionary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, member)) in self.0.iter().enumerate() {
            write!(f, "{}{name}", if at > 0 { ", " } else { "" })?;
            match member {
                Member::Item(item) if item.value == Bare::Boolean(true) => write!(f, "{}", item.params)?,
                member => write!(f, "={member}")?,
            }
        }
        Ok(())
    }
}

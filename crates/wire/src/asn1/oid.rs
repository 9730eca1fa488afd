//! Object identifiers.

use std::fmt;
use std::str::FromStr;

use portolan_core::{Error, Result};

use crate::error::DecodeError;

/// An OBJECT IDENTIFIER, kept as its content octets, which are checked: arcs of up to 128 bits (UUIDs under 2.25 are).
///
/// ```
/// use portolan_wire::asn1::Oid;
///
/// let oid: Oid = "2.999.3".parse()?;
/// assert_eq!(oid.content(), [0x88, 0x37, 0x03]);
/// assert_eq!(oid.arcs(), [2, 999, 3]);
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Oid(Box<[u8]>);

impl Oid {
    /// From the arcs. Fewer than two, a first past 2, or a second past 39 under 0 and 1 are usage errors.
    pub fn new(arcs: &[u128]) -> Result<Self> {
        let [first @ 0..=2, second, rest @ ..] = arcs else { return Err(Error::usage("not an object identifier")) };
        let joint = first.saturating_mul(40).checked_add(*second);
        let Some(joint) = joint.filter(|_| *first == 2 || *second < 40) else {
            return Err(Error::usage("not an object identifier"));
        };
        let mut content = Vec::new();
        for arc in std::iter::once(&joint).chain(rest) {
            push(*arc, &mut content);
        }
        Ok(Self(content.into()))
    }

    pub(super) fn from_content(content: &[u8], what: &'static str, at: usize) -> Result<Self, DecodeError> {
        let mut arc = 0_u128;
        let mut fresh = true;
        for &octet in content {
            // X.690 8.19.2: no padding; and what 128 bits cannot hold is no arc of anybody.
            if (fresh && octet == 0x80) || arc >> 121 != 0 {
                return Err(DecodeError::invalid(what, at));
            }
            arc = (arc << 7) | u128::from(octet & 0x7f);
            fresh = octet & 0x80 == 0;
            if fresh {
                arc = 0;
            }
        }
        if content.is_empty() || !fresh {
            return Err(DecodeError::invalid(what, at));
        }
        Ok(Self(content.into()))
    }

    /// The content octets.
    pub fn content(&self) -> &[u8] {
        &self.0
    }

    /// The arcs.
    pub fn arcs(&self) -> Vec<u128> {
        let mut arcs = Vec::new();
        let mut arc = 0_u128;
        for &octet in &self.0 {
            arc = (arc << 7) | u128::from(octet & 0x7f);
            if octet & 0x80 != 0 {
                continue;
            }
            if arcs.is_empty() {
                // The first two arcs share a number (X.690 8.19.4): 2 has all from 80 up.
                let first = (arc / 40).min(2);
                arcs.push(first);
                arc = arc.saturating_sub(first.saturating_mul(40));
            }
            arcs.push(arc);
            arc = 0;
        }
        arcs
    }

    /// Whether it lies at or under `root`.
    pub fn starts_with(&self, root: &Self) -> bool {
        self.arcs().starts_with(&root.arcs())
    }
}

impl PartialOrd for Oid {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Oid {
    /// By arcs, as an SNMP walk goes.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.arcs().cmp(&other.arcs())
    }
}

impl FromStr for Oid {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.strip_prefix('.').unwrap_or(text);
        let arc = |arc: &str| if arc.bytes().all(|digit| digit.is_ascii_digit()) { arc.parse().ok() } else { None };
        let arcs: Option<Vec<u128>> = text.split('.').map(arc).collect();
        Self::new(&arcs.ok_or_else(|| Error::usage("not an object identifier"))?)
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, arc) in self.arcs().iter().enumerate() {
            write!(f, "{}{arc}", if index == 0 { "" } else { "." })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Oid({self})")
    }
}

fn push(arc: u128, out: &mut Vec<u8>) {
    let groups = 128_u32.saturating_sub(arc.leading_zeros()).div_ceil(7).max(1);
    for group in (0..groups).rev() {
        let [low, ..] = (arc >> group.saturating_mul(7)).to_le_bytes();
        out.push((low & 0x7f) | if group == 0 { 0 } else { 0x80 });
    }
}

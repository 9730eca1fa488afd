//! The static tables: RFC 7541 appendix A and RFC 9204 appendix A, each with a perfect hash of its names.

use crate::field::Field;

/// A static table: fields by index, indices by name.
pub(crate) struct StaticTable<const N: usize> {
    pairs: &'static [(&'static str, &'static str); N],
    fields: &'static [Field; N],
    /// The slot of a name is the top byte of its hash times this; chosen so that no two names share one.
    seed: u64,
    /// The first index of the name in the slot, plus one; zero for none.
    slots: [u8; SLOTS],
    /// The next index with the same name, plus one.
    next: [u8; N],
}

const SLOTS: usize = 256;

impl<const N: usize> StaticTable<N> {
    /// How many entries it has.
    #[inline]
    pub(crate) const fn len(&self) -> usize {
        N
    }

    /// The field at `index`, counted from zero.
    #[inline]
    pub(crate) fn field(&self, index: usize) -> Option<&'static Field> {
        self.fields.get(index)
    }

    /// The first index that has this name.
    #[inline]
    pub(crate) fn name(&self, hash: u64, name: &[u8]) -> Option<usize> {
        let slot = usize::from(slot(hash, self.seed));
        let index = usize::from(*self.slots.get(slot)?).checked_sub(1)?;
        (self.pairs.get(index)?.0.as_bytes() == name).then_some(index)
    }

    /// The index that has this value too, among those with the name of `first`.
    #[inline]
    pub(crate) fn value(&self, first: usize, value: &[u8]) -> Option<usize> {
        let mut index = first;
        loop {
            if self.pairs.get(index)?.1.as_bytes() == value {
                return Some(index);
            }
            index = usize::from(*self.next.get(index)?).checked_sub(1)?;
        }
    }

    #[allow(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "runs in the compiler, where an index out of bounds is a build error"
    )]
    const fn new(pairs: &'static [(&'static str, &'static str); N], fields: &'static [Field; N]) -> Self {
        let mut next = [0; N];
        let mut first = [true; N];
        let mut hashes = [0; N];
        let mut at = 0;
        while at < N {
            hashes[at] = hash(pairs[at].0.as_bytes());
            let mut later = at + 1;
            while later < N {
                if same(pairs[at].0.as_bytes(), pairs[later].0.as_bytes()) {
                    next[at] = later as u8 + 1;
                    first[later] = false;
                    break;
                }
                later += 1;
            }
            at += 1;
        }
        let mut seed = 1;
        loop {
            if let Some(slots) = place(&hashes, &first, seed) {
                return Self { pairs, fields, seed, slots, next };
            }
            seed += 2;
        }
    }
}

#[allow(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "runs in the compiler, where an index out of bounds is a build error"
)]
const fn place<const N: usize>(hashes: &[u64; N], first: &[bool; N], seed: u64) -> Option<[u8; SLOTS]> {
    let mut slots = [0; SLOTS];
    let mut at = 0;
    while at < N {
        if first[at] {
            let slot = slot(hashes[at], seed) as usize;
            if slots[slot] != 0 {
                return None;
            }
            slots[slot] = at as u8 + 1;
        }
        at += 1;
    }
    Some(slots)
}

#[allow(clippy::indexing_slicing, reason = "runs in the compiler, where an index out of bounds is a build error")]
const fn same(left: &[u8], right: &[u8]) -> bool {
    let mut at = 0;
    while at < left.len() && at < right.len() && left[at] == right[at] {
        at += 1;
    }
    at == left.len() && at == right.len()
}

#[allow(clippy::cast_possible_truncation, reason = "the top byte is all that is left")]
const fn slot(hash: u64, seed: u64) -> u8 {
    (hash.wrapping_mul(seed) >> 56) as u8
}

/// A quick hash of a name or value. What it protects is bounded: a caller who makes his own headers collide gets chains as
/// long as the table, which holds a hundred entries.
#[inline]
pub(crate) const fn hash(mut bytes: &[u8]) -> u64 {
    let mut hash = bytes.len() as u64;
    while let Some((chunk, rest)) = bytes.split_first_chunk::<8>() {
        hash = mix(hash, u64::from_le_bytes(*chunk));
        bytes = rest;
    }
    if let Some((chunk, rest)) = bytes.split_first_chunk::<4>() {
        hash = mix(hash, u32::from_le_bytes(*chunk) as u64);
        bytes = rest;
    }
    let mut tail = 0;
    while let Some((byte, rest)) = bytes.split_first() {
        tail = tail << 8 | *byte as u64;
        bytes = rest;
    }
    mix(hash, tail)
}

#[inline]
pub(crate) const fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

macro_rules! table {
    ($static:ident, $count:literal, $($name:literal $value:literal,)*) => {
        pub(crate) static $static: StaticTable<$count> = {
            const PAIRS: [(&str, &str); $count] = [$(($name, $value)),*];
            static FIELDS: [Field; $count] = [$(Field::from_static($name, $value)),*];
            StaticTable::new(&PAIRS, &FIELDS)
        };
    };
}

#[rustfmt::skip]
table! { HPACK, 61,
    ":authority" "",
    ":method" "GET",
    ":method" "POST",
    ":path" "/",
    ":path" "/index.html",
    ":scheme" "http",
    ":scheme" "https",
    ":status" "200",
    ":status" "204",
    ":status" "206",
    ":status" "304",
    ":status" "400",
    ":status" "404",
    ":status" "500",
    "accept-charset" "",
    "accept-encoding" "gzip, deflate",
    "accept-language" "",
    "accept-ranges" "",
    "accept" "",
    "access-control-allow-origin" "",
    "age" "",
    "allow" "",
    "authorization" "",
    "cache-control" "",
    "content-disposition" "",
    "content-encoding" "",
    "content-language" "",
    "content-length" "",
    "content-location" "",
    "content-range" "",
    "content-type" "",
    "cookie" "",
    "date" "",
    "etag" "",
    "expect" "",
    "expires" "",
    "from" "",
    "host" "",
    "if-match" "",
    "if-modified-since" "",
    "if-none-match" "",
    "if-range" "",
    "if-unmodified-since" "",
    "last-modified" "",
    "link" "",
    "location" "",
    "max-forwards" "",
    "proxy-authenticate" "",
    "proxy-authorization" "",
    "range" "",
    "referer" "",
    "refresh" "",
    "retry-after" "",
    "server" "",
    "set-cookie" "",
    "strict-transport-security" "",
    "transfer-encoding" "",
    "user-agent" "",
    "vary" "",
    "via" "",
    "www-authenticate" "",
}

#[rustfmt::skip]
table! { QPACK, 99,
    ":authority" "",
    ":path" "/",
    "age" "0",
    "content-disposition" "",
    "content-length" "0",
    "cookie" "",
    "date" "",
    "etag" "",
    "if-modified-since" "",
    "if-none-match" "",
    "last-modified" "",
    "link" "",
    "location" "",
    "referer" "",
    "set-cookie" "",
    ":method" "CONNECT",
    ":method" "DELETE",
    ":method" "GET",
    ":method" "HEAD",
    ":method" "OPTIONS",
    ":method" "POST",
    ":method" "PUT",
    ":scheme" "http",
    ":scheme" "https",
    ":status" "103",
    ":status" "200",
    ":status" "304",
    ":status" "404",
    ":status" "503",
    "accept" "*/*",
    "accept" "application/dns-message",
    "accept-encoding" "gzip, deflate, br",
    "accept-ranges" "bytes",
    "access-control-allow-headers" "cache-control",
    "access-control-allow-headers" "content-type",
    "access-control-allow-origin" "*",
    "cache-control" "max-age=0",
    "cache-control" "max-age=2592000",
    "cache-control" "max-age=604800",
    "cache-control" "no-cache",
    "cache-control" "no-store",
    "cache-control" "public, max-age=31536000",
    "content-encoding" "br",
    "content-encoding" "gzip",
    "content-type" "application/dns-message",
    "content-type" "application/javascript",
    "content-type" "application/json",
    "content-type" "application/x-www-form-urlencoded",
    "content-type" "image/gif",
    "content-type" "image/jpeg",
    "content-type" "image/png",
    "content-type" "text/css",
    "content-type" "text/html; charset=utf-8",
    "content-type" "text/plain",
    "content-type" "text/plain;charset=utf-8",
    "range" "bytes=0-",
    "strict-transport-security" "max-age=31536000",
    "strict-transport-security" "max-age=31536000; includesubdomains",
    "strict-transport-security" "max-age=31536000; includesubdomains; preload",
    "vary" "accept-encoding",
    "vary" "origin",
    "x-content-type-options" "nosniff",
    "x-xss-protection" "1; mode=block",
    ":status" "100",
    ":status" "204",
    ":status" "206",
    ":status" "302",
    ":status" "400",
    ":status" "403",
    ":status" "421",
    ":status" "425",
    ":status" "500",
    "accept-language" "",
    "access-control-allow-credentials" "FALSE",
    "access-control-allow-credentials" "TRUE",
    "access-control-allow-headers" "*",
    "access-control-allow-methods" "get",
    "access-control-allow-methods" "get, post, options",
    "access-control-allow-methods" "options",
    "access-control-expose-headers" "content-length",
    "access-control-request-headers" "content-type",
    "access-control-request-method" "get",
    "access-control-request-method" "post",
    "alt-svc" "clear",
    "authorization" "",
    "content-security-policy" "script-src 'none'; object-src 'none'; base-uri 'none'",
    "early-data" "1",
    "expect-ct" "",
    "forwarded" "",
    "if-range" "",
    "origin" "",
    "purpose" "prefetch",
    "server" "",
    "timing-allow-origin" "*",
    "upgrade-insecure-requests" "1",
    "user-agent" "",
    "x-forwarded-for" "",
    "x-frame-options" "deny",
    "x-frame-options" "sameorigin",
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds_each<const N: usize>(table: &StaticTable<N>) {
        for (index, (name, value)) in table.pairs.iter().enumerate() {
            let first = table.name(hash(name.as_bytes()), name.as_bytes()).unwrap();
            assert!(first <= index);
            assert_eq!(table.value(first, value.as_bytes()), Some(index), "{name}: {value}");
            assert_eq!(table.value(first, b"no such value"), None);
        }
        assert_eq!(table.name(hash(b"x-nowhere"), b"x-nowhere"), None);
    }

    #[test]
    fn every_static_entry_is_found_by_name_and_value() {
        finds_each(&HPACK);
        finds_each(&QPACK);
    }
}

//! What both ends agree on about compression (RFC 7692 5 and 7.1).

use std::fmt::Write;

use portolan_core::{Error, Kind, Phase, Result};

use super::PROTOCOL;
use super::deflate::MIN_WINDOW;

/// The extension's name.
const NAME: &str = "permessage-deflate";
/// The most extensions and parameters read of a peer's header.
const MAX_ITEMS: usize = 32;

/// How messages may be compressed: what is offered to the peer, and how hard this end works.
///
/// Compression reveals the length of what it compresses: don't mix secrets with what an attacker chooses in one connection
/// (CRIME, BREACH). It costs up to 300 KiB of memory a connection, once it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Deflate {
    pub(crate) level: u32,
    pub(crate) threshold: usize,
    pub(crate) client_takeover: bool,
    pub(crate) server_takeover: bool,
    pub(crate) client_bits: u8,
    pub(crate) server_bits: u8,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 6,
            threshold: 128,
            client_takeover: true,
            server_takeover: true,
            client_bits: 15,
            server_bits: 15,
        }
    }
}

impl Deflate {
    /// Context takeover and full windows both ways.
    pub fn new() -> Self {
        Self::default()
    }

    /// How hard to compress, 1 to 9. Default 6.
    pub fn level(mut self, level: u32) -> Self {
        self.level = level.clamp(1, 9);
        self
    }

    /// Messages shorter than this many bytes are sent as they are. Default 128: shorter ones gain nothing worth the time.
    pub fn threshold(mut self, bytes: usize) -> Self {
        self.threshold = bytes;
        self
    }

    /// Whether the client's messages refer to earlier ones. Default true; false saves the server's memory, and compresses
    /// worse.
    pub fn client_context_takeover(mut self, on: bool) -> Self {
        self.client_takeover = on;
        self
    }

    /// Whether the server's messages refer to earlier ones. Default true.
    pub fn server_context_takeover(mut self, on: bool) -> Self {
        self.server_takeover = on;
        self
    }

    /// The client's window, as a power of two from 9 to 15. Default 15. Smaller windows take less memory.
    pub fn client_max_window_bits(mut self, bits: u8) -> Self {
        self.client_bits = bits.clamp(MIN_WINDOW, 15);
        self
    }

    /// The server's window, as a power of two from 9 to 15. Default 15.
    pub fn server_max_window_bits(mut self, bits: u8) -> Self {
        self.server_bits = bits.clamp(MIN_WINDOW, 15);
        self
    }

    /// The header value that offers it.
    pub(crate) fn offer(&self) -> String {
        let mut offer = format!("{NAME}; client_max_window_bits");
        if self.client_bits < 15 {
            let _ = write!(offer, "={}", self.client_bits);
        }
        if self.server_bits < 15 {
            let _ = write!(offer, "; server_max_window_bits={}", self.server_bits);
        }
        if !self.client_takeover {
            offer.push_str("; client_no_context_takeover");
        }
        if !self.server_takeover {
            offer.push_str("; server_no_context_takeover");
        }
        offer
    }

    /// What the server's answer makes of the offer. `offer` of `None`: nothing was offered, so nothing may be answered.
    pub(crate) fn verify(offer: Option<&Self>, answer: &[&str]) -> Result<Option<DeflateAgreed>> {
        let extensions = parse_all(answer)?;
        let mut extensions = extensions.into_iter();
        let Some(extension) = extensions.next() else { return Ok(None) };
        let Some(offer) = offer.filter(|_| extension.name == NAME) else {
            return Err(refused("an extension that was not offered"));
        };
        if extensions.next().is_some() {
            return Err(refused("more extensions than were offered"));
        }
        let params = Params::read(&extension).ok_or_else(|| refused("parameters that the extension does not have"))?;
        if !offer.server_takeover && !params.server_no_takeover {
            return Err(refused("no server_no_context_takeover, which was asked for"));
        }
        let server_bits = match params.server_bits {
            Some(Some(bits)) if bits <= offer.server_bits => bits,
            None if offer.server_bits == 15 => 15,
            _ => return Err(refused("a server_max_window_bits that was not asked for")),
        };
        let client_bits = match params.client_bits {
            None => offer.client_bits,
            Some(Some(bits)) => bits.min(offer.client_bits),
            Some(None) => return Err(refused("a client_max_window_bits without a value")),
        };
        Ok(Some(DeflateAgreed {
            client_takeover: offer.client_takeover && !params.client_no_takeover,
            server_takeover: !params.server_no_takeover,
            client_bits,
            server_bits,
        }))
    }

    /// A server's choice among a client's offers, and the header value that says it; `None` declines them all.
    pub(crate) fn choose(&self, offers: &[&str]) -> Result<Option<(DeflateAgreed, String)>> {
        for extension in parse_all(offers)?.iter().filter(|extension| extension.name == NAME) {
            let Some(params) = Params::read(extension) else { continue };
            let server_bits = params.server_bits.map_or(15, |bits| bits.unwrap_or(15)).min(self.server_bits);
            if server_bits < MIN_WINDOW {
                // The compressor has no such window: the offer is declined.
                continue;
            }
            let client_bits = params.client_bits.map_or(15, |bits| bits.unwrap_or(15).min(self.client_bits));
            let agreed = DeflateAgreed {
                client_takeover: self.client_takeover && !params.client_no_takeover,
                server_takeover: self.server_takeover && !params.server_no_takeover,
                client_bits,
                server_bits,
            };
            let mut answer = NAME.to_owned();
            if params.client_bits.is_some() && client_bits < 15 {
                let _ = write!(answer, "; client_max_window_bits={client_bits}");
            }
            if params.server_bits.is_some() || server_bits < 15 {
                let _ = write!(answer, "; server_max_window_bits={server_bits}");
            }
            if !agreed.client_takeover {
                answer.push_str("; client_no_context_takeover");
            }
            if !agreed.server_takeover {
                answer.push_str("; server_no_context_takeover");
            }
            return Ok(Some((agreed, answer)));
        }
        Ok(None)
    }
}

/// What both ends agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeflateAgreed {
    /// The client's messages may refer to earlier ones.
    pub client_takeover: bool,
    /// The server's messages may refer to earlier ones.
    pub server_takeover: bool,
    /// The client's window. At 8, which the compressor does not know, the client sends its messages as they are.
    pub client_bits: u8,
    /// The server's window.
    pub server_bits: u8,
}

fn refused(what: &str) -> Error {
    Error::new(Kind::Protocol, format!("the server answered {what}"))
        .with_protocol(PROTOCOL)
        .with_phase(Phase::Handshake)
}

/// One extension as a header names it.
#[derive(Debug, PartialEq, Eq)]
struct Extension {
    name: String,
    params: Vec<(String, Option<String>)>,
}

/// The parameters of permessage-deflate: `Some(None)` has no value.
#[derive(Debug, Default)]
struct Params {
    client_no_takeover: bool,
    server_no_takeover: bool,
    client_bits: Option<Option<u8>>,
    server_bits: Option<Option<u8>>,
}

impl Params {
    /// `None`: a parameter that is unknown, comes twice, or has a value that it can't have.
    fn read(extension: &Extension) -> Option<Self> {
        let mut params = Self::default();
        for (name, value) in &extension.params {
            // RFC 7692 7.1.2: one or two digits without a leading zero, 8 to 15.
            let bits = match value.as_deref() {
                None => None,
                Some(text) if text.starts_with('0') || text.starts_with('+') => return None,
                Some(text) => Some(text.parse().ok().filter(|bits| (8..=15).contains(bits))?),
            };
            let known = match name.as_str() {
                "client_no_context_takeover" => {
                    !std::mem::replace(&mut params.client_no_takeover, true) && bits.is_none()
                }
                "server_no_context_takeover" => {
                    !std::mem::replace(&mut params.server_no_takeover, true) && bits.is_none()
                }
                "client_max_window_bits" => params.client_bits.replace(bits).is_none(),
                "server_max_window_bits" => bits.is_some() && params.server_bits.replace(bits).is_none(),
                _ => false,
            };
            if !known {
                return None;
            }
        }
        Some(params)
    }
}

fn parse_all(headers: &[&str]) -> Result<Vec<Extension>> {
    let mut all = Vec::new();
    for header in headers {
        for part in split_quoted(header, ',') {
            let extension = parse(part).ok_or_else(|| refused("a broken extension header"))?;
            if all.len() >= MAX_ITEMS || extension.params.len() > MAX_ITEMS {
                return Err(refused("too many extensions"));
            }
            all.extend((!extension.name.is_empty()).then_some(extension));
        }
    }
    Ok(all)
}

fn parse(text: &str) -> Option<Extension> {
    let mut parts = split_quoted(text, ';');
    let name = parts.next()?.trim().to_ascii_lowercase();
    if name.is_empty() {
        // RFC 9110 5.6.1: empty elements of a list are ignored.
        return text.trim().is_empty().then(|| Extension { name, params: Vec::new() });
    }
    let mut params = Vec::new();
    for part in parts {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let key = key.trim().to_ascii_lowercase();
        let value = match value.map(str::trim) {
            Some(value) if value.starts_with('"') => Some(unquote(value)?),
            Some(value) => Some(value.to_owned()).filter(|value| is_token(value)).map(Some)?,
            None => None,
        };
        if !is_token(&key) {
            return None;
        }
        params.push((key, value));
    }
    is_token(&name).then_some(Extension { name, params })
}

/// RFC 6455 9.1: what is in the quotes must be a token once they are off.
fn unquote(value: &str) -> Option<String> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    let mut out = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next()? } else { c });
    }
    is_token(&out).then_some(out)
}

/// A token of RFC 9110 5.6.2.
pub(crate) fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn split_quoted(text: &str, at: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        let here = c == at && !quoted;
        (quoted, escaped) = match (quoted, c) {
            (true, _) if escaped => (true, false),
            (true, '\\') => (true, true),
            (_, '"') => (!quoted, false),
            _ => (quoted, false),
        };
        here
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verify(offer: &Deflate, answer: &str) -> Option<DeflateAgreed> {
        Deflate::verify(Some(offer), &[answer]).ok().flatten()
    }

    #[test]
    fn the_offer_says_what_was_set() {
        assert_eq!(Deflate::new().offer(), "permessage-deflate; client_max_window_bits");
        let all = Deflate::new()
            .client_max_window_bits(10)
            .server_max_window_bits(11)
            .client_context_takeover(false)
            .server_context_takeover(false);
        assert_eq!(
            all.offer(),
            "permessage-deflate; client_max_window_bits=10; server_max_window_bits=11; client_no_context_takeover; \
             server_no_context_takeover"
        );
    }

    #[test]
    fn answers_within_the_offer_are_taken() {
        let offer = Deflate::new();
        let full = DeflateAgreed { client_takeover: true, server_takeover: true, client_bits: 15, server_bits: 15 };
        assert_eq!(verify(&offer, "permessage-deflate"), Some(full));
        assert_eq!(verify(&offer, " , Permessage-Deflate"), Some(full));
        assert_eq!(
            verify(&offer, "permessage-deflate; client_max_window_bits=\"9\" ;server_max_window_bits=8"),
            Some(DeflateAgreed { client_bits: 9, server_bits: 8, ..full })
        );
        assert_eq!(
            verify(&offer, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            Some(DeflateAgreed { client_takeover: false, server_takeover: false, ..full })
        );
        assert_eq!(Deflate::verify(Some(&offer), &[]).unwrap(), None);
        assert_eq!(Deflate::verify(None, &[""]).unwrap(), None);
    }

    #[test]
    fn answers_beyond_the_offer_are_refused() {
        let offer = Deflate::new().server_max_window_bits(12).server_context_takeover(false);
        let base = "permessage-deflate; server_no_context_takeover; server_max_window_bits=12";
        assert!(verify(&offer, base).is_some());
        for bad in [
            "permessage-deflate; server_max_window_bits=12",
            "permessage-deflate; server_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits=13",
            "permessage-deflate; server_no_context_takeover; server_max_window_bits",
            &format!("{base}; client_max_window_bits"),
            &format!("{base}; client_max_window_bits=7"),
            &format!("{base}; client_max_window_bits=16"),
            &format!("{base}; client_max_window_bits=09"),
            &format!("{base}; client_max_window_bits=\"9"),
            &format!("{base}; server_max_window_bits=12"),
            &format!("{base}; server_no_context_takeover"),
            &format!("{base}; client_no_context_takeover=1"),
            &format!("{base}; unknown"),
            &format!("{base}, permessage-deflate"),
            &format!("{base}, x-webkit-deflate-frame"),
            "x-webkit-deflate-frame",
            "permessage-deflate;;",
        ] {
            assert!(Deflate::verify(Some(&offer), &[bad]).is_err(), "{bad}");
        }
        assert!(Deflate::verify(None, &["permessage-deflate"]).is_err());
    }

    #[test]
    fn a_server_takes_the_first_offer_that_it_can_keep() {
        let choose = |offers: &str| Deflate::new().choose(&[offers]).unwrap().map(|(_, answer)| answer);
        assert_eq!(choose("permessage-deflate; client_max_window_bits").as_deref(), Some("permessage-deflate"));
        assert_eq!(
            choose("permessage-deflate; server_max_window_bits=8, permessage-deflate; server_max_window_bits=10"),
            Some("permessage-deflate; server_max_window_bits=10".to_owned())
        );
        assert_eq!(choose("permessage-deflate; what, other"), None);
        let narrow = Deflate::new().client_max_window_bits(9).choose(&["permessage-deflate"]).unwrap().unwrap();
        assert_eq!((narrow.0.client_bits, narrow.1.as_str()), (15, "permessage-deflate"));
    }
}

//! The field.

use std::time::Duration;

use portolan_core::percent_decode;

use crate::field::Cursor;

/// More than any honest origin names; the rest are not looked at.
const MAX_SERVICES: usize = 16;
/// More than any service has.
const MAX_PARAMS: usize = 16;
/// What `ma` is where it is not said (RFC 7838 3.1).
const MAX_AGE: Duration = Duration::from_secs(86_400);

/// What a field says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum AltSvc {
    /// All alternatives of the origin are to be forgotten.
    Clear,
    /// These replace what was known, the best first. May be empty, where nothing was understood: then it says nothing.
    Services(Vec<AltService>),
}

/// One alternative.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AltService {
    /// The ALPN name: `h3`, `h2`.
    pub protocol: String,
    /// The host; `None` is the origin's own.
    pub host: Option<String>,
    /// The port.
    pub port: u16,
    /// For how long it is good, from when it was said.
    pub max_age: Duration,
    /// Whether it outlives a change of the network.
    pub persist: bool,
}

impl AltSvc {
    /// Reads the text of a field or a frame. A service that is not understood is left out; what follows broken text is
    /// too.
    pub fn parse(text: &str) -> Self {
        let mut cursor = Cursor::new(text);
        let mut services = Vec::new();
        cursor.skip_commas();
        while services.len() < MAX_SERVICES
            && let Some(name) = cursor.token()
        {
            let Some(authority) = cursor.value(&[',', ';']) else {
                // `clear` is alone, and in lower case (RFC 7838 3).
                if name == "clear" && cursor.rest.trim_matches([' ', '\t', ',']).is_empty() && services.is_empty() {
                    return Self::Clear;
                }
                break;
            };
            let service = service(name, &authority);
            let Some(params) = params(&mut cursor) else { break };
            services.extend(service.map(|service| AltService { max_age: params.0, persist: params.1, ..service }));
            cursor.skip_commas();
        }
        Self::Services(services)
    }
}

fn service(name: &str, authority: &str) -> Option<AltService> {
    let (host, port) = authority.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    // Bare IPv6 would have eaten its port; and nothing that is no host may reach a resolver or a file.
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')),
    };
    sound.then_some(())?;
    Some(AltService {
        protocol: percent_decode(name).ok().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()))?,
        host: (!host.is_empty()).then(|| host.to_ascii_lowercase()),
        port,
        max_age: MAX_AGE,
        persist: false,
    })
}

/// The parameters up to the comma or the end; `None` where the text is broken.
fn params(cursor: &mut Cursor<'_>) -> Option<(Duration, bool)> {
    let (mut max_age, mut persist) = (MAX_AGE, false);
    for _ in 0..MAX_PARAMS {
        cursor.skip_blanks();
        if !cursor.eat(';') {
            return (cursor.rest.is_empty() || cursor.rest.starts_with(',')).then_some((max_age, persist));
        }
        cursor.skip_blanks();
        let Some(name) = cursor.token() else { continue };
        let value = cursor.value(&[',', ';'])?;
        if name.eq_ignore_ascii_case("ma") {
            // A number too big for us is for ever; what is no number is no service.
            value.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
            max_age = Duration::from_secs(value.parse().unwrap_or(u64::from(u32::MAX)));
        } else if name.eq_ignore_ascii_case("persist") {
            persist = value == "1";
        }
    }
    None
}

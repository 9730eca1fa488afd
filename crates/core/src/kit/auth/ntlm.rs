//! NTLM version 2 (MS-NLMP 3.3.2), as HTTP proxies ask for it (MS-NTHT).
//!
//! Two tokens: what we can do, and the answer to the server's eight bytes. Version 1 and LM are never spoken.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use hmac::{Hmac, KeyInit, Mac};
use md4::Digest as _;
use zeroize::Zeroizing;

use super::login::refused;
use super::proxy::{ProxyAuth, TokenExchange, TokenSource};
use crate::clock;
use crate::dial::BoxFuture;
use crate::endpoint::Endpoint;
use crate::error::{Error, Kind, Phase, Result};
use crate::secret::Credentials;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// MS-NLMP 2.2.2.5: UNICODE, REQUEST_TARGET, NTLM, ALWAYS_SIGN, EXTENDED_SESSIONSECURITY, 128, 56.
const FLAGS: u32 = 0x0000_0001 | 0x0000_0004 | 0x0000_0200 | 0x0000_8000 | 0x0008_0000 | 0x2000_0000 | 0x8000_0000;

/// MS-NLMP 2.2.2.5: the challenge has attributes.
const TARGET_INFO: u32 = 0x0080_0000;

/// MS-NLMP 2.2.1.3: where the payload of our last message begins, without the MIC.
const HEADER: usize = 64;

/// MS-NLMP 2.2.2.1: attributes of the server.
const AV_EOL: u16 = 0;
const AV_TIMESTAMP: u16 = 7;

/// Names longer than this are nobody's, and would not fit the lengths of the message many times over.
const MAX_NAME: usize = 1024;

/// From the epoch of Windows, 1601, to that of Unix.
const EPOCHS: Duration = Duration::from_secs(11_644_473_600);

impl ProxyAuth {
    /// NTLM version 2 alone (feature `ntlm`): `DOMAIN\user`, `user@domain` or `user`. Old and weak (who sees it can guess the password at
    /// leisure), but all that some proxies of Windows networks take.
    pub fn ntlm(credentials: Credentials) -> Self {
        Self::tokens(Ntlm::new(credentials))
    }
}

pub(super) fn tokens(who: &Credentials) -> Option<Arc<dyn TokenSource>> {
    Some(Arc::new(Ntlm::new(who.clone())))
}

/// NTLM version 2, as a source of tokens.
#[derive(Debug, Clone)]
pub struct Ntlm {
    who: Credentials,
}

impl Ntlm {
    /// For `DOMAIN\user` or `user`.
    pub fn new(who: Credentials) -> Self {
        Self { who }
    }
}

impl TokenSource for Ntlm {
    fn scheme(&self) -> &'static str {
        "NTLM"
    }

    fn begin(&self, _: &Endpoint) -> Result<Box<dyn TokenExchange>> {
        if self.who.user.len() > MAX_NAME {
            return Err(Error::usage("a user name of more than 1024 bytes"));
        }
        Ok(Box::new(Exchange(self.who.clone())))
    }
}

struct Exchange(Credentials);

impl TokenExchange for Exchange {
    fn next<'a>(&'a mut self, received: Option<&'a [u8]>) -> BoxFuture<'a, Result<Vec<u8>>> {
        let token = match received {
            None => Ok(negotiate()),
            Some(message) => answer(&self.0, message),
        };
        Box::pin(async move { token })
    }
}

/// MS-NLMP 2.2.1.1.
fn negotiate() -> Vec<u8> {
    let mut message = SIGNATURE.to_vec();
    message.extend_from_slice(&1u32.to_le_bytes());
    message.extend_from_slice(&FLAGS.to_le_bytes());
    // Neither domain nor workstation: empty fields at the end.
    for _ in 0..2 {
        message.extend_from_slice(&[0, 0, 0, 0, 32, 0, 0, 0]);
    }
    message
}

/// What the server asks (MS-NLMP 2.2.1.2).
#[derive(Debug)]
struct Asked<'a> {
    flags: u32,
    challenge: [u8; 8],
    info: &'a [u8],
}

impl<'a> Asked<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let u16_at = |at: usize| Some(u16::from_le_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let u32_at = |at: usize| Some(u32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?));
        if message.get(..8)? != SIGNATURE || u32_at(8)? != 2 {
            return None;
        }
        let challenge = message.get(24..32)?.try_into().ok()?;
        let flags = u32_at(20)?;
        let info = if flags & TARGET_INFO == 0 {
            // Servers of old have none, and other things at its place: an empty list does.
            &[]
        } else {
            let (length, offset) = (usize::from(u16_at(40)?), usize::try_from(u32_at(44)?).ok()?);
            message.get(offset..offset.checked_add(length)?)?
        };
        Some(Self { flags, challenge, info })
    }

    /// The server's own time, if it says it.
    fn timestamp(&self) -> Option<[u8; 8]> {
        let mut rest = self.info;
        loop {
            let (head, tail) = rest.split_first_chunk::<4>()?;
            let (id, length) = (u16::from_le_bytes([head[0], head[1]]), u16::from_le_bytes([head[2], head[3]]));
            let (value, tail) = tail.split_at_checked(usize::from(length))?;
            match id {
                AV_EOL => return None,
                AV_TIMESTAMP => return value.try_into().ok(),
                _ => rest = tail,
            }
        }
    }
}

fn answer(who: &Credentials, message: &[u8]) -> Result<Vec<u8>> {
    let asked = Asked::parse(message).ok_or_else(|| refused("the proxy's NTLM message is none"))?;
    let (domain, user) = who.user.split_once('\\').unwrap_or(("", &who.user));
    let mut nonce = [0; 8];
    getrandom::fill(&mut nonce).map_err(|error| {
        Error::new(Kind::Unsupported, "no random bytes for a nonce").with_phase(Phase::Setup).with_source(error)
    })?;
    let time = asked.timestamp().unwrap_or_else(now);
    let key = key(user, domain, who.password.expose());
    let nt = nt_response(&key, &asked, nonce, time);
    // MS-NLMP 3.1.5.1.2: a server that tells its time gets no LM answer.
    let lm = if asked.timestamp().is_some() { vec![0; 24] } else { lm_response(&key, &asked.challenge, nonce) };
    let wide = asked.flags & 1 != 0;
    let text = |text: &str| if wide { utf16(text).to_vec() } else { text.as_bytes().to_vec() };
    let fields = [lm, nt, text(domain), text(user), Vec::new(), Vec::new()];
    let mut head = SIGNATURE.to_vec();
    head.extend_from_slice(&3u32.to_le_bytes());
    let mut payload = Vec::new();
    for field in fields {
        let length = u16::try_from(field.len()).map_err(|_| refused("an NTLM field of more than 65535 bytes"))?;
        let offset = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(&offset.to_le_bytes());
        payload.extend_from_slice(&field);
    }
    head.extend_from_slice(&(asked.flags & FLAGS).to_le_bytes());
    head.extend_from_slice(&payload);
    Ok(head)
}

/// 100 nanoseconds since 1601.
fn now() -> [u8; 8] {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default() + EPOCHS;
    u64::try_from(since.as_nanos() / 100).unwrap_or(u64::MAX).to_le_bytes()
}

fn utf16(text: &str) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.encode_utf16().flat_map(u16::to_le_bytes).collect())
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 16] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<md5::Md5>::new_from_slice(key) else { return [0; 16] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

/// NTOWFv2 (MS-NLMP 3.3.2).
fn key(user: &str, domain: &str, password: &str) -> Zeroizing<[u8; 16]> {
    let hash: Zeroizing<[u8; 16]> = Zeroizing::new(md4::Md4::digest(&*utf16(password)).into());
    Zeroizing::new(hmac(&*hash, &[&utf16(&user.to_uppercase()), &utf16(domain)]))
}

fn nt_response(key: &[u8; 16], asked: &Asked<'_>, nonce: [u8; 8], time: [u8; 8]) -> Vec<u8> {
    let mut temp = vec![1, 1, 0, 0, 0, 0, 0, 0];
    temp.extend_from_slice(&time);
    temp.extend_from_slice(&nonce);
    temp.extend_from_slice(&[0; 4]);
    temp.extend_from_slice(asked.info);
    temp.extend_from_slice(&[0; 4]);
    let mut response = hmac(key, &[&asked.challenge, &temp]).to_vec();
    response.extend_from_slice(&temp);
    response
}

fn lm_response(key: &[u8; 16], challenge: &[u8; 8], nonce: [u8; 8]) -> Vec<u8> {
    let mut response = hmac(key, &[challenge, &nonce]).to_vec();
    response.extend_from_slice(&nonce);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        text.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect()
    }

    /// The CHALLENGE_MESSAGE of MS-NLMP 4.2.4.3.
    fn challenge() -> Vec<u8> {
        hex("4e 54 4c 4d 53 53 50 00 02 00 00 00 0c 00 0c 00 38 00 00 00 33 82 8a e2 01 23 45 67 89 ab cd ef \
             00 00 00 00 00 00 00 00 24 00 24 00 44 00 00 00 06 00 70 17 00 00 00 0f 53 00 65 00 72 00 76 00 \
             65 00 72 00 02 00 0c 00 44 00 6f 00 6d 00 61 00 69 00 6e 00 01 00 0c 00 53 00 65 00 72 00 76 00 \
             65 00 72 00 00 00 00 00")
    }

    #[test]
    fn the_vectors_of_ms_nlmp_4_2_4_come_out_as_printed() {
        let key = key("User", "Domain", "Password");
        assert_eq!(key.to_vec(), hex("0c 86 8a 40 3b fd 7a 93 a3 00 1e f2 2e f0 2e 3f"));
        let message = challenge();
        let asked = Asked::parse(&message).unwrap();
        assert_eq!((asked.challenge.to_vec(), asked.info.len()), (hex("01 23 45 67 89 ab cd ef"), 36));
        assert_eq!(asked.timestamp(), None);
        let nonce = [0xaa; 8];
        assert_eq!(
            lm_response(&key, &asked.challenge, nonce),
            hex("86 c3 50 97 ac 9c ec 10 25 54 76 4a 57 cc cc 19 aa aa aa aa aa aa aa aa")
        );
        let response = nt_response(&key, &asked, nonce, [0; 8]);
        assert_eq!(response[..16], hex("68 cd 0a b8 51 e5 1c 96 aa bc 92 7b eb ef 6a 1c"));
        // The session base key proves that the whole of it was hashed as printed.
        assert_eq!(hmac(&*key, &[&response[..16]]).to_vec(), hex("8d e4 0c ca db c1 4a 82 f1 5c b0 ad 0d e9 5c a3"));
    }

    #[test]
    fn an_answer_holds_each_field_where_it_says() {
        let message = answer(&Credentials::new("Domain\\User", "Password"), &challenge()).unwrap();
        let field = |at: usize| {
            let length = usize::from(u16::from_le_bytes([message[at], message[at + 1]]));
            let offset = u32::from_le_bytes(message[at + 4..at + 8].try_into().unwrap()) as usize;
            message[offset..offset + length].to_vec()
        };
        assert_eq!(message[..12], [&SIGNATURE[..], &[3, 0, 0, 0]].concat());
        assert_eq!((field(12).len(), field(20).len()), (24, 16 + 28 + 36 + 4));
        assert_eq!((field(28), field(36)), (utf16("Domain").to_vec(), utf16("User").to_vec()));
        assert!(!format!("{:?}", Ntlm::new(Credentials::new("u", "sesame"))).contains("sesame"));
    }

    #[test]
    fn no_message_of_a_proxy_makes_it_panic() {
        let whole = challenge();
        let who = Credentials::new("u", "p");
        for end in 0..whole.len() {
            let _ = answer(&who, &whole[..end]);
        }
        for at in 0..whole.len() {
            let mut broken = whole.clone();
            broken[at] = 0xff;
            let _ = answer(&who, &broken);
        }
        let mut timed = whole[..32].to_vec();
        timed.extend_from_slice(&hex("00 00 00 00 00 00 00 00 10 00 10 00 30 00 00 00"));
        timed.extend_from_slice(&hex("07 00 08 00 01 02 03 04 05 06 07 08 00 00 00 00"));
        let message = answer(&who, &timed).unwrap();
        assert_eq!(message[64..88], [0; 24], "no LM answer to a server that tells its time");
        assert_eq!(message[88 + 16 + 8..88 + 16 + 16], [1, 2, 3, 4, 5, 6, 7, 8], "which is its time");
    }
}

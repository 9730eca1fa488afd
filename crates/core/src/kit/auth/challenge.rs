//! Challenges (RFC 9110 11.6.1): several in a field, several fields, and commas that mean two things.

use super::field::Cursor;

/// More than any honest server offers; the rest are not looked at.
const MAX_CHALLENGES: usize = 16;
/// More than any scheme has; a challenge with more is cut.
const MAX_PARAMS: usize = 32;

/// One way to authenticate that a server or a proxy offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    scheme: String,
    token: Option<String>,
    params: Vec<(String, String)>,
}

impl Challenge {
    /// The scheme as it was written.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether it is this scheme, in any case.
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }

    /// The data of schemes that have a single one (Negotiate, NTLM).
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The first parameter of this name, in any case, without its quotes.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The realm, if it has one.
    pub fn realm(&self) -> Option<&str> {
        self.param("realm")
    }
}

/// The challenges in all fields (values of `WWW-Authenticate` or `Proxy-Authenticate`), in their order. What follows a mistake in
/// a field is left out.
pub fn challenges<'a>(fields: impl IntoIterator<Item = &'a str>) -> Vec<Challenge> {
    let mut found = Vec::new();
    for field in fields {
        parse(field, &mut found);
    }
    found
}

/// The parameters of `Authentication-Info`: a list without a scheme.
pub(super) fn params(field: &str) -> Vec<(String, String)> {
    let mut cursor = Cursor::new(field);
    let mut found = Vec::new();
    while found.len() < MAX_PARAMS {
        cursor.skip_commas();
        let Some(param) = cursor.token().and_then(|name| Some((name.to_owned(), cursor.value(&[','])?))) else { break };
        found.push(param);
    }
    found
}

fn parse(text: &str, found: &mut Vec<Challenge>) {
    let mut cursor = Cursor::new(text);
    // Parameters belong to the challenge before them in this field, never to one of another field.
    let mut current: Option<Challenge> = None;
    loop {
        cursor.skip_commas();
        let Some(word) = cursor.token() else { break };
        let before = cursor.rest.len();
        if let Some(value) = cursor.value(&[',']) {
            // A parameter before any scheme is nobody's.
            let Some(challenge) = &mut current else { break };
            if challenge.params.len() < MAX_PARAMS {
                challenge.params.push((word.to_owned(), value));
            }
            continue;
        }
        if cursor.rest.len() != before {
            // An equals sign without a value: nothing after it can be trusted.
            break;
        }
        found.extend(current.take());
        if found.len() >= MAX_CHALLENGES {
            return;
        }
        current = Some(Challenge { scheme: word.to_owned(), token: token68(&mut cursor), params: Vec::new() });
    }
    found.extend(current.filter(|_| found.len() < MAX_CHALLENGES));
}

/// What follows a scheme if it is the whole of what follows: up to a comma or the end.
fn token68(cursor: &mut Cursor<'_>) -> Option<String> {
    let text = cursor.rest.strip_prefix([' ', '\t'])?.trim_start_matches([' ', '\t']);
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(byte);
    let body = text.bytes().take_while(is_part).count();
    let padding = text.bytes().skip(body).take_while(|byte| *byte == b'=').count();
    let (token, rest) = text.split_at_checked(body + padding)?;
    let rest = rest.trim_start_matches([' ', '\t']);
    if body == 0 || !(rest.is_empty() || rest.starts_with(',')) {
        return None;
    }
    cursor.rest = rest;
    Some(token.to_owned())
}

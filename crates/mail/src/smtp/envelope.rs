//! Who a message is from and for, apart from what it says in its header.

use portolan_core::{Error, Result};

/// The bytes of one path (RFC 5321 4.5.3.1.3 says 256 with its brackets).
const MAX_ADDRESS: usize = 254;

/// What a sender wants to be told about a recipient (RFC 3461 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[must_use]
pub struct Notify {
    success: bool,
    failure: bool,
    delay: bool,
}

impl Notify {
    /// Nothing, ever.
    pub fn never() -> Self {
        Self::default()
    }

    /// When it was delivered.
    pub fn success(mut self) -> Self {
        self.success = true;
        self
    }

    /// When it could not be delivered.
    pub fn failure(mut self) -> Self {
        self.failure = true;
        self
    }

    /// When it is late.
    pub fn delay(mut self) -> Self {
        self.delay = true;
        self
    }

    pub(crate) fn keyword(self) -> String {
        let wanted = [(self.success, "SUCCESS"), (self.failure, "FAILURE"), (self.delay, "DELAY")];
        let wanted: Vec<_> = wanted.into_iter().filter_map(|(on, word)| on.then_some(word)).collect();
        if wanted.is_empty() { "NEVER".to_owned() } else { wanted.join(",") }
    }
}

/// How much of the message a report returns (RFC 3461 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Return {
    /// All of it.
    Full,
    /// Its header.
    Headers,
}

/// Sender, recipients and what is asked about their delivery. Addresses are checked when they are given: none can hold what
/// would end a command.
///
/// ```
/// use portolan_mail::smtp::Envelope;
///
/// let envelope = Envelope::new("joe@example.org")?.to("ann@example.com")?;
/// assert_eq!(envelope.recipients().len(), 1);
/// assert!(Envelope::new("joe@example.org>\r\nRCPT TO:<evil@example.org").is_err());
/// # Ok::<(), portolan_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Envelope {
    from: String,
    to: Vec<String>,
    notify: Option<Notify>,
    ret: Option<Return>,
    id: Option<String>,
    eight_bit: bool,
    utf8: bool,
    size: Option<u64>,
}

impl Envelope {
    /// From this address; the empty one is that of reports, which must not bounce.
    pub fn new(from: &str) -> Result<Self> {
        if !from.is_empty() {
            check_address(from)?;
        }
        let envelope = Self {
            from: from.to_owned(),
            to: Vec::new(),
            notify: None,
            ret: None,
            id: None,
            eight_bit: false,
            utf8: false,
            size: None,
        };
        Ok(envelope)
    }

    /// And for this one.
    pub fn to(mut self, address: &str) -> Result<Self> {
        check_address(address)?;
        self.to.push(address.to_owned());
        Ok(self)
    }

    /// What to be told about the delivery to each recipient. Needs DSN.
    pub fn notify(mut self, notify: Notify) -> Self {
        self.notify = Some(notify);
        self
    }

    /// How much of the message a report returns. Needs DSN.
    pub fn ret(mut self, ret: Return) -> Self {
        self.ret = Some(ret);
        self
    }

    /// A name for the envelope, which reports repeat. Needs DSN.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The body holds bytes above 127: known by itself for bodies in memory. Needs 8BITMIME.
    pub fn eight_bit(mut self, on: bool) -> Self {
        self.eight_bit = on;
        self
    }

    /// The header holds UTF-8. Needs SMTPUTF8; addresses beyond ASCII turn it on by themselves.
    pub fn utf8(mut self, on: bool) -> Self {
        self.utf8 = on;
        self
    }

    /// The size of the message, so that the server can refuse it early: known by itself for bodies in memory.
    pub fn size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// The sender.
    pub fn from_address(&self) -> &str {
        &self.from
    }

    /// The recipients.
    pub fn recipients(&self) -> &[String] {
        &self.to
    }

    pub(crate) fn needs_utf8(&self) -> bool {
        self.utf8 || !self.from.is_ascii() || self.to.iter().any(|to| !to.is_ascii())
    }

    pub(crate) fn is_eight_bit(&self) -> bool {
        self.eight_bit
    }

    pub(crate) fn declared_size(&self) -> Option<u64> {
        self.size
    }

    pub(crate) fn needs_dsn(&self) -> bool {
        self.notify.is_some() || self.ret.is_some() || self.id.is_some()
    }

    /// `MAIL FROM` with the parameters that the server knows.
    pub(crate) fn mail_command(&self, body: Option<&str>, size: Option<u64>) -> String {
        let mut command = format!("MAIL FROM:<{}>", self.from);
        if let Some(size) = size {
            command.push_str(&format!(" SIZE={size}"));
        }
        if let Some(body) = body {
            command.push_str(&format!(" BODY={body}"));
        }
        if self.needs_utf8() {
            command.push_str(" SMTPUTF8");
        }
        match self.ret {
            Some(Return::Full) => command.push_str(" RET=FULL"),
            Some(Return::Headers) => command.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(id) = &self.id {
            command.push_str(&format!(" ENVID={}", xtext(id)));
        }
        command
    }

    pub(crate) fn rcpt_command(&self, to: &str) -> String {
        match self.notify {
            Some(notify) => format!("RCPT TO:<{to}> NOTIFY={}", notify.keyword()),
            None => format!("RCPT TO:<{to}>"),
        }
    }
}

/// RFC 3461 4: what is not printable, and `+` and `=`, in hexadecimal.
fn xtext(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'!'..=b'~' if byte != b'+' && byte != b'=' => out.push(char::from(byte)),
            _ => out.push_str(&format!("+{byte:02X}")),
        }
        out
    })
}

/// Refuses what could end a path early. Whether the address exists is the server's to say.
fn check_address(address: &str) -> Result<()> {
    let broken = |why: &str| Err(Error::usage(format!("mail address {address:?} {why}")));
    if address.len() > MAX_ADDRESS {
        return broken("is too long");
    }
    if address.chars().any(char::is_control) {
        return broken("holds a control character");
    }
    let Some((local, domain)) = address.rsplit_once('@') else {
        // RFC 5321 4.5.1: postmaster alone is an address.
        return if address.eq_ignore_ascii_case("postmaster") { Ok(()) } else { broken("has no @") };
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    if local.is_empty() || domain.is_empty() {
        return broken("lacks a half");
    }
    if !quoted && local.chars().any(|c| matches!(c, '<' | '>' | '"' | '(' | ')' | ',' | ';' | ':' | '\\' | '@' | ' ')) {
        return broken("needs quotes round its local part");
    }
    if quoted && !quotes_closed(&local[1..local.len() - 1]) {
        return broken("has a quote inside its quotes");
    }
    let literal = domain.starts_with('[') && domain.ends_with(']');
    let inner = if literal { &domain[1..domain.len() - 1] } else { domain };
    if inner.chars().any(|c| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_') || (literal && c == ':'))) {
        return broken("has a character in its domain that no domain holds");
    }
    Ok(())
}

/// Whether every quote and backslash inside a quoted string is escaped (RFC 5321 4.1.2).
fn quotes_closed(inner: &str) -> bool {
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_address_can_change_the_number_of_commands() {
        for bad in [
            "",
            "x",
            "@y",
            "x@",
            "a@b\r\nDATA",
            "a@b\n",
            "a\0@b",
            "a>b@c",
            "<a@b>",
            "a@b> SIZE=1",
            "a b@c",
            "a@b c",
            "\"a\"b\"@c",
            "\"a\\\"@c",
            "a@b>",
            "a@[127.0.0.1]>",
            "a@b,c@d",
            &format!("{}@b", "x".repeat(260)),
        ] {
            assert!(Envelope::new("").unwrap().to(bad).is_err(), "{bad:?}");
        }
        for good in [
            "a@b",
            "a.b+c@d-e.example",
            "\"a b\"@c",
            "\"a\\\"b\"@c",
            "x@[127.0.0.1]",
            "x@[IPv6:::1]",
            "postmaster",
            "jörg@exämple.org",
        ] {
            assert!(Envelope::new("").unwrap().to(good).is_ok(), "{good:?}");
        }
    }

    #[test]
    fn parameters_stand_where_they_were_asked_for() {
        let envelope = Envelope::new("a@b").unwrap().to("c@d").unwrap();
        assert_eq!(envelope.mail_command(None, None), "MAIL FROM:<a@b>");
        let envelope = envelope.ret(Return::Headers).id("x+y=z").notify(Notify::never().success().delay());
        assert_eq!(
            envelope.mail_command(Some("8BITMIME"), Some(7)),
            "MAIL FROM:<a@b> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=x+2By+3Dz"
        );
        assert_eq!(envelope.rcpt_command("c@d"), "RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY");
        assert_eq!(Notify::never().keyword(), "NEVER");
    }
}

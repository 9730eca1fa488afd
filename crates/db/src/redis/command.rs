//! Commands on their way to the wire.

use bytes::{BufMut, Bytes, BytesMut};

/// One command: its name and arguments, already in wire form. Arguments are length-prefixed, so no text in them can become
/// another command.
///
/// ```
/// use portolan_db::redis::Command;
///
/// let command = Command::new("SET").arg("key").arg(7).arg("EX").arg(60);
/// assert_eq!(command.len(), 5);
/// ```
#[derive(Clone, PartialEq, Eq)]
#[must_use]
pub struct Command {
    name: &'static str,
    body: BytesMut,
    count: usize,
}

impl Command {
    /// A command by its name; one of two words, such as `CONFIG GET`, becomes two arguments.
    pub fn new(name: &'static str) -> Self {
        let mut command = Self { name, body: BytesMut::with_capacity(64), count: 0 };
        for word in name.split(' ') {
            command.push(word.as_bytes());
        }
        command
    }

    /// One argument, or several where `args` is a list.
    pub fn arg(mut self, args: impl ToArgs) -> Self {
        args.to_args(&mut self);
        self
    }

    /// Adds one argument.
    pub fn push(&mut self, bytes: &[u8]) {
        write_bulk(&mut self.body, bytes);
        self.count += 1;
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// How many words it has, its name included.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Never: a command has at least its name.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether it may be run twice without harm: only then is it sent again when its fate is unknown.
    pub fn is_idempotent(&self) -> bool {
        IDEMPOTENT.binary_search(&self.name).is_ok()
    }

    /// Its words, as they go out.
    pub(crate) fn words(&self) -> Vec<&[u8]> {
        words(&self.body, self.count).0
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let mut digits = itoa::Buffer::new();
        out.reserve(self.body.len() + 16);
        out.put_u8(b'*');
        out.put_slice(digits.format(self.count).as_bytes());
        out.put_slice(b"\r\n");
        out.put_slice(&self.body);
    }
}

/// Whether a command with these first words may be run twice without harm.
pub(crate) fn is_idempotent(words: &[&[u8]]) -> bool {
    listed(words, IDEMPOTENT)
}

/// Whether a command with these first words changes nothing, so that a replica can answer it.
pub(crate) fn is_reading(words: &[&[u8]]) -> bool {
    listed(words, IDEMPOTENT) && !listed(words, WRITING)
}

fn listed(words: &[&[u8]], list: &[&str]) -> bool {
    let text = |words: &[&[u8]]| String::from_utf8_lossy(&words.join(&b' ')).to_ascii_uppercase();
    let one = text(words.get(..1).unwrap_or_default());
    list.binary_search(&one.as_str()).is_ok()
        || words.get(..2).is_some_and(|two| list.binary_search(&text(two).as_str()).is_ok())
}

/// The first `count` words of what was encoded here, and what follows them.
pub(crate) fn words(mut body: &[u8], count: usize) -> (Vec<&[u8]>, &[u8]) {
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let Some((length, rest)) = number(body, b'$') else { break };
        let Some((word, rest)) = rest.split_at_checked(length) else { break };
        words.push(word);
        body = rest.strip_prefix(b"\r\n").unwrap_or(rest);
    }
    (words, body)
}

/// The number on a line that begins with `mark`, and what follows the line.
pub(crate) fn number(body: &[u8], mark: u8) -> Option<(usize, &[u8])> {
    let body = body.strip_prefix(&[mark])?;
    let end = memchr::memchr(b'\r', body)?;
    let number = std::str::from_utf8(body.get(..end)?).ok()?.parse().ok()?;
    Some((number, body.get(end + 2..)?))
}

impl std::fmt::Debug for Command {
    /// The name alone: arguments may be secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (+{} arguments)", self.name, self.count.saturating_sub(1))
    }
}

/// Commands that only read, or leave the same state however often they run. Sorted.
const IDEMPOTENT: &[&str] = &[
    "BITCOUNT",
    "BITPOS",
    "CLUSTER INFO",
    "CLUSTER SLOTS",
    "CONFIG GET",
    "DBSIZE",
    "DEL",
    "ECHO",
    "EXISTS",
    "EXPIREAT",
    "EXPIRETIME",
    "GEODIST",
    "GEOPOS",
    "GET",
    "GETBIT",
    "GETRANGE",
    "HDEL",
    "HEXISTS",
    "HGET",
    "HGETALL",
    "HKEYS",
    "HLEN",
    "HMGET",
    "HSCAN",
    "HSET",
    "HSTRLEN",
    "HVALS",
    "INFO",
    "KEYS",
    "LINDEX",
    "LLEN",
    "LPOS",
    "LRANGE",
    "MGET",
    "MSET",
    "OBJECT ENCODING",
    "PERSIST",
    "PEXPIRETIME",
    "PFCOUNT",
    "PING",
    "PSETEX",
    "PTTL",
    "RANDOMKEY",
    "SADD",
    "SCAN",
    "SCARD",
    "SCRIPT EXISTS",
    "SCRIPT LOAD",
    "SDIFF",
    "SET",
    "SETEX",
    "SINTER",
    "SISMEMBER",
    "SMEMBERS",
    "SMISMEMBER",
    "SRANDMEMBER",
    "SREM",
    "SSCAN",
    "STRLEN",
    "SUNION",
    "TIME",
    "TTL",
    "TYPE",
    "UNLINK",
    "XLEN",
    "XRANGE",
    "XREAD",
    "XREVRANGE",
    "ZCARD",
    "ZCOUNT",
    "ZRANGE",
    "ZRANK",
    "ZREVRANK",
    "ZSCAN",
    "ZSCORE",
];

/// Those of them that change something. Sorted.
const WRITING: &[&str] = &[
    "DEL",
    "EXPIREAT",
    "HDEL",
    "HSET",
    "MSET",
    "PERSIST",
    "PSETEX",
    "SADD",
    "SCRIPT LOAD",
    "SET",
    "SETEX",
    "SREM",
    "UNLINK",
];

fn write_bulk(out: &mut BytesMut, bytes: &[u8]) {
    let mut digits = itoa::Buffer::new();
    out.reserve(bytes.len() + 24);
    out.put_u8(b'$');
    out.put_slice(digits.format(bytes.len()).as_bytes());
    out.put_slice(b"\r\n");
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
}

/// What can be given as arguments: text, bytes, numbers, and lists and pairs of them.
pub trait ToArgs {
    /// Adds them to `command`.
    fn to_args(&self, command: &mut Command);
}

macro_rules! bytes_args {
    ($($t:ty => |$v:ident| $e:expr),* $(,)?) => {$(
        impl ToArgs for $t {
            fn to_args(&self, command: &mut Command) {
                let $v = self;
                command.push($e);
            }
        }
    )*};
}
bytes_args! {
    str => |v| v.as_bytes(),
    String => |v| v.as_bytes(),
    [u8] => |v| v,
    Vec<u8> => |v| v,
    Bytes => |v| v,
    portolan_core::Secret => |v| v.expose().as_bytes(),
}

macro_rules! integer_args {
    ($($t:ty),*) => {$(
        impl ToArgs for $t {
            fn to_args(&self, command: &mut Command) {
                command.push(itoa::Buffer::new().format(*self).as_bytes());
            }
        }
    )*};
}
integer_args!(i32, i64, u16, u32, u64, usize);

impl ToArgs for f64 {
    fn to_args(&self, command: &mut Command) {
        command.push(self.to_string().as_bytes());
    }
}

impl<const N: usize> ToArgs for [u8; N] {
    fn to_args(&self, command: &mut Command) {
        command.push(self);
    }
}

impl<T: ToArgs + ?Sized> ToArgs for &T {
    fn to_args(&self, command: &mut Command) {
        (**self).to_args(command);
    }
}

/// Nothing, where there is none.
impl<T: ToArgs> ToArgs for Option<T> {
    fn to_args(&self, command: &mut Command) {
        if let Some(value) = self {
            value.to_args(command);
        }
    }
}

/// A list of arguments that is not one of bytes.
#[derive(Debug, Clone, Copy)]
#[allow(clippy::exhaustive_structs, reason = "a wrapper that is written at every call")]
pub struct All<'a, T>(pub &'a [T]);

impl<T: ToArgs> ToArgs for All<'_, T> {
    fn to_args(&self, command: &mut Command) {
        for item in self.0 {
            item.to_args(command);
        }
    }
}

impl<A: ToArgs, B: ToArgs> ToArgs for (A, B) {
    fn to_args(&self, command: &mut Command) {
        self.0.to_args(command);
        self.1.to_args(command);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_idempotent_commands_is_sorted() {
        assert!(IDEMPOTENT.is_sorted() && WRITING.is_sorted());
        assert!(WRITING.iter().all(|name| IDEMPOTENT.contains(name)));
        assert!(Command::new("GET").is_idempotent() && Command::new("CONFIG GET").is_idempotent());
        assert!(!Command::new("INCR").is_idempotent() && !Command::new("LPUSH").is_idempotent());
    }

    #[test]
    fn a_command_is_told_apart_into_the_words_it_was_made_of() {
        let command = Command::new("CONFIG GET").arg("a\r\n$1\r\n").arg("").arg(7);
        assert_eq!(command.words(), [&b"CONFIG"[..], b"GET", b"a\r\n$1\r\n", b"", b"7"]);
        let reads = |text: &str| is_reading(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert!(reads("get a") && reads("config get x") && !reads("SET a b") && !reads("INCR a") && !reads("DEL a"));
    }

    #[test]
    fn no_argument_can_become_another_command() {
        let mut out = BytesMut::new();
        Command::new("SET").arg("k\r\n").arg(b"\r\n*1\r\n$8\r\nFLUSHALL\r\n".as_slice()).encode(&mut out);
        assert_eq!(&out[..], b"*3\r\n$3\r\nSET\r\n$3\r\nk\r\n\r\n$20\r\n\r\n*1\r\n$8\r\nFLUSHALL\r\n\r\n".as_slice());
        assert!(!format!("{:?}", Command::new("AUTH").arg("sesame")).contains("sesame"));
    }
}

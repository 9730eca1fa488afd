//! Which words of a command are keys, and thereby where it must go.

use portolan_core::{Error, Result};

use super::slots::key_slot;

/// Where the keys of a command stand; places count from its name, which is 0.
enum Keys {
    None,
    /// The first argument.
    First,
    /// Every argument from this place on.
    From(usize),
    /// Every second argument, from the first on.
    Pairs,
    /// The first two.
    Two,
    /// All but the last.
    AllButLast,
    /// Only this one.
    At(usize),
    /// Behind a number of keys at this place, and where there is a destination, that as well.
    Counted {
        count: usize,
        destination: bool,
    },
    /// The first half of what follows the word STREAMS.
    Streams,
    /// The first, and what follows the word STORE or STOREDIST.
    Store,
}

/// A command that is not listed has its one key first, as most have.
fn keys(name: &str, second: &str) -> Keys {
    match name {
        "ACL" | "ASKING" | "AUTH" | "BGREWRITEAOF" | "BGSAVE" | "CLIENT" | "CLUSTER" | "COMMAND" | "CONFIG"
        | "DBSIZE" | "DISCARD" | "ECHO" | "EXEC" | "FLUSHALL" | "FLUSHDB" | "FUNCTION" | "HELLO" | "INFO" | "KEYS"
        | "LASTSAVE" | "LATENCY" | "MODULE" | "MULTI" | "PING" | "PSUBSCRIBE" | "PUBLISH" | "PUBSUB" | "RANDOMKEY"
        | "READONLY" | "READWRITE" | "ROLE" | "SAVE" | "SCAN" | "SCRIPT" | "SELECT" | "SLOWLOG" | "SUBSCRIBE"
        | "SWAPDB" | "TIME" | "UNWATCH" | "WAIT" => Keys::None,
        "DEL" | "UNLINK" | "EXISTS" | "TOUCH" | "MGET" | "WATCH" | "PFCOUNT" | "PFMERGE" | "SINTER" | "SUNION"
        | "SDIFF" | "SINTERSTORE" | "SUNIONSTORE" | "SDIFFSTORE" => Keys::From(1),
        "BITOP" => Keys::From(2),
        "MSET" | "MSETNX" => Keys::Pairs,
        "RENAME" | "RENAMENX" | "COPY" | "SMOVE" | "RPOPLPUSH" | "BRPOPLPUSH" | "LMOVE" | "BLMOVE"
        | "GEOSEARCHSTORE" | "ZRANGESTORE" | "LCS" => Keys::Two,
        "BLPOP" | "BRPOP" | "BZPOPMIN" | "BZPOPMAX" => Keys::AllButLast,
        "OBJECT" | "XINFO" | "XGROUP" | "DEBUG" => Keys::At(2),
        "MEMORY" if second == "USAGE" => Keys::At(2),
        "MEMORY" => Keys::None,
        "MIGRATE" => Keys::At(3),
        "EVAL" | "EVALSHA" | "EVAL_RO" | "EVALSHA_RO" | "FCALL" | "FCALL_RO" | "BLMPOP" | "BZMPOP" => {
            Keys::Counted { count: 2, destination: false }
        }
        "ZUNION" | "ZINTER" | "ZDIFF" | "SINTERCARD" | "ZINTERCARD" | "LMPOP" | "ZMPOP" => {
            Keys::Counted { count: 1, destination: false }
        }
        "ZUNIONSTORE" | "ZINTERSTORE" | "ZDIFFSTORE" => Keys::Counted { count: 2, destination: true },
        "XREAD" | "XREADGROUP" => Keys::Streams,
        "SORT" | "GEORADIUS" | "GEORADIUSBYMEMBER" => Keys::Store,
        _ => Keys::First,
    }
}

/// The slot that all keys of a command share; `None` for a command without keys. Keys in several slots are the caller's
/// mistake: no node could run it.
pub(super) fn slot(words: &[&[u8]]) -> Result<Option<u16>> {
    let mut found = None;
    for key in keys_of(words)? {
        let slot = key_slot(key);
        match found {
            Some((_, other)) if other == slot => {}
            None => found = Some((key, slot)),
            Some((first, other)) => {
                let (first, key) = (String::from_utf8_lossy(first), String::from_utf8_lossy(key));
                return Err(Error::usage(format!(
                    "the keys of one command must be in one slot: {first:?} is in {other}, {key:?} in {slot}; a common \
                     part in braces keeps keys together"
                )));
            }
        }
    }
    Ok(found.map(|(_, slot)| slot))
}

fn keys_of<'a>(words: &[&'a [u8]]) -> Result<Vec<&'a [u8]>> {
    let upper = |place: usize| words.get(place).map(|word| word.to_ascii_uppercase()).unwrap_or_default();
    let (name, second) = (upper(0), upper(1));
    let (name, second) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&second));
    let from = |place: usize| words.get(place..).unwrap_or_default();
    let found = match keys(&name, &second) {
        Keys::None => Vec::new(),
        Keys::First => from(1).iter().take(1).copied().collect(),
        Keys::Two => from(1).iter().take(2).copied().collect(),
        Keys::From(place) => from(place).to_vec(),
        Keys::At(place) => from(place).iter().take(1).copied().collect(),
        Keys::Pairs => from(1).iter().step_by(2).copied().collect(),
        Keys::AllButLast => from(1).split_last().map(|(_, keys)| keys.to_vec()).unwrap_or_default(),
        Keys::Counted { count, destination } => {
            let number = words.get(count).and_then(|word| std::str::from_utf8(word).ok());
            let number: usize = number
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| Error::usage(format!("{name} says how many keys it has in its argument {count}")))?;
            let mut keys: Vec<_> = from(count + 1).iter().take(number).copied().collect();
            if destination {
                keys.extend(words.get(1));
            }
            keys
        }
        Keys::Streams => {
            let place = words.iter().position(|word| word.eq_ignore_ascii_case(b"STREAMS"));
            let rest = place.map(|place| from(place + 1)).unwrap_or_default();
            rest.iter().take(rest.len() / 2).copied().collect()
        }
        Keys::Store => {
            let stores = |word: &[u8]| word.eq_ignore_ascii_case(b"STORE") || word.eq_ignore_ascii_case(b"STOREDIST");
            let place = words.iter().rposition(|word| stores(word));
            let mut keys: Vec<_> = from(1).iter().take(1).copied().collect();
            keys.extend(place.and_then(|place| words.get(place + 1)));
            keys
        }
    };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::Kind;

    fn found(text: &str) -> Vec<String> {
        let words: Vec<&[u8]> = text.split(' ').map(str::as_bytes).collect();
        keys_of(&words).unwrap().into_iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
    }

    #[test]
    fn the_keys_of_every_form_are_found() {
        for (command, keys) in [
            ("get a", "a"),
            ("SET a b EX 3", "a"),
            ("PING", ""),
            ("CLUSTER SLOTS", ""),
            ("PUBLISH channel text", ""),
            ("DEL a b c", "a b c"),
            ("MSET a 1 b 2", "a b"),
            ("RENAME a b", "a b"),
            ("BLPOP a b 0", "a b"),
            ("BITOP AND d a b", "d a b"),
            ("OBJECT ENCODING a", "a"),
            ("XINFO STREAM a FULL", "a"),
            ("MEMORY USAGE a", "a"),
            ("MEMORY DOCTOR", ""),
            ("EVAL script 2 a b x y", "a b"),
            ("EVAL script 0 x", ""),
            ("ZUNION 2 a b WITHSCORES", "a b"),
            ("ZUNIONSTORE d 2 a b WEIGHTS 1 2", "a b d"),
            ("XREAD COUNT 2 STREAMS a b 0-0 0-0", "a b"),
            ("SORT a BY w STORE b", "a b"),
            ("GEORADIUS a 1 2 3 km", "a"),
            ("LMPOP 2 a b LEFT", "a b"),
            ("JSON.GET a $", "a"),
        ] {
            assert_eq!(found(command).join(" "), keys, "{command}");
        }
    }

    #[test]
    fn keys_in_several_slots_are_the_callers_mistake() {
        let slot = |text: &str| slot(&text.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        assert_eq!(slot("MSET {t}a 1 {t}b 2").unwrap(), Some(key_slot("t")));
        assert_eq!(slot("PING").unwrap(), None);
        let error = slot("MGET foo bar").unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.message().contains("12182") && error.message().contains("5061"), "{error}");
        assert_eq!(slot("EVAL script many").unwrap_err().kind(), Kind::Usage);
    }
}

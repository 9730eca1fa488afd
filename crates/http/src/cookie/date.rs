//! The cookie date algorithm (RFC 6265bis 5.1.1): it finds a date in nearly anything.

use crate::civil::Civil;

/// The moment that `text` names, in seconds of the Unix clock.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let (mut time, mut day, mut month, mut year) = (None, None, None, None);
    for token in text.split(|byte| is_delimiter(*byte)).filter(|token| !token.is_empty()) {
        // Each field is taken once, by the first token that fits it, in this order.
        if time.is_none() {
            time = time_of(token);
            if time.is_some() {
                continue;
            }
        }
        if day.is_none() {
            day = number_of(token, 1, 2);
            if day.is_some() {
                continue;
            }
        }
        if month.is_none() {
            month = month_of(token);
            if month.is_some() {
                continue;
            }
        }
        if year.is_none() {
            year = number_of(token, 2, 4);
        }
    }
    let (hour, minute, second) = time?;
    let year = match year? {
        short @ 70..=99 => short + 1900,
        short @ 0..=69 => short + 2000,
        full => full,
    };
    if year < 1601 {
        return None;
    }
    Civil { year, month: month?, day: day?, hour, minute, second }.unix()
}

fn is_delimiter(byte: u8) -> bool {
    matches!(byte, 0x09 | 0x20..=0x2f | 0x3b..=0x40 | 0x5b..=0x60 | 0x7b..=0x7e)
}

/// `least` to `most` digits, then the end or anything that is no digit.
fn number_of(token: &[u8], least: usize, most: usize) -> Option<i64> {
    let digits = token.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits < least || digits > most {
        return None;
    }
    Some(token.iter().take(digits).fold(0, |sum, byte| sum * 10 + i64::from(byte - b'0')))
}

fn time_of(token: &[u8]) -> Option<(i64, i64, i64)> {
    let mut parts = token.splitn(3, |byte| *byte == b':');
    let mut whole = || {
        let part = parts.next()?;
        part.iter().all(u8::is_ascii_digit).then(|| number_of(part, 1, 2)).flatten()
    };
    let (hour, minute) = (whole()?, whole()?);
    Some((hour, minute, number_of(parts.next()?, 1, 2)?))
}

fn month_of(token: &[u8]) -> Option<i64> {
    const MONTHS: [&[u8; 3]; 12] =
        [b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"];
    let head = token.get(..3)?;
    (1..).zip(MONTHS).find(|(_, name)| head.eq_ignore_ascii_case(*name)).map(|(number, _)| number)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn dates_in_many_dresses_mean_the_same_second() {
        // The forms of RFC 9110 5.6.7, and what servers send instead.
        for text in [
            "Sun, 06 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
            "06 nov 1994 8:49:37",
            "1994 06 Nov 08:49:37.123",
            "Nov 6 1994 08:49:37 Z",
            "08:49:37 06/NOVEMBER/1994",
            "6th Nov 1994a 8:49:37x",
            ";;Sun;;06-Nov-94;08:49:37",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(784_111_777), "{text}");
        }
    }

    #[test]
    fn two_digit_years_turn_at_seventy() {
        assert_eq!(parse(b"01 Jan 70 00:00:00"), Some(0));
        assert_eq!(parse(b"01 Jan 69 00:00:00"), Some(3_124_224_000));
        assert_eq!(parse(b"01 Jan 9999 00:00:00"), Some(253_370_764_800));
    }

    #[test]
    fn what_is_no_date_is_none() {
        for text in [
            "",
            "never",
            "06 Nov 1994",
            "08:49:37",
            "06 Nov 08:49:37",
            "32 Nov 1994 08:49:37",
            "31 Apr 1994 08:49:37",
            "29 Feb 1995 08:49:37",
            "06 Nov 1600 08:49:37",
            "06 Nov 1994 24:00:00",
            "06 Nov 1994 08:60:00",
            "06 Nov 1994 08:49:60",
            "06 Nov 19945 08:49:37",
            "06 Nov 1994 008:49:37",
            "06 Nov 1994 08:4x:37",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}

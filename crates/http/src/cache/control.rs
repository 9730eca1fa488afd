//! Cache-Control (RFC 9111 5.2), and the times of a response.

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, DATE, EXPIRES, HeaderName, LAST_MODIFIED, PRAGMA};

use crate::civil;
use crate::field::Cursor;

/// More than any honest field has; the rest are not looked at.
const MAX_DIRECTIVES: usize = 64;
/// What overflows is this (RFC 9111 1.2.2).
const MAX_DELTA: i64 = 1 << 31;

/// The directives that we know, of requests and responses alike.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CacheControl {
    pub(super) no_store: bool,
    pub(super) no_cache: bool,
    pub(super) must_revalidate: bool,
    pub(super) must_understand: bool,
    pub(super) public: bool,
    pub(super) private: bool,
    pub(super) immutable: bool,
    pub(super) only_if_cached: bool,
    pub(super) max_age: Option<i64>,
    pub(super) min_fresh: Option<i64>,
    /// Without a number: however stale.
    pub(super) max_stale: Option<i64>,
    pub(super) stale_while_revalidate: Option<i64>,
    pub(super) stale_if_error: Option<i64>,
}

impl CacheControl {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut control = Self::default();
        let mut any = false;
        for field in headers.get_all(CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok()) {
            any = true;
            control.read(field);
        }
        if !any {
            // RFC 9111 5.4.
            let pragma = headers.get_all(PRAGMA).iter().filter_map(|value| value.to_str().ok());
            control.no_cache =
                pragma.flat_map(|text| text.split(',')).any(|word| word.trim().eq_ignore_ascii_case("no-cache"));
        }
        control
    }

    fn read(&mut self, field: &str) {
        let mut cursor = Cursor::new(field);
        for _ in 0..MAX_DIRECTIVES {
            cursor.skip_commas();
            let Some(name) = cursor.token() else { break };
            let before = cursor.rest.len();
            let value = cursor.value(&[',']);
            let broken = value.is_none() && cursor.rest.len() != before;
            self.directive(&name.to_ascii_lowercase(), value.as_deref(), broken);
        }
    }

    /// The first of a kind counts. A number that is none is 0: what can't be read is not fresh.
    fn directive(&mut self, name: &str, value: Option<&str>, broken: bool) {
        let number = || value.map_or(0, |value| delta(value).unwrap_or(0));
        match name {
            "no-store" => self.no_store = true,
            // With names of fields in its value it may be read as without (RFC 9111 5.2.2.4).
            "no-cache" => self.no_cache = true,
            "must-revalidate" => self.must_revalidate = true,
            "must-understand" => self.must_understand = true,
            "public" => self.public = true,
            "private" => self.private = true,
            "immutable" => self.immutable = true,
            "only-if-cached" => self.only_if_cached = true,
            "max-age" => self.max_age = self.max_age.or(Some(number())),
            "min-fresh" => self.min_fresh = self.min_fresh.or(Some(number())),
            "max-stale" if value.is_none() && !broken => self.max_stale = self.max_stale.or(Some(i64::MAX)),
            "max-stale" => self.max_stale = self.max_stale.or(Some(number())),
            "stale-while-revalidate" => self.stale_while_revalidate = self.stale_while_revalidate.or(Some(number())),
            "stale-if-error" => self.stale_if_error = self.stale_if_error.or(Some(number())),
            _ => {}
        }
    }
}

fn delta(text: &str) -> Option<i64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(MAX_DELTA).min(MAX_DELTA))
}

/// The fields that say when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) date: Option<i64>,
    /// Unreadable is long ago (RFC 9111 5.3).
    pub(super) expires: Option<i64>,
    pub(super) last_modified: Option<i64>,
    pub(super) age: i64,
}

impl Times {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            date: date(headers, DATE),
            expires: headers.contains_key(EXPIRES).then(|| date(headers, EXPIRES).unwrap_or(i64::MIN)),
            last_modified: date(headers, LAST_MODIFIED),
            age: age(headers),
        }
    }
}

fn date(headers: &HeaderMap, name: HeaderName) -> Option<i64> {
    let text = headers.get(name)?.to_str().ok()?;
    httpdate::parse_http_date(text.trim()).ok().map(civil::unix)
}

/// The first member where there are many; unreadable is not said (RFC 9111 5.1).
fn age(headers: &HeaderMap) -> i64 {
    let text = headers.get(AGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(',').next().and_then(|first| delta(first.trim())).unwrap_or(0)
}

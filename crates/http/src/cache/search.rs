//! Which parameters of a query a response doesn't depend on (`No-Vary-Search`), and what is known of that.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Write;

use http::{HeaderMap, HeaderName, Uri};

use super::entry::CacheKey;
use crate::structured::{Bare, Dictionary, Member};

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");
/// Rules of one path that are looked through; a server that changes its mind more often has the older ones forgotten.
const MAX_RULES: usize = 4;
/// Paths whose rules are known at once.
const MAX_PATHS: usize = 1024;
/// Parameters of one query that are looked at; URLs with more are their own.
const MAX_PAIRS: usize = 1024;

/// The rule of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whether the order of parameters says something.
    ordered: bool,
    params: Params,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Params {
    /// All but these say something.
    AllBut(BTreeSet<String>),
    /// These alone do.
    Only(BTreeSet<String>),
}

impl Rule {
    /// What a response says; `None` if the whole query matters, as it does where the field is missing or broken.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        if !headers.contains_key(NO_VARY_SEARCH) {
            return None;
        }
        let field = Dictionary::of(headers, NO_VARY_SEARCH).ok()?;
        let yes = |name: &str| match field.get(name) {
            None => Some(false),
            Some(Member::Item(item)) => match item.value {
                Bare::Boolean(yes) => Some(yes),
                _ => None,
            },
            Some(Member::List(_)) => None,
        };
        let ordered = !yes("key-order")?;
        let params = match (field.get("params"), field.get("except")) {
            (Some(params @ Member::List(_)), None) => Params::AllBut(names(params)?),
            (_, except) => match (yes("params")?, except) {
                (true, None) => Params::Only(BTreeSet::new()),
                (true, Some(except)) => Params::Only(names(except)?),
                (false, None) => Params::AllBut(BTreeSet::new()),
                (false, Some(_)) => return None,
            },
        };
        let rule = Self { ordered, params };
        (rule != Self { ordered: true, params: Params::AllBut(BTreeSet::new()) }).then_some(rule)
    }

    /// The key of all URLs that are the same by this rule.
    pub(super) fn key(&self, uri: &Uri) -> Option<CacheKey> {
        let query = uri.query().unwrap_or_default();
        let mut pairs: Vec<(String, String)> = pairs(query)?;
        match &self.params {
            Params::AllBut(names) => pairs.retain(|(name, _)| !names.contains(name)),
            Params::Only(names) => pairs.retain(|(name, _)| names.contains(name)),
        }
        if !self.ordered {
            // By name alone: values of one name keep their order.
            pairs.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        }
        // No URL has a space, so that no other key is like it.
        let mut text = format!("{} ", path(uri)?.as_str());
        let _ = match &self.params {
            Params::AllBut(names) => write!(text, "{} -{names:?} ", self.ordered),
            Params::Only(names) => write!(text, "{} +{names:?} ", self.ordered),
        };
        text.push_str(&crate::uri::form(pairs).ok()?);
        Some(CacheKey::from_text(text))
    }
}

/// The names of an inner list of strings, decoded as forms are.
fn names(member: &Member) -> Option<BTreeSet<String>> {
    let Member::List(list) = member else { return None };
    let name = |value: &Bare| match value {
        // Alone between an ampersand and an equals sign, which in a name are encoded.
        Bare::String(name) => {
            let encoded = name.replace('&', "%26").replace('=', "%3D");
            Some(pairs(&encoded)?.into_iter().next().map(|(name, _)| name).unwrap_or_default())
        }
        _ => None,
    };
    list.items.iter().map(|item| name(&item.value)).collect()
}

fn pairs(query: &str) -> Option<Vec<(String, String)>> {
    if memchr::memchr_iter(b'&', query.as_bytes()).count() >= MAX_PAIRS {
        return None;
    }
    serde_urlencoded::from_str(query).ok()
}

/// The URL without its query.
fn path(uri: &Uri) -> Option<CacheKey> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(uri.path().parse().ok()?);
    CacheKey::new(&Uri::from_parts(parts).ok()?)
}

/// The rules that servers told, by path.
#[derive(Debug, Default)]
pub(super) struct Rules(HashMap<CacheKey, Vec<Rule>>);

impl Rules {
    pub(super) fn learn(&mut self, uri: &Uri, rule: &Rule) {
        let Some(path) = path(uri) else { return };
        if self.0.len() >= MAX_PATHS && !self.0.contains_key(&path) {
            self.0.clear();
        }
        let rules = self.0.entry(path).or_default();
        if !rules.contains(rule) {
            if rules.len() >= MAX_RULES {
                rules.remove(0);
            }
            rules.push(rule.clone());
        }
    }

    /// The keys under which a response to `uri` may be, besides its own.
    pub(super) fn keys(&self, uri: &Uri) -> Vec<CacheKey> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let rules = path(uri).and_then(|path| self.0.get(&path));
        rules.into_iter().flatten().filter_map(|rule| rule.key(uri)).collect()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(field: &str, a: &str, b: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(NO_VARY_SEARCH, field.parse().unwrap());
        let uri = |text: &str| format!("https://a.example{text}").parse::<Uri>().unwrap();
        let Some(rule) = Rule::of(&headers) else { return a == b };
        rule.key(&uri(a)).unwrap() == rule.key(&uri(b)).unwrap()
    }

    #[test]
    fn urls_are_the_same_as_the_rule_says() {
        for (field, a, b) in [
            ("key-order", "/?a=1&b=2&c=3", "/?b=2&a=1&c=3"),
            ("key-order", "/?a=1&a=2&b=3", "/?b=3&a=1&a=2"),
            ("params", "/?a=1", "/"),
            ("params", "/?a", "/?b=2&c"),
            ("params=(\"a\")", "/?a=1&b=2", "/?b=2"),
            ("params=(\"a\" \"c d\")", "/?a=1&b=2&c+d=3", "/?c%20d&b=2"),
            ("params=(\"\u{25}C3\u{25}A9\")", "/?%c3%a9=1", "/"),
            ("params, except=(\"id\")", "/?id=1&utm=x", "/?utm=y&id=1"),
            ("key-order, params, except=(\"a\" \"b\")", "/?a=1&b=2", "/?b=2&z&a=1"),
            ("params=(\"a\")", "/?b=%7e+", "/?b=~%20"),
            ("params=(\"a\"), unknown=7", "/?a", "/"),
            ("params=?0, key-order", "/?a&b", "/?b&a"),
        ] {
            assert!(same(field, a, b), "{field}: {a} {b}");
        }
        for (field, a, b) in [
            ("key-order", "/?a=1&a=2", "/?a=2&a=1"),
            ("key-order", "/?a=1", "/?a=2"),
            ("params=(\"a\")", "/?b=1&c=2", "/?c=2&b=1"),
            ("params=(\"a\")", "/?A=1", "/"),
            ("params", "/x?a", "/y?a"),
            ("params, except=(\"id\")", "/?id=1", "/?id=2"),
            ("params, except=(\"id\")", "/?id=1&id=2", "/?id=2&id=1"),
            // Broken fields say nothing.
            ("params=a", "/?a", "/"),
            ("params=(a)", "/?a", "/"),
            ("params=(\"a\" 1)", "/?a", "/"),
            ("params, except=\"id\"", "/?a", "/"),
            ("params, except", "/?a", "/"),
            ("except=(\"id\")", "/?a", "/"),
            ("params=(\"a\"), except=(\"b\")", "/?a", "/"),
            ("params, key-order=(\"a\")", "/?a", "/"),
            ("params,", "/?a", "/"),
            ("params=?0", "/?a", "/"),
            ("", "/?a", "/"),
        ] {
            assert!(!same(field, a, b), "{field}: {a} {b}");
        }
    }

    #[test]
    fn rules_are_bounded() {
        let mut rules = Rules::default();
        let rule = |name: usize| Rule { ordered: true, params: Params::AllBut(BTreeSet::from([name.to_string()])) };
        for at in 0..3 * MAX_PATHS {
            rules.learn(&format!("https://a.example/{at}").parse().unwrap(), &rule(at));
            rules.learn(&"https://a.example/same?x".parse().unwrap(), &rule(at));
        }
        assert!(rules.0.len() <= MAX_PATHS);
        assert!(rules.keys(&"https://a.example/same?y=1".parse().unwrap()).len() <= MAX_RULES);
        let long = format!("https://a.example/same?{}", "a&".repeat(MAX_PAIRS));
        assert!(rules.keys(&long.parse().unwrap()).is_empty());
    }
}

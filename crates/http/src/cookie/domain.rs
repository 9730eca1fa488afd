//! Hosts, domains and paths: who belongs to whom (RFC 6265bis 5.1.2 to 5.1.4).

use std::net::Ipv4Addr;

use http::Uri;

/// The host of `uri` in lower case.
pub(super) fn host(uri: &Uri) -> Option<String> {
    uri.host().filter(|host| !host.is_empty()).map(str::to_ascii_lowercase)
}

/// Whether the scheme keeps eavesdroppers out.
pub(super) fn is_secure(uri: &Uri) -> bool {
    uri.scheme_str().is_some_and(|scheme| matches!(scheme, "https" | "wss"))
}

/// Whether the host is an address: such hosts have no parents and no children.
pub(super) fn is_address(host: &str) -> bool {
    host.starts_with('[') || host.contains(':') || host.parse::<Ipv4Addr>().is_ok()
}

/// Whether `host` is `domain` or below it.
pub(super) fn domain_matches(host: &str, domain: &str) -> bool {
    match host.strip_suffix(domain) {
        Some("") => true,
        Some(head) => head.ends_with('.') && !domain.is_empty() && !is_address(host),
        None => false,
    }
}

/// Whether anybody can register a name below `domain`. A single label that no list knows (`localhost`) is one too.
pub(super) fn is_public_suffix(domain: &str) -> bool {
    psl::suffix_str(domain.trim_end_matches('.'))
        .is_none_or(|suffix| suffix.len() == domain.trim_end_matches('.').len())
}

/// The name that the limits are counted by: one label more than the public suffix, or the host itself.
pub(super) fn site(host: &str) -> &str {
    if is_address(host) || host.ends_with('.') { host } else { psl::domain_str(host).unwrap_or(host) }
}

/// The directory of the request's path (RFC 6265bis 5.1.4).
pub(super) fn default_path(uri: &Uri) -> &str {
    match uri.path().rsplit_once('/') {
        Some((directory, _)) if directory.starts_with('/') => directory,
        _ => "/",
    }
}

/// Whether the request's path is the cookie's or below it.
pub(super) fn path_matches(path: &[u8], cookie: &[u8]) -> bool {
    path.strip_prefix(cookie).is_some_and(|rest| rest.is_empty() || cookie.ends_with(b"/") || rest.starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_domain_covers_itself_and_what_is_below_it() {
        for (host, domain, matches) in [
            ("example.com", "example.com", true),
            ("www.example.com", "example.com", true),
            ("wwwexample.com", "example.com", false),
            ("example.com", "www.example.com", false),
            ("example.com", "", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "0.0.1", false),
            ("[::1]", "[::1]", true),
            ("www.example.com.", "example.com", false),
        ] {
            assert_eq!(domain_matches(host, domain), matches, "{host} {domain}");
        }
    }

    #[test]
    fn public_suffixes_are_known_from_the_list_or_by_having_one_label() {
        for domain in ["com", "co.uk", "github.io", "localhost", "com.", "uk"] {
            assert!(is_public_suffix(domain), "{domain}");
        }
        for domain in ["example.com", "example.co.uk", "me.github.io", "example.com."] {
            assert!(!is_public_suffix(domain), "{domain}");
        }
        assert_eq!(site("a.b.example.co.uk"), "example.co.uk");
        assert_eq!(site("10.0.0.1"), "10.0.0.1");
        assert_eq!(site("localhost"), "localhost");
    }

    #[test]
    fn paths_match_by_whole_segments() {
        for (path, cookie, matches) in [
            ("/", "/", true),
            ("/a/b", "/a", true),
            ("/a/b", "/a/", true),
            ("/a", "/a/", false),
            ("/ab", "/a", false),
            ("/a", "/a", true),
            ("/A", "/a", false),
        ] {
            assert_eq!(path_matches(path.as_bytes(), cookie.as_bytes()), matches, "{path} {cookie}");
        }
        for (uri, path) in [("http://h", "/"), ("http://h/a", "/"), ("http://h/a/b?c/d", "/a"), ("http://h/a/", "/a")] {
            assert_eq!(default_path(&uri.parse().unwrap()), path, "{uri}");
        }
    }
}

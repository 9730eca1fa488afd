//! Cookies (RFC 6265bis): what a response set is said again to whom it concerns, and to nobody else.
//!
//! [`CookieStore`] is what the client calls: bring your own, or take the `Jar` of the feature `cookies`.
//!
//! - **What works**: the lenient parser and date algorithm of RFC 6265bis; Domain with the public suffix list (compiled in),
//!   IP hosts, Path, Secure, HttpOnly, the prefixes `__Host-` and `__Secure-`, the rule that an insecure origin can't
//!   hide a Secure cookie; limits by site and in all, the least recently used going first; order of the Cookie field;
//!   JSON lines and Netscape `cookies.txt`, in and out.
//! - **What is not done**: SameSite is kept and written but not enforced, for a client has no page that asks.
//!   Partitioned cookies (CHIPS) are not kept apart.
//! - **Security**: a Domain that is a public suffix or foreign, ends in a dot, or is not ASCII is refused; limits count by registrable
//!   domain, so subdomains can't push others' cookies out. `Debug` shows no values.

#[cfg(feature = "cookies")]
mod date;
#[cfg(feature = "cookies")]
mod domain;
#[cfg(feature = "cookies")]
mod jar;
#[cfg(feature = "cookies")]
mod parse;
#[cfg(feature = "cookies")]
mod persist;
#[cfg(feature = "cookies")]
mod state;
#[cfg(test)]
#[cfg(feature = "cookies")]
mod tests;

use std::fmt;

use http::{HeaderMap, HeaderValue, Uri};

#[cfg(feature = "cookies")]
pub use jar::{Jar, JarOptions};
#[cfg(feature = "cookies")]
pub use parse::{Refused, SameSite};
#[cfg(feature = "cookies")]
pub use persist::Keep;
#[cfg(feature = "cookies")]
pub use state::Cookie;

/// Where cookies live. The client calls both methods once for each request that goes out, redirected ones too.
pub trait CookieStore: fmt::Debug + Send + Sync {
    /// Takes what the `Set-Cookie` fields of a response from `uri` say. What is wrong in them is passed over in silence.
    fn set(&self, uri: &Uri, headers: &HeaderMap);

    /// The value of the `Cookie` field for a request to `uri`, or `None` where there is nothing to say.
    fn cookies_for(&self, uri: &Uri) -> Option<HeaderValue>;
}

impl<S: CookieStore + ?Sized> CookieStore for std::sync::Arc<S> {
    fn set(&self, uri: &Uri, headers: &HeaderMap) {
        (**self).set(uri, headers);
    }

    fn cookies_for(&self, uri: &Uri) -> Option<HeaderValue> {
        (**self).cookies_for(uri)
    }
}

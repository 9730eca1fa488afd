//! A private HTTP cache (RFC 9111): what may be kept, for how long, and how it is made good again.
//!
//! - **What works**: storing by the rules of a private cache, `max-age`, `Expires`, heuristics (a tenth of the age of the document), Age
//!   from dates and delays, Vary, validation by ETag and Last-Modified with the merge of a 304, `no-store`, `no-cache`,
//!   `must-revalidate`, `must-understand`, `immutable` (RFC 8246), the requests' `max-age`, `min-fresh`, `max-stale`, `only-if-cached`,
//!   `stale-while-revalidate` and `stale-if-error` (RFC 5861), `No-Vary-Search` (URLs that differ in what the response does not
//!   depend on share it; the rules are learned from responses, and anew after a start), invalidation by unsafe methods, HEAD out of what GET left;
//!   redirects, each kept under its own URL and followed out of the cache, as is what they lead to.
//! - **What is not done**: validation of redirects (one that is no longer fresh is asked for anew); what a redirect leads to is asked for
//!   where middleware stands below the cache, which would see what is kept again; ranges (such requests pass
//!   by, 206 is not kept), answers to POST, trailers, updates by HEAD,
//!   entries on disk (bring a [`CacheStore`] of your own). `s-maxage` and `proxy-revalidate` are for shared
//!   caches and are not looked at.
//! - **Security**: one [`Cache`] is for one user. Even so a response to a request with credentials in `Authorization` is given to
//!   requests with the same ones alone. `Set-Cookie` is not kept, so an old session can't come back. Sizes are bounded.
//!
//! The client asks [`Cache::lookup`], sends what is left to be sent, and gives the response to [`Cache::record`],
//! or to [`Cache::refresh`] if it is a 304 for a [`Stale`].
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use portolan_core::clock;
//! use portolan_http::cache::{Cache, Lookup};
//!
//! let cache = Cache::new();
//! let (request, ()) = Request::get("https://example.com/").body(())?.into_parts();
//! assert!(matches!(cache.lookup(&request), Lookup::Miss));
//! let (response, ()) = Response::builder().header("cache-control", "max-age=60").body(())?.into_parts();
//! assert!(cache.store(&request, clock::wall(), &response, Bytes::from("hello")));
//! let Lookup::Hit(hit) = cache.lookup(&request) else { panic!() };
//! assert_eq!((hit.body().as_ref(), &hit.headers()["age"]), (&b"hello"[..], &"0".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod body;
mod control;

mod engine;
mod entry;
mod layer;
mod memory;
mod search;
#[cfg(test)]
mod tests;

pub use body::Recorded;
pub use engine::{Cache, CacheOptions, Lookup, Stale};
pub use entry::{CacheKey, Entry};
pub use layer::FromCache;
pub(crate) use layer::Known;
pub use memory::{CacheStore, MemoryStore};

//! The client for code without `async`.
//!
//! ```no_run
//! # fn main() -> portolan_core::Result<()> {
//! let text = portolan_http::blocking::get("https://example.org/")?.text()?;
//!
//! let client = portolan_http::blocking::Client::new();
//! let mut response = client.post("https://example.org/").form([("q", "ships")]).send()?.error_for_status()?;
//! std::io::copy(&mut response, &mut std::fs::File::create("ships.html").unwrap()).unwrap();
//! # Ok(()) }
//! ```
//!
//! It is the other client with a wait at its end: [`Client`] is made of any [`crate::Client`], a request is put together by the same
//! [`RequestBuilder`](crate::RequestBuilder), and what a [`Response`] tells it tells by dereferencing to the other one. How waiting
//! works, and where it is refused, [`portolan_core::blocking`] says.

mod body;
mod client;
mod response;

pub use client::{Client, RequestBuilder, get};
pub use portolan_core::blocking::Runtime;
pub use response::Response;

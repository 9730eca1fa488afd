//! DNS over HTTPS (RFC 8484).
//!
//! **Port and TLS**: 443, TLS from the first byte; schemes `https://`, and `h3://` for HTTP/3 alone, for
//! [`Options::from_url`](crate::dns::Options::from_url).
//!
//! **What works**: every query of [`dns`](crate::dns) as a request of the [HTTP client](portolan_http): over HTTP/2 or HTTP/1.1 as TLS
//! agrees, over HTTP/3 where the server offers it or it is asked for; by POST, or by GET so that caches can answer. Connections are kept
//! and shared. The media type is checked, answers are bounded, and times to live are shortened by what a cache says of an answer's age
//! and of what is left to it. Padding.
//!
//! **What is not done**: no zone transfer, no credentials, no discovery, no JSON.
//!
//! **Tested against** BIND 9.18, Unbound 1.17 and Knot Resolver 5.6 (HTTP/2), Hypercorn (HTTP/1.1, HTTP/2 and HTTP/3), directly and through
//! SOCKS5 and CONNECT.
//!
//! **Security**: as [`dot`](crate::dot). Redirects are not followed, cookies not kept, and no answer is decompressed.
//!
//! ```no_run
//! use portolan_core::Connector;
//! use portolan_dns::dns::{Client, Options, RecordType};
//!
//! # async fn run() -> portolan_core::Result<()> {
//! let server = Options::from_url("https://dns.quad9.net@9.9.9.9/dns-query{?dns}")?;
//! let names = Client::connect(&Connector::default(), server).await?;
//! let answer = names.query("example.org", RecordType::Mx).await?;
//! println!("{:?}", answer.info.connection.tls);
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use portolan_core::{BoxFuture, Connector, Delivery, Error, Phase, Result, clock};
use portolan_http::{Client, Redirect, RequestBuilder, Version};

use crate::dns::{Carried, Carrier, Freshness, Method, Options, Query, Transport};

/// The name in errors.
const PROTOCOL: &str = "doh";
/// What queries and answers are (RFC 8484 6).
const MEDIA_TYPE: &str = "application/dns-message";
/// The largest message that DNS has.
const MAX_ANSWER: usize = 65_535;

/// One server, and the client that keeps its connections.
pub(crate) struct Server {
    client: Client,
    url: String,
    method: Method,
}

/// The carrier of a client.
pub(crate) fn carrier(net: &Connector, options: &Options) -> Result<Box<dyn Carrier>> {
    let version = if options.transport == Transport::Http3 { Version::Http3Only } else { Version::Auto };
    let client = Client::builder()
        .connector(net.clone())
        .version(version)
        .redirect(Redirect::none())
        .decompression(None)
        .https_only(true)
        // They would be asked of whoever finds the server's address, for a server that was said.
        .https_records(false)
        .max_body(MAX_ANSWER)
        .build()?;
    let url = format!("https://{}{}", options.server()?.authority(), options.path);
    let server = Server { client, url, method: options.method };
    // What is wrong with the path is wrong from the start.
    server.client.get(&server.url).build()?;
    Ok(Box::new(server))
}

impl Server {
    fn request(&self, query: &Query) -> RequestBuilder {
        match self.method {
            Method::Get => {
                let sign = if self.url.contains('?') { '&' } else { '?' };
                let query = URL_SAFE_NO_PAD.encode(query.wire());
                self.client.get(format!("{}{sign}dns={query}", self.url))
            }
            Method::Post => {
                let request = self.client.post(&self.url).header(header::CONTENT_TYPE, MEDIA_TYPE);
                // It only reads, by whatever method.
                request.body(query.wire().to_vec()).idempotent(true)
            }
        }
    }

    async fn asked(&self, query: &Query, limit: Option<Duration>) -> Result<Carried> {
        let request = self.request(query).header(header::ACCEPT, MEDIA_TYPE);
        let request = match limit {
            Some(limit) => request.timeout(limit),
            None => request,
        };
        let response = request.send().await?;
        let status = response.status();
        if !status.is_success() {
            let what = if status.is_redirection() { ", which is not followed" } else { "" };
            let error = Error::from_server(PROTOCOL, format!("HTTP status {status}{what}"), status);
            return Err(error.with_code(status.as_u16().into()));
        }
        if !is_dns(response.headers()) {
            let error = Error::protocol(PROTOCOL, format!("the answer is not {MEDIA_TYPE}"));
            return Err(error.with_delivery(Delivery::Answered));
        }
        let freshness = freshness(response.headers());
        let mut connection = response.connection_info().clone();
        connection.reused = response.is_reused();
        let attempts = response.attempts();
        let bytes = response.bytes().await?;
        if !query.is_repeated_by(&bytes) {
            let error = Error::protocol(PROTOCOL, "the answer is to another question");
            return Err(error.with_delivery(Delivery::Answered));
        }
        Ok(Carried { bytes, connection, attempts, freshness })
    }
}

impl Carrier for Server {
    fn ask<'a>(&'a self, query: &'a Query, limit: Option<Duration>) -> BoxFuture<'a, Result<Carried>> {
        Box::pin(async move {
            let asked = clock::within(limit, Phase::Total, self.asked(query, limit)).await;
            asked.map_err(|error| error.with_protocol(PROTOCOL))
        })
    }

    fn close(&self) -> BoxFuture<'_, Result<()>> {
        self.client.close();
        Box::pin(std::future::ready(Ok(())))
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("url", &self.url).field("method", &self.method).finish_non_exhaustive()
    }
}

fn is_dns(headers: &HeaderMap) -> bool {
    let said = headers.get(header::CONTENT_TYPE).and_then(|said| said.to_str().ok()).unwrap_or_default();
    said.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(MEDIA_TYPE)
}

/// What caches say of the answer: its age counts, and where it may not be kept for longer, neither may its records.
fn freshness(headers: &HeaderMap) -> Freshness {
    let seconds =
        |text: &str| text.trim().trim_matches('"').parse::<u64>().ok().map(|n| u32::try_from(n).unwrap_or(u32::MAX));
    let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let age = text(header::AGE).and_then(seconds).unwrap_or(0);
    let lives = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let lives = lives.flat_map(|value| value.split(',')).filter_map(|word| {
        let (name, value) = word.split_once('=')?;
        name.trim().eq_ignore_ascii_case("max-age").then(|| seconds(value)).flatten()
    });
    Freshness { age, left: lives.min().map(|life| life.saturating_sub(age)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| (name.parse().unwrap(), value.parse().unwrap());
        list.iter().map(field).collect::<Vec<(http::HeaderName, http::HeaderValue)>>().into_iter().collect()
    }

    #[test]
    fn age_and_max_age_are_read_as_caches_write_them() {
        for (list, age, left) in [
            (&[][..], 0, None),
            (&[("age", "7")], 7, None),
            (&[("age", "7"), ("cache-control", "private, Max-Age=60")], 7, Some(53)),
            (&[("age", "99"), ("cache-control", "max-age=\"60\"")], 99, Some(0)),
            (&[("cache-control", "s-maxage=1, no-cache"), ("age", "x")], 0, None),
            (&[("age", "-1"), ("cache-control", "max-age=")], 0, None),
            (&[("age", "99999999999999"), ("cache-control", "max-age=99999999999")], u32::MAX, Some(0)),
        ] {
            assert_eq!(freshness(&headers(list)), Freshness { age, left }, "{list:?}");
        }
    }

    #[test]
    fn only_the_media_type_of_dns_is_dns() {
        for (said, is) in [
            ("application/dns-message", true),
            ("Application/DNS-Message; charset=x", true),
            ("application/dns-json", false),
            ("application/dns-messages", false),
            ("text/html", false),
        ] {
            assert_eq!(is_dns(&headers(&[("content-type", said)])), is, "{said}");
        }
        assert!(!is_dns(&HeaderMap::new()));
    }
}

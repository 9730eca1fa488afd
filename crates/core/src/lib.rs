#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "blocking")]
pub mod blocking;
pub mod clock;
#[cfg(feature = "serde")]
pub mod config;
mod connector;
mod datagram;
mod dial;
mod endpoint;
mod error;
mod happy;
mod hop;
mod info;
pub mod kit;
mod listener;
mod multicast;
pub mod observe;
mod policy;
mod raw;
pub mod resolve;
mod secret;
mod sockopt;
mod stream;
mod sys;
mod timeouts;
mod tls;
#[cfg(feature = "transcript")]
pub mod transcript;
mod url;

pub use connector::{Connector, ConnectorBuilder};
pub use datagram::{Datagram, DatagramIo, MAX_DATAGRAM};
pub use dial::{BoxFuture, Dial, DialContext, Direct, Place};
pub use endpoint::{Endpoint, Host};
pub use error::{BoxError, Delivery, Error, Kind, Phase, Result};
pub use happy::HappyOptions;
pub use hop::{Hop, HopFactory, HopSchemes, HopSpec, Isolation, ProxyHeader, Route, SocksReply};
pub use info::{Attempt, ConnectionInfo, HopInfo, Timings, TlsInfo, Tried, TriedOutcome};
pub use kit::auth::ProxyAuth;
pub use listener::Listener;
pub use multicast::Interface;
pub use observe::{Observer, Observers};
pub use policy::Policy;
pub use raw::{IpProtocol, IpVersion, RawSocket};
pub use resolve::{
    Answer, CacheOptions, Family, Resolve, ResolveFailure, Resolver, ResolverSchemes, Server, Servers, ServiceRecord,
    Services, Texts,
};
pub use secret::{Credentials, Secret};
pub use sockopt::{Bind, PRIVILEGED, SourcePort, TcpOptions};
pub use stream::{Io, Stream};
pub use timeouts::{Limit, Timeouts};
pub use tls::{Dangerous, Pin, Roots, Tls, TlsBuilder, TlsVersion};
pub use url::{Url, percent_decode, percent_encode, percent_encode_into};

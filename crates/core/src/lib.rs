#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod clock;
mod endpoint;
mod error;
mod info;
mod secret;
mod stream;
mod sys;
mod timeouts;
mod tls;
mod url;

pub use endpoint::{Endpoint, Host};
pub use error::{BoxError, Delivery, Error, Kind, Phase, Result};
pub use info::{Attempt, ConnectionInfo, HopInfo, Timings, TlsInfo};
pub use secret::{Credentials, Secret};
pub use stream::{Io, Stream};
pub use timeouts::{Limit, Timeouts};
pub use tls::{Dangerous, Pin, Roots, Tls, TlsBuilder, TlsVersion};
pub use url::{Url, percent_decode, percent_encode};

//! Whether a service is up: `grpc.health.v1`.

use portolan_core::Result;

use crate::call::Streaming;
use crate::client::{Client, Method};
use crate::codec_prost::Prost;
use crate::transport::Transport;

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(string, tag = "1")]
    service: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Reply {
    #[prost(int32, tag = "1")]
    status: i32,
}

type Codec = Prost<Request, Reply>;

/// What a server says of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Health {
    /// It does not know yet.
    Unknown,
    /// It serves.
    Serving,
    /// It does not.
    NotServing,
    /// It has no such service; said by [`HealthClient::watch`] alone, where it may change.
    ServiceUnknown,
    /// Something newer than this crate.
    Other(i32),
}

impl From<Reply> for Health {
    fn from(reply: Reply) -> Self {
        match reply.status {
            0 => Self::Unknown,
            1 => Self::Serving,
            2 => Self::NotServing,
            3 => Self::ServiceUnknown,
            other => Self::Other(other),
        }
    }
}

/// Asks servers how they are.
///
/// ```no_run
/// # async fn example(client: portolan_grpc::Client<portolan_grpc::Channel>) -> portolan_core::Result<()> {
/// use portolan_grpc::health::{Health, HealthClient};
///
/// let health = HealthClient::new(client);
/// assert_eq!(health.check("shop.Stock").await?, Health::Serving);
/// let mut changes = health.watch("shop.Stock").await?;
/// while let Some(health) = changes.next().await? {
///     println!("{health:?}");
/// }
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct HealthClient<T> {
    client: Client<T>,
}

impl<T: Transport> HealthClient<T> {
    /// Asks by this client.
    pub fn new(client: Client<T>) -> Self {
        Self { client }
    }

    /// How a service is now; the empty name is the server as a whole. A service that the server doesn't know is
    /// [`Code::NotFound`](crate::Code::NotFound).
    pub async fn check(&self, service: &str) -> Result<Health> {
        let method = Method::from_static("/grpc.health.v1.Health/Check", Codec::new());
        let reply = self.client.unary(&method, &Request { service: service.to_owned() }).await?;
        Ok(reply.into_message().into())
    }

    /// How a service is now, and whenever that changes. Dropping it ends the watch.
    pub async fn watch(&self, service: &str) -> Result<Watch> {
        let method = Method::from_static("/grpc.health.v1.Health/Watch", Codec::new());
        let replies = self.client.server_streaming(&method, &Request { service: service.to_owned() }).await?;
        Ok(Watch { replies })
    }
}

/// How a service is, as it changes.
#[derive(Debug)]
pub struct Watch {
    replies: Streaming<Codec>,
}

impl Watch {
    /// The next change; the first comes at once. A server that can't watch says [`Code::Unimplemented`](crate::Code).
    pub async fn next(&mut self) -> Result<Option<Health>> {
        Ok(self.replies.message().await?.map(Health::from))
    }
}

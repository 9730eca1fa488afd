//! Recording calls as gRPC's binary log (`grpc.binarylog.v1`, gRFC A16), which its other tools read, and answering out of such logs.
//!
//! - **What works**: every attempt at a call over any transport, of any kind: metadata, messages, status, cancellation; to memory, a file, or
//!   a function; [`Replay`] of logs of ours and of other programs, streams in the order in which they were spoken.
//! - **What is not done**: the peer's address; choosing what is recorded by the name of its method (the other clients' `GRPC_BINARY_LOG_FILTER`).
//! - **Tested against**: grpc-go, which reads our files and whose files are answered from.
//! - **Security**: the values of `authorization`, `proxy-authorization`, `cookie` and `set-cookie`, and of all that is marked sensitive
//!   ([`metadata_secret`](crate::Call::metadata_secret)), are left out unless [`Dangerous::with_secrets`] was called. Messages are written
//!   only on request: they may hold secrets too.
//!
//! A file is entries one after the other, each behind its length in four bytes, big-endian: as grpc-go writes them.
//!
//! ```no_run
//! use portolan_core::{Connector, Result};
//! use portolan_grpc::binlog::{Options, Recorder, Replay};
//! use portolan_grpc::{Client, Method, Raw};
//!
//! # async fn example() -> Result<()> {
//! // Once, with the server.
//! let recorder = Recorder::new(Options::new().with_messages(1 << 20));
//! let client = Client::connect(&Connector::default(), "https://shop.example").await?.record(&recorder);
//! let count = Method::new("/shop.Stock/Count", Raw::protobuf())?;
//! client.unary(&count, &"tea".into()).await?;
//! recorder.take().save("calls.binlog")?;
//!
//! // Ever after, without it.
//! let client = Client::new(Replay::load("calls.binlog")?, "https://shop.example")?;
//! println!("{:?}", client.unary(&count, &"tea".into()).await?.message());
//! # Ok(()) }
//! ```

mod entry;
mod log;
mod play;
mod recorder;
mod replay;
mod tap;

pub use entry::{Address, ClientHeader, Entry, Event, Logger, Message, Pair, Pairs, Payload, ServerHeader, Trailer};
pub use log::Log;
pub use recorder::{Dangerous, Options, Recorder};
pub use replay::{NotRecorded, Replay};
pub use tap::{Recorded, RecordedBody};

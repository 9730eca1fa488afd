//! Connections that stop being HTTP.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use portolan_core::{Error, Kind, Result, Stream};
use portolan_http1 as h1;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Held;
use crate::response::{Failed, Response};

/// A connection after 101 Switching Protocols, or a tunnel that CONNECT opened: a stream of bytes.
///
/// It is the connection's whole rest: dropping it closes the connection.
pub struct Upgraded(h1::Upgraded<Held, Stream>);

impl Upgraded {
    /// What is known about the connection.
    pub fn info(&self) -> &portolan_core::ConnectionInfo {
        self.0.connection().io().info()
    }
}

impl Response {
    /// The connection beneath, if the server agreed to another protocol (101) or opened a tunnel; else an error of
    /// [`Kind::Server`] with [`Failed`] as its reply. The request must have asked for it: `connection: upgrade` and `upgrade`, by
    /// HTTP/1.1 ([`Version::Http1Only`](crate::Version::Http1Only)).
    pub fn upgrade(self) -> Result<Upgraded> {
        let status = self.status();
        let headers = self.headers().clone();
        let upgraded = self.into_body().into_h1().and_then(|body| body.upgraded().ok());
        upgraded.map(Upgraded).ok_or_else(|| {
            let message = format!("expected another protocol, saw {status}");
            let error = Error::from_server(crate::PROTOCOL, message, Failed::new(status, headers));
            error.with_kind(Kind::Server).with_code(i64::from(status.as_u16()))
        })
    }
}

impl AsyncRead for Upgraded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Upgraded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

impl fmt::Debug for Upgraded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

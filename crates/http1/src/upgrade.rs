//! A connection that is no longer HTTP.

use std::fmt;
use std::io::{self, IoSlice};
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::connection::Connection;

/// The stream of a connection after 101 Switching Protocols, or of a CONNECT tunnel: what the peer had said already comes first.
pub struct Upgraded<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    conn: H,
}

impl<H, T> Upgraded<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(conn: H) -> Self {
        Self { conn }
    }

    /// The connection, whose stream it is.
    pub fn connection(&self) -> &Connection<T> {
        &self.conn
    }
}

impl<H, T> AsyncRead for Upgraded<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let conn = &mut *self.get_mut().conn;
        if conn.read.is_empty() {
            return Pin::new(&mut conn.io).poll_read(cx, buf);
        }
        let take = conn.read.len().min(buf.remaining());
        buf.put_slice(&conn.read[..take]);
        conn.read.advance(take);
        Poll::Ready(Ok(()))
    }
}

impl<H, T> AsyncWrite for Upgraded<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().conn.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.conn.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn.io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().conn.io).poll_shutdown(cx)
    }
}

impl<H, T> fmt::Debug for Upgraded<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upgraded").finish_non_exhaustive()
    }
}

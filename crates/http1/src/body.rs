//! A response body.

use std::fmt;
use std::ops::DerefMut;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use portolan_core::{Delivery, Error, Phase, Result};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::PROTOCOL;
use crate::chunk::{Chunked, Piece};
use crate::connection::{Connection, State};
use crate::message::Ends;
use crate::upgrade::Upgraded;
use crate::upload::Sending;

/// A response body: data, then trailers if there are any, read from the connection as it is polled.
///
/// It lets go of the connection at its end. Dropped before, it reads away what has come already, if that is the rest and
/// not too long ([`Options::drain`](crate::Options::drain)); else the connection can't be used again.
pub struct RecvBody<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    conn: Option<H>,
    left: Left,
    /// The rest of a request whose response came early.
    upload: Option<Box<dyn Sending<T>>>,
}

enum Left {
    /// All there is; the connection is free already.
    Whole(Bytes),
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Tunnel,
    Over,
}

impl<H, T> RecvBody<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    pub(crate) fn new(mut conn: H, ends: Ends, upload: Option<Box<dyn Sending<T>>>) -> Self {
        let connection = &mut *conn;
        connection.alarm.at(None);
        let left = match ends {
            Ends::Now => Left::Over,
            Ends::After(length) => match usize::try_from(length) {
                Ok(length) if length <= connection.read.len() && upload.is_none() => {
                    Left::Whole(connection.read.split_to(length).freeze())
                }
                _ => Left::Length(length),
            },
            Ends::Chunked => Left::Chunked(Chunked::new(connection.options.max_trailers)),
            Ends::WithConnection => Left::UntilClose,
            Ends::Never => Left::Tunnel,
        };
        if matches!(left, Left::Over | Left::Whole(_)) {
            connection.finish();
            return Self { conn: None, left, upload: None };
        }
        if matches!(left, Left::Tunnel) {
            connection.state = State::Over;
        }
        Self { conn: Some(conn), left, upload }
    }

    /// The connection as a stream of bytes, after 101 or a CONNECT that was granted; the body itself otherwise.
    pub fn upgraded(mut self) -> Result<Upgraded<H, T>, Self> {
        if !matches!(self.left, Left::Tunnel) {
            return Err(self);
        }
        match self.conn.take() {
            Some(conn) => Ok(Upgraded::new(conn)),
            None => Err(self),
        }
    }

    /// Whether [`upgraded`](Self::upgraded) would give a stream.
    pub fn is_upgraded(&self) -> bool {
        matches!(self.left, Left::Tunnel)
    }

    /// The connection, while the body has not ended.
    pub fn connection(&self) -> Option<&Connection<T>> {
        self.conn.as_deref()
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>>> {
        let Some(conn) = self.conn.as_deref_mut() else { return Poll::Ready(Ok(None)) };
        if let Some(upload) = &mut self.upload
            && upload.poll(conn, cx).is_ready()
        {
            // Sent, or no longer wanted: the response says which.
            self.upload = None;
        }
        loop {
            match &mut self.left {
                Left::Length(left) if !conn.read.is_empty() => {
                    let take = usize::try_from(*left).unwrap_or(usize::MAX).min(conn.read.len());
                    *left -= take as u64;
                    return Poll::Ready(Ok(Some(Piece::Data(conn.read.split_to(take).freeze()))));
                }
                Left::Chunked(chunked) => {
                    if let Some(piece) = chunked.decode(&mut conn.read).map_err(|error| error.into_error(PROTOCOL))? {
                        return Poll::Ready(Ok(Some(piece)));
                    }
                }
                Left::UntilClose if !conn.read.is_empty() => {
                    return Poll::Ready(Ok(Some(Piece::Data(conn.read.split().freeze()))));
                }
                Left::Length(_) | Left::UntilClose => {}
                Left::Whole(_) | Left::Over | Left::Tunnel => return Poll::Ready(Ok(None)),
            }
            let large = !matches!(&self.left, Left::Length(left) if *left <= 4096);
            if ready!(conn.poll_more(cx, large))? == 0 {
                return Poll::Ready(match self.left {
                    Left::UntilClose => Ok(Some(Piece::End(None))),
                    _ => Err(Error::closed("closed in the middle of a body").with_phase(Phase::Idle)),
                });
            }
        }
    }

    /// The end was reached in good order: the connection is free.
    fn release(&mut self) {
        self.left = Left::Over;
        if let Some(mut conn) = self.conn.take() {
            if self.upload.take().is_some() {
                conn.keep_alive = false;
            }
            conn.finish();
        }
    }

    /// Reads away what has come, and says whether that was the rest.
    fn drain(&mut self, mut budget: usize) -> bool {
        if matches!(self.left, Left::Length(left) if left > budget as u64) {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            match self.poll_piece(&mut cx) {
                Poll::Ready(Ok(Some(Piece::Data(data)))) if data.len() <= budget => {
                    budget -= data.len();
                    if matches!(self.left, Left::Length(0)) {
                        return true;
                    }
                }
                Poll::Ready(Ok(Some(Piece::End(_)))) => return true,
                _ => return false,
            }
        }
    }

    fn fail(&mut self) {
        self.left = Left::Over;
        self.upload = None;
        if let Some(mut conn) = self.conn.take() {
            conn.state = State::Over;
        }
    }
}

impl<H, T> Body for RecvBody<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = self.get_mut();
        if let Left::Whole(data) = &mut this.left {
            let data = std::mem::take(data);
            this.left = Left::Over;
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(match ready!(this.poll_piece(cx)) {
            Ok(Some(Piece::Data(data))) => {
                if matches!(this.left, Left::Length(0)) {
                    this.release();
                }
                Some(Ok(Frame::data(data)))
            }
            Ok(Some(Piece::End(trailers))) => {
                this.release();
                trailers.map(|trailers| Ok(Frame::trailers(trailers)))
            }
            Ok(None) => None,
            Err(error) => {
                this.fail();
                Some(Err(error.with_delivery(Delivery::Answered).with_phase(Phase::Idle).with_protocol(PROTOCOL)))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.left, Left::Over | Left::Tunnel)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.left {
            Left::Whole(data) => SizeHint::with_exact(data.len() as u64),
            Left::Length(left) => SizeHint::with_exact(*left),
            Left::Over | Left::Tunnel => SizeHint::with_exact(0),
            Left::Chunked(_) | Left::UntilClose => SizeHint::default(),
        }
    }
}

impl<H, T> Drop for RecvBody<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn drop(&mut self) {
        let worth_it = self.upload.is_none() && matches!(self.left, Left::Length(_) | Left::Chunked(_));
        let Some(conn) = self.conn.as_deref_mut().filter(|_| worth_it) else { return };
        // Nothing is waited for: there may be no runtime to keep the time.
        conn.alarm.at(None);
        let (budget, idle) = (conn.options.drain, conn.options.idle.take());
        let ended = self.drain(budget);
        if let Some(conn) = self.conn.as_deref_mut() {
            conn.options.idle = idle;
        }
        if ended {
            self.release();
        }
    }
}

impl<H, T> fmt::Debug for RecvBody<H, T>
where
    H: DerefMut<Target = Connection<T>> + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = match &self.left {
            Left::Whole(_) => "whole",
            Left::Length(_) => "length",
            Left::Chunked(_) => "chunked",
            Left::UntilClose => "until close",
            Left::Tunnel => "tunnel",
            Left::Over => "over",
        };
        f.debug_struct("RecvBody").field("left", &left).finish_non_exhaustive()
    }
}

//! The h2 crate's server half.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::{Call, Handler, Out};

/// Serves one connection.
pub(crate) async fn serve(io: impl AsyncRead + AsyncWrite + Unpin, handler: Handler) {
    let mut connection = h2::server::handshake(io).await.unwrap();
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (head, mut body) = request.into_parts();
        let (data, incoming) = mpsc::channel(16);
        let (out, outgoing) = mpsc::channel(16);
        tokio::spawn(async move {
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                if data.send(piece).await.is_err() {
                    break;
                }
            }
            // Held to the end, so that the upload is not reset under the client.
            let _ = body.trailers().await;
        });
        tokio::spawn(answer(respond, outgoing));
        tokio::spawn(handler(Call::new(head, incoming, out)));
    }
}

async fn answer(mut respond: h2::server::SendResponse<Bytes>, mut outgoing: mpsc::Receiver<Out>) {
    let mut stream: Option<h2::SendStream<Bytes>> = None;
    loop {
        let next = match &mut stream {
            Some(stream) => tokio::select! {
                next = outgoing.recv() => next,
                _ = std::future::poll_fn(|cx| stream.poll_reset(cx)) => return,
            },
            None => tokio::select! {
                next = outgoing.recv() => next,
                _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => return,
            },
        };
        match (next, &mut stream) {
            (None, _) => return,
            (Some(Out::Head(head, end)), None) => stream = respond.send_response(head, end).ok(),
            (Some(Out::Data(data, end)), Some(stream)) => send_all(stream, data, end).await,
            (Some(Out::Trailers(trailers)), Some(stream)) => drop(stream.send_trailers(trailers)),
            (Some(Out::Reset(code)), None) => respond.send_reset(code.into()),
            (Some(Out::Reset(code)), Some(stream)) => stream.send_reset(code.into()),
            (Some(out), _) => panic!("out of order: {out:?}"),
        }
    }
}

async fn send_all(stream: &mut h2::SendStream<Bytes>, mut data: Bytes, end: bool) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let Some(Ok(room)) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { return };
        let part = data.split_to(room.min(data.len()));
        if stream.send_data(part, false).is_err() {
            return;
        }
    }
    if end {
        let _ = stream.send_data(Bytes::new(), true);
    }
}

/// A client over a connection in memory that this handler serves.
pub(crate) fn client(handler: Handler) -> portolan_grpc::Client<portolan_http2::SendRequest> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(serve(theirs, handler));
    let (transport, connection) = portolan_http2::handshake(ours, portolan_http2::Options::new()).unwrap();
    tokio::spawn(connection);
    portolan_grpc::Client::new(transport, "http://grpc.test").unwrap()
}

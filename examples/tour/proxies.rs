//! The proxies of the tour: SOCKS5 with user and password, and HTTP CONNECT with basic credentials.

use std::net::SocketAddr;

use portolan_core::Endpoint;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

async fn listen<F, Fut>(serve: F) -> Endpoint
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            tokio::spawn(serve(stream));
        }
    });
    addr.into()
}

/// A SOCKS5 proxy for one user.
pub(crate) async fn socks5(user: &'static str, password: &'static str) -> Endpoint {
    listen(move |stream| socks5_one(stream, user, password)).await
}

async fn socks5_one(mut near: TcpStream, user: &str, password: &str) -> std::io::Result<()> {
    let [_, methods] = take(&mut near).await?;
    near.read_exact(&mut vec![0; usize::from(methods)]).await?;
    near.write_all(&[5, 2]).await?;
    let [_, length] = take(&mut near).await?;
    let name = text(&mut near, length).await?;
    let [length] = take(&mut near).await?;
    let good = name == user && text(&mut near, length).await? == password;
    near.write_all(&[1, u8::from(!good)]).await?;
    if !good {
        return Ok(());
    }
    let [_, command, _, kind] = take(&mut near).await?;
    let host = match kind {
        1 => std::net::Ipv4Addr::from(take::<4>(&mut near).await?).to_string(),
        4 => format!("[{}]", std::net::Ipv6Addr::from(take::<16>(&mut near).await?)),
        _ => {
            let [length] = take(&mut near).await?;
            text(&mut near, length).await?
        }
    };
    let port = u16::from_be_bytes(take(&mut near).await?);
    if command == 3 {
        return relay(near).await;
    }
    let mut far = TcpStream::connect(format!("{host}:{port}")).await?;
    near.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

/// Carries datagrams until the control connection ends. IPv4 alone: the tour stays on the loopback.
async fn relay(mut control: TcpStream) -> std::io::Result<()> {
    let (near, far) = (UdpSocket::bind("127.0.0.1:0").await?, UdpSocket::bind("127.0.0.1:0").await?);
    let port = near.local_addr()?.port().to_be_bytes();
    control.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, port[0], port[1]]).await?;
    let (mut there, mut back, mut client, mut end) = ([0; 2048], [0; 2048], None, [0]);
    loop {
        tokio::select! {
            _ = control.read(&mut end) => return Ok(()),
            got = near.recv_from(&mut there) => {
                let (n, from) = got?;
                client = Some(from);
                if let Some((to, payload)) = unwrap(&there[..n]) {
                    far.send_to(payload, to).await?;
                }
            }
            got = far.recv_from(&mut back) => {
                let (n, from) = got?;
                if let (SocketAddr::V4(from), Some(client)) = (from, client) {
                    let mut wrapped = vec![0, 0, 0, 1];
                    wrapped.extend_from_slice(&from.ip().octets());
                    wrapped.extend_from_slice(&from.port().to_be_bytes());
                    wrapped.extend_from_slice(&back[..n]);
                    near.send_to(&wrapped, client).await?;
                }
            }
        }
    }
}

/// Where a wrapped datagram is meant to go. The tour knows one name: this machine's.
fn unwrap(datagram: &[u8]) -> Option<(SocketAddr, &[u8])> {
    let (ip, rest) = match datagram.get(3)? {
        1 => (<[u8; 4]>::try_from(datagram.get(4..8)?).ok()?, datagram.get(8..)?),
        3 => ([127, 0, 0, 1], datagram.get(5 + usize::from(*datagram.get(4)?)..)?),
        _ => return None,
    };
    let (port, payload) = rest.split_first_chunk()?;
    Some(((ip, u16::from_be_bytes(*port)).into(), payload))
}

/// An HTTP proxy that only tunnels, for one user.
pub(crate) async fn connect(user: &str, password: &str) -> Endpoint {
    use base64::Engine;
    let token = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    listen(move |stream| connect_one(stream, format!("Proxy-Authorization: Basic {token}"))).await
}

async fn connect_one(near: TcpStream, credentials: String) -> std::io::Result<()> {
    let mut near = BufReader::new(near);
    let (mut target, mut known) = (String::new(), false);
    loop {
        let mut line = String::new();
        near.read_line(&mut line).await?;
        match line.trim_end() {
            "" => break,
            line if target.is_empty() => target = line.split(' ').nth(1).unwrap_or_default().to_owned(),
            line => known |= line == credentials,
        }
    }
    if !known {
        return near.write_all(b"HTTP/1.1 407 who are you\r\nProxy-Authenticate: Basic realm=\"tour\"\r\n\r\n").await;
    }
    let mut far = TcpStream::connect(target).await?;
    near.write_all(b"HTTP/1.1 200 sail on\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await?;
    Ok(())
}

async fn take<const N: usize>(stream: &mut TcpStream) -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn text(stream: &mut TcpStream, length: u8) -> std::io::Result<String> {
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

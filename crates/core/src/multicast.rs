//! Multicast and broadcast: what discovery protocols need of a datagram socket.

use std::net::{IpAddr, Ipv4Addr};

use socket2::{InterfaceIndexOrAddress, SockRef};

use crate::datagram::Datagram;
use crate::error::{Error, Phase, Result};

/// The interface that multicast goes through.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Interface {
    /// Whatever the routing table says.
    #[default]
    Any,
    /// The one with this index; 1 is the loopback on Linux.
    Index(u32),
    /// The one with this name.
    Name(String),
    /// The one with this IPv4 address.
    Addr(Ipv4Addr),
}

impl Interface {
    fn index(&self) -> Result<u32> {
        match self {
            Self::Any => Ok(0),
            Self::Index(index) => Ok(*index),
            Self::Name(name) => {
                crate::sys::interface_index(name).ok_or_else(|| Error::usage(format!("no interface named {name:?}")))
            }
            Self::Addr(_) => Err(Error::usage("an IPv6 group is joined by an interface's index or name")),
        }
    }

    fn v4(&self) -> Result<InterfaceIndexOrAddress> {
        match self {
            Self::Addr(addr) => Ok(InterfaceIndexOrAddress::Address(*addr)),
            other => other.index().map(InterfaceIndexOrAddress::Index),
        }
    }
}

fn setup(error: std::io::Error) -> Error {
    Error::io(Phase::Setup, error)
}

impl Datagram {
    /// Hears what is sent to `group` on that interface. Everyone on the network can send there: check the sources.
    pub fn join(&self, group: IpAddr, interface: &Interface) -> Result<()> {
        if !group.is_multicast() {
            return Err(Error::usage(format!("{group} is no multicast group")));
        }
        let socket = SockRef::from(self.udp()?);
        match group {
            IpAddr::V4(group) => socket.join_multicast_v4_n(&group, &interface.v4()?),
            IpAddr::V6(group) => socket.join_multicast_v6(&group, interface.index()?),
        }
        .map_err(setup)
    }

    /// Hears it no longer.
    pub fn leave(&self, group: IpAddr, interface: &Interface) -> Result<()> {
        let socket = SockRef::from(self.udp()?);
        match group {
            IpAddr::V4(group) => socket.leave_multicast_v4_n(&group, &interface.v4()?),
            IpAddr::V6(group) => socket.leave_multicast_v6(&group, interface.index()?),
        }
        .map_err(setup)
    }

    /// How many routers multicast may pass. Default 1: none. Some protocols demand 255 and check it.
    pub fn set_multicast_hops(&self, hops: u8) -> Result<()> {
        let socket = SockRef::from(self.udp()?);
        if self.is_v4()? {
            socket.set_multicast_ttl_v4(u32::from(hops))
        } else {
            socket.set_multicast_hops_v6(u32::from(hops))
        }
        .map_err(setup)
    }

    /// Whether sockets of this machine hear what it sends. Default yes.
    pub fn set_multicast_loop(&self, on: bool) -> Result<()> {
        let socket = SockRef::from(self.udp()?);
        if self.is_v4()? { socket.set_multicast_loop_v4(on) } else { socket.set_multicast_loop_v6(on) }.map_err(setup)
    }

    /// Sends multicast out of this interface: by address for IPv4, by index or name for IPv6.
    pub fn set_multicast_interface(&self, interface: &Interface) -> Result<()> {
        let socket = SockRef::from(self.udp()?);
        match interface {
            Interface::Addr(addr) => socket.set_multicast_if_v4(addr),
            Interface::Any if self.is_v4()? => socket.set_multicast_if_v4(&Ipv4Addr::UNSPECIFIED),
            other if !self.is_v4()? => socket.set_multicast_if_v6(other.index()?),
            _ => return Err(Error::usage("IPv4 multicast is sent out of an interface named by its address")),
        }
        .map_err(setup)
    }

    /// Whether broadcast addresses may be sent to. Default no.
    pub fn set_broadcast(&self, on: bool) -> Result<()> {
        self.udp()?.set_broadcast(on).map_err(setup)
    }

    fn is_v4(&self) -> Result<bool> {
        self.local_addr().map(|local| local.is_ipv4())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::sockopt::Bind;
    use crate::{Kind, clock};

    fn socket(local: &str) -> Datagram {
        Datagram::unconnected(local.parse().unwrap(), &Bind::any(), true).unwrap()
    }

    async fn heard(socket: &Datagram) -> Result<Vec<u8>> {
        let mut buf = [0; 64];
        let recv = socket.recv_from(&mut buf);
        let (n, _) = clock::within(Some(Duration::from_millis(500)), Phase::FirstByte, recv).await?;
        Ok(buf[..n].to_vec())
    }

    #[tokio::test]
    async fn a_group_on_the_loopback_is_heard_while_joined() {
        let group: IpAddr = "239.255.77.77".parse().unwrap();
        let loopback = Interface::Addr(Ipv4Addr::LOCALHOST);
        let ear = socket("0.0.0.0:0");
        let to = SocketAddr::new(group, ear.local_addr().unwrap().port());
        ear.join(group, &loopback).unwrap();
        let mouth = socket("127.0.0.1:0");
        mouth.set_multicast_interface(&loopback).unwrap();
        mouth.set_multicast_hops(255).unwrap();
        mouth.set_multicast_loop(true).unwrap();
        mouth.send_to(b"ahoy", to).await.unwrap();
        assert_eq!(heard(&ear).await.unwrap(), b"ahoy");
        ear.leave(group, &loopback).unwrap();
        mouth.send_to(b"gone", to).await.unwrap();
        assert!(heard(&ear).await.unwrap_err().is_timeout());
        assert_eq!(ear.join("127.0.0.1".parse().unwrap(), &loopback).unwrap_err().kind(), Kind::Usage);
    }

    #[tokio::test]
    async fn an_ipv6_group_on_the_loopback_is_heard() {
        let Ok(ear) = Datagram::unconnected("[::]:0".parse().unwrap(), &Bind::any(), true) else { return };
        let group: IpAddr = "ff01::4d4d".parse().unwrap();
        let loopback = Interface::Name("lo".to_owned());
        ear.join(group, &loopback).unwrap();
        let mouth = socket("[::1]:0");
        mouth.set_multicast_interface(&loopback).unwrap();
        match mouth.send_to(b"ahoy", SocketAddr::new(group, ear.local_addr().unwrap().port())).await {
            Ok(()) => assert_eq!(heard(&ear).await.unwrap(), b"ahoy"),
            // Most machines have no multicast route on their loopback: then joining is all that can be seen.
            Err(error) => assert!(error.message().contains("unreachable"), "{error:?}"),
        }
        ear.leave(group, &loopback).unwrap();
    }

    #[tokio::test]
    async fn broadcast_needs_to_be_allowed() {
        let ear = socket("0.0.0.0:0");
        let mouth = socket("127.0.0.1:0");
        let to = SocketAddr::from(([127, 255, 255, 255], ear.local_addr().unwrap().port()));
        assert!(mouth.send_to(b"all", to).await.is_err());
        mouth.set_broadcast(true).unwrap();
        mouth.send_to(b"all", to).await.unwrap();
        assert_eq!(heard(&ear).await.unwrap(), b"all");
    }

    #[tokio::test]
    async fn a_connected_socket_hears_its_peer_alone() {
        let (peer, stranger) = (socket("127.0.0.1:0"), socket("127.0.0.1:0"));
        let ours = Datagram::connected(peer.local_addr().unwrap(), &Bind::any()).unwrap();
        let to = ours.local_addr().unwrap();
        stranger.send_to(b"forged", to).await.unwrap();
        peer.send_to(b"true", to).await.unwrap();
        let mut buf = [0; 16];
        let n = ours.recv(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"true");
        let huge = vec![0; crate::MAX_DATAGRAM + 1];
        assert_eq!(ours.send(&huge).await.unwrap_err().kind(), Kind::Usage);
    }
}

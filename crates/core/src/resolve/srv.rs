//! SRV records: on which hosts and ports a service of a domain is, and in which order to try them (RFC 2782).

use std::time::Duration;

use super::{ResolveFailure, Resolver, answered, canonical, failed};
use crate::endpoint::Endpoint;
use crate::error::Result;

/// Servers tried of one name: more than any service has.
const MAX_SERVERS: usize = 16;

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// The lower the sooner.
    pub priority: u16,
    /// How much of the load it takes among those of its priority.
    pub weight: u16,
    /// The port.
    pub port: u16,
    /// The host, in lower case and without a dot at its end; empty where the domain says that it has no such service.
    pub target: String,
}

impl Server {
    /// A record.
    pub fn new(priority: u16, weight: u16, port: u16, target: &str) -> Self {
        Self { priority, weight, port, target: canonical(target) }
    }
}

/// The SRV records of a name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Servers {
    /// In any order.
    pub records: Vec<Server>,
    /// How long they hold, where the source says so.
    pub ttl: Option<Duration>,
}

impl Servers {
    /// Records that hold for `ttl`.
    pub fn new(records: Vec<Server>, ttl: Option<Duration>) -> Self {
        Self { records, ttl }
    }

    /// In an order for one use: by priority, and by lot within one, where weights are chances. `draw` gives a number from 0 to the
    /// one that it is given.
    fn by_lot(mut self, mut draw: impl FnMut(u32) -> u32) -> Vec<Server> {
        // Those without weight come first, as the standard has it: so they have a small chance.
        self.records.sort_by_key(|server| (server.priority, server.weight));
        let mut ordered = Vec::with_capacity(self.records.len());
        while let Some(priority) = self.records.first().map(|server| server.priority) {
            let peers = self.records.iter().take_while(|server| server.priority == priority);
            let weights: Vec<u32> = peers.map(|server| server.weight.into()).collect();
            let lot = draw(weights.iter().sum());
            let mut sum = 0;
            let chosen = weights.iter().position(|weight| {
                sum += weight;
                sum >= lot
            });
            ordered.push(self.records.remove(chosen.unwrap_or_default()));
        }
        ordered
    }
}

impl Resolver {
    /// The servers of a service, `_service._proto.domain`, asked for anew each time and in an order for one use: by priority, and by
    /// lot within one. A domain without such a service, or that says that it has none, is [`ResolveFailure::NoSuchName`]. A resolver that
    /// cannot ask, as the system's, is [`Kind::Unsupported`](crate::Kind::Unsupported). Dropping the future gives up.
    pub async fn servers(&self, name: &str) -> Result<Vec<Endpoint>> {
        let name = canonical(name);
        let found = answered("SRV", self.0.beneath.servers(&name)).await?;
        let mut servers = found.by_lot(draw);
        servers.truncate(MAX_SERVERS);
        // A target that is no host name is nobody's server.
        let endpoints = servers.into_iter().filter(|server| !server.target.is_empty());
        let endpoints: Vec<_> = endpoints.filter_map(|server| Endpoint::new(server.target, server.port).ok()).collect();
        if endpoints.is_empty() { Err(failed(&name, ResolveFailure::NoSuchName)) } else { Ok(endpoints) }
    }
}

/// From 0 to `most`. Without randomness, the first of them all.
fn draw(most: u32) -> u32 {
    let random = getrandom::u32().unwrap_or_default();
    let scaled = (u64::from(random) * (u64::from(most) + 1)) >> 32;
    u32::try_from(scaled).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dial::BoxFuture;
    use crate::error::Kind;
    use crate::resolve::{Answer, Resolve};

    #[derive(Debug)]
    struct Says(Vec<Server>);

    impl Resolve for Says {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(std::future::ready(Err(failed(name, ResolveFailure::NoSuchName))))
        }

        fn servers<'a>(&'a self, _name: &'a str) -> Option<BoxFuture<'a, Result<Servers>>> {
            Some(Box::pin(std::future::ready(Ok(Servers::new(self.0.clone(), None)))))
        }
    }

    fn ports(servers: &[Server]) -> Vec<u16> {
        servers.iter().map(|server| server.port).collect()
    }

    #[test]
    fn priorities_go_first_and_weights_are_chances() {
        let all = Servers::new(
            vec![
                Server::new(20, 9, 5, "e"),
                Server::new(10, 0, 1, "a"),
                Server::new(10, 60, 2, "b"),
                Server::new(10, 20, 3, "c"),
                Server::new(10, 20, 4, "d"),
            ],
            None,
        );
        assert_eq!(ports(&all.clone().by_lot(|_| 0)), [1, 3, 4, 2, 5]);
        assert_eq!(ports(&all.clone().by_lot(|most| most)), [2, 4, 3, 1, 5]);
        assert_eq!(ports(&all.clone().by_lot(|most| most.min(20))), [3, 4, 2, 1, 5], "the lot is drawn again");
        let mut first = [0; 6];
        for _ in 0..2000 {
            first[usize::from(all.clone().by_lot(draw)[0].port)] += 1;
        }
        assert!(first[2] > first[3] && first[2] > first[4] && first[3] > 0 && first[4] > 0, "{first:?}");
        assert!(first[1] < first[3] && first[5] == 0, "{first:?}");
    }

    #[tokio::test]
    async fn no_service_no_name_and_no_way_to_ask_are_told_apart() {
        let found = |servers| Resolver::new(Says(servers));
        let two = vec![Server::new(2, 0, 2, "B.example."), Server::new(1, 0, 1, "a.example")];
        let endpoints = found(two).servers("_x._tcp.Example.").await.unwrap();
        assert_eq!(endpoints.iter().map(Endpoint::authority).collect::<Vec<_>>(), ["a.example:1", "b.example:2"]);
        for none in [Vec::new(), vec![Server::new(0, 0, 0, ".")]] {
            let error = found(none).servers("_x._tcp.example").await.unwrap_err();
            assert_eq!(error.server(), Some(&ResolveFailure::NoSuchName));
        }
        let error = Resolver::system().servers("_x._tcp.example").await.unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let many = (0..100).map(|port| Server::new(1, 1, port, "a.example")).collect();
        assert_eq!(found(many).servers("_x._tcp.example").await.unwrap().len(), MAX_SERVERS);
    }
}

//! A service config out of DNS, asked for again as the service's addresses are.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_core::clock::{self, Instant};
use portolan_core::{Phase, Resolver, Result};

use crate::policy::{Config, ServiceConfig};

/// How long a call waits for what the name service says: it is wanted, but not needed.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads TXT records, for a machine of this name.
pub(crate) type Read = fn(&[Vec<u8>], &str) -> Result<Option<ServiceConfig>>;

/// What the name service says of one service, as a channel and its clients know it.
pub(crate) struct Asked {
    resolver: Resolver,
    name: String,
    hostname: Box<str>,
    read: Read,
    interval: Duration,
    /// Whether it is to be asked again, once the interval has passed.
    stale: AtomicBool,
    /// When it was last asked; held by whoever is asking.
    last: tokio::sync::Mutex<Option<Instant>>,
    config: Mutex<Option<Arc<Config>>>,
}

impl Asked {
    pub(super) fn new(resolver: Resolver, host: &str, (hostname, read): (Box<str>, Read), interval: Duration) -> Self {
        let (name, stale, last) =
            (format!("_grpc_config.{host}"), AtomicBool::new(true), tokio::sync::Mutex::default());
        Self { resolver, name, hostname, read, interval, stale, last, config: Mutex::default() }
    }

    /// Asks again with the next call: the addresses are being asked for again, too.
    pub(super) fn expire(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    /// What holds now. Who comes first waits for the answer, as long as `limit` allows; while it is asked for again, the others go by
    /// the one before.
    pub(crate) async fn config(&self, limit: Option<Duration>) -> Option<Arc<Config>> {
        if self.stale.load(Ordering::Relaxed) {
            let patience = limit.map_or(PATIENCE, |limit| limit.min(PATIENCE));
            let asking = clock::within(Some(patience), Phase::Resolve, async {
                let first = self.known().is_none();
                let last = if first { Some(self.last.lock().await) } else { self.last.try_lock().ok() };
                if let Some(mut last) = last
                    && last.is_none_or(|at| clock::now().saturating_duration_since(at) >= self.interval)
                {
                    // Also of an answer that never comes.
                    *last = Some(clock::now());
                    self.stale.store(false, Ordering::Relaxed);
                    self.ask().await;
                }
                Ok(())
            });
            let _ = asking.await;
        }
        self.known()
    }

    pub(super) fn known(&self) -> Option<Arc<Config>> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// No record, and no choice for us, is no config; no answer, and one that is broken, leave things as they are.
    async fn ask(&self) {
        let texts = self.resolver.texts(&self.name).await;
        match texts.and_then(|texts| (self.read)(&texts.records, &self.hostname)) {
            Ok(found) => {
                let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
                // What is the same keeps the state of its throttling.
                if config.as_ref().map(|config| &config.service) != found.as_ref() {
                    *config = found.map(|found| Arc::new(Config::new(found)));
                }
            }
            Err(error) => tracing::debug!(%error, name = self.name, "no service config"),
        }
    }
}

#[cfg(feature = "json")]
#[cfg(test)]
mod tests {
    use std::future::IntoFuture;

    use bytes::Bytes;
    use portolan_core::{Answer, BoxFuture, Connector, Resolve, ResolveFailure, Texts, resolve};

    use super::*;
    use crate::{Channel, ChannelOptions, Client, Code, Deadline, Method, Raw, Status};

    /// A resolver that says what the test has written down.
    #[derive(Debug, Clone, Default)]
    struct Says(Arc<Mutex<(Option<&'static str>, usize)>>);

    impl Resolve for Says {
        fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Answer>> {
            Box::pin(std::future::ready(Err(resolve::failed(name, ResolveFailure::NoSuchName))))
        }

        fn texts<'a>(&'a self, name: &'a str) -> Option<BoxFuture<'a, Result<Texts>>> {
            assert_eq!(name, "_grpc_config.svc.test");
            let mut says = self.0.lock().unwrap();
            says.1 += 1;
            let text = says.0;
            Some(Box::pin(async move {
                let text = match text {
                    Some("silence") => std::future::pending().await,
                    Some(text) => text,
                    None => return Ok(Texts::default()),
                };
                Ok(Texts::new(vec![b"v=spf1".to_vec(), text.into()], None))
            }))
        }
    }

    fn asked(resolver: Resolver) -> Asked {
        let in_dns = ChannelOptions::new().service_config_from_dns("x").in_dns.unwrap();
        Asked::new(resolver, "svc.test", in_dns, Duration::from_secs(30))
    }

    const ONE: &str = r#"grpc_config=[{"serviceConfig": {"loadBalancingPolicy": "one"}}]"#;
    const TWO: &str = r#"grpc_config=[{"serviceConfig": {"loadBalancingPolicy": "two"}}]"#;

    #[tokio::test(start_paused = true)]
    async fn what_is_in_dns_is_asked_for_again_and_what_is_broken_changes_nothing() {
        let says = Says::default();
        let asked = asked(Resolver::new(says.clone()));
        let mut expected_count = 0;
        // Before the first answer there is none; afterwards only an answer takes it away.
        for (text, policy) in [
            (Some("silence"), None),
            (Some(ONE), Some("one")),
            (Some("grpc_config=[{}]"), Some("one")),
            (Some("silence"), Some("one")),
            (Some(TWO), Some("two")),
            (None, None),
            (Some(ONE), Some("one")),
        ] {
            says.0.lock().unwrap().0 = text;
            clock::sleep(Duration::from_secs(31)).await;
            asked.expire();
            expected_count += 1;
            for _ in 0..3 {
                let (began, limit) = (clock::now(), Some(Duration::from_secs(1)));
                let config = asked.config(limit).await;
                assert_eq!(config.as_ref().and_then(|config| config.service.load_balancing()), policy, "{text:?}");
                assert!(began.elapsed() <= Duration::from_secs(1));
                // Not before its time.
                asked.expire();
            }
            assert_eq!(says.0.lock().unwrap().1, expected_count, "{text:?}");
        }
        // The same config is the same, with the state of its throttling.
        let before = asked.config(None).await.unwrap();
        clock::sleep(Duration::from_secs(31)).await;
        asked.expire();
        assert!(Arc::ptr_eq(&before, &asked.config(None).await.unwrap()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_the_name_service_keeps_its_deadline() {
        let method = Method::new("/t.S/M", Raw::plain()).unwrap();
        let second = Duration::from_secs(1);
        for in_scope in [false, true] {
            let says = Says::default();
            says.0.lock().unwrap().0 = Some("silence");
            let connector = Connector::builder().resolver(Resolver::new(says)).build().unwrap();
            let options = ChannelOptions::new().service_config_from_dns("x");
            let client =
                Client::from_channel(Channel::lazy(&connector, "http://svc.test:1", options).unwrap()).unwrap();
            let call = client.unary(&method, &Bytes::new());
            let began = clock::now();
            let result = if in_scope {
                Deadline::after(second).scope(call.into_future()).await
            } else {
                call.timeout(second).await
            };
            assert_eq!(Status::of(&result.unwrap_err()).code(), Code::DeadlineExceeded);
            assert!(began.elapsed() <= second + Duration::from_millis(2), "{:?}", began.elapsed());
        }
    }

    #[tokio::test]
    async fn a_resolver_that_cannot_ask_is_no_config() {
        let asked = asked(Resolver::system());
        assert!(asked.config(None).await.is_none());
    }
}

//! Whether an attempt that failed is followed by another (gRFC A6).

use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use portolan_core::clock::{self, Instant};
use portolan_core::{Delivery, Error, Kind, Result};

use super::attempt::Content;
use super::plan::{Plan, Repeat};
use super::reader::Opened;
use crate::policy::{HedgingPolicy, RetryPolicy};
use crate::status::Status;
use crate::transport::Transport;

/// How often a request that never left is sent again without a policy: a pool may hold several connections that are draining.
const UNSENT: u32 = 5;

/// What the server says about trying again: `grpc-retry-pushback-ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pushback {
    Unsaid,
    After(Duration),
    Never,
}

fn pushback(status: &Status) -> Pushback {
    let Some(value) = status.metadata().as_headers().get("grpc-retry-pushback-ms") else { return Pushback::Unsaid };
    // What is negative, or no number, says no (gRFC A6).
    let millis = value.to_str().ok().and_then(|text| text.parse::<u32>().ok()).filter(|ms| i32::try_from(*ms).is_ok());
    millis.map_or(Pushback::Never, |millis| Pushback::After(Duration::from_millis(millis.into())))
}

/// What was counted over the attempts of one call.
#[derive(Debug, Default)]
struct Tally {
    /// Attempts that the server may know of.
    made: u32,
    /// Waits since the last pushback: backoff starts anew after one.
    waits: u32,
    unsent: u32,
    refused: bool,
}

impl<T: Transport> Plan<T> {
    /// Makes attempts until one is answered, or none may follow.
    pub(crate) async fn open(&self, content: Content) -> Result<Opened<T::Body>> {
        let repeat = self.repeat.as_deref().filter(|_| content.is_whole());
        if let Some(Repeat::Hedge(policy)) = repeat {
            return Box::pin(self.hedge(policy, &content)).await;
        }
        let mut tally = Tally::default();
        let mut last = None;
        loop {
            let Some(body) = content.body() else { return Err(last.unwrap_or_else(spent)) };
            let error = match self.attempt(tally.made, &content, body).await {
                Ok(opened) => {
                    self.succeeded();
                    return Ok(opened);
                }
                Err(error) => error,
            };
            if tally.unseen(&error) {
                last = Some(error);
                continue;
            }
            let wait = match repeat {
                Some(Repeat::Retry(policy)) => self.again(policy, &error, &mut tally),
                _ => None,
            };
            match wait {
                Some(wait) => clock::sleep(wait).await,
                None => return Err(error),
            }
            last = Some(error);
        }
    }

    fn succeeded(&self) {
        if let Some(config) = &self.config {
            config.succeeded();
        }
    }

    /// How long to wait before another attempt, if there may be one.
    fn again(&self, policy: &RetryPolicy, error: &Error, tally: &mut Tally) -> Option<Duration> {
        let status = Status::of(error);
        let pushback = pushback(&status);
        tally.made += 1;
        let retryable = error.kind() != Kind::Usage && policy.codes.contains(&status.code());
        if !retryable {
            return None;
        }
        let allowed = self.config.as_ref().is_none_or(|config| config.failed());
        if !allowed || tally.made >= policy.max_attempts {
            return None;
        }
        match pushback {
            Pushback::Never => None,
            Pushback::After(wait) => {
                tally.waits = 0;
                Some(wait)
            }
            Pushback::Unsaid => {
                tally.waits += 1;
                Some(policy.wait(tally.waits))
            }
        }
    }

    /// Several attempts at once, each a while after the one before; the first that is answered is taken, and the others cancelled.
    async fn hedge(&self, policy: &HedgingPolicy, content: &Content) -> Result<Opened<T::Body>> {
        let mut running = FuturesUnordered::new();
        let (mut made, mut next) = (0, Some(clock::now()));
        let mut last = None;
        loop {
            let wait = async {
                match next {
                    Some(at) => clock::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(result) = running.next() => match result {
                    Ok(opened) => {
                        self.succeeded();
                        return Ok(opened);
                    }
                    Err(error) if fatal(policy, &error) => return Err(error),
                    Err(error) => {
                        next = self.hedged(policy, &error, next, made);
                        last = Some(error);
                    }
                },
                () = wait => {
                    let Some(body) = content.body() else { return Err(last.unwrap_or_else(spent)) };
                    running.push(self.attempt(made, content, body));
                    made += 1;
                    let more = made < policy.max_attempts
                        && self.config.as_ref().is_none_or(|config| config.allows());
                    next = more.then(|| clock::now() + policy.delay);
                }
            }
            if let Some(error) = last.take_if(|_| running.is_empty() && next.is_none()) {
                return Err(error);
            }
        }
    }

    /// When the next attempt is due after one of several failed.
    fn hedged(&self, policy: &HedgingPolicy, error: &Error, next: Option<Instant>, made: u32) -> Option<Instant> {
        let allowed = self.config.as_ref().is_none_or(|config| config.failed());
        if !allowed || made >= policy.max_attempts {
            return None;
        }
        match pushback(&Status::of(error)) {
            Pushback::Never => None,
            Pushback::After(wait) => Some(clock::now() + wait),
            Pushback::Unsaid => next.map(|_| clock::now()),
        }
    }
}

/// Whether a failure ends all attempts of a hedged call.
fn fatal(policy: &HedgingPolicy, error: &Error) -> bool {
    error.kind() == Kind::Usage || !policy.non_fatal.contains(&Status::of(error).code())
}

impl Tally {
    /// Whether the server never saw the attempt, so that it can be made again without a policy. A connection that could not be
    /// made is the transport's own affair.
    fn unseen(&mut self, error: &Error) -> bool {
        if error.is_connect() || !matches!(error.kind(), Kind::Closed | Kind::Server) {
            return false;
        }
        match error.delivery() {
            Delivery::NotSent if self.unsent < UNSENT => {
                self.unsent += 1;
                true
            }
            Delivery::Refused => !std::mem::replace(&mut self.refused, true),
            _ => false,
        }
    }
}

fn spent() -> Error {
    Error::closed("the request's stream is spent").with_protocol(crate::PROTOCOL)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::Metadata;
    use crate::status::Code;
    use http::{HeaderMap, HeaderName, HeaderValue};

    #[test]
    fn what_the_server_says_of_trying_again_is_understood() {
        let said = |text: &'static str| {
            let name = HeaderName::from_static("grpc-retry-pushback-ms");
            let map = HeaderMap::from_iter([(name, HeaderValue::from_static(text))]);
            pushback(&Status::new(Code::Unavailable, "").with_metadata(Metadata::from_headers(map)))
        };
        assert_eq!(said("0"), Pushback::After(Duration::ZERO));
        assert_eq!(said("1500"), Pushback::After(Duration::from_millis(1500)));
        for never in ["-1", "x", "", "99999999999", "4294967295"] {
            assert_eq!(said(never), Pushback::Never, "{never}");
        }
        assert_eq!(pushback(&Status::new(Code::Unavailable, "")), Pushback::Unsaid);
    }

    #[test]
    fn what_the_server_never_saw_is_sent_again_a_few_times() {
        let mut tally = Tally::default();
        let unsent = Error::closed("draining").with_delivery(Delivery::NotSent);
        assert_eq!((0..9).filter(|_| tally.unseen(&unsent)).count(), 5);
        let refused = Error::new(Kind::Server, "refused").with_delivery(Delivery::Refused);
        assert!(tally.unseen(&refused) && !tally.unseen(&refused));
        assert!(!Tally::default().unseen(&Error::new(Kind::Connect, "nobody there")));
        assert!(!Tally::default().unseen(&Error::closed("lost").with_delivery(Delivery::Unknown)));
    }
}

//! Deadlines: said to the server, kept here, and handed on to the calls made under them.

use std::future::Future;
use std::time::Duration;

use http::HeaderValue;
use portolan_core::clock::{self, Instant};
use portolan_core::{Delivery, Error, Kind, Phase, Result};

use crate::PROTOCOL;
use crate::status::{Code, Status};

/// The most digits of a `grpc-timeout`.
const DIGITS: u128 = 99_999_999;
/// The units of `grpc-timeout`, in nanoseconds.
const UNITS: [(u8, u128); 6] = [
    (b'n', 1),
    (b'u', 1_000),
    (b'm', 1_000_000),
    (b'S', 1_000_000_000),
    (b'M', 60 * 1_000_000_000),
    (b'H', 3600 * 1_000_000_000),
];

tokio::task_local! {
    static CURRENT: Deadline;
}

/// A point in time by which a call must be over, and every call that is made for its sake.
///
/// A server that makes calls of its own while it serves one runs its work in [`scope`](Self::scope); each call made there ends
/// by that deadline at the latest.
///
/// ```
/// # async fn example(client: portolan_grpc::Client<portolan_grpc::Channel>) -> portolan_core::Result<()> {
/// use std::time::Duration;
/// use portolan_grpc::{Deadline, Method, Raw};
///
/// let method = Method::new("/shop.Stock/Count", Raw::protobuf())?;
/// let reply = Deadline::after(Duration::from_secs(2)).scope(async {
///     client.unary(&method, &bytes::Bytes::new()).await
/// }).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// At this time.
    pub fn at(instant: Instant) -> Self {
        Self(instant)
    }

    /// So long from now.
    pub fn after(timeout: Duration) -> Self {
        let now = clock::now();
        // Thirty years, where the sum can't be said, are as good as for ever.
        Self(now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(30 * 365 * 86_400)))
    }

    /// What a `grpc-timeout` field says, from now: for servers that hand their deadline on.
    pub fn parse(value: &str) -> Option<Self> {
        let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
        let (_, nanos) = UNITS.into_iter().find(|(name, _)| unit.as_bytes() == [*name])?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let nanos = digits.parse::<u128>().ok()?.saturating_mul(nanos);
        let timeout =
            Duration::new(u64::try_from(nanos / 1_000_000_000).ok()?, u32::try_from(nanos % 1_000_000_000).ok()?);
        Some(Self::after(timeout))
    }

    /// The deadline of the work that is being done, if it has one.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|deadline| *deadline).ok()
    }

    /// Runs `work` under this deadline, or under the one in force if that is earlier.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        let deadline = Self::current().map_or(self, |outer| outer.min(self));
        CURRENT.scope(deadline, work).await
    }

    /// When that is.
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time that is left; zero if it has passed.
    pub fn left(self) -> Duration {
        self.0.saturating_duration_since(clock::now())
    }

    /// What is said to the server: at most eight digits, rounded up, so that the server doesn't give up before the caller.
    pub(crate) fn header(self) -> Result<HeaderValue> {
        encode(self.left())
    }

    /// Runs `work` until the deadline, and drops it then.
    pub(crate) async fn bound<T>(deadline: Option<Self>, work: impl Future<Output = Result<T>>) -> Result<T> {
        match deadline {
            None => work.await,
            Some(Self(instant)) => match tokio::time::timeout_at(instant, work).await {
                Ok(result) => result.map_err(|error| late(instant, error)),
                Err(_) => Err(exceeded()),
            },
        }
    }
}

/// The error of a deadline that passed here.
pub(crate) fn exceeded() -> Error {
    Status::local(Kind::Timeout, Code::DeadlineExceeded, "the deadline passed").with_phase(Phase::Total)
}

/// A server that keeps the deadline too resets the stream when it passes, which may be heard before our own timer is.
pub(crate) fn late(deadline: Instant, error: Error) -> Error {
    let reset = error.protocol_name() != Some(PROTOCOL) && Status::of(&error).code() == Code::Cancelled;
    if reset && deadline <= clock::now() { exceeded().with_source(error) } else { error }
}

/// The error of a deadline that had passed before anything was sent.
pub(crate) fn exceeded_before() -> Error {
    exceeded().with_delivery(Delivery::NotSent)
}

fn encode(left: Duration) -> Result<HeaderValue> {
    let nanos = left.as_nanos().max(1);
    let fits = UNITS.into_iter().map(|(unit, size)| (unit, nanos.div_ceil(size))).find(|(_, count)| *count <= DIGITS);
    let text = match fits {
        Some((unit, count)) => format!("{count}{}", char::from(unit)),
        None => format!("{DIGITS}H"),
    };
    HeaderValue::try_from(text).map_err(|_| Error::usage("a timeout is a field value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_into_eight_digits() {
        let encoded = |duration| encode(duration).unwrap().to_str().unwrap().to_owned();
        assert_eq!(encoded(Duration::ZERO), "1n");
        assert_eq!(encoded(Duration::from_nanos(99_999_999)), "99999999n");
        assert_eq!(encoded(Duration::from_nanos(100_000_001)), "100001u");
        assert_eq!(encoded(Duration::from_millis(100_000) + Duration::from_nanos(1)), "100001m");
        assert_eq!(encoded(Duration::from_secs(1)), "1000000u");
        assert_eq!(encoded(Duration::from_secs(99_999_999)), "99999999S");
        assert_eq!(encoded(Duration::from_secs(100_000_000)), "1666667M");
        assert_eq!(encoded(Duration::MAX), "99999999H");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_is_read_back() {
        for (text, expected) in [
            ("1S", Some(Duration::from_secs(1))),
            ("2H", Some(Duration::from_secs(7200))),
            ("3M", Some(Duration::from_secs(180))),
            ("99999999u", Some(Duration::from_micros(99_999_999))),
            ("123456789n", None),
            ("S", None),
            ("", None),
            ("1s", None),
            ("+1S", None),
            ("1é", None),
        ] {
            assert_eq!(Deadline::parse(text).map(Deadline::left), expected, "{text}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reset_by_the_server_that_keeps_the_deadline_too_is_the_deadline() {
        let reset = |protocol| Error::new(Kind::Server, "reset").with_protocol(protocol).with_code(8);
        let (passed, coming) = (clock::now(), clock::now() + Duration::from_secs(1));
        let code = |deadline, error| Status::of(&late(deadline, error)).code();
        assert_eq!(code(passed, reset("http2")), Code::DeadlineExceeded);
        assert_eq!(code(coming, reset("http2")), Code::Cancelled);
        let said = Error::from(Status::new(Code::Cancelled, "by the server's word"));
        assert_eq!(code(passed, said), Code::Cancelled);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_deadline_holds() {
        assert_eq!(Deadline::current(), None);
        let (soon, late) = (Deadline::after(Duration::from_secs(1)), Deadline::after(Duration::from_secs(9)));
        let inner = soon.scope(late.scope(async { Deadline::current() })).await;
        assert_eq!(inner, Some(soon));
    }
}

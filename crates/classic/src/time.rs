//! Time (RFC 868): the seconds since 1900 as a number of 32 bits.
//!
//! **Port and TLS**: 37, TCP and UDP; scheme `time://`; no TLS.
//!
//! **What works**: the number over TCP and UDP, and the date it stands for, also after 2036, when the number starts anew.
//!
//! **What is not done**: no correction for the time on the way; NTP does that.
//!
//! **Tested against** xinetd 2.3, TCP and UDP.
//!
//! **Security**: the answer can be forged; do not set a clock by it.
//!
//! ```no_run
//! # async fn run() -> portolan_core::Result<()> {
//! let time = portolan_classic::time::Client::open("time://127.0.0.1").await?.read().await?;
//! println!("{:?}", time.to_system_time());
//! # Ok(())
//! # }
//! ```

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_core::{Error, Kind, Result, clock};

use crate::conn::{Conn, options, simple_url, verbs};

/// From 1900 to 1970: 70 years, 17 of them leap years.
const TO_UNIX: i128 = 2_208_988_800;
/// After so many seconds the number starts anew, first on 7 February 2036.
const ERA: i128 = 1 << 32;

options!("time", 37, max: 4, "The longest answer that is taken, in bytes. Default 4, as the standard has it.", transport);
simple_url!("time", true);

/// Seconds since 1900, less whole eras.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Time {
    /// The number as it came.
    pub seconds: u32,
}

impl Time {
    /// A number that came.
    pub fn new(seconds: u32) -> Self {
        Self { seconds }
    }

    /// The date in the era that brings it nearest to now, by our own clock.
    pub fn to_system_time(self) -> SystemTime {
        self.near(clock::wall())
    }

    /// The date in the era that brings it nearest to `pivot`: never more than 68 years off.
    pub fn near(self, pivot: SystemTime) -> SystemTime {
        let pivot = match pivot.duration_since(UNIX_EPOCH) {
            Ok(after) => i128::from(after.as_secs()),
            Err(before) => i128::from(before.duration().as_secs()).saturating_neg(),
        };
        let unix = i128::from(self.seconds).saturating_sub(TO_UNIX);
        let half = ERA.checked_div(2).unwrap_or_default();
        let eras = pivot.saturating_sub(unix).saturating_add(half).div_euclid(ERA);
        let unix = unix.saturating_add(eras.saturating_mul(ERA));
        let distance = Duration::from_secs(u64::try_from(unix.unsigned_abs()).unwrap_or(u64::MAX));
        let date = if unix < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
        date.unwrap_or(UNIX_EPOCH)
    }
}

/// A connection to a time server: good for one answer.
#[derive(Debug)]
pub struct Client {
    conn: Conn,
    options: Options,
}

verbs!();

impl Client {
    /// What time it is there.
    pub async fn read(mut self) -> Result<Time> {
        let bytes = self.conn.told(&self.options.common).await.map_err(|error| match error.kind() {
            Kind::Limit => Error::protocol("time", "expected four bytes, saw more"),
            _ => error,
        })?;
        match <[u8; 4]>::try_from(&*bytes) {
            Ok(number) => Ok(Time::new(u32::from_be_bytes(number))),
            Err(_) => Err(Error::closed(format!("ended after {} of four bytes", bytes.len())).with_protocol("time")),
        }
    }

    /// Closes without reading.
    pub async fn close(self) -> Result<()> {
        self.conn.close(&self.options.common).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::telling;

    fn unix(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn numbers_of_the_standard_and_of_the_next_era() {
        // RFC 868's own: 1970-01-01, 1976-01-01, 1980-01-01, 1983-05-01, and 1858-11-17 as a negative number.
        let in_1985 = unix(473_385_600);
        for (number, date) in [
            (2_208_988_800, 0),
            (2_398_291_200, 189_302_400),
            (2_524_521_600, 315_532_800),
            (2_629_584_000, 420_595_200),
        ] {
            assert_eq!(Time::new(number).near(in_1985), unix(date));
        }
        // 2036-02-07 06:28:15 is the last second of the era; the next is zero.
        let wrap = unix(2_085_978_495);
        assert_eq!(Time::new(u32::MAX).near(wrap), wrap);
        assert_eq!(Time::new(0).near(wrap), unix(2_085_978_496));
        assert_eq!(Time::new(10).near(unix(2_100_000_000)), unix(2_085_978_506));
        // Seen from 1900 itself.
        let in_1900 = UNIX_EPOCH - Duration::from_secs(2_208_988_800);
        assert_eq!(Time::new(0).near(in_1900), in_1900);
    }

    #[tokio::test]
    async fn four_bytes_and_no_other_number_of_them() {
        let time = Client::from_stream(telling(&[0x83, 0xaa, 0x7e, 0x80]), Options::default()).read().await.unwrap();
        assert_eq!(time.seconds, 2_208_988_800);
        for (told, kind) in [(b"abc".as_slice(), Kind::Closed), (b"", Kind::Closed), (b"abcde", Kind::Protocol)] {
            let error = Client::from_stream(telling(told), Options::default()).read().await.unwrap_err();
            assert_eq!(error.kind(), kind, "{told:?}");
        }
    }
}

//! Dates of the proleptic Gregorian calendar, as seconds of the Unix clock and back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY: i64 = 86_400;

/// A moment in UTC, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: i64,
    pub(crate) day: i64,
    pub(crate) hour: i64,
    pub(crate) minute: i64,
    pub(crate) second: i64,
}

impl Civil {
    #[cfg_attr(
        not(any(test, feature = "cookies")),
        expect(dead_code, reason = "only cookies read dates of their own form")
    )]
    /// Seconds since 1970, or `None` where no such moment exists (31 April, 25 o'clock).
    pub(crate) fn unix(self) -> Option<i64> {
        let leap = self.year % 4 == 0 && (self.year % 100 != 0 || self.year % 400 == 0);
        let days_in_month = match self.month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        let exists = (1..=days_in_month).contains(&self.day)
            && (0..=9999).contains(&self.year)
            && (0..24).contains(&self.hour)
            && (0..60).contains(&self.minute)
            && (0..60).contains(&self.second);
        // The year begins in March, so that the leap day is its last.
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        let days = era * 146_097 + day_of_era - 719_468;
        exists.then_some(days * DAY + self.hour * 3600 + self.minute * 60 + self.second)
    }

    /// The moment that is `unix` seconds after 1970.
    #[cfg_attr(
        not(any(test, feature = "har", feature = "sigv4")),
        expect(dead_code, reason = "HAR and SigV4 write dates")
    )]
    pub(crate) fn from_unix(unix: i64) -> Self {
        let days = unix.div_euclid(DAY) + 719_468;
        let second_of_day = unix.rem_euclid(DAY);
        let era = days.div_euclid(146_097);
        let day_of_era = days.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted = (5 * day_of_year + 2) / 153;
        let month = (shifted + 2) % 12 + 1;
        Self {
            year: era * 400 + year_of_era + i64::from(month <= 2),
            month,
            day: day_of_year - (153 * shifted + 2) / 5 + 1,
            hour: second_of_day / 3600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
        }
    }
}

/// A wall-clock time as seconds since 1970; times before that are negative.
pub(crate) fn unix(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |secs| -secs),
    }
}

/// Seconds since 1970 as a wall-clock time, held within what the platform can say.
pub(crate) fn system_time(unix: i64) -> SystemTime {
    let distance = Duration::from_secs(unix.unsigned_abs());
    let time = if unix < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) };
    time.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn civil(year: i64, month: i64, day: i64, hour: i64, minute: i64, second: i64) -> Civil {
        Civil { year, month, day, hour, minute, second }
    }

    #[test]
    fn known_moments_go_both_ways() {
        for (moment, unix) in [
            (civil(1970, 1, 1, 0, 0, 0), 0),
            (civil(1969, 12, 31, 23, 59, 59), -1),
            (civil(2000, 2, 29, 12, 0, 0), 951_825_600),
            (civil(1601, 1, 1, 0, 0, 0), -11_644_473_600),
            (civil(2038, 1, 19, 3, 14, 8), 2_147_483_648),
            (civil(9999, 12, 31, 23, 59, 59), 253_402_300_799),
        ] {
            assert_eq!(moment.unix(), Some(unix), "{moment:?}");
            assert_eq!(Civil::from_unix(unix), moment);
        }
    }

    #[test]
    fn days_that_are_on_no_calendar_are_refused() {
        for moment in [
            civil(2023, 2, 29, 0, 0, 0),
            civil(1900, 2, 29, 0, 0, 0),
            civil(2023, 4, 31, 0, 0, 0),
            civil(2023, 13, 1, 0, 0, 0),
            civil(2023, 0, 1, 0, 0, 0),
            civil(2023, 1, 0, 0, 0, 0),
            civil(2023, 1, 1, 24, 0, 0),
            civil(2023, 1, 1, 0, 60, 0),
            civil(10_000, 1, 1, 0, 0, 0),
        ] {
            assert_eq!(moment.unix(), None, "{moment:?}");
        }
    }

    #[test]
    fn every_day_of_four_centuries_comes_back() {
        let start = civil(1900, 1, 1, 0, 0, 0).unix().unwrap();
        for day in 0..146_097 {
            let unix = start + day * DAY + day % DAY;
            assert_eq!(Civil::from_unix(unix).unix(), Some(unix));
        }
    }
}

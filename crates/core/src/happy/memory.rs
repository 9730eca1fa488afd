//! Which family won where the one that should lead did not: so that a broken one is not waited for each time.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::{self, Instant};
use crate::resolve::Family;

/// Hosts remembered at most; the ones that end soonest make room.
const MAX_HOSTS: usize = 1024;

/// The families that won against the odds, by host.
#[derive(Debug, Default)]
pub(crate) struct Winners(Mutex<HashMap<String, (Family, Instant)>>);

impl Winners {
    /// Who won last time, if that was against the odds and not long ago.
    pub(crate) fn of(&self, host: &str) -> Option<Family> {
        let hosts = self.hosts();
        hosts.get(host).filter(|(_, until)| *until > clock::now()).map(|(family, _)| *family)
    }

    /// Remembers for `time` that `family` won. A memory that still holds is not made longer: else a host that is used often
    /// would never be tried by the other family again.
    pub(crate) fn won(&self, host: &str, family: Family, time: Duration) {
        let now = clock::now();
        let Some(until) = now.checked_add(time).filter(|until| *until > now) else {
            return;
        };
        let mut hosts = self.hosts();
        if hosts.get(host).is_some_and(|(known, until)| *known == family && *until > now) {
            return;
        }
        if hosts.len() >= MAX_HOSTS && !hosts.contains_key(host) {
            hosts.retain(|_, (_, until)| *until > now);
            if hosts.len() >= MAX_HOSTS {
                let soonest = hosts.iter().min_by_key(|(_, (_, until))| *until).map(|(host, _)| host.clone());
                soonest.and_then(|host| hosts.remove(&host));
            }
        }
        hosts.insert(host.to_owned(), (family, until));
    }

    /// The odds hold again.
    pub(crate) fn forget(&self, host: &str) {
        self.hosts().remove(host);
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, (Family, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(600);

    #[tokio::test(start_paused = true)]
    async fn a_winner_is_remembered_for_its_time_which_use_does_not_stretch() {
        let winners = Winners::default();
        winners.won("a", Family::V4, TIME);
        clock::sleep(TIME / 2).await;
        winners.won("a", Family::V4, TIME);
        assert_eq!(winners.of("a"), Some(Family::V4));
        clock::sleep(TIME / 2).await;
        assert_eq!(winners.of("a"), None);
        winners.won("a", Family::V4, Duration::ZERO);
        assert_eq!(winners.of("a"), None);
        winners.won("a", Family::V4, TIME);
        winners.forget("a");
        assert_eq!(winners.of("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded_and_the_newest_are_kept() {
        let winners = Winners::default();
        for n in 0..3 * MAX_HOSTS {
            clock::sleep(Duration::from_millis(1)).await;
            winners.won(&n.to_string(), Family::V4, TIME);
        }
        assert_eq!(winners.hosts().len(), MAX_HOSTS);
        assert_eq!(winners.of(&(3 * MAX_HOSTS - 1).to_string()), Some(Family::V4));
        assert_eq!(winners.of("0"), None);
    }
}

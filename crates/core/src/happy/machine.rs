//! The machine of the race: answers, outcomes and the time in; what to do next out. No I/O, no clock.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::HappyOptions;
use crate::clock::Instant;
use crate::resolve::Family;

/// Addresses of one family that are tried at most: a name with thousands is somebody's attack.
const MAX_PER_FAMILY: usize = 64;

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Connect to this one as well.
    Start(SocketAddr),
    /// Wait until then if a time is given, or until an attempt or a look-up ends.
    Wait(Option<Instant>),
    /// All have failed.
    Failed,
}

/// When connecting may begin.
#[derive(Debug)]
enum Gate {
    /// No answer that would do is there.
    Shut,
    /// Then, if the family that leads has not answered before.
    At(Instant),
    Open,
}

#[derive(Debug)]
pub(super) struct Race {
    options: HappyOptions,
    remembered: Option<Family>,
    /// The family that leads where none is remembered: said, or that of the first address of an answer for both.
    expected: Option<Family>,
    v4: Side,
    v6: Side,
    gate: Gate,
    running: usize,
    next_at: Option<Instant>,
    /// How many attempts the leading family had.
    led: usize,
    last: Option<Family>,
}

/// What is known of one family.
#[derive(Debug, Default)]
struct Side {
    queue: VecDeque<SocketAddr>,
    answered: bool,
    had_any: bool,
}

impl Race {
    pub(super) fn new(options: &HappyOptions, remembered: Option<Family>) -> Self {
        let said = options.prefer_v4.then_some(Family::V4);
        Self {
            options: *options,
            remembered,
            expected: said,
            v4: Side::default(),
            v6: Side::default(),
            gate: Gate::Shut,
            running: 0,
            next_at: None,
            led: 0,
            last: None,
        }
    }

    /// A look-up for `family`, or for both, has ended with these addresses; none where it failed.
    pub(super) fn answered(&mut self, family: Option<Family>, addrs: Vec<SocketAddr>, now: Instant) {
        if family.is_none() {
            // The resolver sorted them (RFC 6724), and knows what this machine can reach.
            self.expected = self.expected.or(addrs.first().map(|addr| Family::of(addr.ip())));
        }
        let came = !addrs.is_empty();
        for addr in addrs {
            let side = self.side(Family::of(addr.ip()));
            side.had_any = true;
            if side.queue.len() < MAX_PER_FAMILY {
                side.queue.push_back(addr);
            }
        }
        match family {
            Some(family) => self.side(family).answered = true,
            None => self.end_of_answers(),
        }
        let leading = self.leading();
        if self.side(leading).answered || !self.awaits_answers() {
            self.gate = Gate::Open;
        } else if came && matches!(self.gate, Gate::Shut) {
            // RFC 8305 3: the other family waits a little for the one that leads.
            self.gate = Gate::At(now + self.options.resolution_delay);
        }
    }

    /// No answer will come any more, such as for a family that nobody asks for.
    pub(super) fn end_of_answers(&mut self) {
        (self.v4.answered, self.v6.answered) = (true, true);
        self.gate = Gate::Open;
    }

    /// A family will not be asked for.
    pub(super) fn without(&mut self, family: Family) {
        self.side(family).answered = true;
    }

    pub(super) fn awaits_answers(&self) -> bool {
        !(self.v4.answered && self.v6.answered)
    }

    pub(super) fn running(&self) -> bool {
        self.running > 0
    }

    /// The family that leads where none is remembered: IPv6 if nothing was said (RFC 8305 4).
    pub(super) fn expected(&self) -> Family {
        self.expected.unwrap_or(Family::V6)
    }

    fn leading(&self) -> Family {
        self.remembered.unwrap_or_else(|| self.expected())
    }

    /// Whether the other family than `winner` may have had a chance: it has addresses, or has not answered.
    pub(super) fn contested(&self, winner: Family) -> bool {
        let other = if winner == Family::V4 { &self.v6 } else { &self.v4 };
        other.had_any || !other.answered
    }

    pub(super) fn poll(&mut self, now: Instant) -> Step {
        match self.gate {
            Gate::Shut if self.awaits_answers() => return Step::Wait(None),
            Gate::At(at) if at > now => return Step::Wait(Some(at)),
            _ => self.gate = Gate::Open,
        }
        if self.v4.queue.is_empty() && self.v6.queue.is_empty() {
            return if self.running() || self.awaits_answers() { Step::Wait(None) } else { Step::Failed };
        }
        if let Some(at) = self.next_at.filter(|at| *at > now) {
            return Step::Wait(Some(at));
        }
        match self.pick() {
            Some(addr) => {
                self.running += 1;
                self.next_at = Some(now + self.options.attempt_delay);
                Step::Start(addr)
            }
            None => Step::Failed,
        }
    }

    /// An attempt failed: the next address need not wait any longer (RFC 8305 5).
    pub(super) fn failed(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.next_at = None;
    }

    /// The leading family so often as was said, then the families in turn; within a family the order stays (RFC 8305 4).
    fn pick(&mut self) -> Option<SocketAddr> {
        let leading = self.leading();
        let turn = match self.last {
            Some(last) if self.led >= self.options.first_family_count => last.other(),
            _ => leading,
        };
        let family = if self.side(turn).queue.is_empty() { turn.other() } else { turn };
        self.last = Some(family);
        self.led += usize::from(family == leading);
        self.side(family).queue.pop_front()
    }

    fn side(&mut self, family: Family) -> &mut Side {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    /// The order in which the addresses of one answer are tried, if each fails.
    fn order(addrs: &[&str], options: HappyOptions) -> Vec<String> {
        let mut race = Race::new(&options, None);
        race.answered(None, addrs.iter().map(|text| text.parse().unwrap()).collect(), clock::now());
        let mut out = Vec::new();
        while let Step::Start(addr) = race.poll(clock::now()) {
            out.push(addr.ip().to_string());
            race.failed();
        }
        out
    }

    #[tokio::test(start_paused = true)]
    async fn families_take_turns_and_keep_their_order() {
        let list = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"];
        assert_eq!(order(&list, HappyOptions::default()), ["::1", "1.1.1.1", "::2", "2.2.2.2", "::3"]);
        let v4 = HappyOptions::default().prefer_v4(true);
        assert_eq!(order(&list, v4), ["1.1.1.1", "::1", "2.2.2.2", "::2", "::3"]);
        let two = HappyOptions::default().first_family_count(2);
        assert_eq!(order(&list, two), ["::1", "::2", "1.1.1.1", "::3", "2.2.2.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_with_thousands_of_addresses_is_cut() {
        let list: Vec<String> = (0..3000).map(|n| format!("10.0.{}.{}:1", n / 250, n % 250)).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        assert_eq!(order(&list, HappyOptions::default()).len(), MAX_PER_FAMILY);
    }
}

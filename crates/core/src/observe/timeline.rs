//! An observer that draws what it saw: a waterfall of phases.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Closed, Done, Observer, Opened, Outcome, Step};
use crate::clock::Instant;

/// Rows that are kept: what comes later is counted alone.
const MAX_ROWS: usize = 256;
/// The width of the bars, in characters.
const WIDTH: u32 = 40;

/// Keeps every phase and operation with its time, and shows them as a waterfall.
///
/// ```no_run
/// # async fn run() -> portolan_core::Result<()> {
/// use std::sync::Arc;
/// use portolan_core::{Connector, Endpoint, observe::Timeline};
///
/// let timeline = Arc::new(Timeline::default());
/// let net = Connector::builder().observer(timeline.clone()).build()?;
/// net.connect_tls(&Endpoint::new("example.org", 443)?, &[]).await?;
/// println!("{timeline}");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Timeline(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    rows: Vec<Row>,
    more: usize,
}

#[derive(Debug)]
struct Row {
    started: Instant,
    elapsed: Duration,
    label: String,
    /// What went wrong, or what else there is to say.
    note: String,
}

impl Timeline {
    /// Forgets what it saw.
    pub fn clear(&self) {
        *self.rows() = Rows::default();
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what the program did itself, such as reading a body.
    pub fn add(&self, started: Instant, elapsed: Duration, label: &str, note: &str) {
        let mut rows = self.rows();
        if rows.rows.len() < MAX_ROWS {
            rows.rows.push(Row { started, elapsed, label: label.to_owned(), note: note.to_owned() });
        } else {
            rows.more += 1;
        }
    }
}

fn note(outcome: Outcome<'_>) -> String {
    match outcome {
        Outcome::Done => String::new(),
        Outcome::Failed(error) => error.to_string(),
        Outcome::Dropped => "dropped".to_owned(),
    }
}

impl Observer for Timeline {
    fn phase(&self, step: &Step<'_>) {
        let label = match (step.hop, step.address, step.protocol) {
            (Some(hop), ..) => format!("{} {} {}", step.phase, hop.kind, hop.authority),
            (_, Some(address), _) => format!("{} {address}", step.phase),
            (_, _, Some(protocol)) => format!("{} {protocol}", step.phase),
            _ => step.phase.to_string(),
        };
        self.add(step.started, step.elapsed, &label, &note(step.outcome));
    }

    fn opened(&self, opened: &Opened<'_>) {
        let label = format!("to {}", opened.endpoint.authority());
        self.add(opened.started, opened.elapsed, &label, &note(opened.outcome));
    }

    fn closed(&self, closed: &Closed<'_>) {
        let now = crate::clock::now();
        let started = now.checked_sub(closed.age).unwrap_or(now);
        let note = format!("{} bytes out, {} in", closed.sent, closed.received);
        self.add(started, closed.age, &format!("open {}", closed.endpoint.authority()), &note);
    }

    fn operation(&self, done: &Done<'_>) {
        let mut label = format!("{} {}", done.protocol, done.operation);
        if let Some(about) = done.about {
            label.push(' ');
            label.push_str(about);
        }
        let mut note = note(done.outcome);
        if let Some(status) = done.facts.status {
            note.push_str(&status.to_string());
        }
        if done.facts.reused == Some(true) {
            note.push_str(" on a connection that was there");
        }
        self.add(done.started, done.elapsed, &label, &note);
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let mut order: Vec<&Row> = rows.rows.iter().collect();
        // What holds others comes before them.
        order.sort_by_key(|row| (row.started, std::cmp::Reverse(row.elapsed)));
        let (Some(first), Some(end)) =
            (order.first().map(|row| row.started), order.iter().map(|row| row.started + row.elapsed).max())
        else {
            return Ok(());
        };
        let whole = (end - first).max(Duration::from_micros(1));
        let label = order.iter().map(|row| row.label.chars().count()).max().unwrap_or_default().min(60);
        for row in order {
            let from = at(row.started - first, whole);
            let to = at(row.started + row.elapsed - first, whole).max(from + 1).min(WIDTH);
            let bar: String =
                (0..WIDTH).map(|n| if (from.min(WIDTH - 1)..to).contains(&n) { '=' } else { '.' }).collect();
            let ms = row.elapsed.as_secs_f64() * 1e3;
            let line = format!("{:label$.label$}  {bar}  {ms:>9.3} ms  {}", row.label, row.note);
            writeln!(f, "{}", line.trim_end())?;
        }
        if rows.more > 0 {
            writeln!(f, "and {} more", rows.more)?;
        }
        Ok(())
    }
}

/// Where in the bar a point of time is.
fn at(offset: Duration, whole: Duration) -> u32 {
    let part = u128::from(WIDTH) * offset.as_nanos() / whole.as_nanos().max(1);
    u32::try_from(part).unwrap_or(WIDTH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_where_their_time_is() {
        let line = Timeline::default();
        let now = crate::clock::now();
        line.add(now + Duration::from_millis(20), Duration::from_millis(20), "tls", "");
        line.add(now, Duration::from_millis(20), "connect", "refused");
        line.add(now, Duration::from_millis(40), "to peer", "");
        let half = "=".repeat(20);
        let none = ".".repeat(20);
        let drawn = [
            format!("to peer  {half}{half}     40.000 ms"),
            format!("connect  {half}{none}     20.000 ms  refused"),
            format!("tls      {none}{half}     20.000 ms"),
        ];
        assert_eq!(line.to_string().lines().collect::<Vec<_>>(), drawn);
        line.clear();
        assert_eq!(line.to_string(), "");
    }

    #[test]
    fn what_is_kept_has_a_bound() {
        let line = Timeline::default();
        let now = crate::clock::now();
        (0..MAX_ROWS + 3).for_each(|_| line.add(now, Duration::ZERO, "x", ""));
        assert!(line.to_string().ends_with("and 3 more\n"));
    }
}

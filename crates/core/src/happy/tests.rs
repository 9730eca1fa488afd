use super::*;

use std::io;

use crate::resolve::failed;

/// What an address does is in its port: 1 is a black hole, 2 refuses, any other answers after 20 ms.
async fn behave(addr: SocketAddr) -> Result<u16> {
    match addr.port() {
        1 => clock::within(Some(Duration::from_secs(3)), Phase::Connect, pending()).await,
        2 => Err(Error::io(Phase::Connect, io::ErrorKind::ConnectionRefused.into())),
        port => {
            clock::sleep(Duration::from_millis(20)).await;
            Ok(port)
        }
    }
}

/// An answer of the scripted resolver: the family, after how many milliseconds, and what it says.
type Line = (Option<Family>, u64, Result<Vec<SocketAddr>>);

fn says(family: Option<Family>, after: u64, list: &[&str]) -> Line {
    (family, after, Ok(list.iter().map(|text| text.parse().unwrap()).collect()))
}

fn fails(family: Family, after: u64, why: ResolveFailure) -> Line {
    (Some(family), after, Err(failed("peer.test", why)))
}

const SIX: Option<Family> = Some(Family::V6);
const FOUR: Option<Family> = Some(Family::V4);
const NEVER: u64 = 3_600_000;

async fn raced(
    script: Vec<Line>,
    options: HappyOptions,
    remembered: Option<Family>,
) -> (std::result::Result<Won<u16>, Lost>, Duration) {
    let started = clock::now();
    let answers: FuturesUnordered<_> = script
        .into_iter()
        .map(|(family, after, answer)| async move {
            clock::sleep(Duration::from_millis(after)).await;
            (family, answer)
        })
        .collect();
    let limit = Some(Duration::from_secs(30));
    let rules = Rules { options: &options, remembered, families: &[Family::V6, Family::V4], limit };
    let result = race(answers, rules, behave).await;
    (result, clock::now() - started)
}

async fn run(script: Vec<Line>) -> (std::result::Result<Won<u16>, Lost>, Duration) {
    raced(script, HappyOptions::default(), None).await
}

/// A list that comes at once, for both families.
async fn run_list(list: &[&str]) -> (std::result::Result<Won<u16>, Lost>, Duration) {
    run(vec![says(None, 0, list)]).await
}

fn millis(took: Duration) -> u128 {
    took.as_millis()
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_costs_a_quarter_of_a_second() {
    let (result, took) = run_list(&["[2001:db8::1]:1", "192.0.2.1:80"]).await;
    assert_eq!(result.unwrap().addr, "192.0.2.1:80".parse().unwrap());
    assert_eq!(millis(took), 270);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_moves_on_at_once() {
    let (result, took) = run_list(&["[2001:db8::1]:2", "192.0.2.1:2", "192.0.2.2:80"]).await;
    assert_eq!(result.unwrap().addr, "192.0.2.2:80".parse().unwrap());
    assert_eq!(millis(took), 20);
}

#[tokio::test(start_paused = true)]
async fn when_all_fail_each_is_named_and_a_refusal_outweighs_silence() {
    let (result, took) = run_list(&["192.0.2.1:1", "192.0.2.2:2"]).await;
    let error = result.unwrap_err().error;
    assert!(
        error.is_refused() && error.message().contains("192.0.2.1:1") && error.message().contains("192.0.2.2:2"),
        "{error}"
    );
    assert!(took >= Duration::from_secs(3));
    assert!(run_list(&["192.0.2.1:1"]).await.0.unwrap_err().error.is_timeout());
    let none = run_list(&[]).await.0.unwrap_err();
    assert_eq!((none.error.kind(), none.tried), (Kind::Connect, false));
}

#[tokio::test(start_paused = true)]
async fn ipv6_begins_as_soon_as_it_is_there() {
    let (result, took) = run(vec![says(SIX, 30, &["[2001:db8::1]:80"]), says(FOUR, NEVER, &["192.0.2.1:80"])]).await;
    let won = result.unwrap();
    assert!(won.addr.is_ipv6() && won.contested && won.expected == Family::V6);
    assert_eq!(millis(took), 50);
}

#[tokio::test(start_paused = true)]
async fn ipv4_waits_for_ipv6_by_the_resolution_delay_alone() {
    for (delay, six_after, want_six, takes) in
        [(50, NEVER, false, 80), (50, 40, true, 60), (0, 40, false, 30), (200, 150, true, 170)]
    {
        let options = HappyOptions::default().resolution_delay(Duration::from_millis(delay));
        let script = vec![says(SIX, six_after, &["[2001:db8::1]:80"]), says(FOUR, 10, &["192.0.2.1:80"])];
        let (result, took) = raced(script, options, None).await;
        assert_eq!((result.unwrap().addr.is_ipv6(), millis(took)), (want_six, takes), "{delay} ms, {six_after} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_ipv6_joins_the_race() {
    // IPv4 begins at 60 ms and is a black hole; IPv6 comes at 100 ms and has its turn one attempt delay after IPv4 began.
    let script = vec![says(SIX, 100, &["[2001:db8::1]:80"]), says(FOUR, 10, &["192.0.2.1:1", "192.0.2.2:1"])];
    let (result, took) = run(script).await;
    assert!(result.unwrap().addr.is_ipv6());
    assert_eq!(millis(took), 60 + 250 + 20);
    // Where IPv4 has failed altogether, it begins the moment it comes.
    let script = vec![says(SIX, 400, &["[2001:db8::1]:80"]), says(FOUR, 10, &["192.0.2.1:2"])];
    let (result, took) = run(script).await;
    assert!(result.unwrap().addr.is_ipv6());
    assert_eq!(millis(took), 420);
}

#[tokio::test(start_paused = true)]
async fn a_family_without_addresses_is_not_waited_for() {
    for why in [ResolveFailure::NoSuchName, ResolveFailure::Unavailable] {
        let (result, took) = run(vec![fails(Family::V6, 5, why), says(FOUR, 10, &["192.0.2.1:80"])]).await;
        let won = result.unwrap();
        assert_eq!((won.addr.is_ipv4(), won.contested, millis(took)), (true, false, 30));
        let (result, took) = run(vec![says(SIX, 10, &["[2001:db8::1]:80"]), fails(Family::V4, 20, why)]).await;
        assert_eq!((result.unwrap().addr.is_ipv6(), millis(took)), (true, 30));
    }
}

#[tokio::test(start_paused = true)]
async fn when_neither_family_answers_the_most_telling_refusal_is_the_error() {
    let unsure = [fails(Family::V6, 5, ResolveFailure::NoSuchName), fails(Family::V4, 10, ResolveFailure::Unavailable)];
    let lost = run(unsure.into()).await.0.unwrap_err();
    assert_eq!(lost.error.server::<ResolveFailure>(), Some(&ResolveFailure::Unavailable));
    let certain = [fails(Family::V6, 5, ResolveFailure::NoSuchName), fails(Family::V4, 10, ResolveFailure::NoSuchName)];
    let lost = run(certain.into()).await.0.unwrap_err();
    assert_eq!(lost.error.server::<ResolveFailure>(), Some(&ResolveFailure::NoSuchName));
    let blocked = (SIX, 1, Err(Error::new(Kind::Blocked, "no")));
    let lost = run(vec![blocked, fails(Family::V4, 10, ResolveFailure::Unavailable)]).await.0.unwrap_err();
    assert_eq!((lost.error.kind(), lost.tried), (Kind::Blocked, false));
}

#[tokio::test(start_paused = true)]
async fn the_family_that_won_last_time_leads_and_waits_for_nobody() {
    let script = || vec![says(SIX, 40, &["[2001:db8::1]:1"]), says(FOUR, 10, &["192.0.2.1:80"])];
    let (result, took) = run(script()).await;
    let won = result.unwrap();
    assert_eq!((won.addr.is_ipv4(), won.contested, won.expected), (true, true, Family::V6));
    assert_eq!(millis(took), 40 + 250 + 20, "the first time, the broken family is found out");
    let (result, took) = raced(script(), HappyOptions::default(), FOUR).await;
    assert_eq!((result.unwrap().expected, millis(took)), (Family::V6, 30));
    // And if it is broken in its turn, the other one is soon there.
    let script = vec![says(SIX, 40, &["[2001:db8::1]:80"]), says(FOUR, 10, &["192.0.2.1:1"])];
    let (result, took) = raced(script, HappyOptions::default(), FOUR).await;
    assert_eq!((result.unwrap().addr.is_ipv6(), millis(took)), (true, 10 + 250 + 20));
}

#[tokio::test(start_paused = true)]
async fn delays_are_kept_within_bounds() {
    let options = HappyOptions::default().attempt_delay(Duration::ZERO);
    let script = vec![says(None, 0, &["192.0.2.1:1", "192.0.2.2:80"])];
    assert_eq!(millis(raced(script, options, None).await.1), 10 + 20);
    let endless = HappyOptions::default().attempt_delay(Duration::MAX).resolution_delay(Duration::MAX);
    let script = vec![says(FOUR, 0, &["192.0.2.1:1", "192.0.2.2:80"])];
    let (result, took) = raced(script, endless, None).await;
    assert!(result.is_ok() && took <= Duration::from_secs(121), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_limit_counts_from_the_first_attempt_over_all() {
    let addrs: Vec<String> = (1..40).map(|n| format!("192.0.2.{n}:1")).collect();
    let addrs: Vec<&str> = addrs.iter().map(String::as_str).collect();
    let (result, took) = run(vec![says(FOUR, 0, &addrs), says(SIX, NEVER, &[])]).await;
    let lost = result.unwrap_err();
    assert_eq!((lost.error.is_timeout(), lost.error.phase(), lost.tried), (true, Some(Phase::Connect), true));
    assert_eq!(millis(took), 50 + 30_000);
}

use std::time::Duration;

use http::Uri;
use proptest::prelude::*;

use super::cache::State;
use super::{AltService, AltSvc, AltSvcCache};

const NOW: i64 = 1_700_000_000;

fn services(text: &str) -> Vec<(String, Option<String>, u16, u64, bool)> {
    match AltSvc::parse(text) {
        AltSvc::Clear => panic!("clear: {text}"),
        AltSvc::Services(services) => services
            .into_iter()
            .map(|service| (service.protocol, service.host, service.port, service.max_age.as_secs(), service.persist))
            .collect(),
    }
}

fn origin() -> Uri {
    "https://Example.com/path".parse().unwrap()
}

fn known(state: &mut State, text: &str) {
    state.record(&origin(), AltSvc::parse(text), NOW);
}

#[test]
fn the_examples_of_rfc_7838_are_read() {
    let host = |name: &str| Some(name.to_owned());
    assert_eq!(services("h2=\":8000\""), [("h2".into(), None, 8000, 86_400, false)]);
    assert_eq!(services("h2=\"new.example.org:80\""), [("h2".into(), host("new.example.org"), 80, 86_400, false)]);
    assert_eq!(services("w%3Dx%3Ay%23z=\":80\"")[0].0, "w=x:y#z");
    assert_eq!(services("h2=\":443\"; ma=2592000; persist=1"), [("h2".into(), None, 443, 2_592_000, true)]);
    assert_eq!(
        services("h3=\"ALT.example.com:8000\", h3-29=\"[::1]:443\";ma = \"60\" ; x=y;persist=2 ,"),
        [("h3".into(), host("alt.example.com"), 8000, 86_400, false), ("h3-29".into(), host("[::1]"), 443, 60, false),]
    );
    assert_eq!(AltSvc::parse("clear"), AltSvc::Clear);
    assert_eq!(AltSvc::parse(" clear "), AltSvc::Clear);
}

#[test]
fn what_is_broken_is_left_out() {
    for text in [
        "",
        "Clear",
        "h3",
        "h3=",
        "h3=\":0\"",
        "h3=\":65536\"",
        "h3=\"443\"",
        "h3=\":443",
        "h3=\":443\" h2=\":443\"",
        "h3=\":443\"; ma=x",
        "h3=\"::1:443\"",
        "h3=\"[x]:443\"",
        "h3=\"a b:443\"",
        "h3=\"a\\\"b:443\"",
        "h%zz=\":443\"",
        "=\":443\"",
        "h%20=\":1\"",
        "h3=\"u@h:443\"",
    ] {
        assert_eq!(services(text), [], "{text}");
    }
    assert_eq!(services("h3=\":1\", h2=\":0\", hq=\":3\", broken").len(), 2);
    assert_eq!(services(&"h3=\":443\",".repeat(100)).len(), 16);
    assert_eq!(services("h3=\":443\"; ma=99999999999999999999999")[0].3, u64::from(u32::MAX));
    assert_eq!(services("h3=\":443\", clear").len(), 1);
}

#[test]
fn an_alternative_is_known_until_it_ends_or_is_replaced_or_cleared() {
    let mut state = State::default();
    known(&mut state, "h3=\":443\"; ma=10, h2=\":8443\"");
    let found =
        |state: &State, protocol: &str, now: i64| state.lookup(&origin(), protocol, now).map(|found| found.port);
    assert_eq!((found(&state, "h3", NOW + 9), found(&state, "h3", NOW + 10)), (Some(443), None));
    assert_eq!(state.lookup(&origin(), "h3", NOW + 4).unwrap().max_age, Duration::from_secs(6));
    assert_eq!((found(&state, "h2", NOW + 10), found(&state, "hq", NOW)), (Some(8443), None));
    known(&mut state, "nothing to read");
    assert_eq!(found(&state, "h2", NOW), Some(8443), "nothing understood is nothing said");
    known(&mut state, "h3=\":444\"");
    assert_eq!((found(&state, "h3", NOW), found(&state, "h2", NOW)), (Some(444), None));
    known(&mut state, "clear");
    assert_eq!(found(&state, "h3", NOW), None);
    known(&mut state, "h3=\":444\"");
    known(&mut state, "h3=\":444\"; ma=0");
    assert_eq!(found(&state, "h3", NOW), None);
}

#[test]
fn origins_are_told_apart_by_port_and_must_be_https() {
    let cache = AltSvcCache::new();
    cache.record_text(&"http://example.com/".parse().unwrap(), "h3=\":1\"");
    assert!(cache.lookup(&origin(), "h3").is_none());
    cache.record_text(&"https://example.com:443/".parse().unwrap(), "h3=\":1\"");
    assert!(cache.lookup(&origin(), "h3").is_some());
    for other in ["https://example.com:444/", "https://www.example.com/", "http://example.com/", "/path"] {
        assert!(cache.lookup(&other.parse().unwrap(), "h3").is_none(), "{other}");
    }
    cache.forget(&origin());
    assert!(cache.lookup(&origin(), "h3").is_none());
}

#[test]
fn a_broken_alternative_rests_twice_as_long_each_time() {
    let mut state = State::default();
    known(&mut state, "h3=\":443\"; ma=99999999, h3=\"b.example:443\"; ma=99999999");
    let first = state.lookup(&origin(), "h3", NOW).unwrap();
    assert_eq!(first.host, None);
    let mut now = NOW;
    for minutes in [5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 2880, 2880] {
        state.mark_broken(&origin(), &first, now);
        // Others that failed with it do not count.
        state.mark_broken(&origin(), &first, now + 1);
        assert_eq!(state.lookup(&origin(), "h3", now + minutes * 60 - 1).unwrap().host.as_deref(), Some("b.example"));
        now += minutes * 60;
        assert_eq!(state.lookup(&origin(), "h3", now).unwrap().host, None, "{minutes}");
    }
}

#[test]
fn one_that_worked_is_new_again_and_a_new_network_forgets_what_it_should() {
    let cache = AltSvcCache::new();
    cache.record_text(&origin(), "h3=\":443\", h2=\":444\"; persist=1");
    let h3 = cache.lookup(&origin(), "h3").unwrap();
    let h2 = cache.lookup(&origin(), "h2").unwrap();
    cache.mark_broken(&origin(), &h3);
    assert!(cache.lookup(&origin(), "h3").is_none());
    cache.mark_working(&origin(), &h3);
    assert!(cache.lookup(&origin(), "h3").is_some());
    cache.mark_broken(&origin(), &h2);
    cache.network_changed();
    assert!(cache.lookup(&origin(), "h3").is_none());
    assert_eq!(cache.lookup(&origin(), "h2").unwrap().port, 444);
    cache.clear();
    assert_eq!(cache.to_text(), "");
}

#[test]
fn the_text_form_brings_all_back() {
    let mut state = State::default();
    known(&mut state, "h3=\":443\"; ma=60; persist=1, h2=\"[::1]:8443\"");
    state.record(&"https://a.example:444/".parse().unwrap(), AltSvc::parse("h3=\":1\""), NOW);
    let text = state.to_text(NOW);
    assert_eq!(
        text,
        "a.example 444 h3 - 1 1700086400 0\nexample.com 443 h3 - 443 1700000060 1\nexample.com 443 h2 [::1] 8443 1700086400 0\n"
    );
    let mut again = State::default();
    assert_eq!(again.load_text(&format!("# kept\n\n{text}"), NOW).unwrap(), 3);
    assert_eq!(again.to_text(NOW), text);
    assert_eq!(again.load_text(&text, NOW + 60).unwrap(), 2);
    let mut whole = State::default();
    assert!(whole.load_text("a 443 h3 - 1 1800000000 0\na 443 h3", NOW).unwrap_err().message().contains("line 2"));
    assert_eq!(whole.to_text(NOW), "");
}

#[test]
fn the_memory_is_bounded_and_forgets_what_ends_first() {
    let mut state = State::default();
    for n in 0..1100 {
        let origin = format!("https://h{n}.example/").parse().unwrap();
        state.record(&origin, AltSvc::parse(&format!("h3=\":443\"; ma={}", 1000 + n)), NOW);
        state.mark_broken(&origin, &AltService { host: None, ..state.lookup(&origin, "h3", NOW).unwrap() }, NOW);
    }
    assert_eq!(state.to_text(NOW).lines().count(), 1000);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_what_it_reads_can_be_kept(
        any in "\\PC{0,60}",
        near in "((h3|h2|clear)?=?\"?[a-z.:\\[\\]\\\\ ]{0,6}[0-9]{0,6}\"?(; ?(ma|persist)=\"?[0-9]{0,21}\"?){0,3}[, ]{0,2}){0,4}",
    ) {
        for text in [any, near] {
            let mut state = State::default();
            known(&mut state, &text);
            let kept = state.to_text(NOW);
            let mut again = State::default();
            prop_assert_eq!(again.load_text(&kept, NOW).unwrap(), kept.lines().count());
            prop_assert_eq!(again.to_text(NOW), kept);
            let _ = State::default().load_text(&text, NOW);
        }
    }
}

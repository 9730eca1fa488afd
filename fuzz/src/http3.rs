//! HTTP/3's frames, as they come on the control stream and on a request's.

use portolan_http3::fuzzing::stream;

/// The first byte says which stream. Whatever follows comes to the same, however it was cut.
pub fn fuzzed_http3(data: &[u8]) {
    let Some((first, data)) = data.split_first() else { return };
    let control = first & 1 == 1;
    let outcomes = [data.len(), 1, 7].map(|piece| stream(data, control, piece));
    assert!(outcomes.iter().all(|outcome| *outcome == outcomes[0]), "{outcomes:#?} from {}", data.escape_ascii());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_and_a_control_stream_are_read_to_their_ends() {
        let response = include_bytes!("../seeds/http3/response");
        assert!(stream(&response[1..], false, 3).ends_with("Ok(())"), "{}", stream(&response[1..], false, 3));
        let control = include_bytes!("../seeds/http3/control");
        assert!(stream(&control[1..], true, 3).contains("GoAway(2)"), "{}", stream(&control[1..], true, 3));
    }
}

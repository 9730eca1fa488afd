//! HPACK and QPACK: their tables outlive a block, and a block may stand for far more than its bytes, so their laws are their
//! own. What is decoded stays within the limits, is the same each time, and survives our own encoder.

use bytes::BytesMut;
use portolan_hpack::qpack::{self, Section};
use portolan_hpack::{Decoder, ENTRY_OVERHEAD, Encoder, Field, Limits, Name};

fn limits() -> Limits {
    let mut limits = Limits::default();
    (limits.table_size, limits.list_size, limits.fields, limits.string) = (512, 2_048, 32, 1_024);
    limits
}

fn size(field: &Field) -> usize {
    let name = match &field.name {
        Name::Pseudo(pseudo) => pseudo.as_str().len(),
        Name::Field(name) => name.as_str().len(),
        _ => 0,
    };
    name + field.value.len() + ENTRY_OVERHEAD
}

fn within(fields: &[Field]) {
    let limits = limits();
    assert!(fields.len() <= limits.fields, "{} fields", fields.len());
    // Values that HTTP forbids are given as empty ones, so the sum may only be smaller than what was counted.
    assert!(fields.iter().map(size).sum::<usize>() <= limits.list_size, "a list of more than was allowed");
}

/// Pieces behind a byte that says how long each is.
fn pieces(mut data: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = data.split_first_chunk::<2>()?;
        let (piece, rest) = rest.split_at(usize::from(head[1]).min(rest.len()));
        data = rest;
        Some((head[0], piece))
    })
}

/// Blocks of one connection: a byte that tells whether our settings were acknowledged before it, its length, the block.
pub fn fuzzed_hpack(data: &[u8]) {
    let lists = [hpack(data), hpack(data)];
    assert_eq!(lists[0], lists[1], "the same blocks give the same fields");
    let (mut encoder, mut decoder) = (Encoder::new(4_096), Decoder::new(Limits::default()));
    for list in &lists[0] {
        let sent: Vec<&Field> = list.iter().filter(|field| !field.malformed).collect();
        let mut block = BytesMut::new();
        encoder.start_block(&mut block);
        for field in &sent {
            match &field.name {
                Name::Pseudo(name) => encoder.pseudo(*name, field.value.as_bytes(), &mut block),
                Name::Field(name) => encoder.field(name, &field.value, &mut block),
                _ => {}
            }
        }
        let mut came = Vec::new();
        decoder.decode(&block, &mut |field| came.push(field)).expect("our own block");
        assert!(came.iter().eq(sent), "our own encoder keeps them");
    }
}

fn hpack(data: &[u8]) -> Vec<Vec<Field>> {
    let (mut decoder, mut lists) = (Decoder::new(limits()), Vec::new());
    for (flag, block) in pieces(data) {
        if flag & 1 == 1 {
            decoder.acknowledged();
        }
        let mut fields = Vec::new();
        if decoder.decode(block, &mut |field| fields.push(field)).is_err() {
            // The connection is over.
            break;
        }
        within(&fields);
        lists.push(fields);
    }
    lists
}

/// Sections and encoder streams of one connection: a byte that is 0x80 for the encoder stream or a stream's number, the
/// length, the bytes.
pub fn fuzzed_qpack(data: &[u8]) {
    let lists = [qpack(data), qpack(data)];
    assert_eq!(lists[0], lists[1], "the same bytes give the same fields");
    let (mut encoder, mut decoder) = (qpack::Encoder::new(4_096), qpack::Decoder::new(Limits::default(), 16));
    let (mut stream, mut back) = (BytesMut::new(), BytesMut::new());
    encoder.set_peer_capacity(4_096, &mut stream);
    for (number, list) in (0..).zip(&lists[0]) {
        let sent: Vec<&Field> = list.iter().filter(|field| !field.malformed).collect();
        encoder.start_section();
        for field in &sent {
            match &field.name {
                Name::Pseudo(name) => encoder.pseudo(*name, field.value.as_bytes(), &mut stream),
                Name::Field(name) => encoder.field(name, &field.value, &mut stream),
                _ => {}
            }
        }
        let (mut section, mut came) = (BytesMut::new(), Vec::new());
        encoder.end_section(number, &mut section);
        decoder.on_encoder_stream(&mut stream, &mut back).expect("our own instructions");
        let what = decoder.decode(number, &section, &mut back, &mut |field| came.push(field)).expect("our own section");
        assert!(matches!(what, Section::Decoded(_)) && came.iter().eq(sent), "our own encoder keeps them");
        encoder.on_decoder_stream(&mut back).expect("our own acknowledgements");
    }
}

fn qpack(data: &[u8]) -> Vec<Vec<Field>> {
    let (mut decoder, mut lists) = (qpack::Decoder::new(limits(), 4), Vec::new());
    let (mut waiting, mut back) = (BytesMut::new(), BytesMut::new());
    for (kind, bytes) in pieces(data) {
        if kind & 0x80 != 0 {
            waiting.extend_from_slice(bytes);
            if decoder.on_encoder_stream(&mut waiting, &mut back).is_err() {
                break;
            }
            continue;
        }
        let mut fields = Vec::new();
        match decoder.decode(u64::from(kind), bytes, &mut back, &mut |field| fields.push(field)) {
            Ok(Section::Decoded(_)) => {
                within(&fields);
                lists.push(fields);
            }
            Ok(_) => assert!(fields.is_empty(), "a section that waits gives nothing"),
            Err(_) => break,
        }
    }
    assert!(back.len() <= 16 * (data.len() + 1), "acknowledgements beyond measure");
    lists
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specifications_are_decoded_to_their_ends() {
        assert_eq!(
            hpack(include_bytes!("../seeds/hpack/requests")).iter().map(Vec::len).collect::<Vec<_>>(),
            [4, 5, 5]
        );
        assert_eq!(
            hpack(include_bytes!("../seeds/hpack/responses")).iter().map(Vec::len).collect::<Vec<_>>(),
            [4, 4, 6]
        );
        assert_eq!(
            qpack(include_bytes!("../seeds/qpack/appendix_b")).iter().map(Vec::len).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!(qpack(include_bytes!("../seeds/qpack/blocked_then_served")).len(), 1);
    }
}

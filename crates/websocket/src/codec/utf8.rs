//! UTF-8, checked as it arrives: a character may be split over reads, fragments and pieces of inflated data.

/// Remembers what a character lacks. An error shows with the first byte that can't be right, not with the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Utf8 {
    partial: [u8; 4],
    len: usize,
}

/// The text is not UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Invalid;

impl Utf8 {
    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), Invalid> {
        while self.len > 0 {
            let Some((first, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            let place = self.partial.get_mut(self.len).ok_or(Invalid)?;
            *place = *first;
            self.len += 1;
            let character = self.partial.get(..self.len).ok_or(Invalid)?;
            match std::str::from_utf8(character) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(Invalid),
            }
        }
        let Err(error) = simdutf8::compat::from_utf8(bytes) else { return Ok(()) };
        if error.error_len().is_some() {
            return Err(Invalid);
        }
        let tail = bytes.get(error.valid_up_to()..).ok_or(Invalid)?;
        self.partial.get_mut(..tail.len()).ok_or(Invalid)?.copy_from_slice(tail);
        self.len = tail.len();
        Ok(())
    }

    /// The text ends here: no character may be open.
    pub(crate) fn finish(&self) -> Result<(), Invalid> {
        if self.len == 0 { Ok(()) } else { Err(Invalid) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8]) -> bool {
        let mut state = Utf8::default();
        state.push(bytes).and_then(|()| state.finish()).is_ok()
    }

    fn one_by_one(bytes: &[u8]) -> bool {
        let mut state = Utf8::default();
        bytes.chunks(1).all(|byte| state.push(byte).is_ok()) && state.finish().is_ok()
    }

    #[test]
    fn it_agrees_with_the_standard_library_however_split() {
        let cases: &[&[u8]] = &[
            b"",
            b"plain",
            "\u{3ba}\u{1f79}\u{3c3}\u{3bc}\u{3b5}".as_bytes(),
            "\u{10ffff}\u{fffd}\u{fffe}\u{7ff}\u{800}\u{0}".as_bytes(),
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xc0\x80",
            b"\xe0\x80\x80",
            b"\xf8\x88\x80\x80\x80",
            b"\xfe",
            b"\x80",
            b"abc\xce",
            b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
        ];
        for case in cases {
            let expected = std::str::from_utf8(case).is_ok();
            assert_eq!(whole(case), expected, "{case:?}");
            assert_eq!(one_by_one(case), expected, "{case:?} byte by byte");
            for split in 0..case.len() {
                let mut state = Utf8::default();
                let (head, tail) = case.split_at(split);
                let ok = state.push(head).is_ok() && state.push(tail).is_ok() && state.finish().is_ok();
                assert_eq!(ok, expected, "{case:?} at {split}");
            }
        }
    }

    #[test]
    fn an_error_shows_with_the_byte_that_makes_it() {
        let mut state = Utf8::default();
        assert_eq!(state.push(b"\xf4"), Ok(()));
        assert_eq!(state.push(b"\x90"), Err(Invalid));
    }
}

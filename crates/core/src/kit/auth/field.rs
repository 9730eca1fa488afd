//! A cursor over the text of a field: tokens and quoted strings (RFC 9110 5.6).

/// The rest of a field.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Cursor<'a> {
    /// What is left.
    pub rest: &'a str,
}

impl<'a> Cursor<'a> {
    /// Over a whole text.
    pub fn new(text: &'a str) -> Self {
        Self { rest: text }
    }

    /// Skips blanks.
    pub fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Skips blanks and commas: the empty members that lists may have.
    pub fn skip_commas(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }

    /// Takes so many bytes, which must end between characters.
    pub fn take(&mut self, length: usize) -> Option<&'a str> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    /// Takes a character if it comes next.
    pub fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// Takes a token, if there is one.
    pub fn token(&mut self) -> Option<&'a str> {
        let length = self.rest.bytes().take_while(|byte| is_token(*byte)).count();
        if length == 0 { None } else { self.take(length) }
    }

    /// `= value`, with blanks around the sign as RFC 9110 11.2 bids us bear. `None` with nothing taken where there is no
    /// sign, and with the sign taken where there is no sound value. An unquoted value ends at a blank or one of `ends`.
    pub fn value(&mut self, ends: &[char]) -> Option<String> {
        let mut ahead = *self;
        ahead.skip_blanks();
        if !ahead.eat('=') {
            return None;
        }
        ahead.skip_blanks();
        *self = ahead;
        if self.eat('"') {
            return self.quoted();
        }
        // Servers forget the quotes around what needs them.
        let is_end = |c: char| matches!(c, ' ' | '\t') || ends.contains(&c);
        let length = self.rest.find(is_end).unwrap_or(self.rest.len());
        if length == 0 { None } else { self.take(length).map(str::to_owned) }
    }

    /// The rest of a quoted string whose first quote was taken.
    fn quoted(&mut self) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.take(at + 1)?;
                    return Some(text);
                }
                '\\' => text.push(chars.next()?.1),
                other => text.push(other),
            }
        }
        None
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

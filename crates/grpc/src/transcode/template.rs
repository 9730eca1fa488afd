//! Path templates of `google.api.HttpRule`: `/v1/{name=shelves/*/books/*}:publish`.

#![warn(clippy::indexing_slicing, clippy::cast_possible_truncation, clippy::arithmetic_side_effects)]

use portolan_core::percent_encode_into;
use portolan_wire::DecodeError;

/// A path that is made of fields of a request.
///
/// ```
/// use portolan_grpc::transcode::PathTemplate;
///
/// let template = PathTemplate::parse("/v1/{name=shelves/*}/books/{id}:lend")?;
/// let path = template.expand(|field| Some(if field == "name" { "shelves/7" } else { "a/b" }.to_owned()));
/// assert_eq!(path.as_deref(), Some("/v1/shelves/7/books/a%2Fb:lend"));
/// # Ok::<(), portolan_wire::DecodeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathTemplate {
    parts: Vec<Part>,
    /// What stands behind the last colon.
    verb: Option<String>,
}

/// What stands between two slashes, or several of them that one variable spans.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Plain(Segment),
    Variable(Variable),
}

/// A field of the request, and what its value must look like.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Variable {
    /// The names that lead to the field, joined by dots.
    field: String,
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// `*`
    One,
    /// `**`
    Rest,
}

impl PathTemplate {
    /// Reads a template, by the grammar that `google/api/http.proto` gives.
    pub fn parse(text: &str) -> Result<Self, DecodeError> {
        let mut scan = Scan { text, at: 0 };
        if !scan.eat('/') {
            return Err(scan.bad("a path template that does not begin with a slash"));
        }
        let mut parts = vec![scan.part()?];
        while scan.eat('/') {
            parts.push(scan.part()?);
        }
        let verb = if scan.eat(':') { Some(scan.literal()?.to_owned()) } else { None };
        if !scan.rest().is_empty() {
            return Err(scan.bad("a path template with something behind its end"));
        }
        Ok(Self { parts, verb })
    }

    /// The fields that the path holds: the names that lead to each, joined by dots.
    pub fn fields(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(variable) => Some(variable.field.as_str()),
            Part::Plain(_) => None,
        })
    }

    /// The path with these values of its fields, escaped; `None` if one is missing, or is not what the template wants. No value
    /// leads out of its place: one of `.` or `..` is not what any template wants.
    pub fn expand(&self, value: impl Fn(&str) -> Option<String>) -> Option<String> {
        let mut path = String::new();
        for part in &self.parts {
            path.push('/');
            match part {
                Part::Plain(Segment::Literal(literal)) => path.push_str(literal),
                // What no field names, nothing can be put for.
                Part::Plain(_) => return None,
                Part::Variable(variable) => variable.write(&value(&variable.field)?, &mut path)?,
            }
        }
        if let Some(verb) = &self.verb {
            path.push(':');
            path.push_str(verb);
        }
        Some(path)
    }
}

impl Variable {
    fn write(&self, value: &str, path: &mut String) -> Option<()> {
        if let [Segment::One] = &self.segments[..] {
            escape(Some(value).filter(|value| is_segment(value))?, false, path);
            return Some(());
        }
        let pieces: Vec<_> = value.split('/').collect();
        // Ways up and down the tree would make another path of it on the way.
        if value.is_empty() || pieces.iter().any(|piece| matches!(*piece, "." | "..")) || !fits(&self.segments, &pieces)
        {
            return None;
        }
        escape(value, true, path);
        Some(())
    }
}

fn is_segment(value: &str) -> bool {
    !matches!(value, "" | "." | "..")
}

fn fits(segments: &[Segment], pieces: &[&str]) -> bool {
    match (segments.split_first(), pieces.split_first()) {
        (None, None) => true,
        // One `**` at most: what stands behind it takes as many pieces as it has segments.
        (Some((Segment::Rest, behind)), _) => pieces
            .len()
            .checked_sub(behind.len())
            .and_then(|at| pieces.get(at..))
            .is_some_and(|rest| fits(behind, rest)),
        (Some((Segment::One, more)), Some((piece, rest))) => is_segment(piece) && fits(more, rest),
        (Some((Segment::Literal(literal), more)), Some((piece, rest))) => literal == piece && fits(more, rest),
        _ => false,
    }
}

/// Escapes all but what RFC 3986 2.3 leaves unreserved, and slashes where they are allowed.
pub(super) fn escape(text: &str, slashes: bool, out: &mut String) {
    let plain = |byte| matches!(byte, b'-' | b'.' | b'_' | b'~') || (byte == b'/' && slashes);
    percent_encode_into(text.bytes(), plain, out);
}

/// Where reading has come to.
struct Scan<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scan<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn bad(&self, what: &'static str) -> DecodeError {
        DecodeError::invalid(what, self.at)
    }

    fn eat(&mut self, wanted: char) -> bool {
        let found = self.rest().starts_with(wanted);
        if found {
            self.at = self.at.saturating_add(wanted.len_utf8());
        }
        found
    }

    /// As many letters as are allowed, and one at least.
    fn word(&mut self, what: &'static str, allowed: fn(char) -> bool) -> Result<&'a str, DecodeError> {
        let rest = self.rest();
        let (word, _) = rest.split_at(rest.find(|letter| !allowed(letter)).unwrap_or(rest.len()));
        if word.is_empty() {
            return Err(self.bad(what));
        }
        self.at = self.at.saturating_add(word.len());
        Ok(word)
    }

    /// What may stand in a path as it is (RFC 3986 3.3), but what the grammar gives a meaning of its own.
    fn literal(&mut self) -> Result<&'a str, DecodeError> {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || "-._~!$&'()+,;@%".contains(letter);
        self.word("a path template without a name where one belongs", allowed)
    }

    fn part(&mut self) -> Result<Part, DecodeError> {
        if !self.eat('{') {
            return self.segment().map(Part::Plain);
        }
        let name = |scan: &mut Self| -> Result<&'a str, DecodeError> {
            let allowed = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            scan.word("a variable without the name of a field", allowed)
        };
        let mut field = name(self)?.to_owned();
        while self.eat('.') {
            field.push('.');
            field.push_str(name(self)?);
        }
        let mut segments = Vec::new();
        if self.eat('=') {
            segments.push(self.segment()?);
            while self.eat('/') {
                segments.push(self.segment()?);
            }
        } else {
            segments.push(Segment::One);
        }
        if !self.eat('}') {
            return Err(self.bad("a variable without its end"));
        }
        if segments.iter().filter(|segment| **segment == Segment::Rest).count() > 1 {
            return Err(self.bad("a variable with more than one **"));
        }
        Ok(Part::Variable(Variable { field, segments }))
    }

    fn segment(&mut self) -> Result<Segment, DecodeError> {
        if !self.eat('*') {
            return self.literal().map(|literal| Segment::Literal(literal.to_owned()));
        }
        Ok(if self.eat('*') { Segment::Rest } else { Segment::One })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_wire::laws;

    const SEEDS: &[&[u8]] = &[
        b"/v1/{name=shelves/*/books/*}:publish",
        b"/v1/{book.name=**}",
        b"/v1/*/a/**/{x}/{y.z=a/**/b}:v",
        b"/v1/messages",
    ];

    fn expand(template: &str, value: &str) -> Option<String> {
        PathTemplate::parse(template).unwrap().expand(|_| Some(value.to_owned()))
    }

    #[test]
    fn the_parser_keeps_the_laws() {
        let decode = |bytes: &[u8]| {
            PathTemplate::parse(std::str::from_utf8(bytes).map_err(|_| DecodeError::invalid("utf-8", 0))?)
        };
        laws::check_datagram(decode, SEEDS);
    }

    #[test]
    fn values_are_written_as_the_template_wants_them() {
        for (template, value, path) in [
            ("/v1/{name}", "a b/c?d", Some("/v1/a%20b%2Fc%3Fd")),
            ("/v1/{name=*}", "\u{e9}", Some("/v1/%C3%A9")),
            ("/v1/{name=shelves/*/books/*}:publish", "shelves/1/books/x y", Some("/v1/shelves/1/books/x%20y:publish")),
            ("/v1/{name=shelves/*/books/*}", "shelves/1", None),
            ("/v1/{name=shelves/*}", "shelves/", None),
            ("/v1/{name=shelves/*}", "shelf/1", None),
            ("/v1/{name=**}", "a/b//c", Some("/v1/a/b//c")),
            ("/v1/{name=a/**}", "a", Some("/v1/a")),
            ("/v1/{name=a/**/z}", "a/b/c/z", Some("/v1/a/b/c/z")),
            ("/v1/{name=a/**/z}", "a", None),
            ("/v1/{name}", "", None),
            ("/v1/{name=**}", "", None),
            // What would lead elsewhere.
            ("/v1/{name}", "..", None),
            ("/v1/{name=**}", "a/../../admin", None),
            ("/v1/{name=shelves/*}", "shelves/.", None),
            ("/v1/{name}", "..;", Some("/v1/..%3B")),
            ("/v1/*/{name}", "x", None),
        ] {
            assert_eq!(expand(template, value).as_deref(), path, "{template} {value}");
        }
    }

    #[test]
    fn fields_are_found_by_their_names() {
        let template = PathTemplate::parse("/v1/{book.name=shelves/*}/x/{id}").unwrap();
        assert_eq!(template.fields().collect::<Vec<_>>(), ["book.name", "id"]);
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "",
            "v1",
            "/",
            "/v1/",
            "/v1//x",
            "/{",
            "/{}",
            "/{a",
            "/{a=}",
            "/{a=b",
            "/{a.}",
            "/{a={b}}",
            "/a:",
            "/a:b:c",
            "/a:b/c",
            "/{a}b",
            "/***",
            "/{a=**/**}",
            "/a?b",
            "/a#b",
            "/a b",
            "/{a-b}",
        ] {
            assert!(PathTemplate::parse(text).is_err(), "{text}");
        }
    }
}

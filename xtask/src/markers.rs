//! Text between marker comments, which belongs to `cargo xtask sync`.

use crate::Outcome;

const BEGIN: &str = "begin: xtask sync";
const END: &str = "end: xtask sync";

/// `text` with what stands between its marker lines replaced by `lines`. The markers stay as they are.
pub(crate) fn replace(text: &str, lines: &str) -> Outcome<String> {
    let mut out = String::with_capacity(text.len() + lines.len());
    let mut state = State::Before;
    for line in text.split_inclusive('\n') {
        match state {
            State::Before if line.contains(BEGIN) => {
                out.push_str(line);
                out.push_str(lines);
                state = State::Inside;
            }
            State::Inside if line.contains(END) => {
                out.push_str(line);
                state = State::After;
            }
            State::Inside => {}
            State::After if line.contains(BEGIN) => return Err(format!("a second {BEGIN:?}")),
            State::Before | State::After => out.push_str(line),
        }
    }
    match state {
        State::After => Ok(out),
        State::Before => Err(format!("no line with {BEGIN:?}")),
        State::Inside => Err(format!("no line with {END:?} after {BEGIN:?}")),
    }
}

#[derive(Clone, Copy)]
enum State {
    Before,
    Inside,
    After,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_changes() {
        let text = "a\n# begin: xtask sync\nold\n# end: xtask sync\nb\n";
        let new = replace(text, "new\n").unwrap();
        assert_eq!(new, "a\n# begin: xtask sync\nnew\n# end: xtask sync\nb\n");
        assert_eq!(replace(&new, "new\n").unwrap(), new, "a second run changes nothing");
    }

    #[test]
    fn missing_and_doubled_markers_are_errors() {
        assert!(replace("a\n", "").is_err());
        assert!(replace("# begin: xtask sync\n", "").is_err());
        let twice = "# begin: xtask sync\n# end: xtask sync\n".repeat(2);
        assert!(replace(&twice, "").is_err());
    }
}

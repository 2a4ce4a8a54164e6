//! Reads a line that is too long for a message, in little memory: it keeps the structure and the beginning of each text.
//!
//! Invariant: what is kept of a JSON text is JSON with the same members in the first two levels. So asyncq finds out which call a
//! message belongs to, however long it is.

/// The longest message that a worker may write, in bytes: a result of 1 MiB in its longest form, and the rest.
pub(super) const LONGEST: usize = 4 * 1024 * 1024;

/// How much of a text is kept, in bytes as written: of those in the message, and in its `params`, `result` or `error`.
const TEXT: usize = 1024 * 1024;

/// How much is kept of a text further inside.
const INNER_TEXT: usize = 256;

/// How long an array or object inside of those may be. A longer one becomes `null`.
const PART: usize = 4096;

/// How much is kept of a number.
const NUMBER: usize = 256;

/// The length of a text whose rest is left out.
const CUT: usize = usize::MAX;

/// How deep the members of a message are.
const DEPTH: usize = 2;

/// A line that is too long, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Oversized {
    /// What is kept of it.
    pub(super) kept: Vec<u8>,
    depth: usize,
    /// Where the current array or object begins. It becomes `null` if it is too long.
    part: Option<usize>,
    /// Whether that has happened, and its end is still to come.
    skips: bool,
    inside: Inside,
}

/// What the next byte belongs to.
#[derive(Debug, Default, Clone, Copy)]
enum Inside {
    /// Something between texts and numbers.
    #[default]
    Nothing,
    /// A number or a word, with its length so far.
    Number(usize),
    /// A text, with its length so far and the missing bytes of its current escape.
    Text { length: usize, escape: u8 },
}

impl Oversized {
    /// Reads more of it.
    ///
    /// # Errors
    /// When it cannot be a message, or does not become shorter: what is wrong, to continue "its worker".
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        for byte in bytes {
            self.take(*byte);
        }
        let begins = self.kept.iter().find(|byte| !byte.is_ascii_whitespace());
        if self.kept.len() > LONGEST || begins.is_some_and(|byte| *byte != b'{') {
            return Err(format!("wrote a line of more than {} MiB", LONGEST >> 20));
        }
        Ok(())
    }

    fn take(&mut self, byte: u8) {
        match self.inside {
            Inside::Text { length, escape } => self.take_of_text(byte, length, escape),
            Inside::Nothing | Inside::Number(_) => self.take_between(byte),
        }
        if let Some(from) = self.part
            && !self.skips
            && self.kept.len() - from > PART
        {
            self.kept.truncate(from);
            self.kept.extend_from_slice(b"null");
            self.skips = true;
        }
    }

    fn take_of_text(&mut self, byte: u8, length: usize, escape: u8) {
        if byte == b'"' && escape == 0 {
            self.inside = Inside::Nothing;
            return self.keep(byte);
        }
        let most = if self.depth > DEPTH { INNER_TEXT } else { TEXT };
        // An escape is not cut in the middle.
        let goes_on = length < most || escape > 0 && length != CUT;
        if goes_on {
            self.keep(byte);
        }
        let escape = match (escape, byte) {
            (0, b'\\') => 1,
            (1, b'u') => 4,
            _ => escape.saturating_sub(1),
        };
        self.inside = Inside::Text { length: if goes_on { length + 1 } else { CUT }, escape };
    }

    fn take_between(&mut self, byte: u8) {
        let number = if let Inside::Number(length) = self.inside { length } else { 0 };
        self.inside = Inside::Nothing;
        match byte {
            b'"' => self.inside = Inside::Text { length: 0, escape: 0 },
            b'{' | b'[' => {
                self.depth += 1;
                if self.depth == DEPTH + 1 {
                    self.part = Some(self.kept.len());
                }
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == DEPTH {
                    self.part = None;
                    if std::mem::take(&mut self.skips) {
                        return;
                    }
                }
            }
            b',' | b':' => {}
            // One space is as good as several.
            b' ' | b'\t' | b'\r' if self.kept.last() == Some(&b' ') => return,
            b' ' | b'\t' | b'\r' => return self.keep(b' '),
            _ => {
                self.inside = Inside::Number(number + 1);
                if number >= NUMBER {
                    return;
                }
            }
        }
        self.keep(byte);
    }

    fn keep(&mut self, byte: u8) {
        if !self.skips {
            self.kept.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(line: &str) -> String {
        let mut long = Oversized::default();
        // In pieces, as it is read.
        for piece in line.as_bytes().chunks(7) {
            long.push(piece).unwrap();
        }
        String::from_utf8(long.kept).unwrap()
    }

    #[test]
    fn a_short_line_stays_as_it_is() {
        for line in [
            r#"{"jsonrpc":"2.0","id":7,"result":{"value":[1,{"a":"\"]}"}],"output":[3,0],"completed":true}}"#,
            r#"{"id":1,"error":{"code":75,"message":"\u00e4\\","data":{"kind":"conflict","pause":0.5}}}"#,
            "{}",
            r#"{ "a" : 1 , "b" : [ ] }"#,
        ] {
            assert_eq!(kept(line), line);
        }
        assert_eq!(kept("{\t \"a\":  1}"), "{ \"a\": 1}");
    }

    #[test]
    fn of_a_long_one_the_members_stay() {
        let (text, digits) = ("x".repeat(TEXT + 9), "7".repeat(9999));
        let long = format!(r#"{{"id":1,"result":{{"value":"{text}"}}}}"#);
        assert_eq!(kept(&long), format!(r#"{{"id":1,"result":{{"value":"{}"}}}}"#, &text[..TEXT]));
        let inner = format!(r#"{{"error":{{"data":{{"trace":"{text}","kind":"conflict"}},"code":1}},"id":2}}"#);
        let cut = format!(
            r#"{{"error":{{"data":{{"trace":"{}","kind":"conflict"}},"code":1}},"id":2}}"#,
            &text[..INNER_TEXT]
        );
        assert_eq!(kept(&inner), cut);
        for value in [format!("[{}1]", "1,".repeat(9999)), format!("{{\"a\":[{}{{}}]}}", "[\"]\"],".repeat(9999))] {
            let long = format!(r#"{{"result":{{"value":{value},"completed":true}},"id":3}}"#);
            assert_eq!(kept(&long), r#"{"result":{"value":null,"completed":true},"id":3}"#);
        }
        let number = format!(r#"{{"result":{{"value":{digits}}},"id":3}}"#);
        assert_eq!(kept(&number), format!(r#"{{"result":{{"value":{}}},"id":3}}"#, &digits[..NUMBER]));
    }

    #[test]
    fn no_escape_is_cut_in_the_middle() {
        for before in 0..30 {
            let text = "y".repeat(TEXT - before) + &r#"\u00e4\\\n\u00e4\""#.repeat(9);
            let kept = kept(&format!(r#"{{"a":"{text}"}}"#));
            let read = kept.strip_prefix("{\"a\":\"").unwrap().strip_suffix("\"}").unwrap();
            assert!(text.starts_with(read) && (TEXT..TEXT + 6).contains(&read.len()), "{before}");
            assert!(serde_json::from_str::<serde_json::Value>(&kept).is_ok(), "{before}");
        }
    }

    #[test]
    fn what_is_no_message_is_told_at_once() {
        assert!(Oversized::default().push(b"  x").is_err());
        let mut long = Oversized::default();
        long.push(b"{").unwrap();
        let members = "\"a\":1,".repeat(9999);
        assert!((0..100).any(|_| long.push(members.as_bytes()).is_err()));
    }
}

//! Shows text that asyncq did not write. Nothing in it may control a terminal.

use std::borrow::Cow;

/// Shows a type as its text, for programs and for people.
macro_rules! has_text {
    ($($type:ident)*) => {$(
        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}
pub(super) use has_text;

/// Gives each value of an enum its name, which is the same in the store, in JSON and on the command line.
macro_rules! has_names {
    ($type:ident { $($value:ident: $name:literal,)* }) => {
        impl $type {
            /// All of them, in their order.
            pub const ALL: [$type; [$($name),*].len()] = [$($type::$value),*];

            /// Its name.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $($type::$value => $name,)*
                }
            }

            /// The one with that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<$type> {
                $type::ALL.into_iter().find(|value| value.as_str() == name)
            }
        }
    };
}
pub(super) use has_names;

/// `text` with escapes for all characters that could control a terminal or hide text: control characters (C0, DEL, C1) as `\n`,
/// `\t` or `\u{1b}`, and characters that reorder or hide text (bidirectional controls, zero-width characters, line and paragraph
/// separators) as `\u{202e}`.
#[must_use]
pub fn escape_control(text: &str) -> Cow<'_, str> {
    if !text.contains(is_control_or_bidi) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_control_or_bidi(c) { out.extend(c.escape_default()) } else { out.push(c) }
    }
    Cow::Owned(out)
}

/// The same for text with several lines: line ends and tabs stay, and bytes that are not UTF-8 become U+FFFD.
#[must_use]
pub fn escape_control_in_lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_control_or_bidi(c) && c != '\n' && c != '\t' { out.extend(c.escape_default()) } else { out.push(c) }
    }
    out
}

/// Whether a terminal does anything with `c` except for showing it. The bidirectional controls are those of Unicode Standard Annex
/// 9.
#[must_use]
pub fn is_control_or_bidi(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{61c}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers() {
        assert_eq!(escape_control("plain ä 😀"), "plain ä 😀");
        assert_eq!(escape_control("a\x1b[31m\u{9b}b\r\n\u{202e}"), r"a\u{1b}[31m\u{9b}b\r\n\u{202e}");
        assert_eq!(escape_control_in_lines(b"a\tb\n\x07\xff"), "a\tb\n\\u{7}\u{fffd}");
    }
}

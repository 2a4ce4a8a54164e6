//! Text of workers that is not valid Unicode.

use serde_json::value::RawValue;

/// The text of a line with U+FFFD in place of each byte that is not UTF-8 and of each half of a surrogate pair; `None` if there are
/// none.
pub(super) fn mended(line: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(line);
    let mut mended = String::with_capacity(text.len());
    let mut rest = &*text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        mended += before;
        let length = match code_unit(escape) {
            Some(0xd800..=0xdbff) if matches!(code_unit(&escape[6..]), Some(0xdc00..=0xdfff)) => 12,
            Some(0xd800..=0xdfff) => {
                mended.push(char::REPLACEMENT_CHARACTER);
                rest = &escape[6..];
                continue;
            }
            _ => 1 + escape[1..].chars().next().map_or(0, char::len_utf8),
        };
        let (whole, after) = escape.split_at(length);
        mended += whole;
        rest = after;
    }
    mended += rest;
    (mended.as_bytes() != line).then_some(mended)
}

/// The number in an escape like `\u00e4` at the start of a text.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// A text in a member for people, with U+FFFD in place of what is not a character; `None` if it is no text at all.
pub(super) fn text(member: &RawValue) -> Option<String> {
    let text = member.get();
    serde_json::from_str(text).ok().or_else(|| serde_json::from_str(&mended(text.as_bytes())?).ok())
}

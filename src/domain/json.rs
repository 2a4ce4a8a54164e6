//! JSON text that is validated once and kept byte for byte.
//!
//! Invariant: a [`Json`] is one JSON value, in UTF-8, at most [`MAX_BYTES`] long and [`MAX_DEPTH`] deep, without a NUL character, a
//! lone surrogate or a key that occurs twice in one object. Numbers keep their digits, because nothing turns them into floats.

use std::{borrow::Cow, collections::HashSet, fmt};

use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde::{Serialize as _, Serializer};
use serde_json::value::RawValue;

use super::text::{escape_control, has_text};

/// The longest JSON text that asyncq accepts as arguments or as a result, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How deep arrays and objects may be nested; `[]` is 1 deep.
pub const MAX_DEPTH: usize = 64;

/// White space of JSON.
const WHITE: [char; 4] = [' ', '\t', '\n', '\r'];

/// Why a text is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonFault {
    /// Not JSON at all; holds what is wrong with it.
    Syntax(String),
    /// Longer than [`MAX_BYTES`]; holds its length.
    TooLarge(usize),
    /// Nested deeper than [`MAX_DEPTH`].
    TooDeep,
    /// A string holds the character U+0000, which PostgreSQL and C programs cannot hold.
    Nul,
    /// A string holds one half of a surrogate pair, which is not a character.
    Surrogate,
    /// An object has this key twice, so readers would disagree about its value.
    DuplicateKey(String),
}

impl fmt::Display for JsonFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            JsonFault::Syntax(reason) => write!(f, "not valid JSON: {reason}"),
            JsonFault::TooLarge(bytes) => write!(f, "too large: {bytes} bytes, at most {MAX_BYTES} are allowed"),
            JsonFault::TooDeep => write!(f, "nested too deep: at most {MAX_DEPTH} levels are allowed"),
            JsonFault::Nul => write!(f, "a NUL character in a string"),
            JsonFault::Surrogate => write!(f, "a lone surrogate in a string"),
            JsonFault::DuplicateKey(key) => {
                write!(f, "the key `{}` twice in one object", escape_control(key))
            }
        }
    }
}

/// One valid JSON value with its original bytes, without white space around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Json(Box<str>);

impl Json {
    /// Validates `text` and keeps it.
    ///
    /// # Errors
    /// The first [`JsonFault`] found.
    pub fn parse(text: &str) -> Result<Json, JsonFault> {
        if text.len() > MAX_BYTES {
            return Err(JsonFault::TooLarge(text.len()));
        }
        // Most calls have these, and processors read them millions of times.
        if text == "[]" || text == "{}" {
            return Ok(Json(text.into()));
        }
        let value = raw(text)?;
        check(value)?;
        Ok(Json(value.get().into()))
    }

    /// Validates `text` and keeps it without a copy, if there is no white space around it.
    ///
    /// # Errors
    /// As [`Json::parse`].
    pub fn take(text: String) -> Result<Json, JsonFault> {
        if text == "[]" || text == "{}" {
            return Ok(Json(text.into_boxed_str()));
        }
        if text.len() > MAX_BYTES || text.starts_with(WHITE) || text.ends_with(WHITE) {
            return Json::parse(&text);
        }
        check(raw(&text)?)?;
        Ok(Json(text.into_boxed_str()))
    }

    /// A string as JSON.
    ///
    /// # Errors
    /// When it is too long or holds a NUL.
    pub fn string(text: &str) -> Result<Json, JsonFault> {
        Json::parse(&quote(text))
    }

    /// Whether this is an array.
    #[must_use]
    pub fn is_array(&self) -> bool {
        self.0.starts_with('[')
    }

    /// Whether this is an object.
    #[must_use]
    pub fn is_object(&self) -> bool {
        self.0.starts_with('{')
    }

    /// The elements when this is an array, each as its own bytes; none otherwise.
    #[must_use]
    pub fn elements(&self) -> Vec<&str> {
        array(&self.0).unwrap_or_default().into_iter().map(RawValue::get).collect()
    }

    /// Keys and values when this is an object, each value as its own bytes; none otherwise.
    #[must_use]
    pub fn entries(&self) -> Vec<(String, &str)> {
        entries(&self.0)
    }
}

has_text! { Json }

/// The keys and values of a text that is an object, each value with its own bytes; otherwise none.
#[must_use]
pub fn entries(text: &str) -> Vec<(String, &str)> {
    let entries = object(text).unwrap_or_default();
    entries.into_iter().map(|(key, value)| (key.into_owned(), value.get())).collect()
}

/// `text` as a JSON string with its quotes.
#[must_use]
pub fn quote(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The characters of a JSON string, or `None` when `value` is another kind of value.
#[must_use]
pub fn unquote(value: &str) -> Option<Cow<'_, str>> {
    value.starts_with('"').then(|| string(value).ok()).flatten()
}

/// The same value without white space between its tokens; numbers and strings keep their bytes.
#[must_use]
pub fn compact(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    let (mut inside, mut escaped) = (false, false);
    for c in value.chars() {
        if inside {
            inside = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            inside = c == '"';
        }
        out.push(c);
    }
    out
}

/// Whether two JSON texts are the same value, apart from white space, escapes and the order of keys. Numbers are the same only if
/// their digits are.
#[must_use]
pub fn is_same(one: &str, other: &str) -> bool {
    one == other || sorted(one) == sorted(other)
}

/// The same value without white space, escaped as [`quote`] does, with the keys of each object sorted.
fn sorted(text: &str) -> String {
    if let Some(text) = unquote(text) {
        return quote(&text);
    }
    if let Ok(elements) = array(text) {
        let elements: Vec<String> = elements.into_iter().map(|it| sorted(it.get())).collect();
        return format!("[{}]", elements.join(","));
    }
    if let Ok(mut entries) = object(text) {
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        let entries: Vec<String> =
            entries.into_iter().map(|(key, value)| format!("{}:{}", quote(&key), sorted(value.get()))).collect();
        return format!("{{{}}}", entries.join(","));
    }
    text.trim_matches(WHITE).to_owned()
}

/// Serializes stored JSON byte for byte. A client may have stored a text that is not JSON, or that some programs cannot read,
/// because it is nested too deep, or has half a surrogate pair or a name twice. Such a text becomes a string.
pub(super) fn serialize_stored<'a, S: Serializer>(
    text: impl Into<Option<&'a String>>,
    to: S,
) -> Result<S::Ok, S::Error> {
    let Some(text) = text.into() else { return to.serialize_none() };
    match Json::parse(text).ok().and_then(|_| raw(text).ok()) {
        Some(json) => json.serialize(to),
        None => to.serialize_str(text),
    }
}

fn raw(text: &str) -> Result<&RawValue, JsonFault> {
    serde_json::from_str(text).map_err(|error| JsonFault::Syntax(explain(text, &error)))
}

/// A syntax error of serde, in asyncq's words.
pub(super) fn explain(text: &str, error: &serde_json::Error) -> String {
    if error.is_eof() { "it is not complete".to_owned() } else { unexpected(text, offset(text, error)) }
}

/// The byte at which serde stopped. It counts a line feed as column 0 of the next line.
pub(super) fn offset(text: &str, error: &serde_json::Error) -> usize {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let start: usize = lines.map(str::len).sum();
    let at = (start + error.column()).saturating_sub(1);
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The message about an unexpected character.
fn unexpected(text: &str, at: usize) -> String {
    let Some(found) = text[at..].chars().next() else { return "it is not complete".to_owned() };
    let before = &text[..at];
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let found = escape_control(found.encode_utf8(&mut [0; 4])).into_owned();
    match before.matches('\n').count() {
        0 => format!("unexpected `{found}` at column {column}"),
        lines => format!("unexpected `{found}` at line {}, column {column}", lines + 1),
    }
}

/// Goes through nested containers with its own list, so that depth needs no stack. `serde_json` parses each of them.
fn check(value: &RawValue) -> Result<(), JsonFault> {
    let mut waiting = vec![(value, 0)];
    while let Some((value, above)) = waiting.pop() {
        let text = value.get();
        let inside = |child: &RawValue| match child.get().as_bytes()[0] {
            b'"' => string(child.get()).map(|_| false),
            first => Ok(matches!(first, b'[' | b'{')),
        };
        let children = match text.as_bytes()[0] {
            b'"' => {
                string(text)?;
                continue;
            }
            b'[' => array(text)?,
            b'{' => {
                let entries = object(text)?;
                let mut seen = HashSet::with_capacity(entries.len());
                let mut values = Vec::with_capacity(entries.len());
                for (key, value) in entries {
                    values.push(value);
                    if let Some(twice) = seen.replace(key) {
                        return Err(JsonFault::DuplicateKey(twice.into_owned()));
                    }
                }
                values
            }
            _ => continue,
        };
        if above == MAX_DEPTH {
            return Err(JsonFault::TooDeep);
        }
        for child in children {
            if inside(child)? {
                waiting.push((child, above + 1));
            }
        }
    }
    Ok(())
}

fn string(text: &str) -> Result<Cow<'_, str>, JsonFault> {
    if !text.contains('\\') {
        return Ok(Cow::Borrowed(&text[1..text.len() - 1]));
    }
    // The grammar has been checked, so only half of a surrogate pair can still make a string fail.
    let decoded: String = serde_json::from_str(text).map_err(|_| JsonFault::Surrogate)?;
    if decoded.contains('\0') { Err(JsonFault::Nul) } else { Ok(Cow::Owned(decoded)) }
}

fn array(text: &str) -> Result<Vec<&RawValue>, JsonFault> {
    serde_json::from_str(text).map_err(|error| JsonFault::Syntax(explain(text, &error)))
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(entry) = map.next_entry()? {
            found.push(entry);
        }
        Ok(found)
    }
}

fn object(text: &str) -> Result<Vec<(Cow<'_, str>, &RawValue)>, JsonFault> {
    let mut parser = serde_json::Deserializer::from_str(text);
    let entries = parser.deserialize_map(Entries).map_err(|error| JsonFault::Syntax(explain(text, &error)))?;
    entries.into_iter().map(|(key, value)| Ok((string(key.get())?, value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn a_text_that_is_taken_is_what_it_is_when_it_is_parsed() {
        let (fits, deep) = (nested(MAX_DEPTH), nested(MAX_DEPTH + 1));
        let long = format!("[{}]", " ".repeat(MAX_BYTES));
        for text in ["[]", "{}", " [ 1 ]\n", "[1]x", "", r#"["\ud83d"]"#, r#"{"a":1,"a":2}"#, &fits, &deep, &long] {
            assert_eq!(Json::take(text.to_owned()), Json::parse(text), "{text}");
        }
    }

    #[test]
    fn bytes_survive() {
        for text in ["1.10", "18446744073709551616", "1e400", "-0", r#"{"b":1, "a":[ 2 ]}"#, r#""\u00e4😀""#, "[]"] {
            assert_eq!(Json::parse(text).map(|json| json.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(Json::parse(" [1]\n").unwrap().as_str(), "[1]");
    }

    #[test]
    fn faults_are_told_apart() {
        assert!(matches!(Json::parse("[1,]"), Err(JsonFault::Syntax(_))));
        assert!(matches!(Json::parse("NaN"), Err(JsonFault::Syntax(_))));
        assert!(matches!(Json::parse("\"a\nb\""), Err(JsonFault::Syntax(_))));
        assert_eq!(Json::parse(r#"{"a":[{"b":1,"\u0062":2}]}"#), Err(JsonFault::DuplicateKey("b".into())));
        assert_eq!(Json::parse(r#"["\u0000"]"#), Err(JsonFault::Nul));
        assert_eq!(Json::parse(r#"{"a\u0000":1}"#), Err(JsonFault::Nul));
        assert_eq!(Json::parse(r#"["\ud800"]"#), Err(JsonFault::Surrogate));
        assert_eq!(Json::parse(r#"{"\udc00":1}"#), Err(JsonFault::Surrogate));
        assert!(Json::parse(r#""\\u0000""#).is_ok());
        assert!(Json::parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(Json::parse(&nested(MAX_DEPTH + 1)), Err(JsonFault::TooDeep));
        assert_eq!(Json::parse(&nested(100_000)), Err(JsonFault::TooDeep));
        let long = Json::string(&"x".repeat(MAX_BYTES));
        assert_eq!(long, Err(JsonFault::TooLarge(MAX_BYTES + 2)));
    }

    #[test]
    fn values_are_compared_and_not_their_bytes() {
        assert!(is_same(r#"{"b":[1.0, "\u0061"],"a":{}}"#, r#"{ "a": {}, "b": [1.0,"a"] }"#));
        for (one, other) in [("1.0", "1"), (r#""1""#, "1"), ("[1,2]", "[2,1]"), ("{}", "[]"), ("null", "0")] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn compacting_keeps_strings_and_numbers() {
        assert_eq!(compact("{ \"a b\" : [ 1.10 ,\n\"x \\\" y\" ] }"), r#"{"a b":[1.10,"x \" y"]}"#);
    }

    #[test]
    fn parts_keep_their_bytes() {
        let json = Json::parse(r#"[1.0, "a", {"k": [1, 2]}]"#).unwrap();
        assert_eq!(json.elements(), ["1.0", "\"a\"", "{\"k\": [1, 2]}"]);
        let json = Json::parse(r#"{"\u0061": 1.50}"#).unwrap();
        assert_eq!(json.entries(), [("a".to_owned(), "1.50")]);
    }
}

//! The types of arguments in a signature.

use super::json::{Json, quote, unquote};
use super::suggest::nearest;
use super::text::{escape_control, has_names};
use crate::error::{Error, Kind, Result};

/// What kind of value an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArgType {
    /// A string.
    Text,
    /// A number without a fraction or an exponent.
    Int,
    /// Any number.
    Number,
    /// True or false.
    Bool,
    /// An array.
    List,
    /// An object.
    Object,
}

has_names! { ArgType { Text: "text", Int: "int", Number: "number", Bool: "bool", List: "list", Object: "object", } }

impl ArgType {
    /// What else people call them.
    const OTHER_NAMES: [(&'static str, &'static str); 12] = [
        ("str", "text"),
        ("string", "text"),
        ("integer", "int"),
        ("float", "number"),
        ("double", "number"),
        ("num", "number"),
        ("boolean", "bool"),
        ("array", "list"),
        ("tuple", "list"),
        ("dict", "object"),
        ("map", "object"),
        ("json", "object"),
    ];

    /// The type with this name.
    ///
    /// # Errors
    /// [`Kind::Usage`] when there is none.
    pub fn parse(name: &str) -> Result<ArgType> {
        if let Some(kind) = ArgType::from_name(name) {
            return Ok(kind);
        }
        let all = "the types are text, int, number, bool, list and object";
        let other = ArgType::OTHER_NAMES.into_iter().find(|(other, _)| *other == name).map(|(_, meant)| meant);
        let near = other.or_else(|| nearest(name, ArgType::ALL.map(ArgType::as_str)));
        let hint = near.map_or_else(|| all.to_owned(), |near| format!("did you mean `{near}`? {all}"));
        Err(Error::new(Kind::Usage, format!("there is no type `{}`", escape_control(name))).with_hint(hint))
    }

    /// What it is, in words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            ArgType::Text => "text",
            ArgType::Int => "a whole number",
            ArgType::Number => "a number",
            ArgType::Bool => "true or false",
            ArgType::List => "a list",
            ArgType::Object => "an object",
        }
    }

    /// Whether a JSON value is of this type.
    #[must_use]
    pub fn has(self, value: &str) -> bool {
        let Some(first) = value.as_bytes().first() else { return false };
        match self {
            ArgType::Text => *first == b'"',
            ArgType::Bool => matches!(first, b't' | b'f'),
            ArgType::List => *first == b'[',
            ArgType::Object => *first == b'{',
            ArgType::Number => matches!(first, b'-' | b'0'..=b'9'),
            ArgType::Int => matches!(first, b'-' | b'0'..=b'9') && !value.contains(['.', 'e', 'E']),
        }
    }

    /// A typed word as a value of this type; `None` if the word is not of this type. For a text, the word is the value whatever it
    /// looks like, unless it is a JSON string.
    #[must_use]
    pub fn of_word(self, value: &str) -> Option<String> {
        if self == ArgType::Text {
            return Some(quote(value));
        }
        let inside = Json::parse(&unquote(value)?).ok()?;
        self.has(inside.as_str()).then(|| inside.to_string())
    }
}

/// What a JSON value is, in words.
#[must_use]
pub fn value_in_words(value: &str) -> &'static str {
    match value.as_bytes().first() {
        Some(b'n') => "null",
        Some(b'-' | b'0'..=b'9') if ArgType::Int.has(value) => "a whole number",
        _ => ArgType::ALL.into_iter().find(|kind| kind.has(value)).map_or("something else", ArgType::words),
    }
}

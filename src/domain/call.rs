//! A call: a function, its arguments, the principal, and the site.

use super::function::FunctionName;
use super::json::{self, Json, JsonFault};
use super::service::{MAX_NAME_BYTES, ServiceName};
use super::text::{escape_control, has_text, is_control_or_bidi};
use crate::error::{Error, Kind, Result};

/// The person or thing on whose behalf a call is made: any text of 1 to 255 bytes that is safe to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal(Box<str>);

impl Principal {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it is empty, too long, or has characters that control a terminal.
    pub fn parse(text: &str) -> Result<Principal> {
        short_text("a principal", text, is_control_or_bidi).map(Principal)
    }
}

/// A choice of the principal of a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OnBehalfOf {
    /// The principal of the caller.
    #[default]
    Caller,
    /// No principal.
    Nobody,
    /// This principal.
    Named(Principal),
}

impl OnBehalfOf {
    /// The choice that `name` stands for; an empty name means no principal.
    ///
    /// # Errors
    /// As [`Principal::parse`].
    pub fn parse(name: &str) -> Result<OnBehalfOf> {
        if name.is_empty() { Ok(OnBehalfOf::Nobody) } else { Principal::parse(name).map(OnBehalfOf::Named) }
    }
}

/// A key that makes it safe to repeat an enqueue: any text of 1 to 255 bytes without control characters. It is unique in a store as
/// long as its job exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Box<str>);

impl Key {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a key.
    pub fn parse(text: &str) -> Result<Key> {
        short_text("a key", text, char::is_control).map(Key)
    }
}

has_text! { Principal Key }

/// Validates a text of 1 to 255 bytes, for `what`.
fn short_text(what: &str, text: &str, is_refused: fn(char) -> bool) -> Result<Box<str>> {
    if !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains(is_refused) {
        return Ok(text.into());
    }
    let hint = format!("{what} is 1 to {MAX_NAME_BYTES} bytes of text without control characters");
    Err(Error::new(Kind::Usage, format!("`{}` cannot be {what}", escape_control(text))).with_hint(hint))
}

/// A validated call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The service of the function.
    pub service: ServiceName,
    /// The function.
    pub function: FunctionName,
    /// Positional arguments, a JSON array.
    pub args: Json,
    /// Keyword arguments, a JSON object.
    pub kwargs: Json,
    /// On whose behalf; `None` for nobody.
    pub principal: Option<Principal>,
    /// The absolute path of the directory to run in, if it is not the site of the function.
    pub site: Option<String>,
    /// Whether its arguments are words that somebody typed. Then the signature of the function says how to read them.
    pub is_typed: bool,
}

impl Call {
    /// A call on behalf of nobody, in the site of its function.
    #[must_use]
    pub fn new(service: ServiceName, function: FunctionName, args: Json, kwargs: Json) -> Call {
        Call { service, function, args, kwargs, principal: None, site: None, is_typed: false }
    }
}

/// How to read words of a command line as values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// A word that is JSON without space around it is read as JSON; any other word is a string.
    Json,
    /// Every word is a string.
    Raw,
}

impl Reading {
    /// Positional arguments as typed on a command line.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a word is refused, or all together are too large.
    pub fn positional<S: AsRef<str>>(self, words: &[S]) -> Result<Json> {
        let mut text = String::from("[");
        for (index, word) in words.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text += &self.value(word.as_ref()).map_err(|fault| refuse(&format!("argument {}", index + 1), &fault))?;
        }
        text.push(']');
        Json::parse(&text).map_err(|fault| refuse("the arguments together", &fault))
    }

    /// Keyword arguments as typed on a command line.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a name occurs twice, a value is refused, or all together are too large.
    pub fn keywords<S: AsRef<str>>(self, pairs: &[(S, S)]) -> Result<Json> {
        keywords(&pairs.iter().map(|(name, word)| (name, word, self)).collect::<Vec<_>>())
    }

    /// A word as JSON text. A word that is JSON but is refused is never read as a string.
    fn value(self, word: &str) -> Result<String, JsonFault> {
        let spaced = |c: char| matches!(c, ' ' | '\t' | '\n' | '\r');
        if self == Reading::Raw || word.starts_with(spaced) || word.ends_with(spaced) {
            return Json::string(word).map(|json| json.to_string());
        }
        match Json::parse(word) {
            Ok(json) => Ok(json.to_string()),
            Err(JsonFault::Syntax(_)) => Json::string(word).map(|json| json.to_string()),
            Err(fault) => Err(fault),
        }
    }
}

/// Keyword arguments as typed on a command line, each with how to read it.
///
/// # Errors
/// As [`Reading::keywords`].
pub fn keywords<S: AsRef<str>>(pairs: &[(S, S, Reading)]) -> Result<Json> {
    let mut text = String::from("{");
    for (index, (name, word, reading)) in pairs.iter().enumerate() {
        let name = name.as_ref();
        if index > 0 {
            text.push(',');
        }
        text += &json::quote(name);
        text.push(':');
        let value = reading.value(word.as_ref());
        text += &value.map_err(|fault| refuse(&format!("argument `{}`", escape_control(name)), &fault))?;
    }
    text.push('}');
    Json::parse(&text).map_err(|fault| refuse("the keyword arguments together", &fault))
}

fn refuse(what: &str, fault: &JsonFault) -> Error {
    let error = Error::new(Kind::Invalid, format!("{what}: {fault}"));
    match fault {
        JsonFault::TooLarge(_) => error.with_hint("put the data into a file and pass its path"),
        JsonFault::DuplicateKey(_) => {
            error.with_hint("readers disagree about which value counts, so name each key once")
        }
        JsonFault::Syntax(_) | JsonFault::TooDeep | JsonFault::Nul | JsonFault::Surrogate => {
            error.with_hint("`--raw` passes the text itself")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_json_or_strings() {
        let words =
            ["2", "true", "null", "\"2\"", "{\"a\": 1.10}", "bob@example.com", "-7", "", "18446744073709551616", "[1"];
        let args = Reading::Json.positional(&words).unwrap();
        assert_eq!(args.as_str(), r#"[2,true,null,"2",{"a": 1.10},"bob@example.com",-7,"",18446744073709551616,"[1"]"#);
        assert_eq!(Reading::Json.positional::<&str>(&[]).unwrap().as_str(), "[]");
        assert_eq!(
            Reading::Json.positional(&["  3 ", "3\n", "\t{}", "\u{a0}3"]).unwrap().as_str(),
            r#"["  3 ","3\n","\t{}"," 3"]"#
        );
        assert_eq!(Reading::Json.keywords(&[("b", "x"), ("a", "1")]).unwrap().as_str(), r#"{"b":"x","a":1}"#);
    }

    #[test]
    fn raw_words_are_strings() {
        let words = ["2", "null", r#""quoted""#, " ", r#"{"a":1,"a":2}"#];
        let args = Reading::Raw.positional(&words).unwrap();
        assert_eq!(args.as_str(), r#"["2","null","\"quoted\""," ","{\"a\":1,\"a\":2}"]"#);
        assert_eq!(Reading::Raw.keywords(&[("a", "1")]).unwrap().as_str(), r#"{"a":"1"}"#);
    }

    #[test]
    fn refused_json_is_no_string() {
        for word in [r#"{"a":1,"a":2}"#, r#""\u0000""#, &format!("{}{}", "[".repeat(70), "]".repeat(70))] {
            assert_eq!(Reading::Json.positional(&[word]).unwrap_err().kind(), Kind::Invalid);
        }
        let twice = Reading::Json.keywords(&[("a", "1"), ("a", "2")]).unwrap_err();
        assert_eq!(twice.to_string(), "the keyword arguments together: the key `a` twice in one object");
    }
}

//! Metadata: what a caller adds to a call, such as a trace or a tenant. The function and the calls inside it get it.

use super::json::{Json, entries, quote, unquote};
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// The metadata of a call: a JSON object of at most [`Meta::MOST_BYTES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Meta(Json);

impl Meta {
    /// How many bytes it may have.
    pub const MOST_BYTES: usize = 4096;

    /// Metadata from an object; `None` for an empty one.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is too large.
    pub fn of(object: Json) -> Result<Option<Meta>> {
        match object.as_str().len() {
            _ if object.entries().is_empty() => Ok(None),
            0..=Meta::MOST_BYTES => Ok(Some(Meta(object))),
            bytes => Err(too_large(bytes)),
        }
    }

    /// Metadata of texts, each with its name; `None` if there are none.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a name that occurs twice, [`Kind::Invalid`] for a NUL character and when it is too large.
    pub fn of_texts(pairs: &[(&str, &str)]) -> Result<Option<Meta>> {
        for (at, (name, _)) in pairs.iter().enumerate() {
            if pairs[..at].iter().any(|(other, _)| other == name) {
                let message = format!("the metadata has `{}` twice", escape_control(name));
                return Err(Error::new(Kind::Usage, message).with_hint("give each name once"));
            }
        }
        let members = pairs.iter().map(|(name, value)| (quote(name), quote(value)));
        Meta::of(object(members).map_err(|fault| Error::new(Kind::Invalid, format!("the metadata: {fault}")))?)
    }

    /// Metadata from the store. A client may have written something invalid.
    ///
    /// # Errors
    /// What is wrong with it, as a part of a sentence.
    pub fn stored(text: String) -> Result<Option<Meta>, String> {
        let json = Json::take(text).map_err(|fault| fault.to_string())?;
        if !json.is_object() {
            return Err("not an object".to_owned());
        }
        Meta::of(json).map_err(|error| error.to_string())
    }

    /// The metadata of a call together with that of the call that makes it. If both have a name, the call's own value counts.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when both together are too large.
    pub fn inside(self, outer: &Meta) -> Result<Meta> {
        let own = self.0.entries();
        let inherited = outer.0.entries().into_iter().filter(|(name, _)| own.iter().all(|(other, _)| other != name));
        let all = own.iter().cloned().chain(inherited).map(|(name, value)| (quote(&name), value.to_owned()));
        let all = object(all).map_err(|fault| Error::new(Kind::Invalid, format!("the metadata: {fault}")))?;
        Ok(Meta::of(all)?.unwrap_or(self))
    }

    /// The member `traceparent`, if it is a text: the W3C trace to which the call belongs.
    #[must_use]
    pub fn traceparent(&self) -> Option<String> {
        let found = entries(self.as_str()).into_iter().find(|(name, _)| name == "traceparent");
        found.and_then(|(_, value)| unquote(value).map(std::borrow::Cow::into_owned))
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The object.
    #[must_use]
    pub fn json(&self) -> &Json {
        &self.0
    }
}

fn too_large(bytes: usize) -> Error {
    let most = Meta::MOST_BYTES;
    Error::new(Kind::Invalid, format!("the metadata has {bytes} bytes, at most {most} are allowed"))
        .with_hint("put the data into the arguments, or into a file")
}

fn object(members: impl Iterator<Item = (String, String)>) -> Result<Json, super::json::JsonFault> {
    let members: Vec<String> = members.map(|(name, value)| format!("{name}:{value}")).collect();
    Json::take(format!("{{{}}}", members.join(",")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(text: &str) -> Meta {
        Meta::stored(text.to_owned()).unwrap().unwrap()
    }

    #[test]
    fn a_call_has_the_metadata_of_the_one_inside_which_it_is_made() {
        let outer = meta(r#"{"tenant":"acme","n":1}"#);
        assert_eq!(
            meta(r#"{"n": [2],"own":"x"}"#).inside(&outer).unwrap().as_str(),
            r#"{"n":[2],"own":"x","tenant":"acme"}"#
        );
        let large = meta(&format!(r#"{{"a":"{}"}}"#, "x".repeat(3000)));
        let other = meta(&format!(r#"{{"b":"{}"}}"#, "x".repeat(3000)));
        assert_eq!(
            large.inside(&other).unwrap_err().to_string(),
            "the metadata has 6015 bytes, at most 4096 are allowed"
        );
    }

    #[test]
    fn metadata_is_a_small_object() {
        assert_eq!(Meta::of_texts(&[]).unwrap(), None);
        assert_eq!(Meta::of_texts(&[("a", "1"), ("b", "\"")]).unwrap().unwrap().as_str(), r#"{"a":"1","b":"\""}"#);
        assert_eq!(Meta::of_texts(&[("a", "1"), ("a", "2")]).unwrap_err().to_string(), "the metadata has `a` twice");
        for text in ["", "7", "[]", r#"{"a":1,"a":2}"#] {
            assert!(Meta::stored(text.to_owned()).is_err(), "{text}");
        }
        assert_eq!(meta(r#"{"traceparent":"00-ab"}"#).traceparent().as_deref(), Some("00-ab"));
        assert_eq!(meta(r#"{"traceparent":7}"#).traceparent(), None);
    }
}

//! Secret arguments: asyncq hides their values and keeps them off command lines.

use std::num::NonZeroU32;

use super::json::{Json, quote};
use super::signature::Signature;
use super::text::escape_control;
use crate::error::{Error, Kind, Result};

/// What is shown in place of a secret argument.
pub const MASK: &str = "•••";

/// How many secret arguments a function has at most.
const MOST: usize = 100;

/// The longest name of one, in bytes.
const LONGEST_NAME: usize = 255;

/// One secret argument.
#[derive(Debug, Clone, PartialEq, Eq)]
enum SecretArg {
    /// The one with this name.
    Named(String),
    /// The one at this place, counted from 1.
    At(NonZeroU32),
}

/// The secret arguments of a function.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(Vec<SecretArg>);

impl Secrets {
    /// Parses names and places, in any order.
    ///
    /// # Errors
    /// [`Kind::Usage`] for what is neither.
    pub fn parse<S: AsRef<str>>(words: &[S]) -> Result<Secrets> {
        let mut secrets = Vec::new();
        for word in words {
            let word = word.as_ref();
            let is_number = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit());
            let secret = match word.parse().ok() {
                Some(place) => SecretArg::At(place),
                None if is_number || word.is_empty() || word.contains(['=', '\0']) || word.len() > LONGEST_NAME => {
                    let message = format!("`{}` cannot be a secret argument", escape_control(word));
                    let hint = "give the name of an argument, or its place, counted from 1";
                    return Err(Error::new(Kind::Usage, message).with_hint(hint));
                }
                None => SecretArg::Named(word.strip_prefix("--").unwrap_or(word).to_owned()),
            };
            if !secrets.contains(&secret) {
                secrets.push(secret);
            }
        }
        if secrets.len() > MOST {
            let message = format!("a function has at most {MOST} secret arguments, and here are {}", secrets.len());
            return Err(Error::new(Kind::Usage, message).with_hint("let it take one secret object instead"));
        }
        Ok(Secrets(secrets))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each as it is given on a command line.
    pub fn words(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|secret| match secret {
            SecretArg::Named(name) => name.clone(),
            SecretArg::At(place) => place.to_string(),
        })
    }

    /// As they are stored: a JSON array of names and places; `None` if there are none.
    #[must_use]
    pub fn to_json(&self) -> Option<String> {
        let one = |secret: &SecretArg| match secret {
            SecretArg::Named(name) => quote(name),
            SecretArg::At(place) => place.to_string(),
        };
        (!self.0.is_empty()).then(|| format!("[{}]", self.0.iter().map(one).collect::<Vec<_>>().join(",")))
    }

    /// Reads what [`Secrets::to_json`] has written; `None` if it is something else.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Secrets> {
        let values: Vec<serde_json::Value> = serde_json::from_str(text).ok()?;
        let one = |value: serde_json::Value| match value {
            serde_json::Value::String(name) => Some(SecretArg::Named(name)),
            value => u32::try_from(value.as_u64()?).ok().and_then(NonZeroU32::new).map(SecretArg::At),
        };
        values.into_iter().map(one).collect::<Option<Vec<_>>>().map(Secrets)
    }

    /// Checks that a function with this signature has these arguments.
    ///
    /// # Errors
    /// [`Kind::Usage`] for one that it does not have.
    pub fn check(&self, signature: Option<&Signature>) -> Result<()> {
        let Some(signature) = signature else { return Ok(()) };
        for secret in &self.0 {
            let is_there = match secret {
                SecretArg::Named(name) => signature.has_keyword(name) || signature.names().any(|its| its == name),
                SecretArg::At(place) => signature.name_at(index(*place)).is_some(),
            };
            if is_there {
                continue;
            }
            let what = match secret {
                SecretArg::Named(name) => format!("argument `{}`", escape_control(name)),
                SecretArg::At(place) => format!("positional argument {place}"),
            };
            let hint = match signature.to_string() {
                none if none.is_empty() => "its signature has no arguments at all".to_owned(),
                signature => format!("its signature is `{signature}`"),
            };
            return Err(
                Error::new(Kind::Usage, format!("the function has no {what} that could be secret")).with_hint(hint)
            );
        }
        Ok(())
    }

    /// Whether the positional argument at this place, counted from 0, is secret.
    #[must_use]
    pub fn hides_at(&self, place: usize, signature: Option<&Signature>) -> bool {
        let name = signature.and_then(|signature| signature.name_at(place));
        self.0.iter().any(|secret| match secret {
            SecretArg::Named(secret) => name == Some(secret),
            SecretArg::At(secret) => index(*secret) == place,
        })
    }

    /// Whether the argument with this name is secret.
    #[must_use]
    pub fn hides_named(&self, name: &str, signature: Option<&Signature>) -> bool {
        self.0.iter().any(|secret| match secret {
            SecretArg::Named(secret) => secret == name,
            SecretArg::At(place) => signature.and_then(|signature| signature.name_at(index(*place))) == Some(name),
        })
    }

    /// Positional and keyword arguments without secret values. A client may have stored something that is not JSON: then nothing of
    /// it is shown.
    #[must_use]
    pub fn mask(&self, signature: Option<&Signature>, args: &str, kwargs: &str) -> (String, String) {
        if self.is_empty() {
            return (args.to_owned(), kwargs.to_owned());
        }
        let hidden = quote(MASK);
        let whole = |text: &str| Json::parse(text).ok();
        let args = whole(args).filter(Json::is_array).map_or_else(
            || MASK.to_owned(),
            |args| {
                let shown = args.elements().into_iter().enumerate();
                let shown = shown.map(|(at, value)| if self.hides_at(at, signature) { &*hidden } else { value });
                format!("[{}]", shown.collect::<Vec<_>>().join(","))
            },
        );
        let kwargs = whole(kwargs).filter(Json::is_object).map_or_else(
            || MASK.to_owned(),
            |kwargs| {
                let shown = kwargs.entries().into_iter().map(|(name, value)| {
                    let value = if self.hides_named(&name, signature) { &*hidden } else { value };
                    format!("{}:{value}", quote(&name))
                });
                format!("{{{}}}", shown.collect::<Vec<_>>().join(","))
            },
        );
        (args, kwargs)
    }
}

/// Turns a place counted from 1 into one counted from 0.
fn index(place: NonZeroU32) -> usize {
    usize::try_from(place.get() - 1).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(words: &[&str]) -> Secrets {
        Secrets::parse(words).unwrap()
    }

    #[test]
    fn secrets_are_names_and_places() {
        let both = secrets(&["password", "2", "--pin", "2"]);
        assert_eq!(both.to_json().as_deref(), Some(r#"["password",2,"pin"]"#));
        assert_eq!(Secrets::from_json(r#"["password",2,"pin"]"#), Some(both.clone()));
        assert_eq!(both.words().collect::<Vec<_>>(), ["password", "2", "pin"]);
        assert_eq!(secrets(&[]).to_json(), None);
        for text in ["[0]", "[-1]", "[1.5]", "{}", "[null]", "x"] {
            assert_eq!(Secrets::from_json(text), None, "{text}");
        }
        for word in ["", "0", "4294967296", "a=b", "a\0"] {
            let error = Secrets::parse(&[word]).expect_err(word);
            assert_eq!(error.hint(), Some("give the name of an argument, or its place, counted from 1"), "{word}");
        }
        let many: Vec<String> = (1..=101).map(|place| place.to_string()).collect();
        let error = Secrets::parse(&many).unwrap_err();
        assert_eq!(error.to_string(), "a function has at most 100 secret arguments, and here are 101");
    }

    #[test]
    fn a_signature_has_its_secrets() {
        let signature = Signature::parse("user [password] [--pin]").unwrap();
        for ok in [&["password"][..], &["pin", "1"], &["2"]] {
            secrets(ok).check(Some(&signature)).unwrap();
        }
        let refused = |words: &[&str], signature: &Signature| {
            let error = secrets(words).check(Some(signature)).unwrap_err();
            (error.to_string(), error.hint().unwrap_or_default().to_owned())
        };
        let is = "its signature is `user [password] [--pin]`".to_owned();
        let no = |what| format!("the function has no {what} that could be secret");
        assert_eq!(refused(&["passwd"], &signature), (no("argument `passwd`"), is.clone()));
        assert_eq!(refused(&["3"], &signature), (no("positional argument 3"), is));
        let none = "its signature has no arguments at all".to_owned();
        assert_eq!(refused(&["1"], &Signature::default()), (no("positional argument 1"), none));
        let more = Signature::parse("[all...] [--more...]").unwrap();
        secrets(&["9", "x", "all"]).check(Some(&more)).unwrap();
    }

    #[test]
    fn what_is_secret_is_masked() {
        let signature = Signature::parse("user password [rest...] [--pin]").unwrap();
        let masked = |words: &[&str], signature, args, kwargs| secrets(words).mask(signature, args, kwargs);
        let text = |args: &str, kwargs: &str| (args.to_owned(), kwargs.to_owned());
        let (args, kwargs) = (r#"["a", {"b": 1}, 3.0]"#, r#"{"pin": 1,"b":"c"}"#);
        assert_eq!(masked(&[], None, args, kwargs), text(args, kwargs));
        assert_eq!(masked(&["2", "pin"], None, args, kwargs), text(r#"["a","•••",3.0]"#, r#"{"pin":"•••","b":"c"}"#));
        assert_eq!(masked(&["password"], None, args, kwargs), text(r#"["a",{"b": 1},3.0]"#, r#"{"pin":1,"b":"c"}"#));
        assert_eq!(masked(&["password", "rest"], Some(&signature), args, "{}"), text(r#"["a","•••","•••"]"#, "{}"));
        assert_eq!(masked(&["1"], Some(&signature), "[]", r#"{"user":1}"#), text("[]", r#"{"user":"•••"}"#));
        assert_eq!(masked(&["9"], None, "no json", "[1]"), text(MASK, MASK));
    }
}

//! A function: a name registered on a service, and how it is run.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::service::{MAX_NAME_BYTES, ServiceName};
use super::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// The name of a function: `[A-Za-z_][A-Za-z0-9_.:-]*`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName(Box<str>);

impl FunctionName {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a name.
    pub fn parse(text: &str) -> Result<FunctionName> {
        let mut bytes = text.bytes();
        let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        let rest = bytes.all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
        if first && rest && text.len() <= MAX_NAME_BYTES {
            return Ok(FunctionName(text.into()));
        }
        let message = format!("`{}` cannot be the name of a function", super::text::visible(text));
        Err(Error::new(Kind::Usage, message).hint(format!(
            "a name starts with a letter or `_` and goes on with letters, digits, `_`, `.`, `:` and `-`, at most \
             {MAX_NAME_BYTES} bytes"
        )))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FunctionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a function is run: the program and the surroundings in which it was defined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// The program (an absolute path, or a path relative to the site) and its first arguments; never empty.
    pub command: Vec<String>,
    /// The directory in which the function was defined, absolute; it runs there.
    pub site: String,
    /// The environment variables recorded with it.
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
}

/// A function as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// The service on which it is registered.
    pub service: ServiceName,
    /// Its name, unique on its service.
    pub name: FunctionName,
    /// How it is run.
    pub definition: Definition,
    /// When it was added.
    pub created_at: Timestamp,
}

/// What `function set` changes; `None` leaves a thing as it is.
#[derive(Debug, Clone, Default)]
pub struct FunctionChange {
    /// Another program and its first arguments.
    pub command: Option<Vec<String>>,
    /// Another site.
    pub site: Option<String>,
    /// Variables to record (`Some`) or to forget (`None`), by name.
    pub env: BTreeMap<String, Option<String>>,
    /// Another time limit, or none (`Some(None)`).
    pub timeout: Option<Option<Duration>>,
}

impl FunctionChange {
    /// The definition with this change made.
    #[must_use]
    pub fn apply(&self, mut definition: Definition) -> Definition {
        if let Some(command) = &self.command {
            definition.command.clone_from(command);
        }
        if let Some(site) = &self.site {
            definition.site.clone_from(site);
        }
        if let Some(timeout) = self.timeout {
            definition.timeout = timeout;
        }
        for (name, value) in &self.env {
            match value {
                Some(value) => definition.env.insert(name.clone(), value.clone()),
                None => definition.env.remove(name),
            };
        }
        definition
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["heavy_computing", "_", "pkg.module:Class.method", "A-1"] {
            assert_eq!(FunctionName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "1st", "-x", "a b", "a/b", "ä", &"x".repeat(256)] {
            assert_eq!(FunctionName::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}

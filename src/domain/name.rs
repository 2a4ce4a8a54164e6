//! The names of services and functions.

use std::sync::Arc;

use super::text::{escape_control, has_text};
use crate::error::{Error, Kind, Result};

/// The longest name of a service, a function or a principal, in bytes.
pub const MAX_NAME_BYTES: usize = 255;

/// The name of a service: `[a-z0-9][a-z0-9._-]*`, at most [`MAX_NAME_BYTES`] long.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Arc<str>);

impl ServiceName {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a name.
    pub fn parse(text: &str) -> Result<ServiceName> {
        plain_name(text, "a service").map(ServiceName)
    }
}

/// Validates the name of `what`: `[a-z0-9][a-z0-9._-]*`, at most [`MAX_NAME_BYTES`] long.
///
/// # Errors
/// [`Kind::Usage`] when it cannot be a name.
pub(super) fn plain_name(text: &str, what: &str) -> Result<Arc<str>> {
    let mut bytes = text.bytes();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let first = bytes.next().is_some_and(plain);
    if first && bytes.all(|b| plain(b) || b"._-".contains(&b)) && text.len() <= MAX_NAME_BYTES {
        return Ok(text.into());
    }
    let message = format!("`{}` cannot be the name of {what}", escape_control(text));
    Err(Error::new(Kind::Usage, message).with_hint(format!(
        "a name starts with a lower-case letter or a digit and goes on with those, `.`, `_` and `-`, at most \
         {MAX_NAME_BYTES} bytes"
    )))
}

has_text! { ServiceName }

/// The name of a function: `[A-Za-z_][A-Za-z0-9_.:-]*`, at most 255 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionName(Arc<str>);

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
        let message = format!("`{}` cannot be the name of a function", escape_control(text));
        Err(Error::new(Kind::Usage, message).with_hint(format!(
            "a name starts with a letter or `_` and goes on with letters, digits, `_`, `.`, `:` and `-`, at most \
             {MAX_NAME_BYTES} bytes"
        )))
    }
}

has_text! { FunctionName }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services() {
        for good in ["events", "0", "a.b_c-d", &"x".repeat(255)] {
            assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Events", ".a", "-a", "a b", "a/b", "ä", "a\n", &"x".repeat(256)] {
            assert_eq!(ServiceName::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }

    #[test]
    fn names_of_functions() {
        for good in ["heavy_computing", "_", "pkg.module:Class.method", "A-1"] {
            assert_eq!(FunctionName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "1st", "-x", "a b", "a/b", "ä", &"x".repeat(256)] {
            assert_eq!(FunctionName::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}

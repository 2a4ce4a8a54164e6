//! A service: a named queue and its limits.

use std::{num::NonZeroU32, sync::Arc};

use super::text::{escape_control, has_text};
use super::time::Timestamp;
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

/// A service as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique in a store.
    pub name: ServiceName,
    /// How many of its calls may run at once, across all processors.
    pub concurrency: NonZeroU32,
    /// A paused service accepts calls and runs none.
    pub paused: bool,
    /// When it was added.
    pub created_at: Timestamp,
    /// How many calls of one lane may run at once.
    pub lane_width: NonZeroU32,
}

/// What is wanted of a service; `None` leaves a field as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceChange {
    /// The limit of calls running at once.
    pub concurrency: Option<NonZeroU32>,
    /// Whether calls wait from now on.
    pub paused: Option<bool>,
    /// The limit of calls of one lane running at once.
    pub lane_width: Option<NonZeroU32>,
}

impl ServiceChange {
    /// The service with these changes.
    #[must_use]
    pub fn apply(&self, to: &Service) -> Service {
        Service {
            concurrency: self.concurrency.unwrap_or(to.concurrency),
            paused: self.paused.unwrap_or(to.paused),
            lane_width: self.lane_width.unwrap_or(to.lane_width),
            ..to.clone()
        }
    }

    /// The options of `service set` for what differs in a service that is there, and its value there in words.
    #[must_use]
    pub fn differences(&self, there: &Service) -> Vec<(String, String)> {
        let numbers =
            [("concurrency", self.concurrency, there.concurrency), ("lane-width", self.lane_width, there.lane_width)];
        let differs = numbers.into_iter().filter_map(|(name, wanted, is)| {
            let wanted = wanted.filter(|wanted| *wanted != is)?;
            Some((format!("--{name} {wanted}"), format!("{} {is}", name.replace('-', " "))))
        });
        differs.collect()
    }
}

/// The result of defining a service or a function, which may be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Defined {
    /// It is new.
    Added,
    /// It was so already; nothing was changed.
    Same,
    /// It was there and differed, and is as wanted now.
    Changed,
    /// It is there and differs, and stays as it is.
    Kept,
}

/// The result of adding a service or a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is new.
    New,
    /// The same one existed already; nothing was changed.
    Same,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["events", "0", "a.b_c-d", &"x".repeat(255)] {
            assert_eq!(ServiceName::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "Events", ".a", "-a", "a b", "a/b", "ä", "a\n", &"x".repeat(256)] {
            assert_eq!(ServiceName::parse(bad).unwrap_err().kind(), Kind::Usage, "{bad}");
        }
    }
}

//! Pauses: of a service, and of the whole store.

use super::service::ServiceName;
use crate::error::{Error, Kind, Result};

/// A pause: calls are accepted, and none begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pause {
    /// The reason that was given.
    pub why: Option<String>,
}

/// A pause that keeps the calls of a service from running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paused {
    /// The whole store is paused.
    Store(Pause),
    /// The service is.
    Service(ServiceName, Pause),
}

impl Pause {
    /// The longest reason, in bytes.
    pub const MAX_BYTES: usize = 1000;

    /// A pause for this reason.
    ///
    /// # Errors
    /// [`Kind::Usage`] when the reason is empty, too long or not one line of text.
    pub fn because(why: &str) -> Result<Pause> {
        if why.trim().is_empty() || why.len() > Self::MAX_BYTES || why.contains(char::is_control) {
            let message = format!("a reason is one line of 1 to {} bytes", Self::MAX_BYTES);
            return Err(
                Error::new(Kind::Usage, message).with_hint("leave out `--why`, or write as in `--why 'new release'`")
            );
        }
        Ok(Pause { why: Some(why.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line() {
        assert_eq!(Pause::because("new release").unwrap().why.as_deref(), Some("new release"));
        for why in ["", " ", "a\nb", "a\u{7}", &"x".repeat(1001)] {
            assert_eq!(Pause::because(why).unwrap_err().kind(), Kind::Usage, "{why:?}");
        }
    }
}

//! Lanes: only a few calls of a service in the same lane run at once, in their order.

use super::service::MAX_NAME_BYTES;
use super::text::{escape_control, has_text};
use crate::error::{Error, Kind, Result};

/// The name of a lane: any text of 1 to 255 bytes without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane(Box<str>);

/// The most calls of one lane that may run at once. Each call that enters a lane counts those at the head.
pub const MAX_WIDTH: u32 = 1000;

/// The placeholder for the principal of a call in the lane of a function.
const PRINCIPAL: &str = "{principal}";

impl Lane {
    /// Validates `text`.
    ///
    /// # Errors
    /// [`Kind::Usage`] when it cannot be a lane.
    pub fn parse(text: &str) -> Result<Lane> {
        if !text.is_empty() && text.len() <= MAX_NAME_BYTES && !text.contains(char::is_control) {
            return Ok(Lane(text.into()));
        }
        let hint = format!("a lane is 1 to {MAX_NAME_BYTES} bytes of text without control characters");
        Err(Error::new(Kind::Usage, format!("`{}` cannot be a lane", escape_control(text))).with_hint(hint))
    }

    /// The lane of a call on behalf of `principal`, if its function has this lane. The principal replaces `{principal}`. A call on
    /// behalf of nobody is in no lane if nothing else is left of the name.
    #[must_use]
    pub fn of_call(&self, principal: Option<&str>) -> Option<Lane> {
        let text = self.0.replace(PRINCIPAL, principal.unwrap_or_default());
        (!text.is_empty()).then(|| Lane(text.into()))
    }
}

has_text! { Lane }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_is_a_short_text() {
        assert_eq!(Lane::parse("gpu 1").unwrap().as_str(), "gpu 1");
        for text in ["", "a\nb", &"x".repeat(256)] {
            assert_eq!(Lane::parse(text).unwrap_err().kind(), Kind::Usage);
        }
    }

    #[test]
    fn the_principal_stands_in_the_lane_of_a_function() {
        let lane = |text: &str, principal| Lane(text.into()).of_call(principal).map(|lane| lane.to_string());
        assert_eq!(lane("{principal}", Some("zoe")).unwrap(), "zoe");
        assert_eq!(lane("of {principal}", None).unwrap(), "of ");
        assert_eq!(lane("{principal}", None), None);
        assert_eq!(lane("gpu", Some("zoe")).unwrap(), "gpu");
    }
}

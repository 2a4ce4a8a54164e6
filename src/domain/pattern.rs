//! Names of services, and patterns of such names.

use super::service::ServiceName;
use crate::error::{Error, Kind, Result};

/// One service, or all whose names match a pattern. Names cannot contain `*`, `?` and `[`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServicePattern {
    /// The service of this name.
    Name(ServiceName),
    /// All services whose names match: `*` stands for any text, `?` for one character, `[a-c]` for one of these.
    Pattern(glob::Pattern),
}

impl ServicePattern {
    /// Parses a name or a pattern.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a text that is neither.
    pub fn parse(text: &str) -> Result<ServicePattern> {
        if !text.contains(['*', '?', '[']) {
            return ServiceName::parse(text).map(ServicePattern::Name);
        }
        glob::Pattern::new(text).map(ServicePattern::Pattern).map_err(|error| {
            Error::new(Kind::Usage, format!("`{text}` is not a pattern: {}", error.msg))
                .with_hint("`*` stands for any text, `?` for one character, and `[a-c]` for one of these")
        })
    }

    /// Whether a service is meant.
    #[must_use]
    pub fn matches(&self, name: &ServiceName) -> bool {
        match self {
            ServicePattern::Name(is) => is == name,
            ServicePattern::Pattern(pattern) => pattern.matches(name.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_names() {
        let matches = |pattern: &str, name: &str| {
            ServicePattern::parse(pattern).unwrap().matches(&ServiceName::parse(name).unwrap())
        };
        assert!(matches("mails", "mails") && !matches("mails", "mail"));
        assert!(matches("site-*", "site-a.b") && matches("*", "x") && !matches("site-*", "sit"));
        assert!(matches("m?il", "mail") && matches("[l-n]ail", "mail") && !matches("[!m]ail", "mail"));
        for text in ["", "a b", "[", "***"] {
            assert_eq!(ServicePattern::parse(text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
    }
}

//! Names of services, and patterns of such names.

use std::collections::BTreeSet;

use super::service::ServiceName;
use crate::error::{Error, Kind, Result};

/// One service, or all services with names that match a pattern. Names cannot contain `*`, `?` and `[`.
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

    /// The name, if it is no pattern.
    #[must_use]
    pub fn as_name(&self) -> Option<&ServiceName> {
        match self {
            ServicePattern::Name(name) => Some(name),
            ServicePattern::Pattern(_) => None,
        }
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

/// Of which services jobs are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OfServices {
    /// Of any.
    #[default]
    Any,
    /// Of one of these.
    Only(BTreeSet<ServiceName>),
    /// Of none of these.
    Without(BTreeSet<ServiceName>),
}

impl OfServices {
    /// Of this one.
    #[must_use]
    pub fn only(name: ServiceName) -> OfServices {
        OfServices::Only(BTreeSet::from([name]))
    }
}

/// The services that a command is for: those with these names and patterns, or all if there are none, except for the excluded ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceSelection {
    /// The services that are meant.
    pub services: Vec<ServicePattern>,
    /// Those that are not.
    pub except: Vec<ServicePattern>,
}

impl ServiceSelection {
    /// The service of this name.
    #[must_use]
    pub fn only(name: ServiceName) -> ServiceSelection {
        ServiceSelection { services: vec![ServicePattern::Name(name)], except: Vec::new() }
    }

    /// Whether a service is meant.
    #[must_use]
    pub fn includes(&self, name: &ServiceName) -> bool {
        let is_among = |patterns: &[ServicePattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.services.is_empty() || is_among(&self.services)) && !is_among(&self.except)
    }

    /// The same for jobs, which may be of services that are there no longer: these are meant by their names, and not by patterns.
    #[must_use]
    pub fn of_jobs(&self, there: &[ServiceName]) -> OfServices {
        let names = |patterns: &[ServicePattern]| -> BTreeSet<ServiceName> {
            let of = |pattern: &ServicePattern| match pattern {
                ServicePattern::Name(name) => vec![name.clone()],
                ServicePattern::Pattern(_) => there.iter().filter(|name| pattern.matches(name)).cloned().collect(),
            };
            patterns.iter().flat_map(of).collect()
        };
        let except = names(&self.except);
        match (self.services.is_empty(), except.is_empty()) {
            (true, true) => OfServices::Any,
            (true, false) => OfServices::Without(except),
            (false, _) => OfServices::Only(&names(&self.services) - &except),
        }
    }

    /// Whether a service that is added later may belong to it, too.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.services.is_empty() || self.services.iter().any(|it| matches!(it, ServicePattern::Pattern(_)))
    }

    /// Whether it names no service at all.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.services.is_empty() && self.except.is_empty()
    }

    /// Those of these services, sorted by name, that are selected: in the order of the names and patterns, each once.
    pub fn choose<T>(&self, all: Vec<T>, name: impl Fn(&T) -> &ServiceName) -> Vec<T> {
        let mut chosen: Vec<T> = all.into_iter().filter(|it| self.includes(name(it))).collect();
        chosen.sort_by_key(|it| self.services.iter().position(|pattern| pattern.matches(name(it))));
        chosen
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
    #[test]
    fn a_selection_keeps_its_order_and_leaves_out_what_is_excepted() {
        let chosen = |services: &str, except: &str| {
            let patterns = |text: &str| text.split_whitespace().map(|it| ServicePattern::parse(it).unwrap()).collect();
            let selection = ServiceSelection { services: patterns(services), except: patterns(except) };
            let all: Vec<ServiceName> = ["a", "b", "site-1", "site-2"].map(|it| ServiceName::parse(it).unwrap()).into();
            selection.choose(all, |it| it).iter().map(ServiceName::as_str).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(chosen("", ""), "a b site-1 site-2");
        assert_eq!(chosen("b site-* a", ""), "b site-1 site-2 a");
        assert_eq!(chosen("site-2 site-*", ""), "site-2 site-1");
        assert_eq!(chosen("", "site-* b"), "a");
        assert_eq!(chosen("site-*", "*-1"), "site-2");
        assert_eq!(chosen("x*", ""), "");
    }

    #[test]
    fn jobs_of_services_that_are_gone_are_meant_by_name() {
        let names = |text: &str| text.split_whitespace().map(|it| ServiceName::parse(it).unwrap()).collect();
        let of = |services: &str, except: &str| {
            let patterns = |text: &str| text.split_whitespace().map(|it| ServicePattern::parse(it).unwrap()).collect();
            let selection = ServiceSelection { services: patterns(services), except: patterns(except) };
            let there: Vec<ServiceName> =
                ["a", "b", "site-1", "site-2"].map(|it| ServiceName::parse(it).unwrap()).into();
            selection.of_jobs(&there)
        };
        assert_eq!(of("", ""), OfServices::Any);
        assert_eq!(of("gone a", ""), OfServices::Only(names("a gone")));
        assert_eq!(of("site-* gone", "*-1"), OfServices::Only(names("gone site-2")));
        assert_eq!(of("x*", ""), OfServices::Only(names("")));
        assert_eq!(of("", "gone s*"), OfServices::Without(names("gone site-1 site-2")));
    }
}

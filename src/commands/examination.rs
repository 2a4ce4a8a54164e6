//! What a check of a store finds.

use crate::domain::diagnosis::{Diagnosis, Health};
use crate::domain::status::Finding;
use crate::error::{Error, Kind, Result};

/// What was found about a store, by this module's own checks and by those that it shares with other commands.
#[derive(Debug, Default)]
pub struct Examination {
    /// The results, in the order of the checks.
    pub results: Vec<Diagnosis>,
    /// Problems with calls, services, schedules and functions.
    pub troubles: Vec<Finding>,
}

impl Examination {
    /// Adds what could not be read, or gives it.
    ///
    /// # Errors
    /// When nobody can read it now.
    pub(super) fn readable<T>(&mut self, check: &'static str, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() != Kind::Invalid => Err(error),
            Err(error) => {
                self.add(check, Health::Fault, error.to_string(), error.hint());
                Ok(None)
            }
        }
    }

    pub(super) fn add(&mut self, check: &'static str, health: Health, message: impl Into<String>, hint: Option<&str>) {
        let (message, hint) = (message.into(), hint.map(str::to_owned));
        self.results.push(Diagnosis { check, health, message, hint });
    }

    /// Adds the result of a check: what the error says, or `Ok` if there is none.
    pub(super) fn add_result(&mut self, check: &'static str, good: &str, result: Result<()>) -> bool {
        match result {
            Ok(()) => self.add(check, Health::Ok, good, None),
            Err(error) => self.add(check, Health::Fault, error.to_string(), error.hint()),
        }
        self.results.last().is_some_and(|it| it.health == Health::Ok)
    }
}

/// The meaning of an error that keeps a store from being opened.
#[must_use]
pub fn unreachable(error: &Error) -> Examination {
    let mut found = Examination::default();
    found.add("file", Health::Fault, error.to_string(), error.hint());
    found
}

/// A number with what it counts, as "1 job waits" and "2 jobs wait".
pub(super) fn one_or(one: &str, many: &str, count: u64) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

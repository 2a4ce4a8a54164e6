//! What a shell completes.

use super::queue::Place;
use crate::domain::completion::{Candidate, Topic};
use crate::error::Result;
use crate::store::Store;

impl Place {
    /// What `start` may be the beginning of. Makes, locks and upgrades nothing.
    ///
    /// # Errors
    /// As [`Store::open_to_read`], and whatever keeps the store from being read.
    pub fn completions(&self, topic: &Topic, start: &str) -> Result<Vec<Candidate>> {
        Store::open_to_read(&self.location, self.patience)?.completions(topic, start)
    }
}

//! When there is next something to do.

use super::queue::Queue;
use crate::domain::due::{NextTask, Task};
use crate::domain::{pattern::ServiceSelection, service::ServiceName, time::Timestamp};
use crate::error::Result;
use crate::processor::lives;

impl Queue {
    /// What there is to do next on these services, and the time now.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when one of them is not there.
    pub fn next_task(&mut self, services: &ServiceSelection) -> Result<(Timestamp, Option<NextTask>)> {
        let services = self.store.select_services(services)?;
        let names: Vec<ServiceName> = services.into_iter().map(|service| service.name).collect();
        let (now, next) = self.store.next_task(&names)?;
        if next.as_ref().is_some_and(|next| next.at <= now) {
            return Ok((now, next));
        }
        let processors = self.store.processors()?;
        let dead = processors.iter().find(|processor| !lives(&self.store, processor));
        let rescue = dead.map(|dead| NextTask { at: now, service: None, what: Task::Rescue(dead.id) });
        Ok((now, rescue.or(next)))
    }
}

//! Schedules whose calls their function does not take.

use super::schedule::select_schedule;
use super::{Store, function};
use crate::domain::function::FunctionName;
use crate::domain::schedule::{Schedule, ScheduleName};
use crate::domain::service::ServiceName;
use crate::error::{Error, Result};

const OF_FUNCTION: &str = select_schedule!("WHERE service = ?1 AND function = ?2 ORDER BY name");

impl Store {
    /// The schedules that call a function which does not take their arguments, and why it does not.
    ///
    /// # Errors
    /// [`crate::Kind::NotFound`] when there is no such function.
    pub fn unfit_schedules(
        &mut self,
        service: &ServiceName,
        function: &FunctionName,
    ) -> Result<Vec<(ScheduleName, Error)>> {
        self.read(|tx| {
            let Some(takes) = function::find(tx, service, function)?.definition.inputs.takes else {
                return Ok(Vec::new());
            };
            let schedules: Vec<Schedule> = tx.rows(OF_FUNCTION, &[service.into(), function.into()])?;
            let unfit = |it: Schedule| takes.fit(&it.definition.call).err().map(|error| (it.name, error));
            Ok(schedules.into_iter().filter_map(unfit).collect())
        })
    }
}

//! Schedules whose calls their function does not take.

use super::schedule::select_schedule;
use super::{Store, columns::Column, function};
use crate::domain::function::FunctionName;
use crate::domain::schedule::{Schedule, ScheduleDefinition, ScheduleName};
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};

/// Those that tick.
const ACTIVE: &str = select_schedule!("WHERE paused = 0 AND next_tick IS NOT NULL AND service = ?1 ORDER BY next_tick");
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

    /// The schedules of a service that tick in vain, because their functions do not take their arguments, and why. It leaves out
    /// schedules that cannot be read, and those whose function is missing.
    ///
    /// # Errors
    /// [`crate::Kind::Invalid`] when one of these functions cannot be read.
    pub fn idle_schedules(&mut self, service: &ServiceName) -> Result<Vec<(ScheduleName, Error)>> {
        self.read(|tx| {
            let (mut schedules, mut unfit) = (Vec::new(), Vec::new());
            tx.query(ACTIVE, &[service.into()], &mut |row| {
                schedules.extend(Schedule::read(row, &mut 0).ok());
                Ok(())
            })?;
            for Schedule { name, definition: ScheduleDefinition { call, .. }, .. } in schedules {
                let takes = match function::find(tx, &call.service, &call.function) {
                    Err(error) if error.kind() == Kind::NotFound => continue,
                    found => found?.definition.inputs.takes,
                };
                unfit.extend(takes.and_then(|takes| takes.fit(&call).err()).map(|error| (name, error)));
            }
            Ok(unfit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn schedules_that_tick_are_found_by_their_index() {
        assert_eq!(
            plan(ACTIVE),
            ["SEARCH asyncq_schedule USING INDEX asyncq_schedule_next (service=? AND next_tick>?)"]
        );
    }
}

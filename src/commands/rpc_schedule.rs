//! Carries out the requests of programs about schedules.

use super::caller::Caller;
use super::queue::Queue;
use super::rpc_answers::RpcResult;
use crate::domain::call::{OnBehalfOf, Principal};
use crate::domain::new_job::Origin;
use crate::domain::rpc_schedule::{NextTicks, ScheduleRequest, WrittenSchedule};
use crate::domain::schedule::{Backfill, ScheduleName};
use crate::domain::schedule_edit::{ScheduleEdit, time_by};
use crate::domain::service::{Added, Defined};
use crate::domain::time::Timestamp;
use crate::domain::timetable::Timetable;
use crate::error::Result;

impl Queue {
    /// Carries out a request about schedules.
    ///
    /// # Errors
    /// As the verb of the store that it asks for, and [`crate::Kind::Usage`] for what does not fit together.
    pub(super) fn carry_out_schedule(
        &mut self,
        request: ScheduleRequest,
        caller: &Caller,
    ) -> Result<RpcResult<'static>> {
        Ok(match request {
            ScheduleRequest::Add(name, WrittenSchedule { edit, on_behalf_of }, may_change) => {
                let principal = principal(on_behalf_of.unwrap_or_default(), caller)?;
                let edit = ScheduleEdit { principal: Some(principal), ..edit };
                let (is, _) = caller.here(|from| edit.new_definition(from))?;
                RpcResult::Defined(if may_change {
                    self.define_schedule(&name, &is)?
                } else {
                    match self.add_schedule(&name, &is)? {
                        Added::New => Defined::Added,
                        Added::Same => Defined::Same,
                    }
                })
            }
            ScheduleRequest::Set(name, WrittenSchedule { edit, on_behalf_of }) => {
                let principal = on_behalf_of.map(|it| principal(it, caller)).transpose()?;
                let edit = ScheduleEdit { principal, ..edit };
                let set = caller.here(|from| {
                    self.set_schedule(&name, &|old| edit.changed(old, from).map(|(changed, _)| changed))
                })?;
                RpcResult::Schedule(Box::new(set))
            }
            ScheduleRequest::List(service) => RpcResult::Schedules(self.schedules(service.as_ref())?),
            ScheduleRequest::Show(name) => RpcResult::Schedule(Box::new(self.schedule(&name)?)),
            ScheduleRequest::Next(next) => self.next_ticks(next, caller)?,
            ScheduleRequest::Pause(names) => {
                self.pause_schedules(&names)?;
                RpcResult::Done
            }
            ScheduleRequest::Resume(names) => {
                self.resume_schedules(&names)?;
                RpcResult::Done
            }
            ScheduleRequest::Remove(name) => {
                self.remove_schedule(&name)?;
                RpcResult::Done
            }
            ScheduleRequest::Run(name, None) => {
                RpcResult::Made(Backfill { jobs: vec![self.run_schedule(&name)?], had: 0 })
            }
            ScheduleRequest::Run(name, Some((from, until))) => {
                RpcResult::Made(self.make_up(&name, (&from, until.as_deref()), caller)?)
            }
        })
    }

    /// The next ticks of a schedule or of a rule.
    fn next_ticks(&mut self, NextTicks { of, count, from }: NextTicks, caller: &Caller) -> Result<RpcResult<'static>> {
        let is_rule = of.is_err();
        let table = match of {
            Ok(name) => self.schedule(&name)?.definition.timetable,
            Err(words) => Timetable::new(caller.here(|from| words.rule(from))?.0, None, None)?,
        };
        let after = match from {
            Some(text) => {
                let from = caller.here(|view| time_by(&table.rule, &text, view))?;
                Timestamp(from.0.saturating_sub(1))
            }
            None => (caller.clock)(),
        };
        if is_rule {
            table.rule.first(after)?;
        }
        let ticks = table.ticks(after).take(count).collect();
        Ok(RpcResult::Ticks(table.rule, ticks))
    }

    /// Makes the jobs of ticks in the past.
    fn make_up(
        &mut self,
        name: &ScheduleName,
        (from, until): (&str, Option<&str>),
        caller: &Caller,
    ) -> Result<Backfill> {
        let rule = self.schedule(name)?.definition.timetable.rule;
        let time = |text: &str| caller.here(|view| time_by(&rule, text, view));
        self.backfill(name, time(from)?, until.map(time).transpose()?)
    }
}

/// The principal of the calls of a schedule.
fn principal(of: OnBehalfOf, caller: &Caller) -> Result<Option<Principal>> {
    Origin { principal: caller.principal()?, ..Origin::default() }.principal(of)
}

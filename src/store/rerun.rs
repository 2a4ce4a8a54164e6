//! Calls the function of a job again, with the same arguments or others.

use super::columns::groups;
use super::engine::{Tx, damaged};
use super::job::{CANCEL, cancelled_by};
use super::stored_call::{Extras, Stored};
use super::{Store, enqueue, job, needs};
use crate::domain::attempt::Failure;
use crate::domain::call::Call;
use crate::domain::function::FunctionName;
use crate::domain::job::{JobId, Phase, State};
use crate::domain::lane::Lane;
use crate::domain::needs::{Need, Needs};
use crate::domain::new_job::{CallOptions, Due, Expiry, NewJob, Priority, Rerun, Rerunning};
use crate::domain::{service::ServiceName, time::Timestamp};
use crate::error::{Error, Kind, Result};

const CALLED: &str = "SELECT id, attempt, claim, function, args, kwargs, principal, site, failures, conflicts, crashes, NULL,
    FALSE, expires_at, meta, NULL, service, state, priority, lane, run_at FROM asyncq_job WHERE id = ?1 /*! FOR NO KEY UPDATE */";
const NEEDED: &str = "SELECT needs, wants FROM asyncq_after WHERE job = ?1 ORDER BY needs";

/// A job that is to be called again.
struct Called {
    stored: Stored,
    rest: Extras,
    service: ServiceName,
    state: State,
    priority: i64,
    lane: Option<String>,
    run_at: Timestamp,
}

groups! { Called { stored, rest, service, state, priority, lane, run_at } }

impl Store {
    /// Calls the function of a job again, as a new job without a key. It is durable when this returns. If the job waits, the new
    /// one waits for the same jobs; the old one is cancelled first, so that its lane goes on with the next waiting call.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job, service or function; [`Kind::Denied`] when the job runs, or a rule of the
    /// application refuses the call; [`Kind::Invalid`] when a client has stored a call that cannot run.
    pub fn rerun(&mut self, id: JobId, again: &Rerun) -> Result<Rerunning> {
        let why = cancelled_by(&(self.user)());
        self.write(|tx| {
            let called: Option<Called> = tx.row(CALLED, &[id.into()])?;
            let called = called.map_or_else(|| Err(job::no_job(tx, id)), Ok)?;
            let (state, phase) = (called.state, called.state.phase());
            if phase == Phase::Running {
                return Err(Error::new(Kind::Denied, format!("job {id} is running"))
                    .with_hint(format!("`asyncq wait {id}` waits for its end, `asyncq job cancel {id}` ends it")));
            }
            let new = called.again(tx, again)?;
            if phase == Phase::Waiting {
                let now = tx.now();
                tx.change(CANCEL, &[id.into(), now.into(), state.into(), (&why).into()])?;
                needs::settle(tx)?;
            }
            let made = enqueue::make(tx, std::slice::from_ref(&new))?.pop();
            let new = made.unwrap_or_else(|| Err(damaged("a call became nothing")))?;
            Ok(Rerunning { new, cancelled: phase == Phase::Waiting })
        })
    }
}

impl Called {
    /// Its new call.
    fn again(self, tx: &mut dyn Tx, again: &Rerun) -> Result<NewJob> {
        let Called { stored, rest, service, state, priority, lane, run_at } = self;
        let (id, expires_at, mut stored) = (stored.id, rest.expires_at, stored.with_large(tx)?);
        // What is replaced may be damaged.
        for (new, old) in [(&again.args, &mut stored.args), (&again.kwargs, &mut stored.kwargs)] {
            if let Some(new) = new {
                *old = Some(new.as_str().into());
            }
        }
        let invalid = |failure: Failure| {
            Error::new(Kind::Invalid, format!("job {id} cannot be called again: {}", failure.message))
                .with_hint("`asyncq enqueue` makes a new call")
        };
        let function = FunctionName::parse(&stored.function)
            .map_err(|error| Error::new(Kind::Invalid, format!("job {id} cannot be called again: {error}")))?;
        let call = Call { is_typed: again.is_typed, ..stored.call(&service, function).map_err(invalid)? };
        let options = CallOptions {
            // A client may have stored any number.
            priority: Priority::new(priority.clamp(-1000, 1000)).unwrap_or_default(),
            lane: lane.as_deref().map(Lane::parse).transpose()?,
            meta: rest.meta().map_err(invalid)?,
            ..CallOptions::default()
        };
        let new = NewJob { os_user: again.os_user.clone(), parent: again.parent, options, ..NewJob::new(call) };
        if state.phase() != Phase::Waiting {
            return Ok(new);
        }
        let options = CallOptions { expires: expires_at.map(Expiry::At), needs: needed(tx, id)?, ..new.options };
        Ok(NewJob { hold: state == State::Held, due: Due::At(run_at), options, ..new })
    }
}

/// The jobs for which a job still waits.
fn needed(tx: &mut dyn Tx, id: JobId) -> Result<Needs> {
    let links: Vec<(JobId, Need)> = tx.rows(NEEDED, &[id.into()])?;
    let mut needs = Needs::default();
    for need in Need::ALL {
        needs.add(links.iter().filter(|link| link.1 == need).map(|link| link.0), need)?;
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::{plan, ways_to_jobs};

    #[test]
    fn a_job_and_what_it_needs_are_found_by_its_number() {
        assert_eq!(ways_to_jobs(CALLED), ["INTEGER PRIMARY KEY (rowid=?)"]);
        assert_eq!(plan(NEEDED)[0], "SEARCH asyncq_after USING INDEX asyncq_after_job (job=?)");
    }
}

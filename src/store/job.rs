//! What people do with jobs by hand.

use super::columns::{error_text, groups};
use super::engine::{Tx, one};
use super::{Store, edit, function, needs};
use crate::domain::attempt::{Failure, FailureKind};
use crate::domain::job::{JobId, Phase, State};
use crate::domain::job_edit::JobEdit;
use crate::domain::{function::FunctionName, query::JobChange, service::ServiceName};
use crate::error::{Error, Kind, Result};

/// What cancelling a job did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting and is cancelled.
    Now,
    /// It is running; its processor was asked to end it.
    Requested,
    /// It had ended before.
    Ended(State),
}

const STATE: &str = "SELECT state, immediate, parent FROM asyncq_job WHERE id = ?1 /*! FOR NO KEY UPDATE */";
const CALLED: &str = "SELECT service, function FROM asyncq_job WHERE id = ?1";
const NEWEST: &str = "SELECT MAX(id) FROM asyncq_job";
pub(super) const CANCEL: &str =
    "UPDATE asyncq_job SET state = 'cancelled', waits = 0, finished_at = ?2, error = ?4 WHERE id = ?1 AND state = ?3";
/// The error stays if the job is cancelled, and is removed if it completes.
pub(super) const CANCELLING: &str = "UPDATE asyncq_job SET cancelling = 1, error = COALESCE(error, ?2)
    WHERE id = ?1 AND state = 'processing' AND immediate = 0";
pub(super) const RETRY: &str = "UPDATE asyncq_job SET state = 'queued', run_at = ?2, finished_at = NULL, error = NULL,
    result = NULL, failures = 0, conflicts = 0, crashes = 0, cancelling = 0,
    expires_at = CASE WHEN expires_at > ?2 THEN expires_at END
    WHERE id = ?1 AND state = ?3 AND immediate = 0";
pub(super) const START: &str = "UPDATE asyncq_job SET state = CASE WHEN run_at > ?2 THEN 'delayed' ELSE 'queued' END
    WHERE id = ?1 AND state = 'held'";

const NEEDS_OTHERS: &str = "SELECT 1 FROM asyncq_after WHERE job = ?1 LIMIT 1";

impl Store {
    /// Cancels a job that waits, or asks the processor of one that runs to end it.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job, [`Kind::Denied`] for one that runs as a part of another.
    pub fn cancel(&mut self, id: JobId) -> Result<Cancelled> {
        let why = cancelled_by(&(self.user)());
        self.write(|tx| {
            let job = find(tx, id)?;
            let now = tx.now();
            match job.state.phase() {
                Phase::Waiting => {
                    tx.change(CANCEL, &[id.into(), now.into(), job.state.into(), (&why).into()])?;
                    needs::settle(tx)?;
                    Ok(Cancelled::Now)
                }
                Phase::Running if job.immediate => Err(part_of(id, job.parent, "cancel")),
                Phase::Running => {
                    tx.change(CANCELLING, &[id.into(), (&why).into()])?;
                    Ok(Cancelled::Requested)
                }
                Phase::Ended => Ok(Cancelled::Ended(job.state)),
            }
        })
    }

    /// Queues a job again that ended in an error or was cancelled, with fresh budgets. Calls that were cancelled because they need
    /// it wait again. Returns how many.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job, or its service or function was removed; [`Kind::Denied`] when it is in another
    /// state or ran as a part of another job.
    pub fn retry(&mut self, id: JobId) -> Result<u64> {
        let mut unmet = std::mem::take(&mut self.unmet);
        let revived = self.write(|tx| {
            let job = find(tx, id)?;
            if job.immediate {
                return Err(part_of(id, job.parent, "retry"));
            }
            if JobChange::Retry.applies_to(job.state) {
                can_run(tx, id)?;
                let now = tx.now();
                tx.change(RETRY, &[id.into(), now.into(), job.state.into()])?;
                return needs::revive(tx, vec![id], &mut unmet);
            }
            let hint = match job.state.phase() {
                Phase::Waiting if job.state == State::Held => format!("`asyncq job start {id}` releases it"),
                Phase::Waiting => "it will run by itself".to_owned(),
                Phase::Running => format!("`asyncq job cancel {id}` ends it first"),
                Phase::Ended => format!("`asyncq job rerun {id}` makes a new call of it"),
            };
            Err(Error::new(Kind::Denied, format!("job {id} is {}, nothing to retry", job.state)).with_hint(hint))
        });
        self.unmet = unmet;
        revived
    }

    /// Releases a held job, or one that waits for other jobs. Returns its state then.
    ///
    /// # Errors
    /// As for [`Store::retry`]: [`Kind::Denied`] when it waits for nothing that can be skipped.
    pub fn start(&mut self, id: JobId) -> Result<State> {
        self.write(|tx| {
            let job = find(tx, id)?;
            let needs_others = tx.has(NEEDS_OTHERS, &[id.into()])?;
            if job.state != State::Held && !(job.state == State::Blocked && needs_others) {
                let error = Error::new(Kind::Denied, format!("job {id} is {}, not held", job.state));
                return Err(if JobChange::Retry.applies_to(job.state) {
                    error.with_hint(format!("`asyncq job retry {id}` queues it again"))
                } else if job.state == State::Blocked {
                    error.with_hint("it waits for its turn in its lane")
                } else {
                    error.with_hint("only a job that is held, or waits for other jobs, can be started")
                });
            }
            can_run(tx, id)?;
            let now = tx.now();
            if job.state == State::Blocked {
                needs::start_without(tx, id)?;
            } else {
                tx.change(START, &[id.into(), now.into()])?;
            }
            Ok(find(tx, id)?.state)
        })
    }

    /// Changes when a waiting job runs. Returns its state then.
    ///
    /// # Errors
    /// As for [`Store::retry`]: [`Kind::Denied`] when it runs or has ended.
    pub fn set(&mut self, id: JobId, changes: &JobEdit) -> Result<State> {
        self.write(|tx| {
            let job = find(tx, id)?;
            if job.immediate {
                return Err(part_of(id, job.parent, "show"));
            }
            let refuse = |why: &str| Error::new(Kind::Denied, format!("job {id} {why}, so it cannot be set"));
            match job.state.phase() {
                Phase::Waiting if edit::edit(tx, id, changes)?? == 0 => Err(tx.passed_over()),
                Phase::Waiting => Ok(find(tx, id)?.state),
                Phase::Running => {
                    let hint =
                        format!("`asyncq job cancel {id}` ends it; `asyncq job retry {id}` then queues it again");
                    Err(refuse("runs already").with_hint(hint))
                }
                Phase::Ended if JobChange::Retry.applies_to(job.state) => {
                    let hint = format!("`asyncq job retry {id}` queues it again, and then you can set it");
                    Err(refuse(&format!("is {}", job.state)).with_hint(hint))
                }
                Phase::Ended => Err(refuse(&format!("is {}", job.state))
                    .with_hint(format!("`asyncq job rerun {id}` makes the call once more"))),
            }
        })
    }
}

/// What the verbs here must know of a job.
struct StateNow {
    state: State,
    immediate: bool,
    parent: Option<JobId>,
}

groups! { StateNow { state, immediate, parent } }

/// Refuses a job that nothing could run.
fn can_run(tx: &mut dyn Tx, id: JobId) -> Result<()> {
    let (service, function): (String, String) = one(tx.row(CALLED, &[id.into()])?)?;
    let (Ok(service), Ok(function)) = (ServiceName::parse(&service), FunctionName::parse(&function)) else {
        return Ok(());
    };
    function::find_to_use(tx, &service, &function).map(|_| ())
}

fn find(tx: &mut dyn Tx, id: JobId) -> Result<StateNow> {
    let found = tx.row(STATE, &[id.into()])?;
    found.map_or_else(|| Err(no_job(tx, id)), Ok)
}

/// The error for a number that no job has.
pub(super) fn no_job(tx: &mut dyn Tx, id: JobId) -> Error {
    let newest = tx.row::<Option<i64>>(NEWEST, &[]);
    let error = Error::new(Kind::NotFound, format!("there is no job {id}"));
    match newest {
        Ok(Some(Some(newest))) => {
            error.with_hint(format!("the newest is {newest}; `asyncq job list` shows which there are"))
        }
        Ok(_) => error.with_hint("there are no jobs at all"),
        Err(error) => error,
    }
}

/// The error of a job that this user cancels.
pub(super) fn cancelled_by(user: &str) -> String {
    error_text(&Failure::new(FailureKind::Cancelled, format!("cancelled by {user}")))
}

fn part_of(id: JobId, parent: Option<JobId>, verb: &str) -> Error {
    let error = Error::new(Kind::Denied, format!("job {id} ran at once, as a part of another job"));
    match parent {
        Some(parent) => error.with_hint(format!("`asyncq job {verb} {parent}` concerns the whole")),
        None => error,
    }
}

//! Calls inside a running job: the job that makes them, and the record of calls that run at once.

use std::sync::Arc;

use super::engine::Tx;
use super::insert::{Insertion, Standing, insert};
use super::{Store, finish, function};
use crate::domain::job::{Claim, Fence, JobId, Running, State, Token};
use crate::domain::new_job::NewJob;
use crate::domain::signature::fitted;
use crate::domain::{nested::MAX_NESTING, retry::AttemptCounts};
use crate::error::{Error, Kind, Result};

const RUNNING: &str = "SELECT j.id, j.attempt, j.claim, j.processor, (j.lane IS NOT NULL OR j.key_until IS NOT NULL),
    j.token, j.principal, j.site, j.meta, j.depth, p.folder
    FROM asyncq_job j JOIN asyncq_processor p ON p.id = j.processor
    WHERE j.id = ?1 AND j.token = ?2 AND j.state = 'processing'";
const STILL: &str = "SELECT depth FROM asyncq_job
    WHERE id = ?1 AND attempt = ?2 AND processor = ?3 AND claim = ?4 AND state = 'processing' /*! FOR SHARE */";
const STATE: &str = "SELECT state FROM asyncq_job WHERE id = ?1";
const BEGIN: &str = "UPDATE asyncq_job SET state = 'processing', immediate = 1, depth = ?2, attempt = 1, claim = 1,
    processor = ?3, token = ?4, started_at = ?5, lane = NULL WHERE id = ?1 AND state = 'held'";

impl Store {
    /// The job of that number, if the token belongs to the attempt that is being processed now.
    pub fn running(&mut self, id: JobId, token: &Token) -> Result<Option<Running>> {
        self.read(|tx| tx.row(RUNNING, &[id.into(), token.as_str().into()]))
    }

    /// Records that a call runs at once inside a running job, and returns it like a claim.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function; [`Kind::Usage`] when the function does not take these
    /// arguments; [`Kind::Denied`] when the job has ended meanwhile or calls are nested too deep.
    pub fn begin_nested(&mut self, inside: &Fence, new: &NewJob, token: &Token) -> Result<Claim> {
        self.write(|tx| {
            let function = function::find_to_use(tx, &new.call.service, &new.call.function)?;
            let call = fitted(new.call.clone(), function.definition.inputs.takes.as_ref())?;
            let new = NewJob { call, ..new.clone() };
            let depth = 1 + depth(tx, inside)?;
            if depth > MAX_NESTING {
                let message = format!("calls are nested too deep: at most {MAX_NESTING} levels are allowed");
                let hint = "a function that calls itself needs an end; `--defer` queues a call instead of running it";
                return Err(Error::new(Kind::Denied, message).with_hint(hint));
            }
            let jobs = insert(tx, std::slice::from_ref(&new), &Standing::alone(State::Held), Insertion::Client)??;
            let Some(id) = jobs.first().copied() else { return Err(tx.passed_over()) };
            let now = tx.now();
            let processor = inside.processor;
            let begin = [id.into(), depth.into(), processor.into(), token.as_str().into(), now.into()];
            if tx.execute(BEGIN, &begin)? == 0 {
                return Err(not_begun(tx, id)?);
            }
            Ok(Claim {
                fence: Fence { job: id, attempt: 1, claim: 1, processor, tied: false },
                token: token.clone(),
                call: new.call,
                definition: Arc::new(function.definition),
                before: AttemptCounts::default(),
                expires_at: None,
                meta: new.options.meta,
                tick: None,
            })
        })
    }
}

/// The error for a call that a trigger of the application did not let begin.
fn not_begun(tx: &mut dyn Tx, id: JobId) -> Result<Error> {
    let made = match tx.row::<String>(STATE, &[id.into()])? {
        Some(state) if state == State::Held.as_str() => return Ok(tx.passed_over()),
        Some(state) => format!("made this call {state}"),
        None => "removed this call".to_owned(),
    };
    Ok(Error::new(Kind::Denied, format!("a trigger of the application has {made}, so that it cannot run at once"))
        .with_hint("change the trigger, or queue the call with `--defer`"))
}

fn depth(tx: &mut dyn Tx, inside: &Fence) -> Result<i64> {
    match tx.row(STILL, &finish::fence(inside))? {
        Some(depth) => Ok(depth),
        None => Err(Error::new(
            Kind::Denied,
            format!("job {} has ended, so that nothing can be called inside it", inside.job),
        )
        .with_hint("`--defer` queues a call")),
    }
}

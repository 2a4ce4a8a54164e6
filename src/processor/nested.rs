//! A call made inside a running function: executed at once, in place, and recorded as a child of its job.

use std::{ffi::OsString, path::Path, sync::Arc, time::Duration};

use super::{console, finished, random::new_token};
use crate::domain::attempt::{Failure, FailureKind, Outcome};
use crate::domain::hook::EndHooks;
use crate::domain::job::{Finish, Running, State};
use crate::domain::new_job::NewJob;
use crate::domain::retry::{decide_once, not_by_itself, refused_here};
use crate::domain::{console::Console, event::Ran};
use crate::error::{Error, Kind, Result};
use crate::runner::{
    Capture, DiskReserve, Ended, Output, StartFailure, Stop, StopSwitch, Surroundings, command, worker::single_call,
};
use crate::store::{Patience, Store};
use crate::system::{error::io_error, fds, signals};

/// How long to wait before trying again to record an outcome that the store or the disk refused.
const FAILING: Duration = Duration::from_millis(250);

/// What a nested call works with, apart from the store.
pub struct NestedRuntime<'a> {
    /// The path of asyncq itself.
    pub program: &'a Path,
    /// What this process has inherited from the function that makes the call.
    pub env: &'a [(OsString, OsString)],
    /// Where the output of the call goes.
    pub console: Console,
}

/// Runs `new` inside a running job, in the folder of its processor. A signal to stop ends the function, too.
///
/// # Errors
/// As [`Store::begin_nested`]; and whatever the store answers when the end is recorded.
pub fn run(store: &mut Store, inside: &Running, new: &NewJob, runtime: &NestedRuntime<'_>) -> Result<Ran> {
    let NestedRuntime { program, env, console } = *runtime;
    signals::reset()?;
    let (location, folder) = (store.location().as_os_str().into(), store.run_folder().join(&inside.folder));
    let around = Surroundings::new(location, folder, env.iter().cloned(), program)
        .map_err(|error| io_error("cannot run functions", &error))?;
    let (_attached, forwarder) = console::attach(console)?;
    fds::prepare()?;
    let control = Arc::new(StopSwitch::new().map_err(|error| io_error("cannot watch a function", &error))?);
    let (asked, orphans) = (Arc::clone(&control), Arc::clone(&around.orphans));
    signals::on_stop(move || {
        let at_once = asked.asked() != Stop::No;
        if at_once {
            orphans.leave_unkillable();
        }
        asked.stop(if at_once { Stop::Kill } else { Stop::Interrupt });
    })?;

    if !around.home.is_there() {
        let message = format!("the folder `{}` of this call's processor was removed", around.folder.display());
        return Err(Error::new(Kind::Io, message).with_hint("the processor ends, and the call is run again"));
    }
    let claim = store.begin_nested(&inside.fence, new, &new_token()?.inside(&inside.token))?;
    let output = Output { forwarder: &forwarder, whole_lines: false, tap: None, claim: None };
    let ended = if claim.is_for_worker() {
        single_call::run(&claim, &around, output, &control)
    } else {
        let unstarted = |failure: StartFailure| Some(Ended::unrun(failure.outcome(), Capture::new(&around.folder)));
        command::run(&claim, &around, output, &control).unwrap_or_else(unstarted).ok_or_else(left_behind)?
    };

    let outcome = match ended.outcome {
        Outcome::Interrupted if !around.home.is_there() => {
            let message = format!("its result is lost, as the folder `{}` was removed", around.folder.display());
            Outcome::Failed(Failure::new(FailureKind::BadResult, message))
        }
        Outcome::Interrupted => Outcome::Failed(Failure::new(FailureKind::Parent, "it was told to stop")),
        outcome => outcome,
    };
    let mut finish = Finish {
        fence: claim.fence,
        decision: decide_once(&outcome, 1),
        result: ended.result,
        took: ended.took,
        log: ended.output.log(),
        nested: ended.nested,
        // Its caller sees how it ends.
        hooks: EndHooks::default(),
    };
    // The function has run. A locked store, or a disk that is full or fails, is no reason to lose its outcome.
    store.be_patient(Patience::Endless);
    let reserve = DiskReserve::of(&around.folder);
    let mut reported = false;
    let state = loop {
        match finished::record(store, &reserve, &mut finish) {
            Err(error) if error.is_transient() && control.asked() == Stop::No => {
                if !std::mem::replace(&mut reported, true) {
                    (console.cannot_record)(&error);
                }
                std::thread::sleep(FAILING);
            }
            done => break done?,
        }
    };
    let outcome = match state {
        Some(State::Completed) => Outcome::Completed,
        // A rule of the application refuses the outcome, or the function has not committed what it said.
        Some(State::Error) if matches!(outcome, Outcome::Completed | Outcome::CompletedItself) => {
            let undone = if finish.decision.by_itself { not_by_itself() } else { refused_here(claim.fence.job) };
            undone.error.map_or(outcome, Outcome::Failed)
        }
        _ => outcome,
    };
    Ok(Ran { job: claim.fence.job, outcome, result: finish.result, late: state.is_none() })
}

/// The error for a call that goes on in a process that cannot be ended, inside a job that ends.
fn left_behind() -> Error {
    Error::new(Kind::Busy, "what this call runs cannot be ended, and was left running")
        .with_hint("it is another user's process; root can end it")
}

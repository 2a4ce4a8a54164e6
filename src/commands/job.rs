//! What people do with jobs by hand, where that takes more than one verb of the store.

use std::time::{Duration, Instant};

use crate::domain::job::{JobId, State};
use crate::error::{Error, Kind, Result};
use crate::store::{Cancelled, CleanQuery, Store};

/// How long cancelling waits for a running job to end: its processor looks several times a second and gives the function
/// ten seconds to end by itself.
const CANCEL_PATIENCE: Duration = Duration::from_secs(20);

/// How long cleaning pauses at most after a step.
const LONGEST_BREATH: Duration = Duration::from_millis(100);

/// Cancels a job; waits until one that runs has ended. Gives the state in which it is then.
///
/// # Errors
/// [`Kind::Denied`] when it had ended before in another state, [`Kind::Busy`] when it has not ended yet.
pub fn cancel(store: &mut Store, id: JobId) -> Result<()> {
    let until = Instant::now() + CANCEL_PATIENCE;
    match store.cancel(id)? {
        Cancelled::Now | Cancelled::Ended(State::Cancelled) => return Ok(()),
        Cancelled::Ended(state) => return Err(too_late(id, state)),
        Cancelled::Requested => {}
    }
    loop {
        let state = store.job(id)?.state;
        match state {
            State::Cancelled => return Ok(()),
            State::Processing if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            State::Processing => {
                return Err(Error::new(Kind::Busy, format!("job {id} is asked to end, but still runs"))
                    .hint("if its processor died, the next `asyncq process` cancels it, or tells what it waits for"));
            }
            state => return Err(too_late(id, state)),
        }
    }
}

fn too_late(id: JobId, state: State) -> Error {
    let error = Error::new(Kind::Denied, format!("job {id} is {state}, nothing to cancel"));
    if state.has_ended() { error.hint(format!("`asyncq job show {id}` tells how it ended")) } else { error }
}

/// Removes ended jobs, in steps that keep nobody waiting; gives how many. Clients that write plain SQL know no line to
/// wait in: they look now and then whether they may write, so most moments are theirs.
///
/// # Errors
/// Whatever the store answers; what was removed until then stays removed.
pub fn clean(store: &mut Store, query: &CleanQuery) -> Result<u64> {
    let mut removed = 0;
    let mut after = Some(JobId(0));
    while let Some(from) = after {
        let began = Instant::now();
        let (count, next) = store.clean(query, from)?;
        removed += count;
        after = next;
        if count > 0 && after.is_some() {
            std::thread::sleep((began.elapsed() * 3).min(LONGEST_BREATH));
        }
    }
    Ok(removed)
}

//! Recording what came of a call, also where the disk is full.

use crate::domain::job::{Finish, State};
use crate::error::{Kind, Result};
use crate::runner::DiskReserve;
use crate::store::Store;

/// How much of a call's output is kept while the disk is full, in bytes: the reserve is there for outcomes.
const LITTLE: usize = 4096;

/// Records one outcome and gives the state of its job now, as [`Store::finish`] does. On a full disk it takes from the
/// reserve what it needs; output for which there is no space is dropped.
///
/// # Errors
/// Whatever the store answers; [`Kind::Full`] when there is no reserve any more either.
pub(super) fn record(store: &mut Store, reserve: &DiskReserve, finish: &mut Finish) -> Result<Option<State>> {
    loop {
        match store.finish(&[&*finish]) {
            Err(error) if error.kind() == Kind::Full => {
                let log = &mut finish.log;
                let takes_less = log.keep_end(LITTLE) || reserve.give() || log.keep_end(0);
                if !takes_less {
                    return Err(error);
                }
            }
            states => return Ok(states?.pop().flatten()),
        }
    }
}

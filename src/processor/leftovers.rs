//! What processors have left behind on a store that is about to be replaced.

use std::path::Path;

use super::rescue::{Fate, PATIENCE, fate, runs_for_original};
use crate::domain::processor::Processor;
use crate::error::{Error, Kind, Result};
use crate::runner::process::{identity::same_boot, orphans};
use crate::runner::run_dir::{Liveness, liveness, names, token_of};
use crate::store::Store;

/// Ends what dead processors have left running here, so that their calls can begin again in the store that replaces this one.
///
/// # Errors
/// [`Kind::Busy`] when that is not possible, or when a host still runs calls of a dead processor.
pub fn end_leftovers_of_dead(store: &mut Store) -> Result<()> {
    let run_folder = store.run_folder();
    for processor in store.processors()? {
        let remains = match liveness(&run_folder, &processor.is.folder) {
            Ok(Liveness::Dead(remains)) => Some(remains),
            _ => None,
        };
        if runs_for_original(&processor, remains.as_ref()) || !same_boot(&processor.is) {
            continue;
        }
        let mut tokens = store.tokens(processor.id, &[])?;
        tokens.push(token_of(&processor.is.folder));
        let host = remains.as_ref().and_then(|remains| remains.host().ok().flatten());
        let in_host = host.is_some_and(|host| host.lives(false))
            && remains.as_ref().is_some_and(|remains| remains.in_host().is_ok_and(|jobs| !jobs.is_empty()));
        // It looks at the lock, which this process has.
        drop(remains);
        let is_out_of_reach = matches!(fate(store, &processor), Fate::OutOfReach(_));
        if is_out_of_reach || in_host || !orphans::end(&tokens, PATIENCE) {
            let message = format!("calls of processor {}, which died, may still run", processor.id.0);
            return Err(Error::new(Kind::Busy, message).with_hint(
                "`asyncq process` as the user, and in the container, in which that processor ran ends them",
            ));
        }
    }
    Ok(())
}

/// The folders of the processors that work on the store in a file, which may be damaged or gone.
#[must_use]
pub fn working_folders(store: &Path) -> Vec<String> {
    let run_folder = Store::run_folder_of(store);
    let names = names(&run_folder).unwrap_or_default();
    names.into_iter().filter(|name| matches!(liveness(&run_folder, name), Ok(Liveness::Alive))).collect()
}

/// How many folders processors have left that the store does not know.
#[must_use]
pub fn left_folders(store: &Store, known: &[Processor]) -> usize {
    let run_folder = store.run_folder();
    let names = names(&run_folder).unwrap_or_default().into_iter();
    let unknown = names.filter(|name| known.iter().all(|it| it.is.folder != *name));
    unknown.filter(|name| matches!(liveness(&run_folder, name), Ok(Liveness::Dead(_)))).count()
}

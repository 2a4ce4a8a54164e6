//! Restoring a store from a backup.

use std::path::{Path, PathBuf};

use super::{caller::Caller, queue::Place};
use crate::domain::job::JobId;
use crate::domain::processor::Processor;
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::processor::{end_leftovers_of_dead, lives, working_folders};
use crate::store::{Restoration, RestoreTurn, Store};

/// What to restore.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The backup.
    pub from: PathBuf,
    /// Restore an application's tables too.
    pub force: bool,
    /// The moment that the folder is named after into which the store moves.
    pub now: Timestamp,
}

/// A store that was restored.
#[derive(Debug)]
pub struct Restored {
    /// The folder in which that is which was there; `None` if nothing was.
    pub before: Option<PathBuf>,
    /// The path of the store's file, through links.
    pub file: PathBuf,
    /// How many jobs ran when the backup was made.
    pub put_back: usize,
    /// How many calls have ended since then, and run again.
    pub again: usize,
    /// How many calls had not ended in the store that was there, and do not wait in the backup.
    pub lost: usize,
}

impl Place {
    /// Puts a backup in the place of the store, and what is there into a folder next to it.
    ///
    /// # Errors
    /// [`Kind::Busy`] while processors work on the store, or when what dead ones left cannot be ended; [`Kind::Denied`] when there are
    /// tables of an application, without `force`; as [`Restoration::prepare`] and [`Restoration::replace`]. Then nothing was changed.
    pub fn restore(&self, caller: &Caller, request: &RestoreRequest) -> Result<Restored> {
        self.refuse_strangers_home()?;
        let from = caller.path(&request.from)?;
        let file = self.location.file()?;
        let turn = RestoreTurn::take(&self.location)?;
        let (mut present, newest) = if turn.has_file() { self.present()? } else { (None, (0, 0)) };
        refuse_working(present.as_mut(), file)?;
        let is_shared = present.as_mut().is_some_and(|store| store.has_company().unwrap_or(false));
        if is_shared && !request.force {
            return Err(shared(file));
        }
        if let Some(store) = &mut present {
            match end_leftovers_of_dead(store) {
                // They are not known.
                Err(error) if error.kind() == Kind::Invalid => {}
                done => done?,
            }
        }
        let ready = Restoration::prepare(turn, &from, self.patience, (newest, present.as_mut()))?;
        if ready.is_shared && !request.force {
            return Err(shared(&from));
        }
        let (put_back, again, mut lost) = (ready.put_back.len(), ready.again, ready.lost);
        let before = ready.replace(request.now, &mut || {
            refuse_working(present.as_mut(), file)?;
            // Nobody can enqueue any longer.
            lost += present.as_mut().map_or(0, |store| store.unended_after(JobId(newest.0)).unwrap_or(0));
            Ok(())
        })?;
        let file = file.canonicalize().unwrap_or_else(|_| file.to_owned());
        Ok(Restored { before, file, put_back, again, lost })
    }

    /// The store that is there, if this build can read it, and the greatest numbers of its jobs and processors, as far as they can be
    /// read.
    fn present(&self) -> Result<(Option<Store>, (i64, i64))> {
        let opened = Store::open(&self.location, self.patience).and_then(|mut store| {
            let newest = store.newest_numbers()?;
            Ok((store, newest))
        });
        let (mut store, newest) = match opened {
            Ok(opened) => opened,
            // Whoever restores a backup wants to be rid of it, be it damaged, gone, or too new for this build.
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Unreachable) => return Ok((None, (0, 0))),
            Err(error) => return Err(error),
        };
        match store.processors() {
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Busy) => Ok((None, newest)),
            processors => processors.map(|_| (Some(store), newest)),
        }
    }
}

/// Refuses while processors work on the store.
fn refuse_working(store: Option<&mut Store>, file: &Path) -> Result<()> {
    let mut known: Vec<Processor> = Vec::new();
    if let Some(store) = store {
        known = store.processors()?;
        known.retain(|it| lives(store, it));
    }
    let others =
        working_folders(file).into_iter().filter(|folder| known.iter().all(|it| it.is.folder != *folder)).count();
    let mut named: Vec<String> =
        known.iter().map(|it| format!("processor {} (process {} on {})", it.id.0, it.is.pid, it.is.host)).collect();
    if others > 0 {
        named.push(format!("{others} more"));
    }
    let (verb, which) = match &named[..] {
        [] => return Ok(()),
        [_] if others == 0 => ("works", named.join("")),
        [_] => ("work", "processors".to_owned()),
        _ => ("work", named.join(", ")),
    };
    Err(Error::new(Kind::Busy, format!("{which} {verb} on `{}`", file.display())).with_hint(
        "end it, as with `kill` or `systemctl stop`, and keep cron from starting another; then restore again",
    ))
}

/// The error for a database that is not asyncq's alone.
fn shared(file: &Path) -> Error {
    Error::new(Kind::Denied, format!("`{}` also holds tables of an application", file.display())).with_hint(
        "a restore puts back the whole file, with all that the application has in it: stop the application, then use `--force`",
    )
}

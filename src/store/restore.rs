//! Putting a backup in the place of the store.

use std::path::{Path, PathBuf};

use super::engine::{Mode, Patience, Value, of_backup};
use super::schema::SchemaFound;
use super::sqlite::copy::copy_in;
use super::sqlite::{Draft, Swap};
use super::{Location, Store};
use crate::domain::job::{JobId, State};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};

/// By how much numbers go on after a restore: whatever was numbered since the backup, also in a store that is lost, has none of them.
const GAP: i64 = 1_000_000;

/// Jobs that have not ended, in pages.
const UNENDED: &str =
    "SELECT id, created_at FROM asyncq_job WHERE id > ?1 AND id <= ?3 AND finished_at IS NULL AND immediate = 0
    ORDER BY id LIMIT ?2";
const ENDED: &str = "SELECT finished_at IS NOT NULL FROM asyncq_job WHERE id = ?1 AND created_at = ?2";

const WAITS: &str = "SELECT 1 FROM asyncq_job WHERE id = ?1 AND created_at = ?2 AND finished_at IS NULL";
const UNENDED_AFTER: &str = "SELECT count(*) FROM asyncq_job WHERE id > ?1 AND finished_at IS NULL AND immediate = 0";
const BIRTHS: &str = "SELECT name, created_at FROM asyncq_service ORDER BY name";

/// How many jobs are looked up in one transaction.
const PAGE: usize = 10_000;

/// A backup that is ready to take the place of a store.
pub struct Restoration {
    draft: Draft,
    swap: Swap,
    patience: Patience,
    /// The jobs that ran when the backup was made, with their states now.
    pub put_back: Vec<(JobId, State)>,
    /// How many calls wait in it that have ended in the store, or were removed from it.
    pub again: usize,
    /// How many calls that have not ended in the store do not wait in it. Those that were numbered after `present` was asked for its
    /// newest numbers are not among them.
    pub lost: usize,
    /// Whether it has tables of an application, too.
    pub is_shared: bool,
}

/// The right to restore a store, which one process has at a time.
pub struct RestoreTurn {
    swap: Swap,
}

impl RestoreTurn {
    /// Takes the right, and puts back first what an interrupted restore has left.
    ///
    /// # Errors
    /// [`Kind::Busy`] while another restore is under way.
    pub fn take(location: &Location) -> Result<RestoreTurn> {
        Ok(RestoreTurn { swap: Swap::begin(location.file()?)? })
    }

    /// Whether there is a file where the store is to be.
    #[must_use]
    pub fn has_file(&self) -> bool {
        self.swap.path().exists()
    }
}

impl Restoration {
    /// Copies a backup to where the store is, and prepares the copy: it is searched for damage and upgraded, jobs that ran go back
    /// to their queues, and numbers go on where those of the backup and of the store that it replaces end. A pause of that store stays. `present` has the latter, and
    /// the store itself, if it can be read.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when the file is no store, or is damaged; [`Kind::Busy`] when it is newer than this build; what the file system
    /// answers.
    pub fn prepare(
        RestoreTurn { swap }: RestoreTurn,
        from: &Path,
        patience: Patience,
        ((jobs, processors), present): ((i64, i64), Option<&mut Store>),
    ) -> Result<Restoration> {
        let draft = copy_in(from, swap.path())?;
        let of_backup = |error| of_backup(from, error);
        let mut store = Store::open(&Location::File(draft.path().to_owned()), patience).map_err(of_backup)?;
        store.is_a_backup(from)?;
        store.check().map_err(of_backup)?;
        // A damaged store may not say; and nothing depends on it.
        let (mut again, mut lost, mut pause) = (0, 0, None);
        if let Some(present) = present {
            again = store.run_again(present).unwrap_or(0);
            lost = present.unended_without(&mut store, JobId(jobs)).unwrap_or(0);
            pause = present.pause().unwrap_or_default();
        }
        let is_shared = store.has_company().map_err(of_backup)?;
        let put_back = store.put_back_all().map_err(of_backup)?;
        store.number_after(jobs, processors).map_err(of_backup)?;
        if pause.is_some() {
            store.set_pause(pause.as_ref())?;
        }
        store.engine.close()?;
        Ok(Restoration { draft, swap, patience, put_back, again, lost, is_shared })
    }

    /// Puts it in the place of the store, and what was there into a folder next to it, which is named after the moment. Writers wait
    /// meanwhile; `check` may refuse at the last moment. Returns the folder, if there was anything.
    ///
    /// # Errors
    /// Whatever `check` and the file system answer. Then what was there is there again.
    pub fn replace(self, now: Timestamp, check: &mut dyn FnMut() -> Result<()>) -> Result<Option<PathBuf>> {
        self.swap.replace(self.draft, now, (self.patience, check))
    }
}

impl Store {
    /// Refuses a database without a store, and a newer one.
    fn is_a_backup(&mut self, from: &Path) -> Result<()> {
        let mut found = SchemaFound::Nothing;
        let looked = self.engine.transact(Mode::Read, &mut |tx| {
            found = tx.found();
            Ok(())
        });
        looked.map_err(|error| of_backup(from, error))?;
        let from = from.display();
        match found {
            SchemaFound::Nothing => Err(Error::new(Kind::Invalid, format!("`{from}` holds no store of asyncq"))
                .with_hint("name a file that `asyncq backup` has made")),
            SchemaFound::Newer { version, known } => {
                let message = format!("`{from}` has schema {version}, this asyncq knows schemas up to {known}");
                Err(Error::new(Kind::Busy, message)
                    .with_hint("a newer asyncq has made it: install that version here too"))
            }
            SchemaFound::Current | SchemaFound::Older(_) => Ok(()),
        }
    }

    /// The greatest numbers that a job and a processor have ever had, whatever schema the store has.
    pub fn newest_numbers(&mut self) -> Result<(i64, i64)> {
        let mut newest = (0, 0);
        self.transact(Mode::Read, |tx| {
            newest = tx.newest_numbers()?;
            Ok(())
        })?;
        Ok(newest)
    }

    /// Gives jobs and processors new numbers from a million after those that the store has, and after these.
    pub fn number_after(&mut self, job: i64, processor: i64) -> Result<()> {
        self.write_untriggered(|tx| {
            let newest = tx.newest_numbers()?;
            tx.number_after(newest.0.max(job).saturating_add(GAP), newest.1.max(processor).saturating_add(GAP))
        })
    }

    /// Puts all jobs that run on their queues again, and forgets all processors: nobody runs anything in this copy. No crash is
    /// charged.
    pub fn put_back_all(&mut self) -> Result<Vec<(JobId, State)>> {
        let mut back = Vec::new();
        for processor in self.processors()? {
            back.extend(self.rescue(processor.id, Some(&[]), &[])?.jobs);
        }
        let mut unowned: Vec<JobId> = self.orphaned()?.into_iter().map(|(job, _)| job).collect();
        unowned.extend(self.tokenless()?);
        back.extend(self.put_back_unowned(&unowned)?);
        Ok(back)
    }

    /// How many calls that have not ended here have ended in another store, of which this is an earlier copy, or were removed there.
    /// None if this is no copy of it.
    pub fn run_again(&mut self, later: &mut Store) -> Result<usize> {
        let (mut ended, mut gone, mut known) = (0, 0, 0);
        self.each_unended(i64::MAX, |page| {
            let looked: Vec<Option<bool>> = later.look_up(ENDED, page)?;
            ended += looked.iter().filter(|it| **it == Some(true)).count();
            known += looked.iter().flatten().count();
            gone += looked.iter().filter(|it| it.is_none()).count();
            Ok(())
        })?;
        let is_copy = known > 0 || self.shares_service(later)?;
        Ok(if is_copy { ended + gone } else { 0 })
    }

    /// How many calls up to this one have not ended here and do not wait in another store.
    pub fn unended_without(&mut self, other: &mut Store, newest: JobId) -> Result<usize> {
        let mut lacking = 0;
        self.each_unended(newest.0, |page| {
            let looked: Vec<Option<bool>> = other.look_up(WAITS, page)?;
            lacking += looked.iter().filter(|it| it.is_none()).count();
            Ok(())
        })?;
        Ok(lacking)
    }

    /// How many calls after this one have not ended.
    pub fn unended_after(&mut self, job: JobId) -> Result<usize> {
        let count: Option<i64> = self.read(|tx| tx.row(UNENDED_AFTER, &[job.into()]))?;
        Ok(count.and_then(|count| usize::try_from(count).ok()).unwrap_or_default())
    }

    /// Hands on all calls up to this number that have not ended, page by page: their numbers, and when they were made.
    fn each_unended(&mut self, newest: i64, mut see: impl FnMut(&[(JobId, i64)]) -> Result<()>) -> Result<()> {
        let mut last = 0;
        loop {
            let args = [Value::from(last), PAGE.into(), newest.into()];
            let page: Vec<(JobId, i64)> = self.read(|tx| tx.rows(UNENDED, &args))?;
            let Some((JobId(id), _)) = page.last() else { return Ok(()) };
            last = *id;
            see(&page)?;
        }
    }

    /// What a statement finds of each of these jobs.
    fn look_up(&mut self, sql: &str, jobs: &[(JobId, i64)]) -> Result<Vec<Option<bool>>> {
        self.read(|tx| jobs.iter().map(|(id, made)| tx.row(sql, &[(*id).into(), (*made).into()])).collect())
    }

    /// Whether a service of this store is also in another one: it has the same name, and was made at the same moment.
    fn shares_service(&mut self, other: &mut Store) -> Result<bool> {
        let [mine, theirs] = [self, other].map(|it| it.read(|tx| tx.rows::<(String, i64)>(BIRTHS, &[])));
        let theirs = theirs?;
        Ok(mine?.iter().any(|it| theirs.contains(it)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn jobs_are_found_by_their_numbers() {
        for (sql, range) in
            [(UNENDED, "rowid>? AND rowid<?"), (UNENDED_AFTER, "rowid>?"), (ENDED, "rowid=?"), (WAITS, "rowid=?")]
        {
            assert_eq!(plan(sql), [format!("SEARCH asyncq_job USING INTEGER PRIMARY KEY ({range})")], "{sql}");
        }
    }
}

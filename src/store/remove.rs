//! Removes the store from a database.

use super::engine::{Tx, one};
use super::{Location, Store};
use crate::domain::removal::StoreContents;
use crate::error::{Error, Kind, Result};

const CONTENTS: &str = "SELECT (SELECT COUNT(*) FROM asyncq_service), (SELECT COUNT(*) FROM asyncq_function),
    (SELECT COUNT(*) FROM asyncq_job)";
const PROCESSOR: &str = "SELECT id FROM asyncq_processor ORDER BY id LIMIT 1";
/// Each state has a text of its own, so that SQLite uses its partial index.
const UNENDED: &str = "SELECT (SELECT COUNT(*) FROM asyncq_job WHERE state = 'queued')
    + (SELECT COUNT(*) FROM asyncq_job WHERE state = 'delayed') + (SELECT COUNT(*) FROM asyncq_job WHERE state = 'held')
    + (SELECT COUNT(*) FROM asyncq_job WHERE waits <> 0) + (SELECT COUNT(*) FROM asyncq_job WHERE state = 'processing')";

impl Store {
    /// Counts what [`Store::remove`] would remove now.
    ///
    /// # Errors
    /// [`Kind::Busy`] while a processor is registered; [`Kind::Denied`] when calls wait, when the application refers to the
    /// store, and when there is nothing else in the file.
    pub fn removal(&mut self) -> Result<StoreContents> {
        let location = self.location.clone();
        self.read(|tx| contents(tx, &location))
    }

    /// Removes all tables of the store from its database, and its run folder.
    ///
    /// # Errors
    /// As [`Store::removal`]; then nothing was removed.
    pub fn remove(&mut self) -> Result<()> {
        let location = self.location.clone();
        self.write_untriggered(|tx| {
            contents(tx, &location)?;
            tx.drop_schema()
        })?;
        self.engine.remove_run_folder();
        Ok(())
    }

    /// Whether the database holds tables of an application too.
    pub fn has_company(&mut self) -> Result<bool> {
        self.read(|tx| tx.has_foreign_table())
    }
}

/// Counts what a removal removes, unless something prevents it.
fn contents(tx: &mut dyn Tx, location: &Location) -> Result<StoreContents> {
    if !tx.has_foreign_table()? {
        let message = format!("`{location}` holds nothing but the store");
        return Err(Error::new(Kind::Denied, message).with_hint(tx.how_to_remove_all()));
    }
    if let Some(processor) = tx.row::<i64>(PROCESSOR, &[])? {
        return Err(Error::new(Kind::Busy, format!("processor {processor} is at work on this store"))
            .with_hint("end it; if it died, `asyncq process` puts its jobs back"));
    }
    let unended = one(tx.row::<i64>(UNENDED, &[])?)?;
    if unended > 0 {
        let calls = if unended == 1 { "1 call waits".to_owned() } else { format!("{unended} calls wait") };
        return Err(Error::new(Kind::Denied, format!("{calls} in this store"))
            .with_hint("`asyncq process` runs them, `asyncq job cancel --all` cancels them"));
    }
    if let Some(reference) = tx.references()?.first() {
        let message = format!("table `{}` refers to `{}`", reference.table, reference.to);
        return Err(
            Error::new(Kind::Denied, message).with_hint("drop that foreign key first: it would refer to nothing")
        );
    }
    one(tx.row(CONTENTS, &[])?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::ways_to_jobs;

    #[test]
    fn what_waits_is_counted_by_the_indexes_of_few() {
        let ways = ways_to_jobs(UNENDED);
        for index in ["asyncq_job_queued", "asyncq_job_delayed", "asyncq_job_stopped", "asyncq_job_blocked"] {
            assert!(ways.iter().any(|way| way.contains(&format!("COVERING INDEX {index}"))), "{index}: {ways:?}");
        }
    }
}

//! Compares the schema of a store with the script that makes it, and makes missing or changed parts again.
//!
//! Tools that copy or rebuild tables lose triggers, and indexes with conditions. Without them, the database accepts rows that it
//! should refuse, and is slow.

use super::schema_script::{FRESH, Part, part, parts};
use super::schema_text::{self, Storage, definition, has_inline_unique};
use super::{steps::VERSION, tx::SqliteTx};
use crate::error::{Error, Kind, Result};
use crate::store::engine::{Tx, no_fault};
use crate::store::schema::Mended;

/// This trigger delays calls for later, among other things. A store without it has queued them at once.
const LATER: &str = "asyncq_job_inserted";
const DELAY: &str = "UPDATE asyncq_job SET state = 'delayed' WHERE state = 'queued' AND run_at > ?1";

/// If a trigger was missing, nobody has noted what the store uses.
const ALL_USED: &str = "UPDATE asyncq_schema SET used = 15";

/// The table of the jobs.
const JOBS: &str = "asyncq_job";

/// Removes what is left of jobs that were lost with their table, because new jobs may get their numbers.
const ORPHANS: &str = "DELETE FROM asyncq_large WHERE job NOT IN (SELECT id FROM asyncq_job);
    DELETE FROM asyncq_attempt WHERE job NOT IN (SELECT id FROM asyncq_job);
    DELETE FROM asyncq_progress WHERE job NOT IN (SELECT id FROM asyncq_job)";

impl SqliteTx<'_> {
    /// Whether the schema is as the script makes it.
    pub(super) fn has_whole_schema(&mut self) -> Result<bool> {
        // Only tests have another script.
        Ok(self.engine.schema.fresh != FRESH || faults(self)?.is_empty())
    }

    /// What is missing or was changed.
    pub(super) fn schema_differences(&mut self) -> Result<Vec<Mended>> {
        let found = faults(self)?.into_iter();
        Ok(found.map(|(part, was_missing)| Mended { kind: part.kind, name: part.name, was_missing }).collect())
    }

    /// Makes again what is missing or was changed.
    pub(super) fn mend_schema(&mut self) -> Result<Vec<Mended>> {
        let mut mended = Vec::new();
        for (part, was_missing) in faults(self)? {
            make_again(self, part, was_missing)?;
            mended.push(Mended { kind: part.kind, name: part.name, was_missing });
        }
        if mended.iter().any(|it| it.name == JOBS && it.was_missing) {
            self.script(ORPHANS)?;
        }
        if !mended.is_empty() {
            self.script(ALL_USED)?;
        }
        // Meanwhile, the table may have got rows that the right definition excludes.
        if mended.iter().any(|it| it.kind == "table" && !it.was_missing) {
            no_fault(self.integrity_check()?)?;
        }
        Ok(mended)
    }

    /// Removes all tables of the store, with their indexes and triggers.
    pub(super) fn drop_tables(&self) -> Result<()> {
        let tables: Vec<_> = parts().filter(|part| part.kind == "table").collect();
        // A table that refers to others is removed before them.
        tables.iter().rev().try_for_each(|table| self.script(&format!("DROP TABLE IF EXISTS {}", table.name)))
    }

    /// Notes the schema version again in a store that has this build's schema but has lost the table for that.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is another schema.
    pub(super) fn name_schema(&mut self) -> Result<()> {
        let (Some(schema), Some(job)) = (part("asyncq_schema"), part(JOBS)) else { return Ok(()) };
        let is = schema_text::of(self, "table", JOBS)?.unwrap_or_default();
        if is_good(self, job, &is)? {
            self.script(schema.sql)?;
            return self.execute("INSERT INTO asyncq_schema (version) VALUES (?1)", &[VERSION.into()]).map(|_| ());
        }
        Err(Error::new(Kind::Invalid, "the store has lost table `asyncq_schema`, which says what schema it has")
            .with_hint("restore a backup, or make a new store and copy into it what you need"))
    }
}

/// The parts that differ from the script, in its order, and whether they are missing.
fn faults(tx: &mut SqliteTx<'_>) -> Result<Vec<(Part, bool)>> {
    let mut faults = Vec::new();
    for part in parts() {
        let is = schema_text::of(tx, part.kind, part.name)?;
        let is_good = match &is {
            Some(is) => is == part.sql || part.kind == "table" && is_good(tx, part, is)?,
            // The definition of the table has a UNIQUE instead.
            None => part.name == "asyncq_job_key" && has_inline_unique(tx, JOBS)?,
        };
        if !is_good {
            faults.push((part, is.is_none()));
        }
    }
    Ok(faults)
}

/// Whether a table has the right definition, or more columns.
fn is_good(tx: &mut SqliteTx<'_>, table: Part, is: &str) -> Result<bool> {
    let sql = definition(tx, table.name, table.sql)?;
    Ok(is == sql || storage(tx, table, &sql)? == Storage::Wider)
}

fn storage(tx: &SqliteTx<'_>, table: Part, definition: &str) -> Result<Storage> {
    schema_text::compare(&tx.engine.connection, table.name, definition).map_err(|error| tx.fail(error))
}

fn make_again(tx: &mut SqliteTx<'_>, part: Part, is_missing: bool) -> Result<()> {
    let Part { kind, name, sql } = part;
    if kind != "table" {
        tx.script(&format!("DROP {kind} IF EXISTS {name}; {sql}"))?;
        if name == LATER {
            let now = tx.now();
            tx.execute(DELAY, &[now.into()])?;
        }
        return Ok(());
    }
    if is_missing {
        return tx.script(sql);
    }
    let sql = definition(tx, name, sql)?;
    if storage(tx, part, &sql)? == Storage::Same {
        return schema_text::set(tx, name, &sql);
    }
    Err(Error::new(Kind::Invalid, format!("table `{name}` is not the one that asyncq has made")).with_hint(
        "its columns, or how its rows are stored, were changed: make a new store, and copy into it what you need",
    ))
}

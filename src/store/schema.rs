//! Comparing what a store has of its schema with the script that makes it, and making again what is missing or was changed.
//!
//! Tools that copy or rebuild tables lose triggers, and indexes with conditions. Without them the database accepts what it
//! should refuse, and is slow.

use std::fmt;

use super::Store;
use super::engine::{Mode, Storage, Tx};
use super::migrate::{KEY, SchemaFound, VERSION};
use super::schema_script::{FRESH, Part, parts};
use crate::error::{Error, Kind, Result};

/// A part of the schema that was made again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mended {
    /// `table`, `index` or `trigger`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether there was nothing of that name; otherwise it was another one.
    pub was_missing: bool,
}

impl fmt::Display for Mended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let was = if self.was_missing { "missing" } else { "changed" };
        write!(f, "{} `{}` was {was}, and is made again", self.kind, self.name)
    }
}

/// Calls for later that a store without this trigger has queued at once.
const LATER: &str = "asyncq_job_later";
const DELAY: &str = "UPDATE asyncq_job SET state = 'delayed' WHERE state = 'queued' AND run_at > ?1";

/// The table of the jobs.
const JOBS: &str = "asyncq_job";

/// What is left of jobs that went with their table: new ones may get their numbers.
const ORPHANS: [&str; 3] = [
    "DELETE FROM asyncq_large WHERE job NOT IN (SELECT id FROM asyncq_job)",
    "DELETE FROM asyncq_attempt WHERE job NOT IN (SELECT id FROM asyncq_job)",
    "DELETE FROM asyncq_progress WHERE job NOT IN (SELECT id FROM asyncq_job)",
];

impl Store {
    /// Makes again what of the schema is missing or was changed, and says what that was. What an application has added
    /// stays.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when a table is not the one that it was, so that its rows cannot be kept; then nothing is changed.
    pub fn mend(&mut self) -> Result<Vec<Mended>> {
        let schema = self.schema;
        let mut mended = Vec::new();
        // Only tests have another one.
        if schema.fresh != FRESH {
            return Ok(mended);
        }
        let mut is_whole = true;
        self.engine.transact(Mode::Read, &mut |tx| {
            if schema.look(tx)? == SchemaFound::Current {
                is_whole = faults(tx)?.is_empty();
            }
            Ok(())
        })?;
        if is_whole {
            return Ok(mended);
        }
        self.engine.use_triggers(false)?;
        self.engine.transact(Mode::Write, &mut |tx| {
            mended.clear();
            if schema.look(tx)? != SchemaFound::Current {
                return Ok(());
            }
            for (part, was_missing) in faults(tx)? {
                make_again(tx, part, was_missing)?;
                mended.push(Mended { kind: part.kind, name: part.name, was_missing });
            }
            if mended.iter().any(|it| it.name == JOBS && it.was_missing) {
                ORPHANS.iter().try_for_each(|sql| tx.script(sql))?;
            }
            // What the words of a table rule out may have got into it meanwhile.
            let reworded = mended.iter().any(|it| it.kind == "table" && !it.was_missing);
            let fault = if reworded { tx.integrity_check()? } else { None };
            fault.map_or(Ok(()), |fault| Err(super::engine::damaged(&fault)))
        })?;
        Ok(mended)
    }
}

/// Writes down again which schema a store has that is this build's, and has lost the table which says so.
///
/// # Errors
/// [`Kind::Invalid`] when it is another one.
pub(super) fn name_schema(tx: &mut dyn Tx) -> Result<()> {
    let of = |name| parts().find(|part| part.name == name);
    let (Some(schema), Some(job)) = (of("asyncq_schema"), of(JOBS)) else { return Ok(()) };
    let is = tx.words("table", JOBS)?.unwrap_or_default();
    if is_good(tx, job, &is)? {
        tx.script(schema.sql)?;
        return tx.execute("INSERT INTO asyncq_schema VALUES (?1)", &[VERSION.into()]).map(|_| ());
    }
    Err(Error::new(Kind::Invalid, "the store has lost table `asyncq_schema`, which says what schema it has")
        .with_hint("restore a backup, or make a new store and copy into it what you need"))
}

/// The parts that are not as the script makes them, in its order, and whether they are missing.
fn faults(tx: &mut dyn Tx) -> Result<Vec<(Part, bool)>> {
    let mut faults = Vec::new();
    for part in parts() {
        let is = tx.words(part.kind, part.name)?;
        let is_good = match &is {
            Some(is) => is == part.sql || part.kind == "table" && is_good(tx, part, is)?,
            // The table has a UNIQUE among its words instead.
            None => part.name == "asyncq_job_key" && tx.has_inline_unique(JOBS)?,
        };
        if !is_good {
            faults.push((part, is.is_none()));
        }
    }
    Ok(faults)
}

/// Whether a table has the words that it should have, or more columns.
fn is_good(tx: &mut dyn Tx, table: Part, is: &str) -> Result<bool> {
    let words = words(tx, table)?;
    Ok(is == words || tx.storage(table.name, &words)? == Storage::Wider)
}

/// The words that a table should have: in an older store, a UNIQUE is among those of the jobs.
fn words(tx: &mut dyn Tx, table: Part) -> Result<String> {
    let inline = table.name == JOBS && tx.has_inline_unique(table.name)?;
    Ok(if inline { table.sql.replace(KEY[0], KEY[1]) } else { table.sql.to_owned() })
}

fn make_again(tx: &mut dyn Tx, part: Part, is_missing: bool) -> Result<()> {
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
    let words = words(tx, part)?;
    if tx.storage(name, &words)? == Storage::Same {
        return tx.reword(name, &words);
    }
    Err(Error::new(Kind::Invalid, format!("table `{name}` is not the one that asyncq has made")).with_hint(
        "its columns, or how its rows are stored, were changed: make a new store, and copy into it what you need",
    ))
}

//! The version of the schema: a new store gets the newest, an older one is upgraded, a newer one is refused.
//!
//! Invariant: whatever happens, happens in the caller's transaction; a store is never seen half upgraded.
//!
//! An upgrade waits for nobody: processors of the older build may be at work while it happens. They are refused
//! everything but to end that work ([`Store::write_in_any_schema`](super::Store)): to record how their calls ended, give back those
//! that they had not begun, and unregister. So there are three rules for steps:
//! - A step only adds: tables, indexes, triggers, columns that may be left out. All that an older build writes to end its
//!   work stays valid, though it fills nothing new.
//! - No step relies on a trigger to complete what processors write: they work without triggers. Triggers are for clients,
//!   which need not know of them.
//! - No step rewrites rows of `asyncq_job`, of which there may be millions, nor copies a table: an application may have
//!   indexes, triggers and foreign keys of its own there.

use std::cmp::Ordering;

use super::engine::Tx;
use super::schema_script::{FRESH, part};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;

/// The version of this build's schema.
pub(super) const VERSION: i64 = 2;

const SCHEMA: Schema = Schema { version: VERSION, fresh: FRESH, steps: STEPS };

/// The steps to the schema of this build, from version 1 on.
const STEPS: &[&[SchemaChange]] = &[TO_2];

/// One change on the way to a newer schema.
#[derive(Debug, Clone, Copy)]
pub(super) enum SchemaChange {
    /// A statement.
    Run(&'static str),
    /// Gives a table the words that it has in the script for new stores: its columns are those already, and their values
    /// stay as they are.
    Reword(&'static str),
    /// Makes an index or a trigger as the script does, instead of one that may be there.
    Remake(&'static str),
}
use SchemaChange::{Remake, Reword, Run};

/// How functions take their calls, which workers are too old, and on which file a processor works. Claims are counted, and fence what processors write, so
/// that `attempt` can be the number of runs that began. Names and columns in constraints, as tools expect them.
pub(super) const TO_2: &[SchemaChange] = &[
    Run("ALTER TABLE asyncq_function ADD COLUMN args TEXT NOT NULL DEFAULT 'words'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN stdin TEXT NOT NULL DEFAULT 'call'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN generation INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_job ADD COLUMN claim INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_processor ADD COLUMN store TEXT"),
    Reword("asyncq_service"),
    Reword("asyncq_function"),
    Reword("asyncq_job"),
    Reword("asyncq_large"),
    Reword("asyncq_attempt"),
    Reword("asyncq_processor"),
    Reword("asyncq_slot"),
    Reword("asyncq_progress"),
    Remake("asyncq_job_retry"),
    Remake("asyncq_job_stopped"),
    Remake("asyncq_job_insert"),
    Remake("asyncq_job_empty"),
    Remake("asyncq_job_update"),
    Remake("asyncq_job_released"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_completed"),
    Remake("asyncq_job_ended"),
    Remake("asyncq_job_delete"),
];

/// How `key` stands in the script for new stores, and how in a table that an older build has made: the index of an inline
/// UNIQUE cannot be dropped.
pub(super) const KEY: [&str; 2] = ["  key         TEXT,       ", "  key         TEXT UNIQUE,"];

/// A schema and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Its number.
    pub(super) version: i64,
    /// The script that makes it in a database without one.
    pub(super) fresh: &'static str,
    /// What leads from version 1 to 2, from 2 to 3, and so on.
    pub(super) steps: &'static [&'static [SchemaChange]],
}

/// What was found in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SchemaFound {
    /// No tables of asyncq.
    Nothing,
    /// The schema of this build.
    Current,
    /// An older one, with its number.
    Older(i64),
    /// A newer one, with its number.
    Newer(i64),
}

impl Schema {
    /// What this build works with.
    pub(super) fn of_this_build() -> Schema {
        #[cfg(debug_assertions)]
        if crate::failpoint::plays_a_newer_build() {
            return super::future::SCHEMA;
        }
        SCHEMA
    }

    /// Looks which schema the store has.
    pub(super) fn look(&self, tx: &mut dyn Tx) -> Result<SchemaFound> {
        let version = match tx.first("SELECT version FROM asyncq_schema", &[], |row| row.i64(0)) {
            Ok(version) => version,
            // Asked only now, so that a good store pays for one look and not for two.
            Err(_) if !tx.has_table("asyncq_schema")? => return Ok(SchemaFound::Nothing),
            Err(error) => return Err(error),
        };
        let version = version.ok_or_else(|| {
            Error::new(Kind::Invalid, "`asyncq_schema` is empty, as in a schema that was copied without its rows")
                .with_hint(
                    "if it was copied so, drop the tables `asyncq_*` and run `asyncq init`; if not, restore a backup",
                )
        })?;
        Ok(match version.cmp(&self.version) {
            Ordering::Equal => SchemaFound::Current,
            Ordering::Less => SchemaFound::Older(version),
            Ordering::Greater => SchemaFound::Newer(version),
        })
    }

    /// The error for a store that is newer than this build.
    pub(super) fn refuse(&self, newer: i64) -> Error {
        let message = format!("the store has schema {newer}, this asyncq knows schemas up to {}", self.version);
        Error::new(Kind::Busy, message).with_hint("a newer asyncq has upgraded it: install that version here too")
    }

    /// Brings the store to this schema.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it is newer than this build.
    pub(super) fn bring(&self, tx: &mut dyn Tx, found: SchemaFound) -> Result<()> {
        let from = match found {
            SchemaFound::Current => return Ok(()),
            SchemaFound::Nothing => return tx.script(self.fresh),
            SchemaFound::Newer(version) => return Err(self.refuse(version)),
            SchemaFound::Older(from) => from,
        };
        let done = usize::try_from(from - 1).map_err(|_| super::engine::damaged("a schema before the first"))?;
        for change in self.steps[done..].iter().copied().flatten() {
            reached("upgrade statement");
            change.make(tx)?;
        }
        reached("upgrade statement");
        tx.execute("UPDATE asyncq_schema SET version = ?1", &[self.version.into()])?;
        Ok(())
    }
}

impl SchemaChange {
    fn make(self, tx: &mut dyn Tx) -> Result<()> {
        match self {
            Run(sql) => tx.script(sql),
            Reword(name) => {
                let words = script_of(name)?;
                let inline = name == "asyncq_job" && tx.has_inline_unique(name)?;
                let words = if inline { words.replace(KEY[0], KEY[1]) } else { words.to_owned() };
                tx.reword(name, &words)
            }
            Remake(name) => {
                let part = part(name).ok_or_else(|| unknown(name))?;
                tx.script(&format!("DROP {} IF EXISTS {name}; {}", part.kind, part.sql))
            }
        }
    }
}

fn script_of(name: &str) -> Result<&'static str> {
    part(name).map(|part| part.sql).ok_or_else(|| unknown(name))
}

fn unknown(name: &str) -> Error {
    super::engine::damaged(&format!("no schema has `{name}`"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::engine::{Engine, Mode, Patience};
    use crate::store::sqlite::Sqlite;

    const OLD: Schema = Schema {
        version: 1,
        fresh: "CREATE TABLE asyncq_schema (version INTEGER NOT NULL); INSERT INTO asyncq_schema VALUES (1);
            CREATE TABLE asyncq_thing (a INTEGER); INSERT INTO asyncq_thing VALUES (7);",
        steps: &[],
    };
    const NEW: Schema = Schema {
        version: 3,
        fresh: "",
        steps: &[
            &[Run("ALTER TABLE asyncq_thing ADD COLUMN b INTEGER NOT NULL DEFAULT 8")],
            &[Run("UPDATE asyncq_thing SET a = a + b"), Run("UPDATE asyncq_thing SET a = a * 2")],
        ],
    };

    fn engine() -> (tempfile::TempDir, Sqlite) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("q.db");
        std::fs::write(&path, "").unwrap();
        let engine = Sqlite::open(&path, Patience::Deadline(Duration::from_secs(1))).unwrap();
        (folder, engine)
    }

    fn bring(engine: &mut Sqlite, schema: Schema) -> Result<SchemaFound> {
        let mut found = None;
        engine.transact(Mode::Write, &mut |tx| {
            let here = schema.look(tx)?;
            found = Some(here);
            schema.bring(tx, here)
        })?;
        Ok(found.unwrap())
    }

    fn sum(engine: &mut Sqlite) -> i64 {
        let mut sum = 0;
        engine
            .transact(Mode::Read, &mut |tx| {
                sum = tx.first("SELECT SUM(a) FROM asyncq_thing", &[], |row| row.i64(0))?.unwrap();
                Ok(())
            })
            .unwrap();
        sum
    }

    #[test]
    fn an_older_store_is_upgraded_once() {
        let (_folder, mut engine) = engine();
        assert_eq!(bring(&mut engine, OLD).unwrap(), SchemaFound::Nothing);
        assert_eq!(bring(&mut engine, OLD).unwrap(), SchemaFound::Current);
        assert_eq!(bring(&mut engine, NEW).unwrap(), SchemaFound::Older(1));
        assert_eq!(bring(&mut engine, NEW).unwrap(), SchemaFound::Current);
        assert_eq!(sum(&mut engine), 30);
    }

    #[test]
    fn a_newer_store_is_left_alone() {
        let (_folder, mut engine) = engine();
        bring(&mut engine, OLD).unwrap();
        bring(&mut engine, NEW).unwrap();
        assert_eq!(bring(&mut engine, OLD).unwrap_err().kind(), Kind::Busy);
        assert_eq!(sum(&mut engine), 30);
    }

    #[test]
    fn an_upgrade_that_fails_leaves_the_old_store() {
        const STEPS: &[&[SchemaChange]] = &[NEW.steps[0], &[Run("UPDATE asyncq_nothing SET a = 1")]];
        let (_folder, mut engine) = engine();
        bring(&mut engine, OLD).unwrap();
        let broken = Schema { steps: STEPS, ..NEW };
        assert!(bring(&mut engine, broken).is_err());
        assert_eq!(bring(&mut engine, NEW).unwrap(), SchemaFound::Older(1));
        assert_eq!(sum(&mut engine), 30);
    }

    #[test]
    fn the_schema_says_its_own_version() {
        assert!(SCHEMA.fresh.contains(&format!("INSERT INTO asyncq_schema VALUES ({});", SCHEMA.version)));
        assert!(SCHEMA.fresh.contains(&format!("schema {}.", SCHEMA.version)));
        assert_eq!(SCHEMA.steps.len() + 1, usize::try_from(SCHEMA.version).unwrap());
    }
}

//! The version of the schema: a new store gets the newest, an older one is upgraded, a newer one is refused.
//!
//! Invariant: everything happens in the caller's transaction; nobody ever sees a store half upgraded.
//!
//! An upgrade waits for nobody: processors of the older build may be at work while it happens. They may then only end
//! that work ([`Store::write_in_any_schema`](crate::store::Store)): record how their calls ended, put back those that they had
//! not begun, and unregister. So there are three rules for steps:
//! - A step only adds or widens: tables, indexes, triggers, columns that may be left out, constraints that allow more.
//!   All that an older build writes to end its work stays valid, though it fills nothing new.
//! - No step relies on a trigger to complete what processors write: they work without triggers. Triggers are for clients,
//!   which need not know of them.
//! - No step rewrites rows of `asyncq_job`, of which there may be millions, nor copies a table: an application may have
//!   indexes, triggers and foreign keys of its own there. [`Redefine`] widens a CHECK without reading a row.

use rusqlite::{OptionalExtension, ffi};

use super::Sqlite;
use super::mend;
use super::schema_script::{FRESH, part};
use super::schema_text;
use super::tx::SqliteTx;
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::store::engine::{Tx, damaged};
use crate::store::schema::{SchemaFound, too_new};

/// The version of this build's schema.
pub(super) const VERSION: i64 = 2;

const FOUND_VERSION: &str = "SELECT version FROM asyncq_schema";

const SCHEMA: Schema = Schema { version: VERSION, fresh: FRESH, steps: STEPS };

/// The steps to the schema of this build, from version 1 on.
const STEPS: &[&[SchemaChange]] = &[TO_2];

/// One change on the way to a newer schema.
#[derive(Debug, Clone, Copy)]
pub(super) enum SchemaChange {
    /// A statement.
    Run(&'static str),
    /// Gives a table the definition that it has in the script for new stores. It has those columns already; its rows stay as
    /// they are, and constraints may become wider.
    Redefine(&'static str),
    /// Makes an index or a trigger as the script does, instead of one that may be there.
    Recreate(&'static str),
}
use SchemaChange::{Recreate, Redefine, Run};

/// How functions take their calls, which workers are too old, and on which file a processor works. Claims are counted, and fence what processors write, so
/// that `attempt` can be the number of runs that began. Names and columns in constraints, as tools expect them.
pub(super) const TO_2: &[SchemaChange] = &[
    Run("ALTER TABLE asyncq_function ADD COLUMN args TEXT NOT NULL DEFAULT 'words'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN stdin TEXT NOT NULL DEFAULT 'call'"),
    Run("ALTER TABLE asyncq_function ADD COLUMN generation INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_job ADD COLUMN claim INTEGER NOT NULL DEFAULT 0"),
    Run("ALTER TABLE asyncq_processor ADD COLUMN store TEXT"),
    Redefine("asyncq_service"),
    Redefine("asyncq_function"),
    Redefine("asyncq_job"),
    Redefine("asyncq_large"),
    Redefine("asyncq_attempt"),
    Redefine("asyncq_processor"),
    Redefine("asyncq_slot"),
    Redefine("asyncq_progress"),
    Recreate("asyncq_job_retry"),
    Recreate("asyncq_job_stopped"),
    Recreate("asyncq_job_insert"),
    Recreate("asyncq_job_empty"),
    Recreate("asyncq_job_update"),
    Recreate("asyncq_job_released"),
    Run("DROP TRIGGER IF EXISTS asyncq_job_completed"),
    Recreate("asyncq_job_ended"),
    Recreate("asyncq_job_delete"),
];

/// The column `key` in the script for new stores, and in a table that an older build has made: the index of an inline UNIQUE
/// cannot be dropped.
const KEY: [&str; 2] = ["  key         TEXT,       ", "  key         TEXT UNIQUE,"];

/// The definition that a table of the script should have in this store.
pub(super) fn definition(tx: &mut SqliteTx<'_>, table: &str, sql: &str) -> Result<String> {
    let inline = table == "asyncq_job" && schema_text::has_inline_unique(tx, table)?;
    Ok(if inline { sql.replace(KEY[0], KEY[1]) } else { sql.to_owned() })
}

/// A schema and the way to it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Schema {
    /// Its number.
    pub(super) version: i64,
    /// The script that makes it in a database without one.
    pub(super) fresh: &'static str,
    /// The steps from version 1 to 2, from 2 to 3, and so on.
    pub(super) steps: &'static [&'static [SchemaChange]],
}

impl Schema {
    /// The schema that this build works with.
    pub(super) fn of_this_build() -> Schema {
        #[cfg(debug_assertions)]
        if crate::failpoint::plays_a_newer_build() {
            return super::future::SCHEMA;
        }
        SCHEMA
    }

    /// Brings the store to this schema.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it is newer than this build.
    pub(super) fn bring(&self, tx: &mut SqliteTx<'_>, found: SchemaFound) -> Result<()> {
        let from = match found {
            SchemaFound::Current => return Ok(()),
            SchemaFound::Nothing if tx.engine.has_table("asyncq_job").map_err(|error| tx.fail(error))? => {
                return mend::name_schema(tx);
            }
            SchemaFound::Nothing => return tx.script(self.fresh),
            SchemaFound::Newer { version, known } => return Err(too_new(version, known)),
            SchemaFound::Older(from) => from,
        };
        let done = usize::try_from(from - 1).map_err(|_| damaged("a schema before the first"))?;
        for change in self.steps[done..].iter().copied().flatten() {
            reached("upgrade statement");
            change.make(tx)?;
        }
        reached("upgrade statement");
        tx.execute("UPDATE asyncq_schema SET version = ?1", &[self.version.into()])?;
        Ok(())
    }
}

impl Sqlite {
    /// Looks which schema the store has.
    pub(super) fn look(&self) -> Result<SchemaFound> {
        let version = || {
            let mut statement = self.connection.prepare_cached(FOUND_VERSION)?;
            statement.query_row([], |row| Ok(row.get_ref(0)?.as_i64().ok())).optional()
        };
        let version = match self.patiently(version) {
            Ok(version) => version.flatten(),
            // Only now, so that a good store pays for one look and not for two.
            Err(error)
                if is_of_statement(&error) && !self.has_table("asyncq_schema").map_err(|error| self.fail(error))? =>
            {
                return Ok(SchemaFound::Nothing);
            }
            Err(error) => return Err(self.fail(error)),
        };
        version.map(|version| SchemaFound::from_version(version, self.schema.version)).ok_or_else(|| {
            Error::new(Kind::Invalid, "`asyncq_schema` is empty, as in a schema that was copied without its rows")
                .with_hint(
                    "if it was copied so, drop the tables `asyncq_*` and run `asyncq init`; if not, restore a backup",
                )
        })
    }
}

/// Whether SQLite cannot run a statement, as without its table; not whether a lock or the disk was in the way.
fn is_of_statement(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| failure.extended_code == ffi::SQLITE_ERROR)
}

impl SchemaChange {
    fn make(self, tx: &mut SqliteTx<'_>) -> Result<()> {
        let (Run(name) | Redefine(name) | Recreate(name)) = self;
        let found = || part(name).ok_or_else(|| damaged(&format!("no schema has `{name}`")));
        match self {
            Run(sql) => tx.script(sql),
            Redefine(_) => {
                let sql = definition(tx, name, found()?.sql)?;
                schema_text::set(tx, name, &sql)
            }
            Recreate(_) => {
                let part = found()?;
                tx.script(&format!("DROP {} IF EXISTS {name}; {}", part.kind, part.sql))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use super::*;
    use crate::store::engine::{Engine, Mode, Patience, Triggers};

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
        engine.schema = schema;
        engine.transact(Mode::Write(Triggers::None), &mut |tx| {
            found = Some(tx.found());
            tx.bring()
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
    fn a_check_is_widened_without_touching_a_row() {
        const WIDER: Schema = Schema { version: 2, fresh: "", steps: &[&[Redefine("asyncq_service")]] };
        const FILL: &str = "WITH RECURSIVE it(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM it WHERE n < 10000)
            INSERT INTO asyncq_service (name, created_at) SELECT 's' || n, 7 FROM it; PRAGMA wal_checkpoint(TRUNCATE)";
        const PAUSE: &str = "UPDATE asyncq_service SET paused = 1 WHERE name = 's77'";
        let (_folder, mut engine) = engine();
        engine.use_wal().unwrap();
        bring(&mut engine, OLD).unwrap();
        let sql = part("asyncq_service").unwrap().sql;
        let narrow = sql.replace("CHECK (paused IN (0, 1))", "CHECK (paused = 0)");
        assert_ne!(narrow, sql);
        engine.connection.execute_batch(&format!("{narrow}; {FILL}")).unwrap();
        engine.connection.execute_batch(PAUSE).unwrap_err();
        assert_eq!(bring(&mut engine, WIDER).unwrap(), SchemaFound::Older(1));
        // Only the pages of the version and of the schema were written.
        let written = engine.wal.pages.load(Ordering::Relaxed);
        assert!((1..=4).contains(&written), "{written} pages");
        engine.connection.execute_batch(PAUSE).unwrap();
        let paused: i64 = engine
            .connection
            .query_row("SELECT count(*) FROM asyncq_service WHERE paused", [], |row| row.get(0))
            .unwrap();
        assert_eq!(paused, 1);
    }

    #[test]
    fn the_schema_says_its_own_version() {
        assert!(SCHEMA.fresh.contains(&format!("INSERT INTO asyncq_schema VALUES ({});", SCHEMA.version)));
        assert!(SCHEMA.fresh.contains(&format!("schema {}.", SCHEMA.version)));
        assert_eq!(SCHEMA.steps.len() + 1, usize::try_from(SCHEMA.version).unwrap());
    }
}

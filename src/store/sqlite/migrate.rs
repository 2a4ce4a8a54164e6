//! Brings a store to the schema of this build: a new store gets the schema, an older one is upgraded, and a newer one is refused.
//!
//! Invariant: everything happens in the caller's transaction, so nobody ever sees a store half upgraded.

use std::cmp::Ordering;

use rusqlite::{OptionalExtension, ffi};

use super::steps::SchemaChange::{self, Create, Recreate, Redefine, Reword, Run, Widen};
use super::{connection::Sqlite, schema_script::part, schema_text, tx::SqliteTx};
use crate::domain::time::Timestamp;
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::store::engine::{Tx, damaged};
use crate::store::schema::{SchemaFound, too_new};

const FOUND: &str = "SELECT version, clock, used, paused IS NOT NULL FROM asyncq_schema";
/// What each schema has.
const FOUND_OLDER: &str = "SELECT version FROM asyncq_schema";
/// Whoever is at work now is of an older build.
const UPGRADED: &str =
    "UPDATE asyncq_schema SET version = ?1, older = (SELECT coalesce(max(id), 0) FROM asyncq_processor)";
/// All that a store may use.
const ALL: i64 = -1;

impl SqliteTx<'_> {
    /// Brings the store to the schema of this build.
    ///
    /// # Errors
    /// [`Kind::Busy`] when it is newer.
    pub(super) fn upgrade(&mut self) -> Result<()> {
        let schema = self.engine.schema;
        let from = match self.found() {
            SchemaFound::Current => return Ok(()),
            SchemaFound::Nothing if self.engine.has_table("asyncq_job").map_err(|error| self.fail(error))? => {
                return self.name_schema();
            }
            SchemaFound::Nothing => return self.script(schema.fresh),
            SchemaFound::Newer { version, known } => return Err(too_new(version, known)),
            SchemaFound::Older(from) => from,
        };
        let done = usize::try_from(from - 1).map_err(|_| damaged("a schema before the first"))?;
        for change in schema.steps[done..].iter().copied().flatten() {
            reached("upgrade statement");
            self.make(*change)?;
        }
        reached("upgrade statement");
        self.execute(UPGRADED, &[schema.version.into()])?;
        Ok(())
    }

    fn make(&mut self, change: SchemaChange) -> Result<()> {
        let (Run(name) | Redefine(name) | Reword(name, _) | Widen(name, _) | Create(name) | Recreate(name)) = change;
        let found = || part(name).ok_or_else(|| damaged(&format!("no schema has `{name}`")));
        match change {
            Run(sql) => self.script(sql),
            Redefine(_) => {
                let sql = schema_text::definition(self, name, found()?.sql)?;
                schema_text::set(self, name, &sql)
            }
            Reword(_, [old, new]) => match schema_text::of(self, "table", name)? {
                Some(sql) if !sql.contains(new) => schema_text::set(self, name, &sql.replacen(old, new, 1)),
                _ => Ok(()),
            },
            Widen(_, column) => {
                let added = column.split(' ').next().unwrap_or_default();
                if schema_text::has_column(self, name, added)? {
                    return Ok(());
                }
                self.script(&format!("ALTER TABLE {name} ADD COLUMN {column}"))
            }
            Create(_) => self.script(found()?.sql),
            Recreate(_) => {
                let part = found()?;
                self.script(&format!("DROP {} IF EXISTS {name}; {}", part.kind, part.sql))
            }
        }
    }
}

impl Sqlite {
    /// Looks which schema the store has.
    pub(super) fn look(&self) -> Result<SchemaFound> {
        let found = |sql| {
            let mut statement = self.connection.prepare_cached(sql)?;
            let number = |row: &rusqlite::Row<'_>, column| row.get_ref(column).ok()?.as_i64().ok();
            statement.query_row([], |row| Ok([0, 1, 2, 3].map(|column| number(row, column)))).optional()
        };
        let looked = match self.patiently(|| found(FOUND)) {
            Err(error) if is_of_statement(&error) => self.patiently(|| found(FOUND_OLDER)),
            looked => looked,
        };
        let version = match looked {
            Ok(found) => {
                let [version, clock, used, paused] = found.unwrap_or_default();
                self.clock.set(Timestamp(clock.unwrap_or_default()));
                self.used.set(used.unwrap_or(ALL));
                self.paused.set(paused == Some(1));
                version
            }
            // It is checked only now, so that a good store pays for one look instead of two.
            Err(error)
                if is_of_statement(&error) && !self.has_table("asyncq_schema").map_err(|error| self.fail(error))? =>
            {
                return Ok(SchemaFound::Nothing);
            }
            Err(error) => return Err(self.fail(error)),
        };
        let known = self.schema.version;
        match version.map(|version| (version, version.cmp(&known))) {
            Some((_, Ordering::Equal)) => Ok(SchemaFound::Current),
            Some((version, Ordering::Less)) => Ok(SchemaFound::Older(version)),
            Some((version, Ordering::Greater)) => Ok(SchemaFound::Newer { version, known }),
            None => Err(Error::new(
                Kind::Invalid,
                "`asyncq_schema` is empty, as in a schema that was copied without its rows",
            )
            .with_hint(
                "if it was copied so, drop the tables `asyncq_*` and run `asyncq init`; if not, restore a backup",
            )),
        }
    }
}

/// Whether SQLite cannot run a statement, for example because its table is missing. A lock or a failing disk does not count.
fn is_of_statement(error: &rusqlite::Error) -> bool {
    let failure = match error {
        rusqlite::Error::SqlInputError { error, .. } => Some(error),
        error => error.sqlite_error(),
    };
    failure.is_some_and(|failure| failure.extended_code == ffi::SQLITE_ERROR)
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic, time::Duration};

    use super::super::steps::{SCHEMA, Schema};
    use super::*;
    use crate::store::engine::{Engine, Mode, Patience, Triggers};

    const OLD: Schema = Schema {
        version: 1,
        fresh: "CREATE TABLE asyncq_schema (version INTEGER NOT NULL, older INTEGER); INSERT INTO asyncq_schema (version) VALUES (1);
            CREATE TABLE asyncq_processor (id INTEGER);
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
                sum = tx.row("SELECT SUM(a) FROM asyncq_thing", &[])?.unwrap();
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
        let written = engine.wal.pages.load(atomic::Ordering::Relaxed);
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
        assert!(
            SCHEMA
                .fresh
                .contains(&format!("INSERT INTO asyncq_schema (version, used) VALUES ({}, 0);", SCHEMA.version))
        );
        assert!(SCHEMA.fresh.contains(&format!("schema {}.", SCHEMA.version)));
        assert_eq!(SCHEMA.steps.len() + 1, usize::try_from(SCHEMA.version).unwrap());
    }
}

//! What SQLite by itself finds in the files of a store. Nothing of asyncq has a part in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use rusqlite::types::Value;
use rusqlite::{Connection, ErrorCode};

use super::Files;

const TABLES: [&str; 8] = ["schema", "service", "function", "job", "large", "attempt", "processor", "slot"];

/// Looks at copies of damaged stores.
pub struct Oracle {
    _folder: tempfile::TempDir,
    copy: PathBuf,
}

/// What was found in one copy.
pub struct Finding {
    /// The first flaw that a full check finds.
    pub flaw: Option<String>,
    /// Whether the columns of jobs can be read. A flipped bit in the name of a column is no flaw to SQLite.
    pub is_readable: bool,
    /// The version of the schema, where there is one.
    pub version: Option<i64>,
    /// Whether reading what a list of all jobs shows meets damage.
    pub jobs_are_damaged: bool,
    /// Whatever can be read, if all can.
    pub rows: Option<Rows>,
}

/// All rows of all tables.
#[derive(Default)]
pub struct Rows {
    all: BTreeSet<String>,
    /// The state of each job; none for a number that several jobs have.
    states: BTreeMap<i64, Option<String>>,
}

/// What a list of jobs reads of them: damage elsewhere in a row does not keep it from being read.
const LISTED: &str =
    "id, service, function, args, kwargs, principal, site, state, immediate, parent, attempt, created_at,
    run_at, started_at, finished_at, result, error, priority, key, os_user, cancelling";

impl Oracle {
    pub fn new() -> Oracle {
        let (folder, copy) = super::quick_place();
        Oracle { _folder: folder, copy }
    }

    pub fn look(&self, files: &Files) -> Finding {
        Files { shm: Vec::new(), ..files.clone() }.write(&self.copy);
        let store = Connection::open(&self.copy).unwrap();
        let flaw = match store.query_row("PRAGMA integrity_check(1)", [], |row| row.get::<_, String>(0)) {
            Ok(answer) if answer == "ok" => None,
            Ok(flaw) => Some(flaw),
            Err(error) => Some(error.to_string()),
        };
        let damaged = |error: rusqlite::Error| {
            matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
        };
        let listed = rows(&store, "job", LISTED);
        Finding {
            flaw,
            is_readable: listed.is_ok(),
            version: store.query_row("SELECT version FROM asyncq_schema", [], |row| row.get(0)).ok(),
            jobs_are_damaged: listed.is_err_and(damaged),
            rows: Rows::read(&store).ok(),
        }
    }
}

impl Rows {
    fn read(store: &Connection) -> rusqlite::Result<Rows> {
        let mut found = Rows::default();
        for table in TABLES {
            for row in rows(store, table, "*")? {
                if table == "job"
                    && let (Value::Integer(id), Value::Text(state)) = (&row[0], &row[7])
                {
                    let known = found.states.contains_key(id);
                    found.states.insert(*id, (!known).then(|| state.clone()));
                }
                found.all.insert(format!("{table} {row:?}"));
            }
        }
        Ok(found)
    }

    /// Whether this is what was there before, and one row more.
    pub fn is_one_more_than(&self, before: &Rows) -> bool {
        before.all.is_subset(&self.all) && self.all.len() == before.all.len() + 1
    }

    /// Whether a job is in a state that lets it be run; true when nobody can tell.
    pub fn may_run(&self, id: i64) -> bool {
        self.states.get(&id).and_then(Option::as_deref).is_none_or(|state| ["queued", "delayed"].contains(&state))
    }
}

/// The rows of one table, without its indexes.
fn rows(store: &Connection, table: &str, columns: &str) -> rusqlite::Result<Vec<Vec<Value>>> {
    let mut query = store.prepare(&format!("SELECT {columns} FROM asyncq_{table} NOT INDEXED"))?;
    let columns = query.column_count();
    let found = query.query_map([], |row| (0..columns).map(|column| row.get(column)).collect())?;
    found.collect()
}

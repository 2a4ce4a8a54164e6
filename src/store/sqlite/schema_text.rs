//! The schema as SQLite keeps it: the SQL text that defines a table, which can be replaced without touching a row, and
//! what an application has added.
//!
//! Differs by necessity: SQLite has no statement that replaces a definition; this is how
//! <https://sqlite.org/lang_altertable.html#otheralter> does it.

use rusqlite::{Connection, config::DbConfig};

use super::{connection::Sqlite, tx::SqliteTx};
use crate::error::Result;
use crate::store::engine::Tx;

const DEFINITION: &str = "SELECT sql FROM sqlite_schema WHERE type = ?1 AND name = ?2";
const HAS_TABLE: &str = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
const SET_DEFINITION: &str = "UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1";
const HAS_COLUMN: &str = "SELECT 1 FROM pragma_table_info(?1) WHERE name = ?2";
const COLUMNS: &str = "SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid";
const STORAGE: &str = "
    SELECT 'column ' || name || ' ' || upper(type) || ' ' || pk FROM pragma_table_info(?1)
    UNION ALL SELECT 'without rowid ' || wr FROM pragma_table_list(?1) WHERE schema = 'main'
    UNION ALL SELECT * FROM (SELECT 'unique ' || (SELECT group_concat(name) FROM pragma_index_info(it.name)) AS of
      FROM pragma_index_list(?1) it WHERE origin <> 'c' ORDER BY of)
    UNION ALL SELECT 'counted' FROM sqlite_schema WHERE name = ?1 AND sql LIKE '%AUTOINCREMENT%'";
const UNIQUE: &str = "SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'u'";
/// The triggers of the schema. All others belong to applications, whatever their names begin with.
macro_rules! own_triggers {
    () => {
        "('asyncq_job_insert', 'asyncq_job_inserted', 'asyncq_job_update', 'asyncq_job_expiry', 'asyncq_job_args', 'asyncq_job_replaced', 'asyncq_job_moved',
        'asyncq_job_released', 'asyncq_job_lane_left', 'asyncq_job_settle',
        'asyncq_job_key_freed', 'asyncq_job_ended', 'asyncq_job_needed', 'asyncq_job_delete', 'asyncq_schedule_insert',
        'asyncq_service_insert', 'asyncq_service_update', 'asyncq_service_delete', 'asyncq_function_insert',
        'asyncq_function_update', 'asyncq_function_delete')"
    };
}
pub(super) use own_triggers;

const FOREIGN_TRIGGER: &str = concat!(
    "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'asyncq_job' COLLATE NOCASE AND name NOT IN ",
    own_triggers!()
);

/// How the rows of a table are stored, compared with another table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In the same way, so that one can get the definition of the other.
    Same,
    /// With more columns, because an application may add some.
    Wider,
    /// In another way.
    Other,
}

/// The text that defines a table, an index or a trigger, if there is one of that name.
pub(super) fn of(tx: &mut SqliteTx<'_>, kind: &str, name: &str) -> Result<Option<String>> {
    (tx as &mut dyn Tx).row(DEFINITION, &[kind.into(), name.into()])
}

/// Compares how the rows of a table are stored with those of a table with this definition, which is made in memory.
pub(super) fn compare(connection: &Connection, table: &str, definition: &str) -> rusqlite::Result<Storage> {
    let model = Connection::open_in_memory()?;
    model.execute_batch(definition)?;
    let (is, wanted) = (storage(connection, table)?, storage(&model, table)?);
    let more: Vec<&String> = is.iter().filter(|fact| !wanted.contains(fact)).collect();
    Ok(if is == wanted {
        Storage::Same
    } else if wanted.iter().all(|fact| is.contains(fact)) && more.iter().all(|fact| fact.starts_with("column ")) {
        Storage::Wider
    } else {
        Storage::Other
    })
}

/// Everything that decides how a table's rows are stored: its columns, its own indexes, and how it counts.
fn storage(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare(STORAGE)?;
    statement.query_map([table], |row| row.get(0))?.collect()
}

/// Replaces the definition of a table, unless the table has other columns than the new definition, because an application may have
/// added some.
pub(super) fn set(tx: &mut SqliteTx<'_>, table: &str, definition: &str) -> Result<()> {
    let columns = columns(tx, table)?;
    let before = of(tx, "table", table)?;
    write(tx, table, definition)?;
    match before {
        Some(before) if self::columns(tx, table).ok() != Some(columns) => write(tx, table, &before),
        _ => Ok(()),
    }
}

/// Whether a table has an index that comes from a UNIQUE in its definition.
pub(super) fn has_inline_unique(tx: &mut SqliteTx<'_>, table: &str) -> Result<bool> {
    (tx as &mut dyn Tx).has(UNIQUE, &[table.into()])
}

/// The column `key` in the script for new stores, and in a table that an older build has made: the index of an inline UNIQUE
/// cannot be dropped.
const KEY: [&str; 2] = ["  key         TEXT,       ", "  key         TEXT UNIQUE,"];

/// The definition that a table of the script should have in this store.
pub(super) fn definition(tx: &mut SqliteTx<'_>, table: &str, sql: &str) -> Result<String> {
    let inline = table == "asyncq_job" && has_inline_unique(tx, table)?;
    Ok(if inline { sql.replace(KEY[0], KEY[1]) } else { sql.to_owned() })
}

impl Sqlite {
    /// Whether there is a table of that name.
    pub(super) fn has_table(&self, name: &str) -> rusqlite::Result<bool> {
        self.connection.prepare_cached(HAS_TABLE)?.exists([name])
    }

    /// Whether an application has its own trigger on the jobs. This is looked up again only if the schema has changed.
    pub(super) fn has_foreign_trigger(&self) -> rusqlite::Result<bool> {
        let version = self.connection.prepare_cached("PRAGMA schema_version")?.query_row([], |row| row.get(0))?;
        if let Some((seen, has)) = self.foreign_trigger.get()
            && seen == version
        {
            return Ok(has);
        }
        let has = self.connection.prepare_cached(FOREIGN_TRIGGER)?.exists([])?;
        self.foreign_trigger.set(Some((version, has)));
        Ok(has)
    }
}

/// Whether a table has a column of that name.
pub(super) fn has_column(tx: &mut SqliteTx<'_>, table: &str, column: &str) -> Result<bool> {
    (tx as &mut dyn Tx).has(HAS_COLUMN, &[table.into(), column.into()])
}

/// Name, type and place in the primary key of each column.
fn columns(tx: &mut SqliteTx<'_>, table: &str) -> Result<Vec<((String, String), i64)>> {
    (tx as &mut dyn Tx).rows(COLUMNS, &[table.into()])
}

fn write(tx: &SqliteTx<'_>, table: &str, definition: &str) -> Result<()> {
    let connection = &tx.engine.connection;
    let set = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        connection.execute_batch("PRAGMA writable_schema=ON")?;
        connection.execute(SET_DEFINITION, [table, definition]).map(|_| ())
    };
    let done = set();
    // Also has the schema read again.
    let reset = connection.execute_batch("PRAGMA writable_schema=RESET");
    let defended = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true);
    done.and(reset).and(defended.map(|_| ())).map_err(|error| tx.fail(error))
}

#[cfg(test)]
mod tests {
    use super::super::schema_script::parts;

    #[test]
    fn all_triggers_of_the_script_are_known() {
        let names: Vec<_> =
            parts().filter(|part| part.kind == "trigger").map(|part| format!("'{}'", part.name)).collect();
        let listed = own_triggers!().trim_matches(['(', ')']);
        assert_eq!(listed.split(',').map(str::trim).collect::<Vec<_>>(), names);
    }
}

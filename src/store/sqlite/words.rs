//! The schema as SQLite keeps it: the words of a table, which can be put in place of others without touching a row, and
//! what an application has added.
//!
//! Differs by necessity: SQLite has no statement for other words, and <https://sqlite.org/lang_altertable.html#otheralter>
//! tells how it is done.

use rusqlite::config::DbConfig;

use super::super::engine::{Row, Tx};
use super::tx::SqliteTx;
use crate::error::Result;

const WORDS: &str = "SELECT sql FROM sqlite_schema WHERE type = 'table' AND name = ?1";
const SET_WORDS: &str = "UPDATE sqlite_schema SET sql = ?2 WHERE type = 'table' AND name = ?1";
const LAST_NUMBER: &str = "SELECT seq FROM sqlite_sequence WHERE name = ?1";
const COLUMNS: &str = "SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid";
const UNIQUE: &str = "SELECT 1 FROM pragma_index_list(?1) WHERE origin = 'u'";
/// The triggers of the schema. Any other one is an application's, whatever its name begins with.
macro_rules! own_triggers {
    () => {
        "('asyncq_job_insert', 'asyncq_job_later', 'asyncq_job_empty', 'asyncq_job_large', 'asyncq_job_update',
        'asyncq_job_released', 'asyncq_job_ended', 'asyncq_job_delete')"
    };
}
pub(super) use own_triggers;

const FOREIGN_TRIGGER: &str = concat!(
    "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = ?1 COLLATE NOCASE AND name NOT IN ",
    own_triggers!()
);

/// Gives a table other words, unless it has other columns than they say.
pub(super) fn set(tx: &mut SqliteTx<'_>, table: &str, words: &str) -> Result<()> {
    let columns = columns(tx, table)?;
    let before = (tx as &mut dyn Tx).first(WORDS, &[table.into()], |row| Ok(row.str(0)?.to_owned()))?;
    write(tx, table, words)?;
    match before {
        Some(before) if self::columns(tx, table).ok() != Some(columns) => write(tx, table, &before),
        _ => Ok(()),
    }
}

/// Whether the words of a table have a UNIQUE among them.
pub(super) fn have_unique(tx: &mut SqliteTx<'_>, table: &str) -> Result<bool> {
    Ok((tx as &mut dyn Tx).first(UNIQUE, &[table.into()], |_| Ok(()))?.is_some())
}

/// The greatest number that a row of a table with AUTOINCREMENT has ever had.
pub(super) fn last_number(tx: &mut SqliteTx<'_>, table: &str) -> Result<i64> {
    let found = (tx as &mut dyn Tx).first(LAST_NUMBER, &[table.into()], |row| row.int(0))?;
    Ok(found.flatten().unwrap_or(0))
}

/// Whether there is a table of that name.
pub(super) fn have_table(tx: &mut SqliteTx<'_>, name: &str) -> Result<bool> {
    Ok((tx as &mut dyn Tx).first(WORDS, &[name.into()], |_| Ok(()))?.is_some())
}

/// Whether an application has a trigger of its own on a table.
pub(super) fn have_foreign_trigger(tx: &mut SqliteTx<'_>, table: &str) -> Result<bool> {
    Ok((tx as &mut dyn Tx).first(FOREIGN_TRIGGER, &[table.into()], |_| Ok(()))?.is_some())
}

/// Name, type and place in the primary key of each column.
fn columns(tx: &mut SqliteTx<'_>, table: &str) -> Result<Vec<(String, String, i64)>> {
    let read = |row: &dyn Row| Ok((row.str(0)?.to_owned(), row.str(1)?.to_owned(), row.i64(2)?));
    (tx as &mut dyn Tx).all(COLUMNS, &[table.into()], read)
}

fn write(tx: &SqliteTx<'_>, table: &str, words: &str) -> Result<()> {
    let connection = &tx.engine.connection;
    let set = || {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, false)?;
        connection.execute_batch("PRAGMA writable_schema=ON")?;
        connection.execute(SET_WORDS, [table, words]).map(|_| ())
    };
    let done = set();
    // Also has the schema read again.
    let reset = connection.execute_batch("PRAGMA writable_schema=RESET");
    let defended = connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true);
    done.and(reset).and(defended.map(|_| ())).map_err(|error| tx.fail(error))
}

#[cfg(test)]
mod tests {
    use super::super::super::script::parts;

    #[test]
    fn all_triggers_of_the_script_are_known() {
        let names: Vec<_> =
            parts().filter(|part| part.kind == "trigger").map(|part| format!("'{}'", part.name)).collect();
        let listed = own_triggers!().trim_matches(['(', ')']);
        assert_eq!(listed.split(',').map(str::trim).collect::<Vec<_>>(), names);
    }
}

//! Searches a whole store for damage.

use super::schema_script::{Part, parts};
use super::{schema_text, tx::SqliteTx};
use crate::domain::diagnosis::LostReferences;
use crate::error::{Error, Kind, Result};
use crate::store::engine::{Tx, one};

/// The greatest number that every reader of JSON can hold. A million calls a second reach it after 285 years.
const GREATEST: i64 = (1 << 53) - 1;

/// The greatest number that a job has ever had.
const LAST_NUMBER: &str = "SELECT seq FROM sqlite_sequence WHERE name = 'asyncq_job'";

/// The indexes that contain only some rows of their table: the table, the index, and which rows.
fn partial_indexes() -> Vec<(&'static str, Part, &'static str)> {
    let indexes = parts().filter(|part| part.kind == "index");
    let partial = indexes.filter_map(|index| {
        let (columns, which) = index.sql.split_once("WHERE ")?;
        let (table, _) = columns.split_once(" ON ")?.1.split_once(' ')?;
        Some((table, index, which))
    });
    partial.collect()
}

impl SqliteTx<'_> {
    /// The first damage found.
    pub(super) fn first_damage(&mut self) -> Result<Option<String>> {
        let found = pages(self, "integrity_check")?;
        if found.is_some() || schema_text::of(self, "table", "asyncq_job")?.is_none() {
            return Ok(found);
        }
        for indexes in partial_indexes().chunk_by(|one, other| one.0 == other.0) {
            let table = indexes[0].0;
            let counted: Vec<_> = indexes.iter().map(|it| format!("count(*) FILTER (WHERE {})", it.2)).collect();
            let expected = format!("SELECT {} FROM {table} NOT INDEXED", counted.join(", "));
            let expected = (self as &mut dyn Tx).first(&expected, &[], |row| {
                (0..indexes.len()).map(|column| row.i64(column)).collect::<Result<Vec<_>>>()
            })?;
            for ((_, Part { name, sql, .. }, which), expected) in indexes.iter().zip(one(expected)?) {
                // A missing or changed index is no damage, because it is made again.
                if schema_text::of(self, "index", name)?.as_deref() != Some(sql) {
                    continue;
                }
                // SQLite checks that they contain those rows, but not that they contain no others.
                let count = format!("SELECT count(*) FROM {table} INDEXED BY {name} WHERE {which}");
                if one((self as &mut dyn Tx).row::<i64>(&count, &[])?)? != expected {
                    return Ok(Some(format!("wrong number of entries in index {name}")));
                }
            }
        }
        Ok(None)
    }

    /// The rows of the store's tables that refer to rows that are not there. What an application has in the same database does
    /// not count.
    pub(super) fn rows_without_parents(&mut self) -> Result<Vec<LostReferences>> {
        let mut found = Vec::new();
        for table in parts().filter(|part| part.kind == "table") {
            let sql = format!(
                "SELECT \"table\", parent, count(*) FROM pragma_foreign_key_check('{}') GROUP BY 1, 2",
                table.name
            );
            self.query(&sql, &[], &mut |row| {
                let (table, refers_to) = (row.str(0)?.to_owned(), row.str(1)?.to_owned());
                found.push(LostReferences { table, refers_to, rows: row.i64(2)?.unsigned_abs() });
                Ok(())
            })?;
        }
        Ok(found)
    }

    /// The first damage in the pages, without checking whether each index has an entry for each row.
    pub(super) fn first_damaged_page(&mut self) -> Result<Option<String>> {
        pages(self, "quick_check")
    }

    /// Refuses a store with job numbers so high that only a client can have set them.
    pub(super) fn refuse_great_numbers(&mut self) -> Result<()> {
        let last = (self as &mut dyn Tx).row::<Option<i64>>(LAST_NUMBER, &[])?.flatten().unwrap_or(0);
        if last <= GREATEST {
            return Ok(());
        }
        let message = if last == i64::MAX {
            format!("no call can be enqueued: a client has given a job the greatest number, {last}")
        } else {
            format!("a client has given a job the number {last}, which is too great for programs that read JSON")
        };
        let hint = format!(
            "stop every processor, and take the number out: `sqlite3 '{}' \"DELETE FROM asyncq_job WHERE id > {GREATEST}; \
         UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(id), 0) FROM asyncq_job) WHERE name = 'asyncq_job'\"`",
            self.engine.path.display()
        );
        Err(Error::new(Kind::Invalid, message).with_hint(hint))
    }
}

/// The first damage that SQLite finds in the store's tables.
fn pages(tx: &mut SqliteTx<'_>, check: &str) -> Result<Option<String>> {
    let Some(tables) = tx.engine.own_tables_among_others().map_err(|error| tx.fail(error))? else {
        return pages_of(tx, check, "1");
    };
    // Searching the whole database would need the application's own functions and collations.
    for table in ["sqlite_schema".to_owned()].into_iter().chain(tables) {
        let found = pages_of(tx, check, &format!("'{}'", table.replace('\'', "''")))?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// The first damage that SQLite finds in a table, or in the whole database.
fn pages_of(tx: &mut dyn Tx, check: &str, what: &str) -> Result<Option<String>> {
    let sql = format!("PRAGMA {check}({what})");
    let found = tx.row::<String>(&sql, &[])?;
    Ok(found.filter(|answer| answer != "ok"))
}

//! The rules that an application has put on the store's tables, and the rule behind a refusal.
//!
//! The schema allows everything that asyncq does. So if SQLite refuses something, the cause is a fitting rule of the application,
//! or otherwise damage.

use rusqlite::{Error as SqliteError, ffi};

use super::{connection::Sqlite, errors::misses_own_table, schema_script::part, schema_text::own_triggers};
use crate::error::Error;
use crate::store::engine::{Reference, rule_refuses};

const TABLES: &str =
    "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name";
const VIEWS: &str = "SELECT name FROM sqlite_schema WHERE type = 'view' ORDER BY name";
const TRIGGERS: &str = concat!(
    "SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name LIKE 'asyncq!_%' ESCAPE '!' AND name NOT IN ",
    own_triggers!()
);
const INDEXES: &str = "
    SELECT m.name, (SELECT group_concat(m.tbl_name || '.' || i.name, ', ') FROM pragma_index_info(m.name) i)
    FROM sqlite_schema m
    WHERE m.type = 'index' AND m.tbl_name LIKE 'asyncq!_%' ESCAPE '!' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!'";
const REFERENCES: &str = "
    SELECT m.name, f.id, f.\"from\", coalesce(f.\"to\", 'id'), f.\"table\",
    f.on_delete = 'CASCADE' OR f.on_delete = 'SET NULL'
    FROM sqlite_schema m, pragma_foreign_key_list(m.name) f
    WHERE m.type = 'table' AND f.\"table\" LIKE 'asyncq!_%' ESCAPE '!' ORDER BY m.name, f.id, f.seq";

/// Whether a table or an index belongs to the store, whatever its name begins with.
pub(super) fn is_own(name: &str) -> bool {
    part(name).is_some()
}

impl Sqlite {
    /// The names of the store's tables, if the database holds tables of an application too.
    pub(super) fn own_tables_among_others(&self) -> rusqlite::Result<Option<Vec<String>>> {
        let (own, others): (Vec<String>, Vec<String>) = self.names(TABLES)?.into_iter().partition(|name| is_own(name));
        Ok((!others.is_empty()).then_some(own))
    }

    /// Whether the database holds tables or views of an application.
    pub(super) fn has_foreign_table(&self) -> rusqlite::Result<bool> {
        Ok(self.own_tables_among_others()?.is_some() || !self.names(VIEWS)?.is_empty())
    }

    /// The error that names the application's rule behind a refusal by SQLite, if there is one.
    pub(super) fn rule_behind(&self, error: &SqliteError) -> Option<Error> {
        let (code, text) = match error {
            SqliteError::SqliteFailure(failure, Some(text)) => (failure.extended_code, text),
            SqliteError::SqlInputError { error, msg, .. } => (error.extended_code, msg),
            _ => return None,
        };
        let is_refusal = code == ffi::SQLITE_ERROR || code & 0xff == ffi::SQLITE_CONSTRAINT;
        if !is_refusal || text.starts_with("asyncq: ") {
            return None;
        }
        // A damaged store may not answer.
        let rules = self.rules(code, text).unwrap_or_default();
        (!rules.is_empty()).then(|| rule_refuses(&rules.join(" or "), text))
    }

    /// The rules that fit an error.
    fn rules(&self, code: i32, text: &str) -> rusqlite::Result<Vec<String>> {
        let about = text.split_once(" failed: ").map_or("", |(_, about)| about);
        let is_own_table = about.split('.').next().is_some_and(is_own);
        if text == "FOREIGN KEY constraint failed" {
            let references = self.references_as_rules()?;
            return if references.is_empty() { self.triggers() } else { Ok(references) };
        }
        match code {
            ffi::SQLITE_ERROR if misses_own_table(text) => Ok(Vec::new()),
            ffi::SQLITE_ERROR => Ok([self.triggers()?, self.indexes(|_, _| true)?].concat()),
            ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
                let by_name = |name: &str| about.strip_prefix("index '").is_some_and(|rest| rest == format!("{name}'"));
                let indexes = self.indexes(|name, columns| by_name(name) || columns == about)?;
                if is_own_table || !indexes.is_empty() { Ok(indexes) } else { self.triggers() }
            }
            _ if is_own_table => Ok(Vec::new()),
            _ => {
                let triggers = self.triggers()?;
                if triggers.is_empty() { self.references_as_rules() } else { Ok(triggers) }
            }
        }
    }

    /// The application's triggers on tables of the store, if triggers run.
    pub(super) fn triggers(&self) -> rusqlite::Result<Vec<String>> {
        let names = if self.triggers { self.names(TRIGGERS)? } else { Vec::new() };
        Ok(names.iter().map(|name| format!("trigger `{name}`")).collect())
    }

    /// The application's indexes on tables of the store that fit, by name and columns.
    fn indexes(&self, fits: impl Fn(&str, &str) -> bool) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(INDEXES)?;
        let mut found: Vec<(String, Option<String>)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        found.retain(|(name, columns)| !is_own(name) && fits(name, columns.as_deref().unwrap_or_default()));
        Ok(found.iter().map(|(name, _)| format!("index `{name}`")).collect())
    }

    fn references_as_rules(&self) -> rusqlite::Result<Vec<String>> {
        let mut tables: Vec<String> = self.references()?.into_iter().map(|it| it.table).collect();
        tables.dedup();
        Ok(tables.iter().map(|table| format!("a foreign key of table `{table}`")).collect())
    }

    /// The application's foreign keys to tables of the store.
    pub(super) fn references(&self) -> rusqlite::Result<Vec<Reference>> {
        let mut statement = self.connection.prepare_cached(REFERENCES)?;
        let mut rows = statement.query([])?;
        let mut found: Vec<(i64, Reference)> = Vec::new();
        while let Some(row) = rows.next()? {
            let (table, id, columns): (String, _, _) = (row.get(0)?, row.get(1)?, (row.get(2)?, row.get(3)?));
            if is_own(&table) {
                continue;
            }
            match found.last_mut() {
                Some((last, reference)) if *last == id && reference.table == table => reference.columns.push(columns),
                _ => {
                    let (to, follows) = (row.get(4)?, row.get(5)?);
                    found.push((id, Reference { table, to, columns: vec![columns], follows }));
                }
            }
        }
        Ok(found.into_iter().map(|(_, reference)| reference).collect())
    }

    fn names(&self, sql: &str) -> rusqlite::Result<Vec<String>> {
        let mut statement = self.connection.prepare_cached(sql)?;
        statement.query_map([], |row| row.get(0))?.collect()
    }
}

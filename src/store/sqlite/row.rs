//! Values, rows and texts in the form that SQLite has.

use std::borrow::Cow;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::error::Result;
use crate::store::engine::{Row, Value, damaged};

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Value::Null => ValueRef::Null,
            Value::Int(value) => ValueRef::Integer(*value),
            Value::Text(text) => ValueRef::Text(text.as_bytes()),
            Value::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

impl Row for rusqlite::Row<'_> {
    fn int(&self, column: usize) -> Result<Option<i64>> {
        match self.get_ref(column) {
            Ok(ValueRef::Null) => Ok(None),
            Ok(ValueRef::Integer(value)) => Ok(Some(value)),
            _ => Err(damaged(&format!("column {column} is not an integer"))),
        }
    }

    fn text(&self, column: usize) -> Result<Option<&str>> {
        let text = self.bytes(column)?.map(std::str::from_utf8).transpose();
        text.map_err(|_| damaged(&format!("column {column} is not a text")))
    }

    fn bytes(&self, column: usize) -> Result<Option<&[u8]>> {
        match self.get_ref(column) {
            Ok(ValueRef::Null) => Ok(None),
            Ok(ValueRef::Text(bytes) | ValueRef::Blob(bytes)) => Ok(Some(bytes)),
            _ => Err(damaged(&format!("column {column} is not a text"))),
        }
    }
}

/// How a database keeps text. The program that made the database chose it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Encoding {
    Utf8,
    Utf16Little,
    Utf16Big,
}

impl Encoding {
    /// Reads what `PRAGMA encoding` gives.
    pub(super) fn named(name: &str) -> Encoding {
        match name {
            "UTF-16le" => Encoding::Utf16Little,
            "UTF-16be" => Encoding::Utf16Big,
            _ => Encoding::Utf8,
        }
    }

    /// A text as its bytes in the database.
    pub(super) fn of(self, text: &str) -> Cow<'_, [u8]> {
        match self {
            Encoding::Utf8 => Cow::Borrowed(text.as_bytes()),
            Encoding::Utf16Little => text.encode_utf16().flat_map(u16::to_le_bytes).collect(),
            Encoding::Utf16Big => text.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        }
    }
}

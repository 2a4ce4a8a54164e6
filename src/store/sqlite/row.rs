//! Values and rows in the form that SQLite has.

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

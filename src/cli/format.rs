//! The formats in which a command prints its answer: a table for people, JSON and CSV for programs.
//!
//! Only this file knows all of them. A command provides records for programs, and a table for people.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};

use clap::{Args, ValueEnum};
use serde::Serialize;
use serde_json::value::RawValue;

use super::session::to_terminal;
use super::stdio::{Sink, cannot_write, print_line};
use super::table::{Layout, Table};
use crate::domain::{log::Stream, text::escape_control};
use crate::error::{Error, Kind};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
    Csv,
}

/// The options that choose a format.
#[derive(Debug, Args)]
pub struct FormatOptions {
    /// Print a table, JSON, or CSV with all columns and full times [default: table]
    #[arg(long, value_name = "FORMAT")]
    output: Option<Format>,
    /// Print JSON, as `--output json` does
    #[arg(long)]
    json: bool,
}

impl FormatOptions {
    /// The format that the options choose.
    ///
    /// # Errors
    /// [`Kind::Usage`] when they choose two.
    pub fn format(&self) -> Result<Format, Error> {
        match (self.json, self.output) {
            (true, Some(Format::Table | Format::Csv)) => {
                Err(Error::new(Kind::Usage, "`--json` cannot be used with another `--output`")
                    .with_hint("leave one of them out"))
            }
            (true, _) => Ok(Format::Json),
            (false, output) => Ok(output.unwrap_or(Format::Table)),
        }
    }
}

/// What programs read about a thing: an object in JSON, a row in CSV.
pub trait Record: Serialize {
    /// The header of CSV: the fields of the object. `error.kind` is the field `kind` of the object in the field `error`.
    const COLUMNS: &'static str;
}

impl Format {
    /// Prints one thing. `table` makes the form for people.
    pub fn print_one<R: Record>(self, record: &R, table: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        match self {
            Format::Table => table(),
            Format::Json => print_line(serde_json::to_string(record)?),
            Format::Csv => print_csv(std::slice::from_ref(record)),
        }
    }

    /// Prints a list that was read as a whole. `table` makes the form for people.
    pub fn print_all<R: Record>(self, records: &[R], table: impl FnOnce() -> Table) -> anyhow::Result<()> {
        match self {
            Format::Table => table().print(),
            Format::Json => print_line(serde_json::to_string(records)?),
            Format::Csv => print_csv(records),
        }
    }
}

fn print_csv<R: Record>(records: &[R]) -> anyhow::Result<()> {
    let mut list = ListPrinter::new::<R>(Format::Csv);
    list.write(records)?;
    list.end()
}

/// Prints a list part by part while it is read, so that a long list needs no memory.
pub struct ListPrinter {
    format: Format,
    columns: &'static str,
    layout: Option<Layout>,
    /// Whether a record was printed.
    begun: bool,
}

impl ListPrinter {
    /// A list of which nothing is printed yet.
    pub fn new<R: Record>(format: Format) -> ListPrinter {
        ListPrinter { format, columns: R::COLUMNS, layout: None, begun: false }
    }

    /// Prints the next records. `table` makes the next part of the table for people.
    pub fn print<R: Record>(
        &mut self,
        records: impl IntoIterator<Item = R>,
        table: impl FnOnce() -> Table,
    ) -> anyhow::Result<()> {
        if self.format == Format::Table {
            self.layout = table().print_part(self.layout.take())?;
            return Ok(());
        }
        self.write(records)
    }

    /// Writes JSON as one array with one record on each line, and CSV with a header.
    fn write<R: Serialize>(&mut self, records: impl IntoIterator<Item = R>) -> anyhow::Result<()> {
        let mut out = BufWriter::new(Sink(Stream::Out));
        let write = || {
            for record in records {
                let first = !std::mem::replace(&mut self.begun, true);
                if self.format == Format::Json {
                    out.write_all(if first { b"[\n" } else { b",\n" })?;
                    serde_json::to_writer(&mut out, &record)?;
                } else {
                    if first {
                        writeln!(out, "{}", self.columns)?;
                    }
                    writeln!(out, "{}", row(self.columns, &record)?)?;
                }
            }
            out.flush()
        };
        Ok(write().map_err(|error| cannot_write(Stream::Out, error))?)
    }

    /// Ends the list.
    pub fn end(self) -> anyhow::Result<()> {
        match (self.format, self.begun) {
            (Format::Table, _) | (Format::Csv, true) => Ok(()),
            (Format::Json, true) => print_line("\n]"),
            (Format::Json, false) => print_line("[\n]"),
            (Format::Csv, false) => print_line(self.columns),
        }
    }
}

/// A record as a row of CSV.
fn row(columns: &str, record: &impl Serialize) -> io::Result<String> {
    let json = serde_json::to_string(record)?;
    let fields: HashMap<&str, &RawValue> = serde_json::from_str(&json)?;
    let mut cells = Vec::with_capacity(fields.len());
    for column in columns.split(',') {
        let (name, inner) = column.split_once('.').unzip();
        let field = fields.get(name.unwrap_or(column)).map_or("null", |field| field.get());
        let object: Option<HashMap<&str, &RawValue>> =
            inner.map(|_| serde_json::from_str(field)).transpose()?.flatten();
        cells.push(match inner {
            None => cell(field)?,
            Some(inner) => cell(object.as_ref().and_then(|it| it.get(inner)).map_or("null", |field| field.get()))?,
        });
    }
    Ok(cells.join(","))
}

/// A JSON value as a cell: a string without its quotes, nothing for null, and anything else as JSON. An empty string is quoted, so
/// that nobody takes it for null.
fn cell(json: &str) -> io::Result<String> {
    let text: Cow<'_, str> = match json.as_bytes() {
        b"null" => return Ok(String::new()),
        [b'"', ..] => serde_json::from_str::<String>(json)?.into(),
        _ => json.into(),
    };
    // Only a terminal acts on control characters. A file gets the text unchanged.
    let text = if to_terminal() { Cow::Owned(escape_control(&text).into_owned()) } else { text };
    let needs_quotes = text.is_empty() || text.contains(['"', ',', '\n', '\r']);
    Ok(if needs_quotes { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into_owned() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cells_follow_rfc_4180() {
        let record = json!({
            "id": 7, "text": "a, \"b\"\nc", "empty": "", "none": null, "args": [1, "x"], "flag": true,
            "error": {"kind": "exit", "exit_code": 3, "signal": null},
        });
        let columns = "id,text,empty,none,missing,args,flag,error.kind,error.exit_code,none.x";
        assert_eq!(row(columns, &record).unwrap(), "7,\"a, \"\"b\"\"\nc\",\"\",,,\"[1,\"\"x\"\"]\",true,exit,3,");
    }
}

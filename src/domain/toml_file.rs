//! Reads TOML files. Errors say where something is wrong: the line, the column and the key.

use std::fmt::Display;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::json::{Json, quote};
use super::suggest::nearest;
use super::text::escape_control;
use super::toml_hints::{example, first_place};
use crate::error::{Error, Kind, Result};

/// A TOML file: its name in messages, and its text.
#[derive(Debug, Clone, Copy)]
pub struct TomlFile<'a> {
    /// What messages call it, as in "`deploy.toml`".
    pub name: &'a str,
    /// Its text.
    pub text: &'a str,
}

impl TomlFile<'_> {
    /// Parses the file, and passes its top level to `read`.
    ///
    /// # Errors
    /// [`Kind::Invalid`] when it is not TOML, or as `read` answers.
    pub(super) fn read<T>(self, read: impl FnOnce(Section<'_>) -> Result<T>) -> Result<T> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            if error.message() != "duplicate key" {
                return self.error(span.start, error.message()).with_hint(
                    "write tables as in [service.mails], and below them keys as in rate = \"10/s\" (docs/manifest.md)",
                );
            }
            let at = escape_control(self.text.get(span.clone()).unwrap_or_default());
            self.error(span.start, format!("`{at}` is given twice")).with_hint(match first_place(self.text, &span) {
                Some(first) => format!("line {} has it already: leave one of the two out", self.line(first)),
                None => "leave one of the two out".to_owned(),
            })
        })?;
        read(Section::new(self, 0, table.get_ref()))
    }

    /// The error for something wrong at a byte of the file.
    fn error(self, at: usize, flaw: impl Display) -> Error {
        let (line, column) = self.place(at);
        Error::new(Kind::Invalid, format!("{}, line {line}, column {column}: {flaw}", self.name))
    }

    /// The line of a byte, counted from 1.
    #[must_use]
    pub fn line(self, at: usize) -> usize {
        self.place(at).0
    }

    /// The line and the column of a byte, both counted from 1; columns are characters.
    fn place(self, at: usize) -> (usize, usize) {
        let at = (0..=at.min(self.text.len())).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or_default();
        let before = &self.text[..at];
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        (before.matches('\n').count() + 1, column + 1)
    }
}

/// A table that the caller asks for its keys one by one. [`Section::finish`] refuses keys that nobody has asked for.
pub(super) struct Section<'a> {
    file: TomlFile<'a>,
    at: usize,
    entries: Vec<TomlValue<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    fn new(file: TomlFile<'a>, at: usize, table: &'a DeTable<'a>) -> Section<'a> {
        let entry = |(key, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let name: &'a std::borrow::Cow<'a, str> = key.get_ref();
            TomlValue { file, key: name, key_at: key.span().start, value }
        };
        let mut entries: Vec<TomlValue<'a>> = table.iter().map(entry).collect();
        entries.sort_by_key(|entry| entry.key_at);
        Section { file, at, entries, asked: Vec::new() }
    }

    /// The value of a key, if the table has it.
    pub(super) fn get(&mut self, key: &'static str) -> Option<TomlValue<'a>> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).copied()
    }

    /// The value of a key as a text that `parse` understands.
    pub(super) fn parsed<T>(&mut self, key: &'static str, parse: impl FnOnce(&str) -> Result<T>) -> Result<Option<T>> {
        self.get(key).map(|value| value.parsed(parse)).transpose()
    }

    /// The value of a key as a text.
    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        self.get(key).map(|value| value.text().map(str::to_owned)).transpose()
    }

    /// The value of a key as a whole number in a range.
    pub(super) fn number(&mut self, key: &'static str, least: i64, most: i64) -> Result<Option<i64>> {
        self.get(key).map(|value| value.number(least, most)).transpose()
    }

    /// The value of a key that is true or false.
    pub(super) fn flag(&mut self, key: &'static str) -> Result<Option<bool>> {
        let flag = |value: TomlValue<'a>| match value.value.get_ref() {
            DeValue::Boolean(flag) => Ok(*flag),
            _ => Err(value.wrong("true or false", true)),
        };
        self.get(key).map(flag).transpose()
    }

    /// The value of a key, as the one of `all` with this name.
    pub(super) fn named<T: Copy>(
        &mut self,
        key: &'static str,
        all: &[T],
        name: fn(T) -> &'static str,
    ) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let names: Vec<&str> = all.iter().map(|it| name(*it)).collect();
        let text = match value.value.get_ref() {
            DeValue::String(text) => &**text,
            _ => "",
        };
        if let Some(at) = names.iter().position(|it| *it == text) {
            return Ok(Some(all[at]));
        }
        let names: Vec<String> = names.iter().map(|it| format!("\"{it}\"")).collect();
        Err(value.wrong(&names.join(" or "), names.first().map_or("\"\"", |it| it)))
    }

    /// All entries, which count as asked for.
    pub(super) fn entries(&mut self) -> Vec<TomlValue<'a>> {
        std::mem::take(&mut self.entries)
    }

    /// The error for what is wrong with the table as a whole.
    pub(super) fn error(&self, flaw: impl Display) -> Error {
        self.file.error(self.at, flaw)
    }

    /// The byte of the file at which the table begins.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Refuses keys that nobody has asked for.
    pub(super) fn finish(&self) -> Result<()> {
        let Some(unknown) = self.entries.iter().find(|entry| !self.asked.contains(&entry.key)) else { return Ok(()) };
        let error = self.file.error(unknown.key_at, format!("`{}` is not known", escape_control(unknown.key)));
        Err(error.with_hint(match nearest(unknown.key, self.asked.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", self.asked.join(", ")),
        }))
    }
}

/// A value, with its key.
#[derive(Clone, Copy)]
pub(super) struct TomlValue<'a> {
    file: TomlFile<'a>,
    pub(super) key: &'a str,
    key_at: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> TomlValue<'a> {
    /// The error for what is wrong with the key.
    pub(super) fn bad_key(&self, flaw: impl Display) -> Error {
        self.file.error(self.key_at, flaw)
    }

    /// The key as `parse` understands it.
    pub(super) fn parsed_key<T>(&self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        parse(self.key).map_err(|error| with_hint_of(self.bad_key(&error), &error))
    }

    /// The error for what is wrong with the value.
    pub(super) fn error(&self, flaw: impl Display) -> Error {
        self.file.error(self.value.span().start, flaw)
    }

    /// The error for a value of the wrong kind; `example` is one of the right kind.
    pub(super) fn wrong(&self, wanted: &str, example: impl Display) -> Error {
        self.wrong_at_all(wanted, format!("{} = {example}", escape_control(self.key)))
    }

    /// The error for a key that has to be written in another way; `example` shows how.
    fn wrong_at_all(&self, wanted: &str, example: impl Display) -> Error {
        let message = format!("`{}` has to be {wanted}", escape_control(self.key));
        self.error(message).with_hint(format!("write it as in {example}"))
    }

    /// The error for a value that `error` refuses.
    fn refused(&self, text: &str, error: &Error) -> Error {
        let (key, text) = (escape_control(self.key), escape_control(text));
        with_hint_of(self.error(format!("`{key}` cannot be `{text}`: {error}")), error)
    }

    pub(super) fn text(&self) -> Result<&'a str> {
        match self.value.get_ref() {
            DeValue::String(text) if text.contains('\0') => Err(self
                .error(format!("`{}` contains a NUL character", escape_control(self.key)))
                .with_hint("no program can get one: leave it out")),
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong("a text in quotes", example(self.key))),
        }
    }

    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let text = self.text()?;
        parse(text).map_err(|error| self.refused(text, &error))
    }

    fn number(&self, least: i64, most: i64) -> Result<i64> {
        let number = match self.value.get_ref() {
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        let number = number.filter(|number| (least..=most).contains(number));
        number.ok_or_else(|| self.wrong(&format!("a whole number from {least} to {most}"), 2.clamp(least, most)))
    }

    /// A list such as `1,64-78,timeout`: such a text, or an array of its items.
    pub(super) fn list<T>(&self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let wrong = || self.wrong("an array of codes and texts", "[64, \"timeout\"]");
        let DeValue::Array(items) = self.value.get_ref() else {
            return if self.text().is_ok() { self.parsed(parse) } else { Err(wrong()) };
        };
        let item = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            DeValue::Integer(number) => Ok(decimal(number)),
            _ => Err(wrong()),
        };
        let text = items.iter().map(item).collect::<Result<Vec<_>>>()?.join(",");
        parse(&text).map_err(|error| self.refused(&text, &error))
    }

    /// An array of texts.
    pub(super) fn texts(&self) -> Result<Vec<String>> {
        let wrong = || match self.value.get_ref() {
            DeValue::String(text) => self.wrong("an array of texts", format!("[{}]", quote(text))),
            _ => self.wrong("an array of texts", "[\"one\", \"two\"]"),
        };
        let DeValue::Array(items) = self.value.get_ref() else { return Err(wrong()) };
        let item = |item: &Spanned<DeValue<'_>>| match item.get_ref() {
            DeValue::String(text) => Ok(text.to_string()),
            _ => Err(wrong()),
        };
        items.iter().map(item).collect()
    }

    /// A table; `example` shows how it is written.
    pub(super) fn section(&self, wanted: &str, example: &str) -> Result<Section<'a>> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Section::new(self.file, self.key_at, table)),
            _ => Err(self.wrong_at_all(wanted, example)),
        }
    }

    /// The first key of a table.
    pub(super) fn first_key(&self) -> Option<&'a str> {
        let section = self.section("", "").ok()?;
        section.entries.first().map(|entry| entry.key)
    }

    /// Whether it is this, and not a table or anything else.
    pub(super) fn is(&self, flag: bool) -> bool {
        matches!(self.value.get_ref(), DeValue::Boolean(is) if *is == flag)
    }

    /// A moment as a text that [`moment`](super::moment::moment) reads. TOML's own dates work, too.
    pub(super) fn moment<T>(&self, parse: impl FnOnce(&str) -> Result<T>) -> Result<T> {
        let text = match self.value.get_ref() {
            DeValue::Datetime(moment) if moment.date.is_some() => moment.to_string(),
            _ => self.text()?.to_owned(),
        };
        let has_date = text.starts_with(|c: char| c.is_ascii_digit()) && text.contains('-');
        if !has_date && !text.starts_with('@') {
            return Err(self
                .error(format!("`{}` cannot be `{}`: it has no date", self.key, escape_control(&text)))
                .with_hint("a file means the same every day: write the date, as in \"2026-12-01 9:00\""));
        }
        parse(&text).map_err(|error| with_hint_of(self.error(&error), &error))
    }

    /// A JSON array (`[`) or object (`{`), written as TOML or as a text with JSON in it.
    pub(super) fn json(&self, first: char, wanted: &str) -> Result<Json> {
        let example = if first == '[' { "[\"zoe\", 1]" } else { "{ user = \"zoe\" }" };
        let text = match self.value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Array(_) | DeValue::Table(_) => {
                let mut out = String::new();
                self.write_json(self.value, &mut out)?;
                out
            }
            _ => return Err(self.wrong(wanted, example)),
        };
        if !text.trim_start().starts_with(first) {
            return Err(self.wrong(wanted, example));
        }
        Json::parse(&text).map_err(|fault| {
            let hint = format!("write it as in {} = {example}", self.key);
            self.error(format!("`{}`: {fault}", self.key)).with_hint(hint)
        })
    }

    fn write_json(&self, value: &Spanned<DeValue<'_>>, out: &mut String) -> Result<()> {
        let refuse = |what: &str, hint: &str| Err(self.file.error(value.span().start, what).with_hint(hint));
        match value.get_ref() {
            DeValue::String(text) => *out += &quote(text),
            DeValue::Integer(number) => *out += &decimal(number),
            DeValue::Float(number) => match number.as_str().trim_start_matches('+') {
                number @ ("inf" | "-inf" | "nan" | "-nan") => {
                    let said = format!("`{}` has {number}, and JSON has no such number", escape_control(self.key));
                    return refuse(&said, "write it as a text in quotes");
                }
                number => *out += number,
            },
            DeValue::Boolean(flag) => *out += if *flag { "true" } else { "false" },
            DeValue::Datetime(date) => {
                let said = format!("`{}` has a date, and JSON has none", escape_control(self.key));
                return refuse(&said, &format!("write it as a text in quotes: \"{date}\""));
            }
            DeValue::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    out.push(if at == 0 { '[' } else { ',' });
                    self.write_json(item, out)?;
                }
                *out += if items.is_empty() { "[]" } else { "]" };
            }
            DeValue::Table(table) => {
                let entries = Section::new(self.file, 0, table).entries;
                for (at, entry) in entries.iter().enumerate() {
                    out.push(if at == 0 { '{' } else { ',' });
                    *out += &quote(entry.key);
                    out.push(':');
                    self.write_json(entry.value, out)?;
                }
                *out += if entries.is_empty() { "{}" } else { "}" };
            }
        }
        Ok(())
    }
}

/// A whole number in decimal digits.
fn decimal(number: &DeInteger<'_>) -> String {
    let digits = number.as_str().trim_start_matches('+');
    match number.radix() {
        10 => digits.to_owned(),
        radix => i128::from_str_radix(digits, radix).map_or_else(|_| digits.to_owned(), |number| number.to_string()),
    }
}

fn with_hint_of(error: Error, of: &Error) -> Error {
    match of.hint() {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

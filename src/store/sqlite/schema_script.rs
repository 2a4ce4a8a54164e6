//! `schema.sql`, the script for new stores, and its parts, for the steps that upgrade older ones.

/// The script that makes a new store.
pub(in crate::store) const FRESH: &str = include_str!("../../../schema.sql");

/// The statement that makes one table, index or trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// `table`, `index` or `trigger`, as in `sqlite_schema`.
    pub(super) kind: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// Its text, without the last semicolon: SQLite keeps exactly that.
    pub(super) sql: &'static str,
}

/// All parts, in the order of the script.
pub(super) fn parts() -> impl Iterator<Item = Part> {
    let begins = FRESH.match_indices("\nCREATE ").map(|(place, _)| &FRESH[place + 1..]);
    begins.map(|text| {
        let mut words = text.split_ascii_whitespace().skip(1).skip_while(|word| *word == "UNIQUE");
        let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (kind, end) = match kind {
            "TABLE" => ("table", end_of(text, |line| line.starts_with(") STRICT") || line.contains(") STRICT;"))),
            "INDEX" => ("index", end_of(text, |line| line.contains(';'))),
            _ => ("trigger", end_of(text, |line| line.starts_with("END;") || line.ends_with("; END;"))),
        };
        Part { kind, name, sql: &text[..end] }
    })
}

/// The part of that name.
pub(super) fn part(name: &str) -> Option<Part> {
    parts().find(|part| part.name == name)
}

/// Where the statement at the start of `text` ends: at the last semicolon, before a comment, of the first line that
/// `is_last` accepts.
fn end_of(text: &str, is_last: impl Fn(&str) -> bool) -> usize {
    let mut place = 0;
    for line in text.split_inclusive('\n') {
        let code = line.split("--").next().unwrap_or_default().trim_end();
        if is_last(code) {
            return place + code.rfind(';').unwrap_or(code.len());
        }
        place += line.len();
    }
    place
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_what_the_script_makes() {
        let database = rusqlite::Connection::open_in_memory().unwrap();
        database.execute_batch(FRESH).unwrap();
        let sql = "SELECT type, name, sql FROM sqlite_schema WHERE name LIKE 'asyncq!_%' ESCAPE '!' ORDER BY rowid";
        let mut statement = database.prepare(sql).unwrap();
        let made = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let made: Vec<(String, String, String)> = made.unwrap().collect::<Result<_, _>>().unwrap();
        let parts: Vec<_> = parts().map(|it| (it.kind.to_owned(), it.name.to_owned(), it.sql.to_owned())).collect();
        assert_eq!(parts, made);
    }
}

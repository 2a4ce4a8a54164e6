//! Opens a store only to read. It makes no file, waits for writers no longer than the caller allows, keeps no writer waiting, and
//! needs no permission to write.
//!
//! If there is a `-wal`, SQLite reads it through the `-shm`, or indexes it in memory. If there is none, and the store has
//! write-ahead logging, SQLite would make both files. So asyncq tells it that nobody changes the file, and each transaction checks
//! that afterwards.

use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use super::connection::Sqlite;
use super::errors::explain;
use super::{identity::StoreFile, still::Still};
use crate::error::{Error, Kind, Result};
use crate::store::engine::{Engine, Patience};

/// Opens the store in a file, only to read it.
pub(super) fn connect(path: &Path, patience: Patience) -> Result<Box<dyn Engine>> {
    let file = StoreFile::find_to_read(path)?;
    // Opening a pipe would wait for a writer.
    if !file.path.is_file() {
        return Err(Error::new(Kind::Unreachable, format!("there is no store at `{}`", path.display()))
            .with_hint("`--db` names another file"));
    }
    let still = Still::see(&file.path);
    let uri = uri(&file.path, if still.is_some() { "immutable=1" } else { "readonly_shm=1" });
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let connection = Connection::open_with_flags(uri, flags).map_err(|error| explain(path, error))?;
    let mut engine = Sqlite::over(connection, path, file);
    engine.still = still;
    engine.be_patient(patience);
    engine.configure().map_err(|error| explain(path, error))?;
    Ok(Box::new(engine))
}

/// The URI of a file, an absolute path, with one parameter (<https://sqlite.org/uri.html>).
fn uri(path: &Path, parameter: &str) -> String {
    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(byte) {
            uri.push((*byte).into());
        } else {
            // Writing to a text never fails.
            let _ = write!(uri, "%{byte:02x}");
        }
    }
    format!("{uri}?{parameter}")
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_uri_holds_any_path() {
        let path = Path::new(OsStr::from_bytes(b"/a b/?x#%\xff/q.db"));
        assert_eq!(uri(path, "immutable=1"), "file:/a%20b/%3fx%23%25%ff/q.db?immutable=1");
    }
}

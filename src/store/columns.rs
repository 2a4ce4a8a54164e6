//! How rows become values: one list of columns for the statement and for reading, so that nobody counts them.

use super::engine::{Row, damaged, missing};
use super::job;
use crate::domain::attempt::{Ending, Failure};
use crate::domain::job::{JobCounts, JobId, JobTimes, StoredCall};
use crate::domain::{object, state::State, time::Timestamp};
use crate::error::Result;

/// Says for each field of a struct which column it comes from; its type says how. Makes a macro that gives these columns as
/// one literal, for `concat!`, and a function that reads a row of them.
macro_rules! columns {
    ($list:ident, $read:ident -> $type:ident { $first:ident: $sql:literal, $($field:ident: $more:literal,)* }) => {
        macro_rules! $list {
            () => { concat!($sql $(, ", ", $more)*) };
        }
        fn $read(row: &dyn $crate::store::engine::Row) -> $crate::error::Result<$type> {
            let mut at = 0;
            // Rust reads them in the order in which they stand here, which is that of the columns.
            Ok($type {
                $first: $crate::store::columns::next(row, &mut at)?,
                $($field: $crate::store::columns::next(row, &mut at)?,)*
            })
        }
    };
}
pub(super) use columns;

/// What can be read from a row.
pub(super) trait Column: Sized {
    /// How many columns it takes.
    const WIDTH: usize = 1;

    /// Reads it from the columns that begin with this one.
    fn read(row: &dyn Row, column: usize) -> Result<Self>;
}

/// Reads the next value, and goes on to the one after it.
pub(super) fn next<T: Column>(row: &dyn Row, at: &mut usize) -> Result<T> {
    let column = *at;
    *at += T::WIDTH;
    T::read(row, column)
}

macro_rules! column {
    ($($type:ty: |$row:ident, $column:ident| $read:expr;)*) => {$(
        impl Column for $type {
            fn read($row: &dyn Row, $column: usize) -> Result<Self> {
                $read
            }
        }
    )*};
}

column! {
    i64: |row, column| row.i64(column);
    bool: |row, column| row.bool(column);
    JobId: |row, column| row.i64(column).map(JobId);
    Timestamp: |row, column| row.i64(column).map(Timestamp);
    String: |row, column| row.lossy(column)?.ok_or_else(|| missing(column));
    Option<JobId>: |row, column| Ok(row.int(column)?.map(JobId));
    Option<Timestamp>: |row, column| row.time(column);
    Option<String>: |row, column| row.lossy(column);
    Option<Failure>: |row, column| {
        let failure = row.text(column)?.map(object::read).transpose();
        failure.map_err(|fault| damaged(&format!("the error of a job: {fault}")))
    };
    State: |row, column| job::state(row.str(column)?);
    Option<Ending>: |row, column| {
        let name = row.str(column)?;
        let ending = Ending::from_name(name).ok_or_else(|| damaged(&format!("an attempt has the unknown ending `{name}`")));
        ending.map(Some)
    };
}

/// Structs whose fields stand in columns one after the other.
macro_rules! groups {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl Column for $type {
            const WIDTH: usize = [$(stringify!($field)),*].len();

            fn read(row: &dyn Row, mut column: usize) -> Result<Self> {
                Ok($type { $($field: next(row, &mut column)?),* })
            }
        }
    )*};
}

groups! {
    StoredCall { service, function, args, kwargs, principal, site }
    JobCounts { attempt, failures, conflicts, crashes }
    JobTimes { created_at, run_at, started_at, finished_at }
}

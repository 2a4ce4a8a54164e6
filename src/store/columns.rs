//! Turns rows into values. The type of a value says which columns it takes, so nobody has to count them.

use std::num::NonZeroU32;

use super::engine::{Row, Tx, Value, damaged, missing};
use crate::domain::attempt::{Ending, Failure};
use crate::domain::job::{Fence, JobCounts, JobId, JobTimes, Running, StoredCall, StoredOptions, Token};
use crate::domain::meta::Meta;
use crate::domain::needs::Need;
use crate::domain::processor::{NewProcessor, Processor, ProcessorId};
use crate::domain::rate::Rate;
use crate::domain::service::{Service, ServiceName};
use crate::domain::{call::Principal, removal::StoreContents, retry::AttemptCounts};
use crate::domain::{job_tick::JobTick, object, state::State, time::Timestamp};
use crate::error::Result;

/// What can be read from a row.
pub(super) trait Column: Sized {
    /// Reads the value from the columns that begin at `at`, and moves `at` behind them.
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self>;
}

/// What statements give, by its type.
impl dyn Tx + '_ {
    /// Whether a statement gives a row.
    pub(super) fn has(&mut self, sql: &str, args: &[Value<'_>]) -> Result<bool> {
        Ok(self.first(sql, args, |_| Ok(()))?.is_some())
    }

    /// The first row that a statement gives.
    pub(super) fn row<T: Column>(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Option<T>> {
        self.first(sql, args, |row| T::read(row, &mut 0))
    }

    /// Every row that a statement gives.
    pub(super) fn rows<T: Column>(&mut self, sql: &str, args: &[Value<'_>]) -> Result<Vec<T>> {
        let mut found = Vec::new();
        self.query(sql, args, &mut |row| {
            found.push(T::read(row, &mut 0)?);
            Ok(())
        })?;
        Ok(found)
    }
}

/// Says for each field of a struct which columns it comes from; the field's type says how. Makes a macro that returns these columns
/// as one literal for `concat!`, and reads them in this order.
macro_rules! columns {
    ($list:ident -> $type:ident { $first:ident: $sql:literal, $($field:ident: $more:literal,)* }) => {
        macro_rules! $list {
            () => { concat!($sql $(, ", ", $more)*) };
        }
        $crate::store::columns::groups! { $type { $first $(, $field)* } }
    };
}
pub(super) use columns;

/// Structs whose fields are in consecutive columns.
macro_rules! groups {
    ($($type:ident { $($field:ident),* })*) => {$(
        impl $crate::store::columns::Column for $type {
            fn read(row: &dyn $crate::store::engine::Row, at: &mut usize) -> $crate::error::Result<Self> {
                // Rust evaluates the fields in the order in which they are written here.
                Ok($type { $($field: $crate::store::columns::Column::read(row, at)?),* })
            }
        }
    )*};
}
pub(super) use groups;

groups! {
    StoredCall { service, function, args, kwargs, principal, site }
    StoredOptions { priority, key, key_until, lane, expires_at, after, meta }
    JobCounts { attempt, failures, conflicts, crashes }
    JobTimes { created_at, run_at, started_at, finished_at }
    AttemptCounts { failures, conflicts, crashes }
    Fence { job, attempt, claim, processor, tied }
    Running { fence, token, principal, site, meta, depth, folder }
    NewProcessor { folder, host, boot, pid, pid_start }
    Processor { id, is, started_at, of_original }
    Service { name, concurrency, pause, created_at, lane_width, rate, hooks, retention }
    StoreContents { services, functions, jobs }
}

impl<A: Column, B: Column> Column for (A, B) {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        Ok((A::read(row, at)?, B::read(row, at)?))
    }
}

impl Column for Option<JobTick> {
    fn read(row: &dyn Row, at: &mut usize) -> Result<Self> {
        let first = *at;
        *at += 4;
        let Some(name) = row.lossy(first)? else { return Ok(None) };
        let (tick, missed) = (Timestamp(row.i64(first + 1)?), row.i64(first + 2)?);
        Ok(Some(JobTick::new(name, tick, missed, row.text(first + 3)?)))
    }
}

macro_rules! column {
    ($($type:ty: |$row:ident, $column:ident| $read:expr;)*) => {$(
        impl Column for $type {
            fn read($row: &dyn Row, at: &mut usize) -> Result<Self> {
                let $column = *at;
                *at += 1;
                $read
            }
        }
    )*};
}

column! {
    i64: |row, column| row.i64(column);
    u64: |row, column| row.i64(column).map(i64::cast_unsigned);
    bool: |row, column| row.bool(column);
    JobId: |row, column| row.i64(column).map(JobId);
    ProcessorId: |row, column| row.i64(column).map(ProcessorId);
    Timestamp: |row, column| row.i64(column).map(Timestamp);
    String: |row, column| row.lossy(column)?.ok_or_else(|| missing(column));
    Option<i64>: |row, column| row.int(column);
    Option<JobId>: |row, column| Ok(row.int(column)?.map(JobId));
    Option<ProcessorId>: |row, column| Ok(row.int(column)?.map(ProcessorId));
    Option<Timestamp>: |row, column| row.time(column);
    Option<String>: |row, column| row.lossy(column);
    Option<Vec<u8>>: |row, column| Ok(row.bytes(column)?.map(<[u8]>::to_vec));
    Option<Failure>: |row, column| {
        let failure = row.text(column)?.map(object::read).transpose();
        failure.map_err(|fault| damaged(&format!("the error of a job: {fault}")))
    };
    Option<Meta>: |row, column| Ok(row.lossy(column)?.and_then(|text| Meta::stored(text).ok().flatten()));
    Option<Principal>: |row, column| Ok(row.lossy(column)?.and_then(|text| Principal::parse(&text).ok()));
    Token: |row, column| row.str(column).map(Token::from_text);
    ServiceName: |row, column| ServiceName::parse(row.str(column)?).map_err(|error| damaged(&error.to_string()));
    NonZeroU32: |row, column| {
        let number = u32::try_from(row.i64(column)?).ok().and_then(NonZeroU32::new);
        number.ok_or_else(|| damaged("a service with an impossible concurrency"))
    };
    Option<Rate>: |row, column| {
        let rate = row.text(column)?.map(|text| Rate::from_json(text).ok_or_else(|| damaged("a service with an impossible rate")));
        rate.transpose()
    };
    Need: |row, column| {
        let name = row.str(column)?;
        Need::from_name(name).ok_or_else(|| damaged(&format!("a call waits for the unknown end `{name}`")))
    };
    State: |row, column| {
        let name = row.str(column)?;
        State::from_name(name).ok_or_else(|| damaged(&format!("a job is in the unknown state `{name}`")))
    };
    Option<Ending>: |row, column| {
        let name = row.str(column)?;
        let ending = Ending::from_name(name).ok_or_else(|| damaged(&format!("an attempt has the unknown ending `{name}`")));
        ending.map(Some)
    };
}

/// A failure as it is stored.
pub(super) fn error_text(failure: &Failure) -> String {
    serde_json::to_string(failure).unwrap_or_default()
}

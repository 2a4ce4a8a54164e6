//! The statement that turns calls into rows.
//!
//! Invariant: asyncq's rows are the same as those that a client's plain INSERT would make.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::engine::{Tx, Value};
use super::used;
use crate::domain::call::{Call, Key, Principal};
use crate::domain::job::JobId;
use crate::domain::lane::Lane;
use crate::domain::new_job::{Due, NewJob, Priority};
use crate::domain::state::State;
use crate::domain::time::Timestamp;
use crate::error::Result;

/// The largest arguments that are stored in the job's own row, in bytes. The schema's trigger `asyncq_job_inserted` has the same
/// number.
pub(super) const SMALL: usize = 2000;

/// How many calls one statement inserts. More would gain next to nothing.
const AT_ONCE: usize = 50;

/// The columns that all rows of a statement share, and those that differ from row to row. Calls that are [`alike`] have no keys.
const SHARED: [&str; 6] = ["service", "function", "site", "state", "os_user", "parent"];
const OWN: [&str; 4] = ["args", "kwargs", "principal", "key"];
const OWN_OF_MANY: usize = 3;

/// How calls are inserted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Insertion {
    /// Complete, because no trigger completes them.
    Own,
    /// As a client writes them, so that the triggers see them.
    Client,
}

/// The place of a new job.
#[derive(Debug)]
pub(super) struct Standing {
    /// Its state.
    pub(super) state: State,
    /// Why it is blocked, as in the schema.
    pub(super) waits: i64,
    /// Its lane.
    pub(super) lane: Option<Lane>,
    /// The jobs that it needs, in the form of the store.
    pub(super) after: Option<String>,
}

impl Standing {
    /// In this state, without a lane and without needing other jobs.
    pub(super) fn alone(state: State) -> Standing {
        Standing { state, waits: 0, lane: None, after: None }
    }
}

static AS_CLIENT: LazyLock<String> = LazyLock::new(|| statement(1, Insertion::Client, &[]));
static AS_CLIENT_WITH_KEY: LazyLock<String> = LazyLock::new(|| with_key(&AS_CLIENT));
static ONE: LazyLock<String> = LazyLock::new(|| statement(1, Insertion::Own, &[]));
static ONE_WITH_KEY: LazyLock<String> = LazyLock::new(|| with_key(&ONE));
static MANY: LazyLock<String> = LazyLock::new(|| statement(AT_ONCE, Insertion::Own, &[]));
pub(super) const LARGE: &str = "INSERT INTO asyncq_large (job, args, kwargs) VALUES (?1, ?2, ?3)";

/// The additional columns that a call sets, with their values. Most calls set none, and pay nothing for this.
fn more_columns<'a>(new: &'a NewJob, stands: &'a Standing, now: Timestamp) -> Vec<(&'static str, Value<'a>)> {
    let priority = new.options.priority;
    let priority = (priority != Priority::default()).then(|| ("priority", priority.get().into()));
    let due = new.due.moment(now).map(|due| ("run_at", due.into()));
    let lane = stands.lane.as_ref().map(|lane| ("lane", lane.as_str().into()));
    let expires = new.expires_at(now).map(|at| ("expires_at", at.into()));
    let until = new.options.key_until.map(|until| ("key_until", until.as_str().into()));
    let meta = new.options.meta.as_ref().map(|meta| ("meta", meta.as_str().into()));
    let after = stands.after.as_ref().map(|after| ("after", after.into()));
    let waits = (stands.waits != 0).then(|| ("waits", stands.waits.into()));
    priority
        .into_iter()
        .chain(due)
        .chain(lane)
        .chain(expires)
        .chain(until)
        .chain(meta)
        .chain(after)
        .chain(waits)
        .collect()
}

/// The statement that inserts this number of rows. [`insert`] gives it its parameters.
fn statement(rows: usize, way: Insertion, more: &[&str]) -> String {
    let own = [&OWN[..if rows == 1 { OWN.len() } else { OWN_OF_MANY }], more].concat();
    let (mut columns, mut shared) = ([&SHARED[..], &own].concat().join(", "), String::new());
    for number in 1..=SHARED.len() {
        // Writing to a string never fails.
        let _ = write!(shared, "?{number}, ");
    }
    let mut times = String::new();
    if way == Insertion::Own {
        let now = 1 + SHARED.len() + rows * own.len();
        for time in ["run_at", "created_at"].into_iter().filter(|time| !more.contains(time)) {
            columns += &format!(", {time}");
            times += &format!(", ?{now}");
        }
    }
    let row = |row: usize| {
        let own: Vec<String> = (1..=own.len()).map(|at| format!("?{}", SHARED.len() + row * own.len() + at)).collect();
        format!("({shared}{}{times})", own.join(", "))
    };
    let values: Vec<String> = (0..rows).map(row).collect();
    format!("INSERT INTO asyncq_job ({columns}) VALUES {}", values.join(", "))
}

/// The same for a call with a key. Only this needs the unique index of the keys, without which SQLite refuses the statement.
fn with_key(statement: &str) -> String {
    format!("{statement} ON CONFLICT (key) DO NOTHING")
}

/// Inserts one call, or calls that are [`alike`]. Returns the numbers of the new jobs in the same order. A call makes no job if its
/// key is taken, or if a trigger of the application skips it. If a rule of the application refuses a call, the inner error names
/// the rule, and nothing is done.
pub(super) fn insert(
    tx: &mut dyn Tx,
    calls: &[NewJob],
    stands: &Standing,
    way: Insertion,
) -> Result<Result<Vec<JobId>>> {
    let first = &calls[0];
    let mut values: Vec<Value<'_>> = Vec::with_capacity(1 + SHARED.len() + OWN.len() * calls.len());
    let shared: [Value<'_>; SHARED.len()] = [
        (&first.call.service).into(),
        (&first.call.function).into(),
        first.call.site.as_ref().into(),
        stands.state.into(),
        first.os_user.as_ref().into(),
        first.parent.into(),
    ];
    values.extend(shared);
    for new in calls {
        let Call { args, kwargs, principal, .. } = &new.call;
        let in_row = way == Insertion::Client || is_small(new);
        let own: [Value<'_>; OWN.len()] = [
            in_row.then_some(args.as_str()).into(),
            in_row.then_some(kwargs.as_str()).into(),
            principal.as_ref().map(Principal::as_str).into(),
            new.key.as_ref().map(Key::as_str).into(),
        ];
        values.extend(&own[..if calls.len() == 1 { OWN.len() } else { OWN_OF_MANY }]);
    }
    let (names, more): (Vec<&str>, Vec<Value<'_>>) = more_columns(first, stands, tx.now()).into_iter().unzip();
    values.extend(more);
    let unusual = if names.is_empty() { String::new() } else { statement(1, way, &names) };
    let sql = match (way, first.key.is_some()) {
        (_, false) if !names.is_empty() => &unusual,
        (_, true) if !names.is_empty() => &with_key(&unusual),
        (Insertion::Client, false) => &*AS_CLIENT,
        (Insertion::Client, true) => &AS_CLIENT_WITH_KEY,
        (Insertion::Own, _) if calls.len() > 1 => &MANY,
        (Insertion::Own, false) => &ONE,
        (Insertion::Own, true) => &ONE_WITH_KEY,
    };
    if way == Insertion::Own {
        values.push(tx.now().into());
    }
    let ids = match tx.try_insert(sql, &values)? {
        Ok(ids) => ids,
        Err(refused) => return Ok(Err(refused)),
    };
    if way == Insertion::Own && first.options.expires.is_some() {
        used::note(tx, used::EXPIRY)?;
    }
    if let ([new], [id], Insertion::Own) = (calls, &ids[..], way)
        && !is_small(new)
    {
        tx.execute(LARGE, &[(*id).into(), new.call.args.as_str().into(), new.call.kwargs.as_str().into()])?;
    }
    Ok(Ok(ids.into_iter().map(JobId).collect()))
}

/// How many of the next calls one [`insert`] takes. It is more than one if enough of them differ only in their arguments and
/// principals.
pub(super) fn alike(next: &[NewJob]) -> usize {
    let Some(calls) = next.get(..AT_ONCE) else { return 1 };
    let first = &calls[0];
    let fits = |new: &NewJob| {
        new.key.is_none()
            && is_small(new)
            && new.due == Due::Now
            && new.options.is_plain()
            && new.call.function == first.call.function
            && new.call.service == first.call.service
            && new.call.site == first.call.site
            && new.hold == first.hold
            && new.os_user == first.os_user
            && new.parent == first.parent
    };
    if calls.iter().all(fits) { AT_ONCE } else { 1 }
}

pub(super) fn is_small(new: &NewJob) -> bool {
    new.call.args.as_str().len() + new.call.kwargs.as_str().len() <= SMALL
}

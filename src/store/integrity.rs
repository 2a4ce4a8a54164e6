//! Looking through a whole store for damage.

use super::engine::Tx;
use super::{Location, one, schema_script};
use crate::error::{Error, Kind, Result};

/// The greatest number that every reader of JSON can hold; at a million calls a second it is reached after 285 years.
const GREATEST: i64 = (1 << 53) - 1;

/// The indexes that have only some of the jobs, and which.
const PARTIAL: [(&str, &str); 6] = [
    ("asyncq_job_queued", "state = 'queued'"),
    ("asyncq_job_delayed", "state = 'delayed'"),
    ("asyncq_job_retry", "state = 'delayed' AND claim + attempt > 0"),
    ("asyncq_job_token", "token IS NOT NULL"),
    ("asyncq_job_parent", "parent IS NOT NULL"),
    ("asyncq_job_stopped", STOPPED),
];

/// Which jobs are in the index of those that nobody works on until somebody looks at them, as the schema says it. SQLite
/// evaluates this twice with each change of a state, so it compares as little text as it can.
pub(super) const STOPPED: &str = "finished_at IS NOT NULL AND state <> 'completed' OR state = 'held'";

/// The first damage found.
pub(super) fn integrity_check(tx: &mut dyn Tx) -> Result<Option<String>> {
    let found = tx.integrity_check()?;
    if found.is_some() || !tx.has_table("asyncq_job")? {
        return Ok(found);
    }
    let counted = PARTIAL.map(|(_, which)| format!("count(*) FILTER (WHERE {which})")).join(", ");
    let expected = tx.first(&format!("SELECT {counted} FROM asyncq_job NOT INDEXED"), &[], |row| {
        (0..PARTIAL.len()).map(|column| row.i64(column)).collect::<Result<Vec<_>>>()
    })?;
    for ((index, which), expected) in PARTIAL.into_iter().zip(one(expected)?) {
        // One that is missing or was changed is made again, and no damage.
        if tx.words("index", index)?.as_deref() != schema_script::part(index).map(|part| part.sql) {
            continue;
        }
        // SQLite makes sure that they have those, and not that they have no others.
        let count = format!("SELECT count(*) FROM asyncq_job INDEXED BY {index} WHERE {which}");
        if one(tx.first(&count, &[], |row| row.i64(0))?)? != expected {
            return Ok(Some(format!("wrong number of entries in index {index}")));
        }
    }
    Ok(None)
}

/// Refuses a store whose jobs have come to numbers that only a client can have set.
pub(super) fn numbers(last: i64, location: &Location) -> Result<()> {
    if last <= GREATEST {
        return Ok(());
    }
    let message = if last == i64::MAX {
        format!("no call can be enqueued: a client has given a job the greatest number, {last}")
    } else {
        format!("a client has given a job the number {last}, which is too great for programs that read JSON")
    };
    let hint = format!(
        "stop every processor, and take the number out: `sqlite3 '{location}' \"DELETE FROM asyncq_job WHERE id > {GREATEST}; \
         UPDATE sqlite_sequence SET seq = (SELECT coalesce(max(id), 0) FROM asyncq_job) WHERE name = 'asyncq_job'\"`"
    );
    Err(Error::new(Kind::Invalid, message).with_hint(hint))
}

//! Finds jobs for a list or for a change of many, without a long look.
//!
//! A look covers at most [`AT_ONCE`] jobs, by id. If it finds next to nothing, an index of few jobs helps.

use super::columns::groups;
use super::engine::{Tx, Value};
use crate::domain::job::{JobId, Phase, State};
use crate::domain::pattern::OfServices;
use crate::domain::query::{JobFilter, JobQuery};
use crate::domain::time::Timestamp;
use crate::error::Result;

/// How many jobs one look covers at most, so that no transaction takes long.
pub(super) const AT_ONCE: i64 = 10_000;

/// If a look finds fewer jobs than this, it asks an index for the rest.
const FEW: usize = 10;

/// How many jobs one look returns for a change at most. More would keep other writers waiting.
const CHANGES_AT_ONCE: u16 = 2000;

const NEAR_END: &str = "SELECT id FROM asyncq_job WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2";
/// The metadata of a job, member by member, with values as texts.
// Differs by necessity: no two engines have the same functions for JSON.
const HAS_META: &str = "SELECT 1 FROM json_each(meta) AS m WHERE 1 = 1";
const META_VALUE: &str = "CASE WHEN m.type IN ('true', 'false') THEN m.type ELSE CAST(m.value AS TEXT) END";
const COLUMNS: &str = "id, service, function, principal, parent, state, immediate, created_at, finished_at, meta";

/// The jobs that nobody works on until somebody looks at them. This is the condition of their index in the schema. SQLite evaluates
/// it twice with each change of a state, so it compares as little text as possible.
const STOPPED: &str = "finished_at IS NOT NULL AND state <> 'completed' OR state = 'held'";

/// An index of few jobs, which SQLite uses for a statement with this condition.
pub(super) struct Index {
    pub(super) condition: String,
    /// Whether the index gives its jobs by id.
    pub(super) ordered: bool,
}

impl Index {
    /// The id in a condition. The sign keeps the planner from going through all jobs in order.
    fn id(&self) -> &'static str {
        if self.ordered { "id" } else { "+id" }
    }
}

impl JobFilter {
    /// The index of only the jobs in this state, or with this parent, if there is one.
    pub(super) fn index(&self) -> Option<Index> {
        if let Some(parent) = self.parent {
            return Some(Index { condition: format!("parent = {parent}"), ordered: true });
        }
        let [state] = self.states[..] else { return None };
        let is = format!("state = '{state}'");
        match (state, state.phase()) {
            (State::Completed, _) => None,
            (State::Held, _) | (_, Phase::Ended) => {
                Some(Index { condition: format!("{is} AND ({STOPPED})"), ordered: true })
            }
            (State::Blocked, _) => Some(Index { condition: format!("{is} AND waits <> 0"), ordered: false }),
            (_, Phase::Waiting) => Some(Index { condition: is, ordered: false }),
            (_, Phase::Running) => Some(Index { condition: format!("{is} AND token IS NOT NULL"), ordered: false }),
        }
    }

    /// The conditions for the jobs, and the values to compare with. The first of these is parameter `first`.
    fn conditions(&self, now: Timestamp, first: usize) -> (String, Vec<Value<'_>>) {
        let (mut text, mut values) = (String::from("1 = 1"), Vec::new());
        let mut and = |condition: &str, value| {
            text += &format!(" AND {condition} ?{}", first + values.len());
            values.push(value);
        };
        for (column, value) in [("function", &self.function), ("principal", &self.principal)] {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                and(&format!("{column} ="), value.into());
            }
        }
        if let Some(parent) = self.parent {
            and("parent =", parent.into());
        }
        if let Some(age) = self.older_than {
            and("COALESCE(finished_at, created_at) <=", now.before(age).into());
        }
        if self.principal.as_deref() == Some("") {
            text += " AND principal IS NULL";
        }
        let (is_among, names) = match &self.services {
            OfServices::Any => ("", None),
            OfServices::Only(names) => ("IN", Some(names)),
            OfServices::Without(names) => ("NOT IN", Some(names)),
        };
        if let Some(names) = names {
            let places: Vec<String> = (0..names.len()).map(|at| format!("?{}", first + values.len() + at)).collect();
            text += &format!(" AND service {is_among} ({})", places.join(", "));
            values.extend(names.iter().map(Value::from));
        }
        for (name, value) in &self.meta {
            let at = first + values.len();
            text += &format!(" AND EXISTS ({HAS_META} AND m.key = ?{at} AND {META_VALUE} = ?{})", at + 1);
            values.extend([Value::from(name), value.into()]);
        }
        if !self.states.is_empty() {
            let states: Vec<String> = self.states.iter().map(|state| format!("'{state}'")).collect();
            text += &format!(" AND state IN ({})", states.join(", "));
        }
        (text, values)
    }
}

/// The newest jobs of `filter` before `before`, at most `limit`; and the job before which to go on, unless there are no more.
pub(super) fn newest(
    tx: &mut dyn Tx,
    filter: &JobFilter,
    before: Option<JobId>,
    limit: u32,
) -> Result<(Vec<JobId>, Option<JobId>)> {
    if filter.is_of_none() {
        return Ok((Vec::new(), None));
    }
    let before = before.map_or(i64::MAX, |before| before.0);
    let (conditions, values) = filter.conditions(tx.now(), 3);
    let mut args: Vec<Value<'_>> = vec![before.into(), i64::from(limit).into()];
    args.extend(values);
    let found: Vec<JobId> = tx.rows(&newest_near(&conditions), &args)?;
    if found.len() == limit as usize {
        let next = found.last().copied();
        return Ok((found, next));
    }
    let end = tx.row(NEAR_END, &[before.into(), (AT_ONCE - 1).into()])?;
    let index = filter.index().filter(|_| end.is_some() && found.len() < FEW);
    let Some(index) = index else { return Ok((found, end)) };
    let found: Vec<JobId> = tx.rows(&newest_in(&index, &conditions), &args)?;
    let next = found.last().copied().filter(|_| found.len() == limit as usize);
    Ok((found, next))
}

/// The same as [`newest`], of the jobs in these ranges.
pub(super) fn newest_among(
    tx: &mut dyn Tx,
    query: &JobQuery,
    ranges: &[[i64; 2]],
    limit: u32,
) -> Result<(Vec<JobId>, Option<JobId>)> {
    if query.filter.is_of_none() {
        return Ok((Vec::new(), None));
    }
    let before = query.before.map_or(i64::MAX, |before| before.0);
    let (conditions, values) = query.filter.conditions(tx.now(), 4);
    let sql = newest_in_range(&conditions);
    let (mut found, mut seen) = (Vec::new(), 0);
    for [first, last] in ranges.iter().rev() {
        let mut last = (*last).min(before - 1);
        while last >= *first {
            let from = (*first).max(last - (AT_ONCE - 1));
            let left = limit as usize - found.len();
            let mut args: Vec<Value<'_>> = vec![from.into(), left.into(), last.into()];
            args.extend(values.iter().copied());
            found.extend(tx.rows::<JobId>(&sql, &args)?);
            seen += last - from + 1;
            match found.last() {
                Some(oldest) if found.len() == limit as usize => return Ok((found.clone(), Some(*oldest))),
                _ if seen >= AT_ONCE => return Ok((found, Some(JobId(from)))),
                _ => last = from - 1,
            }
        }
    }
    Ok((found, None))
}

/// Of the jobs from `?1` to `?3`, the newest `?2` that match.
fn newest_in_range(conditions: &str) -> String {
    format!("SELECT id FROM asyncq_job WHERE id >= ?1 AND id <= ?3 AND {conditions} ORDER BY id DESC LIMIT ?2")
}

/// Of the newest jobs before `?1`, at most `?2` that match.
fn newest_near(conditions: &str) -> String {
    format!(
        "SELECT id FROM (SELECT {COLUMNS} FROM asyncq_job WHERE id < ?1 ORDER BY id DESC LIMIT {AT_ONCE}) AS near
        WHERE {conditions} ORDER BY id DESC LIMIT ?2"
    )
}

/// The same, of those that an index has.
fn newest_in(index: &Index, conditions: &str) -> String {
    let (among, id) = (&index.condition, index.id());
    format!("SELECT id FROM asyncq_job WHERE {among} AND {id} < ?1 AND {conditions} ORDER BY {id} DESC LIMIT ?2")
}

/// A job that matches.
pub(super) struct Match {
    pub(super) id: JobId,
    /// Its service and its function.
    pub(super) name: (String, String),
    pub(super) state: State,
    /// Whether it ran as a part of another job.
    pub(super) immediate: bool,
    pub(super) finished_at: Option<Timestamp>,
}
groups! { Match { id, name, state, immediate, finished_at } }

/// One look at the jobs of `filter` after `after`, oldest first, at most [`CHANGES_AT_ONCE`] of them; and the job after which to go
/// on, unless there are no more.
pub(super) fn oldest(tx: &mut dyn Tx, filter: &JobFilter, after: JobId) -> Result<(Vec<Match>, Option<JobId>)> {
    if filter.is_of_none() {
        return Ok((Vec::new(), None));
    }
    let (conditions, values) = filter.conditions(tx.now(), 3);
    let mut args: Vec<Value<'_>> = vec![after.into(), i64::from(CHANGES_AT_ONCE).into()];
    args.extend(values);
    let [sql, end] = oldest_near(filter, &conditions);
    let found: Vec<Match> = tx.rows(&sql, &args)?;
    let next = match found.last() {
        Some(last) if found.len() == usize::from(CHANGES_AT_ONCE) => Some(last.id),
        _ => tx.row(&end, &[after.into(), (AT_ONCE - 1).into()])?,
    };
    Ok((found, next))
}

/// Of the oldest jobs after `?1`, at most `?2` that match; and the last job that such a look covers.
fn oldest_near(filter: &JobFilter, conditions: &str) -> [String; 2] {
    let index = filter.index().filter(|index| index.ordered || filter.states == [State::Processing]);
    let (among, id) = index.as_ref().map_or(("1 = 1", "id"), |index| (index.condition.as_str(), index.id()));
    let from = format!("FROM asyncq_job WHERE {among} AND {id} > ?1 ORDER BY {id}");
    [
        format!(
            "SELECT id, service, function, state, immediate, finished_at
            FROM (SELECT {COLUMNS} {from} LIMIT {AT_ONCE}) AS near WHERE {conditions} ORDER BY id LIMIT ?2"
        ),
        format!("SELECT id {from} LIMIT 1 OFFSET ?2"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::service::ServiceName;
    use crate::store::sqlite::plan::plan;

    /// How SQLite runs the statements that `ask` gives, as far as jobs and sorting are concerned.
    fn plans(filter: &JobFilter, ask: impl Fn(&str) -> Vec<String>) -> Vec<String> {
        let (conditions, _) = filter.conditions(Timestamp(7), 3);
        let steps = ask(&conditions).into_iter().flat_map(|sql| plan(&sql));
        steps.filter(|step| step.contains("asyncq_job") || step.contains("B-TREE")).collect()
    }

    fn filters(states: &[State]) -> [JobFilter; 3] {
        let filter = JobFilter { states: states.to_vec(), ..JobFilter::default() };
        let name = Some("x".to_owned());
        let names = ["x", "y"].map(|it| ServiceName::parse(it).unwrap()).into();
        let named =
            JobFilter { services: OfServices::Only(names), function: name.clone(), principal: name, ..filter.clone() };
        let services = OfServices::only(ServiceName::parse("x").unwrap());
        [filter, JobFilter { services, ..named.clone() }, named]
    }

    #[test]
    fn a_list_walks_over_few_jobs_or_an_index_of_few() {
        const WALK: &str = "SEARCH asyncq_job USING INTEGER PRIMARY KEY (rowid<?)";
        for state in State::ALL {
            let (index, sorts) = match state {
                State::Error | State::Cancelled | State::Held => {
                    (Some("asyncq_job_stopped (state=? AND rowid<?)"), false)
                }
                State::Processing => (Some("asyncq_job_token"), true),
                State::Queued => (Some("asyncq_job_queued"), true),
                State::Delayed => (Some("asyncq_job_delayed"), true),
                State::Blocked => (Some("asyncq_job_blocked"), true),
                State::Completed => (None, false),
            };
            for filter in filters(&[state]) {
                let steps = plans(&filter, |conditions| {
                    let index = filter.index().map(|index| newest_in(&index, conditions));
                    [newest_near(conditions), NEAR_END.to_owned()].into_iter().chain(index).collect()
                });
                assert_eq!(steps[..2], [WALK, WALK], "{steps:?}");
                match index {
                    Some(index) => assert!(steps[2].contains(index), "{steps:?}"),
                    None => assert_eq!(steps.len(), 2, "{steps:?}"),
                }
                assert_eq!(steps.iter().any(|step| step.contains("B-TREE")), sorts, "{steps:?}");
            }
        }
    }

    #[test]
    fn a_list_of_ranges_reads_only_these() {
        for filter in filters(&[State::Completed]) {
            let steps = plans(&filter, |conditions| vec![newest_in_range(conditions)]);
            assert_eq!(steps, ["SEARCH asyncq_job USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"]);
        }
    }

    #[test]
    fn a_change_walks_over_few_jobs_or_an_index_of_few() {
        let walk = "USING INTEGER PRIMARY KEY (rowid>?)";
        let stopped = "INDEX asyncq_job_stopped (state=? AND rowid>?)";
        for (states, expected) in [
            (vec![State::Error], stopped),
            (vec![State::Cancelled], stopped),
            (vec![State::Held], stopped),
            (vec![State::Processing], "INDEX asyncq_job_token"),
            (vec![State::Queued], walk),
            (vec![State::Delayed], walk),
            (vec![State::Completed, State::Error, State::Cancelled], walk),
            (vec![], walk),
        ] {
            for filter in filters(&states) {
                let steps = plans(&filter, |conditions| oldest_near(&filter, conditions).to_vec());
                let fits = steps.iter().all(|step| step.contains(expected) || step.contains("B-TREE"));
                assert!(fits && !steps.is_empty(), "{states:?}: {steps:?}");
                // Only the few that run are sorted.
                assert!(
                    states == [State::Processing] || !steps.iter().any(|step| step.contains("B-TREE")),
                    "{steps:?}"
                );
            }
        }
    }
}

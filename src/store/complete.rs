//! Completions for shells. Each statement looks at a limited number of rows, whatever the store holds, and changes nothing.

use std::collections::BTreeMap;

use super::columns::groups;
use super::engine::{Mode, Tx, Value};
use super::schema::SchemaFound;
use super::select::Index;
use super::{Location, Patience, Store};
use crate::domain::attempt::Failure;
use crate::domain::completion::{Candidate, Topic, numbers_that_begin};
use crate::domain::job::{JobId, State};
use crate::domain::query::JobFilter;
use crate::domain::text::escape_control;
use crate::error::Result;

/// How many names are offered at most.
const NAMES: usize = 500;

/// How many jobs are offered at most.
const JOBS: usize = 50;

/// How many lanes to offer at most. Each one needs a separate statement.
const LANES: usize = 50;

/// How many jobs one look goes over at most.
const NEAR: usize = 1000;

/// How many characters of an error describe a job at most.
const ABOUT: usize = 80;

const SERVICES: &str = "SELECT name, CASE WHEN paused <> 0 THEN 'paused' END FROM asyncq_service
    WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3";
const FUNCTIONS: &str = "SELECT name, takes FROM asyncq_function
    WHERE service = ?4 AND name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3";
/// There are far fewer functions than jobs, so it looks at all of them.
const FUNCTIONS_OF_ALL: &str = "SELECT DISTINCT name, NULL FROM asyncq_function
    WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3";
const SCHEDULES: &str = "SELECT name, service || ' ' || function FROM asyncq_schedule
    WHERE name >= ?1 AND name < ?2 ORDER BY name LIMIT ?3";
const LANES_OF_FUNCTIONS: &str = "SELECT DISTINCT lane, NULL FROM asyncq_function
    WHERE lane >= ?1 AND lane < ?2 AND lane NOT LIKE '%{principal}%' AND (?4 IS NULL OR service = ?4) ORDER BY lane LIMIT ?3";
const NEXT_LANE: &str = "SELECT service, lane FROM asyncq_job
    WHERE lane IS NOT NULL AND (state = 'queued' OR state = 'processing') AND (service, lane) > (?1, ?2)
    ORDER BY service, lane LIMIT 1";

/// A job as it is offered.
struct Offered {
    id: JobId,
    service: String,
    function: String,
    state: State,
    error: Option<Failure>,
}

groups! { Offered { id, service, function, state, error } }

impl Store {
    /// Opens an existing store, only for [`Store::completions`]. Makes, locks and upgrades nothing, and needs no permission to
    /// write.
    ///
    /// # Errors
    /// Whatever keeps the file from being read.
    pub fn open_to_read(location: &Location, patience: Patience) -> Result<Store> {
        Ok(Store::over(location.connect_to_read(patience)?, location))
    }

    /// Words that `start` may be the beginning of. There are none in a store with the schema of another build.
    pub fn completions(&mut self, topic: &Topic, start: &str) -> Result<Vec<Candidate>> {
        self.transact(Mode::Read, |tx| match tx.found() {
            SchemaFound::Current => candidates(tx, topic, start),
            _ => Ok(Vec::new()),
        })
    }
}

fn candidates(tx: &mut dyn Tx, topic: &Topic, start: &str) -> Result<Vec<Candidate>> {
    match topic {
        Topic::Service => names(tx, SERVICES, start, &[]),
        Topic::Function(None) => names(tx, FUNCTIONS_OF_ALL, start, &[]),
        Topic::Function(Some(service)) => names(tx, FUNCTIONS, start, &[service.into()]),
        Topic::Hook => hooks(tx, start),
        Topic::Schedule => names(tx, SCHEDULES, start, &[]),
        Topic::Lane(service) => lanes(tx, service.as_deref(), start),
        Topic::Job(states) => jobs(tx, states, start),
    }
}

/// The end of the texts that begin with this one.
fn end(start: &str) -> String {
    format!("{start}{}", char::MAX)
}

/// The names that begin like this. The statement has three parameters, and then `more`.
fn names(tx: &mut dyn Tx, sql: &str, start: &str, more: &[Value<'_>]) -> Result<Vec<Candidate>> {
    let end = end(start);
    let args = [&[start.into(), (&end).into(), NAMES.into()], more].concat();
    let found: Vec<(String, Option<String>)> = tx.rows(sql, &args)?;
    Ok(found.into_iter().map(|(word, about)| Candidate { word, about: about.as_deref().map(short) }).collect())
}

/// Services with a slash, and their functions once `start` has a slash.
fn hooks(tx: &mut dyn Tx, start: &str) -> Result<Vec<Candidate>> {
    let Some((service, function)) = start.split_once('/') else {
        let services = names(tx, SERVICES, start, &[])?.into_iter();
        return Ok(services.map(|it| Candidate { word: it.word + "/", ..it }).collect());
    };
    let functions = names(tx, FUNCTIONS, function, &[service.into()])?.into_iter();
    Ok(functions.map(|it| Candidate { word: format!("{service}/{}", it.word), ..it }).collect())
}

/// The lanes of functions, and those in which a call is queued or running.
fn lanes(tx: &mut dyn Tx, service: Option<&str>, start: &str) -> Result<Vec<Candidate>> {
    let mut found: BTreeMap<String, Option<String>> =
        names(tx, LANES_OF_FUNCTIONS, start, &[service.into()])?.into_iter().map(|it| (it.word, it.about)).collect();
    let mut after = (service.unwrap_or_default().to_owned(), String::new());
    for _ in 0..LANES {
        let next: Option<(String, String)> = tx.row(NEXT_LANE, &[(&after.0).into(), (&after.1).into()])?;
        let Some(next) = next.filter(|(of, _)| service.is_none_or(|service| service == of)) else { break };
        if next.1.starts_with(start) {
            found.entry(next.1.clone()).or_insert_with(|| Some(next.0.clone()));
            after = next;
        } else if next.1.as_str() < start {
            // Straight to the first that may fit.
            after = (next.0, before(start));
        } else {
            after = (next.0, char::MAX.to_string());
        }
    }
    Ok(found.into_iter().map(|(word, about)| Candidate { word, about }).collect())
}

/// A text right before this one, in the order of lane names, which have no control characters.
fn before(text: &str) -> String {
    let mut text = text.to_owned();
    match text.pop().and_then(|last| char::from_u32(last as u32 - 1)) {
        Some(last) => format!("{text}{last}{}", char::MAX),
        None => text,
    }
}

/// The newest jobs that a short look finds, and the first of each index of waiting or running jobs.
fn jobs(tx: &mut dyn Tx, states: &[State], start: &str) -> Result<Vec<Candidate>> {
    let mut found = BTreeMap::new();
    let mut add = |jobs: Vec<Offered>| {
        found.extend(jobs.into_iter().filter(|job| job.id.to_string().starts_with(start)).map(|job| (job.id, job)));
        found.len() >= JOBS
    };
    let indexes: Vec<Index> = states.iter().filter_map(|state| JobFilter::of_state(*state).index()).collect();
    'looks: for [first, last] in numbers_that_begin(start) {
        let range = [first.into(), last.into(), JOBS.into()];
        for sql in indexes.iter().filter(|index| index.ordered).map(ordered).chain([near(states)]) {
            if add(tx.rows(&sql, &range)?) {
                break 'looks;
            }
        }
    }
    for index in indexes.iter().filter(|index| !index.ordered) {
        add(tx.rows(&unordered(index), &[NEAR.into()])?);
    }
    Ok(found.into_values().rev().take(JOBS).map(offer).collect())
}

/// The newest jobs in these states among the last [`NEAR`] of a range.
fn near(states: &[State]) -> String {
    let states: Vec<String> = states.iter().map(|state| format!("'{state}'")).collect();
    let fits = if states.is_empty() { "1 = 1".to_owned() } else { format!("state IN ({})", states.join(", ")) };
    format!(
        "SELECT id, service, function, state, error FROM (SELECT id, service, function, state, error FROM asyncq_job
        WHERE id >= ?1 AND id <= ?2 ORDER BY id DESC LIMIT {NEAR}) AS near WHERE {fits} ORDER BY id DESC LIMIT ?3"
    )
}

fn ordered(index: &Index) -> String {
    format!(
        "SELECT id, service, function, state, error FROM asyncq_job WHERE {} AND id >= ?1 AND id <= ?2
        ORDER BY id DESC LIMIT ?3",
        index.condition
    )
}

fn unordered(index: &Index) -> String {
    format!("SELECT id, service, function, state, error FROM asyncq_job WHERE {} LIMIT ?1", index.condition)
}

fn offer(job: Offered) -> Candidate {
    let Offered { id, service, function, state, error } = job;
    let about = match error {
        Some(error) if state.has_ended() => format!("{service} {function}: {}", short(&error.message)),
        _ => format!("{service} {function}, {state}"),
    };
    Candidate { word: id.to_string(), about: Some(about) }
}

/// The beginning of a text, in one line without anything that a terminal acts on.
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut short: String = line.chars().take(ABOUT).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    escape_control(&short).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::plan::plan;

    #[test]
    fn a_completion_of_a_job_looks_at_few_jobs() {
        let walk = "SEARCH asyncq_job USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)";
        for states in [&[][..], &[State::Completed], &State::ALL] {
            let mut steps = plan(&near(states));
            steps.retain(|step| step.contains("asyncq_job") || step.contains("B-TREE"));
            assert_eq!(steps, [walk], "{states:?}");
        }
        for state in State::ALL {
            let Some(index) = JobFilter::of_state(state).index() else { continue };
            let steps = plan(&if index.ordered { ordered(&index) } else { unordered(&index) });
            assert_eq!(steps.len(), 1, "{state}: {steps:?}");
            assert!(steps[0].contains(" USING INDEX asyncq_job_"), "{state}: {steps:?}");
            assert!(!index.ordered || steps[0].ends_with("(state=? AND rowid>? AND rowid<?)"), "{state}: {steps:?}");
        }
    }

    #[test]
    fn the_next_lane_is_found_in_its_index() {
        let steps = plan(NEXT_LANE);
        assert_eq!(steps, ["SEARCH asyncq_job USING INDEX asyncq_job_lane ((service,lane)>(?,?))"]);
    }

    #[test]
    fn names_are_found_by_their_beginning() {
        for (sql, range) in [
            (SERVICES, "asyncq_service USING PRIMARY KEY (name>? AND name<?)"),
            (FUNCTIONS, "asyncq_function USING PRIMARY KEY (service=? AND name>? AND name<?)"),
            (SCHEDULES, "asyncq_schedule USING PRIMARY KEY (name>? AND name<?)"),
        ] {
            assert_eq!(plan(sql), [format!("SEARCH {range}")]);
        }
    }

    #[test]
    fn a_lane_that_cannot_fit_is_skipped() {
        assert!(before("lane").as_str() < "lane" && before("lane").as_str() > "land" && before("").is_empty());
    }

    #[test]
    fn a_long_error_is_cut_to_one_line() {
        assert_eq!(short("a\u{1b}[2Jb\nc"), "a\\u{1b}[2Jb");
        assert_eq!(short(&"ä".repeat(100)), "ä".repeat(80) + "…");
    }
}

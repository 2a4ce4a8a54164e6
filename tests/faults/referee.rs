//! The referee: compares what clients were told, what functions did, and what the store says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use rusqlite::Connection;

use crate::books::Books;

/// The function that completes its own job: it may be killed after that, before its end.
pub const OWN: &str = "own";

/// After how many crashes a job ends in an error.
const CRASHES: i64 = 3;

/// What the referee counted, and every rule that was broken.
#[derive(Debug, Default)]
pub struct Verdict {
    pub acknowledged: usize,
    pub jobs: usize,
    pub starts: usize,
    /// Starts beyond the first of each job that neither a conflict nor somebody's wish explains.
    pub extra_starts: usize,
    pub crashes: usize,
    /// Attempts that were put back before they had come to their end, because their processor was told to stop.
    pub interrupted: usize,
    /// Jobs that ended in an error because three of their attempts crashed.
    pub given_up: usize,
    /// Nested calls that ended in an error because their worker was killed.
    pub nested_crashes: usize,
    /// Jobs that completed themselves in an attempt which did not come to its end.
    pub cut_off: usize,
    pub violations: Vec<String>,
}

impl Verdict {
    pub fn is_clean(&self) {
        let shown = self.violations.iter().take(20).map(String::as_str).collect::<Vec<_>>().join("\n");
        assert!(self.violations.is_empty(), "{} violations, the first of them:\n{shown}", self.violations.len());
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { acknowledged, jobs, starts, extra_starts, crashes, given_up, .. } = self;
        write!(
            f,
            "{acknowledged} acknowledged, {jobs} jobs, {starts} starts, {extra_starts} of them again after {crashes} \
             crashed attempts, {given_up} given up after three, {} violations",
            self.violations.len()
        )
    }
}

/// A job as the store tells it.
struct Told {
    function: String,
    state: String,
    attempt: i64,
    crashes: i64,
    /// Whether it ended in an error because the job that made the call, and waits for it, ended first.
    abandoned: bool,
    /// Whether it is a nested call, which is never tried again, and ended in an error because its worker was killed.
    lost_its_worker: bool,
    result: Option<String>,
    /// Why it ended so, and what its latest attempt printed: whoever reads of a violation can ask nobody any more.
    why: Option<String>,
    key: Option<String>,
    /// Whether it was cancelled because a job that it needs has failed.
    lost_its_need: bool,
    /// Its service and its lane, and how many calls of that may run at once.
    lane: Option<(String, usize)>,
    /// The jobs that it needs.
    needs: Vec<i64>,
    /// How each recorded attempt ended.
    endings: BTreeMap<i64, String>,
}

/// Judges a store that has been drained.
pub fn judge(books: &Books, store: &Path) -> Verdict {
    let told = read(store);
    let mut verdict = Verdict { jobs: told.len(), ..Verdict::default() };
    let mut broken = Vec::new();
    clients(books, &told, &mut verdict, &mut broken);
    let did = functions(books, &mut broken);
    for (job, attempts) in &did.starts {
        verdict.starts += attempts.len();
        let Some(told) = told.get(job) else {
            broken.push(format!("job {job} ran and is not in the store"));
            continue;
        };
        let last = attempts.last().copied().unwrap_or(0);
        for attempt in attempts.iter().filter(|attempt| **attempt != last) {
            match told.endings.get(attempt).map(String::as_str) {
                Some("crash") => verdict.extra_starts += 1,
                Some("conflict") if has(&did.conflicts, *job, *attempt) => {}
                Some("interrupted") => verdict.interrupted += 1,
                ending => {
                    broken.push(format!("job {job} ran again after attempt {attempt}, which ended as {ending:?}"));
                }
            }
        }
    }
    order(books, &told, &mut broken);
    for (job, told) in &told {
        verdict.crashes += told.endings.values().filter(|ending| *ending == "crash").count();
        recorded(*job, told, &did, &mut broken);
        verdict.given_up += usize::from(gave_up(told));
        verdict.nested_crashes += usize::from(told.lost_its_worker);
        let own = told.function == OWN && told.state == "completed";
        verdict.cut_off += usize::from(own && !has(&did.ends, *job, told.attempt));
    }
    verdict.violations = broken;
    verdict
}

/// Every acknowledged call is one job, whichever of its repeats was answered, and has ended.
fn clients(books: &Books, told: &BTreeMap<i64, Told>, verdict: &mut Verdict, broken: &mut Vec<String>) {
    for (key, ids) in books.keys() {
        verdict.acknowledged += 1;
        if ids.iter().any(|id| *id != ids[0]) {
            broken.push(format!("key {key} was acknowledged as jobs {ids:?}"));
        }
        match told.get(&ids[0]) {
            None => broken.push(format!("job {} was acknowledged and is lost", ids[0])),
            Some(told) if told.key.as_ref() != Some(&key) => {
                broken.push(format!("job {} has not the key {key} under which it was acknowledged", ids[0]));
            }
            Some(_) => {}
        }
    }
    let keys: Vec<&String> = told.values().filter_map(|told| told.key.as_ref()).collect();
    if keys.iter().collect::<BTreeSet<_>>().len() != keys.len() {
        broken.push("a key is there twice".to_owned());
    }
}

type Attempts = BTreeMap<i64, BTreeSet<i64>>;

fn has(attempts: &Attempts, job: i64, attempt: i64) -> bool {
    attempts.get(&job).is_some_and(|attempts| attempts.contains(&attempt))
}

/// Which attempts of which jobs have begun, and how they have come to their end.
#[derive(Default)]
struct Did {
    starts: Attempts,
    ends: Attempts,
    failures: Attempts,
    conflicts: Attempts,
}

fn functions(books: &Books, broken: &mut Vec<String>) -> Did {
    let mut did = Did::default();
    for line in books.lines() {
        let (job, attempt) = (line.job, line.attempt);
        let book = match line.word.as_str() {
            "START" => &mut did.starts,
            "END" => &mut did.ends,
            "FAIL" => &mut did.failures,
            "CONFLICT" => &mut did.conflicts,
            "OVERLAP" => {
                broken.push(format!("attempt {attempt} of job {job} began while another one was running"));
                continue;
            }
            _ => continue,
        };
        if !book.entry(job).or_default().insert(attempt) && line.word == "START" {
            broken.push(format!("attempt {attempt} of job {job} began twice"));
        }
    }
    did
}

/// No call begins before those that it needs have come to their end, and no lane runs more calls at once than it may. Who
/// completes its own job is out of its lane before it comes to its own end.
fn order(books: &Books, told: &BTreeMap<i64, Told>, broken: &mut Vec<String>) {
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    let mut running: BTreeMap<&str, BTreeMap<i64, i64>> = BTreeMap::new();
    for line in books.lines() {
        let Some(is) = told.get(&line.job).filter(|is| is.function != OWN) else { continue };
        first.entry(line.job).or_insert(line.time);
        last.insert(line.job, line.time);
        let Some((lane, width)) = &is.lane else { continue };
        let running = running.entry(lane).or_default();
        if line.word == "START" {
            // Of one that was killed there is no end: it is over before it, or another one of its lane, begins again.
            running.insert(line.job, line.attempt);
            if running.len() > *width {
                running.retain(|job, attempt| told[job].endings.get(attempt).is_none_or(|ending| ending != "crash"));
            }
            if running.len() > *width {
                broken.push(format!("lane {lane} runs jobs {:?} at once", running.keys()));
            }
        } else if ["END", "FAIL", "CONFLICT"].contains(&line.word.as_str()) {
            running.remove(&line.job);
        }
    }
    for (job, is) in told {
        let failed =
            |needed: &i64| told.get(needed).is_some_and(|it| ["error", "cancelled"].contains(&it.state.as_str()));
        if is.lost_its_need && !is.needs.iter().any(failed) {
            broken.push(format!("job {job} was cancelled, although no job that it needs has failed"));
        }
        let early =
            |needed: &&i64| matches!((last.get(needed), first.get(job)), (Some(end), Some(start)) if end > start);
        if let Some(needed) = is.needs.iter().find(early) {
            broken.push(format!("job {job} began before the end of job {needed}, which it needs"));
        }
    }
}

/// Whether a job has ended in an error although no attempt failed: because too many crashed.
fn gave_up(told: &Told) -> bool {
    told.state == "error" && told.crashes == CRASHES
}

/// What the store says of a job is what its function did.
fn recorded(job: i64, told: &Told, did: &Did, broken: &mut Vec<String>) {
    let successes = told.endings.iter().filter(|(_, ending)| *ending == "completed").count();
    if successes > 1 {
        broken.push(format!("job {job} has {successes} recorded successes"));
    }
    match told.state.as_str() {
        "completed" => succeeded(job, told, did, broken),
        "error" if gave_up(told) || told.abandoned || told.lost_its_worker || has(&did.failures, job, told.attempt) => {
        }
        "error" => broken.push(format!(
            "job {job} of `{}` is in error, and its attempt {} did not fail: {}",
            told.function,
            told.attempt,
            told.why.as_deref().unwrap_or_default()
        )),
        "cancelled" if told.lost_its_need => {}
        "cancelled" => broken.push(format!("job {job} is cancelled, which nobody asked for")),
        state => broken.push(format!("job {job} is {state} after draining")),
    }
}

fn succeeded(job: i64, told: &Told, did: &Did, broken: &mut Vec<String>) {
    if did.starts.get(&job).is_some_and(|attempts| attempts.iter().any(|attempt| *attempt > told.attempt)) {
        broken.push(format!("job {job} ran again after its success"));
    }
    let began = has(&did.starts, job, told.attempt);
    // Who completes its own job may be killed after that.
    if !began || told.function != OWN && !has(&did.ends, job, told.attempt) {
        broken.push(format!("job {job} is completed by attempt {}, which did not come to its end", told.attempt));
    }
    if told.function != OWN && told.result != Some(told.attempt.to_string()) {
        broken.push(format!("job {job} has the result {:?} of another attempt than {}", told.result, told.attempt));
    }
}

fn numbers(list: Option<&str>) -> Vec<i64> {
    list.iter().flat_map(|list| list.split(',')).map(|number| number.parse().unwrap()).collect()
}

fn read(store: &Path) -> BTreeMap<i64, Told> {
    let store = Connection::open(store).unwrap();
    let mut jobs = BTreeMap::new();
    let select = "SELECT j.id, state, attempt, result, key, function, crashes,
        immediate AND coalesce(error ->> 'kind' = 'parent', 0),
        immediate AND attempt = 1 AND coalesce(error ->> 'kind' = 'crash'
            AND error ->> 'message' LIKE 'its worker was ended by signal 9 (SIGKILL)%', 0),
        state = 'cancelled' AND coalesce(error ->> 'kind' = 'needs', 0), service || ' ' || j.lane, lane_width,
        (SELECT group_concat(value) FROM json_each(coalesce(after ->> 'any', after))),
        error || coalesce(' ' || (SELECT CAST(log AS TEXT) FROM asyncq_attempt WHERE job = j.id AND number = attempt), '')
        FROM asyncq_job j JOIN asyncq_service s ON s.name = service";
    let mut statement = store.prepare(select).unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let told = Told {
            state: row.get(1).unwrap(),
            attempt: row.get(2).unwrap(),
            result: row.get(3).unwrap(),
            key: row.get(4).unwrap(),
            function: row.get(5).unwrap(),
            crashes: row.get(6).unwrap(),
            abandoned: row.get(7).unwrap(),
            lost_its_worker: row.get(8).unwrap(),
            lost_its_need: row.get(9).unwrap(),
            lane: row.get::<_, Option<String>>(10).unwrap().map(|lane| (lane, row.get::<_, u32>(11).unwrap() as usize)),
            needs: numbers(row.get::<_, Option<String>>(12).unwrap().as_deref()),
            why: row.get(13).unwrap(),
            endings: BTreeMap::new(),
        };
        jobs.insert(row.get(0).unwrap(), told);
    }
    let mut statement = store.prepare("SELECT job, number, ending FROM asyncq_attempt").unwrap();
    let mut rows = statement.query([]).unwrap();
    while let Some(row) = rows.next().unwrap() {
        let (job, number): (i64, i64) = (row.get(0).unwrap(), row.get(1).unwrap());
        if let Some(told) = jobs.get_mut(&job) {
            told.endings.insert(number, row.get(2).unwrap());
        }
    }
    jobs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;

    /// A store in which two jobs ran well, with its books.
    fn played() -> (Place, Books) {
        let (place, books) = (Place::with_functions(&[]), Books::open());
        books.function(&place, "events quick", "quick");
        for id in [1, 2] {
            place.session(&format!("$ asyncq enqueue events quick --key k{id}\n{id}"));
            books.acknowledged(id, &format!("k{id}"));
        }
        place.session("$ asyncq process");
        (place, books)
    }

    fn sees(what: &str, spoil: impl Fn(&Place, &Books)) {
        let (place, books) = played();
        judge(&books, &place.store()).is_clean();
        spoil(&place, &books);
        let verdict = judge(&books, &place.store());
        assert!(verdict.violations.iter().any(|broken| broken.contains(what)), "{what}: {verdict:?}");
    }

    fn change(place: &Place, sql: &str) {
        let store = Connection::open(place.store()).unwrap();
        // The schema lets no client do what is to be seen.
        store.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
        store.execute_batch(sql).unwrap();
    }

    #[test]
    fn the_referee_sees_every_broken_rule() {
        sees("was acknowledged and is lost", |_, books| books.acknowledged(7, "k7"));
        sees("is queued after draining", |place, _| drop(place.stdout("asyncq enqueue events quick")));
        sees("has 2 recorded successes", |place, _| {
            change(
                place,
                "INSERT INTO asyncq_attempt (job, number, processor, started_at, finished_at, ending)
                 VALUES (1, 1, 1, 1, 1, 'completed'), (1, 2, 1, 1, 1, 'completed')",
            );
        });
        sees("ran again after attempt 1, which ended as None", |_, books| books.write("START 1 2 77 1"));
        sees("ran again after its success", |_, books| books.write("START 1 2 77 1"));
        sees("began twice", |_, books| books.write("START 1 1 77 1"));
        sees("while another one was running", |_, books| books.write("OVERLAP 1 2 77 1"));
        sees("of another attempt", |place, _| change(place, "UPDATE asyncq_job SET result = '2' WHERE id = 1"));
        sees("did not come to its end", |place, _| change(place, "UPDATE asyncq_job SET attempt = 3 WHERE id = 2"));
        sees("was acknowledged as jobs [1, 2]", |_, books| books.acknowledged(2, "k1"));
        sees("has not the key", |_, books| books.acknowledged(2, "k3"));
        sees("is not in the store", |_, books| books.write("START 9 1 77 1"));
        sees("did not fail", |place, _| change(place, "UPDATE asyncq_job SET state = 'error' WHERE id = 1"));
        // Only of a nested call, and only if its worker was killed.
        for (immediate, how) in [(0, "was ended by signal 9 (SIGKILL)"), (1, "ended with exit code 3")] {
            sees("did not fail", |place, _| {
                let error = format!(r#"{{"kind":"crash","message":"its worker {how}"}}"#);
                change(
                    place,
                    &format!(
                        "UPDATE asyncq_job SET state = 'error', immediate = {immediate}, error = '{error}' WHERE id = 1"
                    ),
                );
            });
        }
        sees("nobody asked for", |place, _| change(place, "UPDATE asyncq_job SET state = 'cancelled' WHERE id = 1"));
        sees("a key is there twice", |place, _| {
            change(
                place,
                "PRAGMA foreign_keys = OFF; CREATE TABLE free AS SELECT * FROM asyncq_job; DROP TABLE asyncq_job;
                 ALTER TABLE free RENAME TO asyncq_job; UPDATE asyncq_job SET key = 'k1' WHERE id = 2",
            );
        });
        let lane = "UPDATE asyncq_job SET lane = 'a'";
        sees("at once", |place, books| {
            change(place, lane);
            books.write("START 1 2 77 1");
            books.write("START 2 2 77 1");
        });
        sees("which it needs", |place, _| change(place, "UPDATE asyncq_job SET after = '[2]' WHERE id = 1"));
        sees("no job that it needs has failed", |place, _| {
            let needs = r#"{"kind":"needs","message":"job 1"}"#;
            change(
                place,
                &format!("UPDATE asyncq_job SET state = 'cancelled', after = '[1]', error = '{needs}' WHERE id = 2"),
            );
        });
        // The store says that it met with a conflict, the function that it came to its end.
        sees("which ended as Some(\"conflict\")", |place, books| {
            books.write("START 1 2 77 1");
            let attempt =
                "(job, number, processor, started_at, finished_at, ending) VALUES (1, 1, 1, 1, 1, 'conflict')";
            change(place, &format!("INSERT INTO asyncq_attempt {attempt}"));
        });
    }

    #[test]
    fn the_lock_of_a_job_tells_two_that_run_at_once() {
        let (place, books) = (Place::with_functions(&[]), Books::open());
        books.function(&place, "events waits", "waits");
        place.stdout("asyncq enqueue events waits");
        let process = place.start("asyncq process");
        crate::place::wait_until("it has begun", || books.count("START") == 1);
        // What must never be: the job is put back although it runs.
        change(
            &place,
            "UPDATE asyncq_job SET state = 'queued', token = NULL; UPDATE asyncq_service SET concurrency = 2",
        );
        place.session("$ asyncq process");
        assert_eq!(books.count("OVERLAP"), 1);
        drop(process);
    }
}

//! What a job waits for, in one line.

use super::output::{list, relative};
use super::process;
use crate::commands::waiting::Waiting;
use crate::domain::job::{Job, JobId};
use crate::domain::{needs::Blockers, processor::Processor, time::Timestamp};

/// Describes what `job` waits for, and what to do about it.
pub fn describe(job: &Job, waiting: &Waiting, now: Timestamp) -> String {
    let (id, service) = (job.id, &job.call.service);
    match waiting {
        Waiting::Release => format!("its release: `asyncq job start {id}`"),
        Waiting::Jobs(Blockers::Needs(jobs)) => {
            format!("{}; `asyncq job start {id}` starts it without them", jobs_of(jobs))
        }
        Waiting::Jobs(Blockers::Lane(jobs)) => format!("its turn in its lane, after {}", jobs_of(jobs)),
        Waiting::Due { at, again, paused } => {
            let what = if *again { "its next attempt" } else { "its time" };
            let pause =
                if *paused { format!("; `asyncq service resume {service}` ends a pause") } else { String::new() };
            format!("{what}, {}{pause}", relative(*at, now))
        }
        Waiting::Service => format!("service `{service}`, which does not exist"),
        Waiting::Resume => format!("the end of a pause: `asyncq service resume {service}`"),
        Waiting::Slot { concurrency, holders, before } => {
            let slots = if *concurrency == 1 { "the only one is".to_owned() } else { format!("all {concurrency} are") };
            let by = list(holders.iter().map(process::name));
            let before = if *before > 0 { format!("; {}", calls_before(*before)) } else { String::new() };
            format!("a slot of service `{service}`: {slots} taken by {by}{before}")
        }
        Waiting::Rescue(dead) => rescue(dead),
        Waiting::Processor => "`asyncq process`: no processor is running".to_owned(),
        Waiting::AnotherProcessor => {
            format!("`asyncq process {service}`: those at work have no slot of service `{service}`")
        }
        Waiting::Alone => "a processor that runs nothing else, because two died while they ran it".to_owned(),
        Waiting::Rate(rate) => format!("the rate of service `{service}`: {rate}"),
        Waiting::Turn { before: 0 } => "its turn: it is next".to_owned(),
        Waiting::Turn { before } => format!("its turn: {}", calls_before(*before)),
    }
}

fn rescue(dead: &Processor) -> String {
    let why = if dead.of_original { "belongs to the original of this copy" } else { "died" };
    format!("`asyncq process`: {} {why}, and the next processor puts back its jobs", process::name(dead))
}

/// The first of perhaps many jobs.
fn jobs_of(jobs: &[JobId]) -> String {
    match jobs {
        [] => "no job".to_owned(),
        [job] => format!("job {job}"),
        jobs if jobs.len() as u64 == Blockers::MOST.unsigned_abs() => format!("jobs {} and perhaps more", list(jobs)),
        [first @ .., last] => format!("jobs {} and {last}", list(first)),
    }
}

fn calls_before(before: u64) -> String {
    match before {
        1 => "1 call comes first".to_owned(),
        Waiting::MANY.. => format!("{} calls or more come first", Waiting::MANY),
        _ => format!("{before} calls come first"),
    }
}

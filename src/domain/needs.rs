//! What a call needs before it runs: other jobs, and how they have to end.

use std::collections::HashSet;

use serde::Deserialize;

use super::job::{JobId, State};
use super::object;
use super::text::{escape_control, has_names};
use crate::error::{Error, Kind, Result};

/// How a job has to end for a call that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It completes.
    Completed,
    /// It ends. How it ends makes no difference.
    Ended,
    /// It ends in an error, or is cancelled.
    Failed,
}

has_names! { Need {
    Completed: "ok",
    Ended: "any",
    Failed: "failed",
} }

impl Need {
    /// Whether a job that has ended in this state meets the need.
    #[must_use]
    pub fn is_met_by(self, state: State) -> bool {
        match self {
            Need::Completed => state == State::Completed,
            Need::Ended => true,
            Need::Failed => state != State::Completed,
        }
    }
}

/// What one of many calls needs: a job, or an earlier one of the calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// This job.
    Job(JobId),
    /// The call with this number among those that are enqueued together, counted from 0.
    Earlier(usize),
}

/// The jobs that a call needs, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs {
    jobs: Vec<(JobId, Need)>,
    /// Earlier ones of the calls that are enqueued together.
    earlier: Vec<(usize, Need)>,
    /// Names of earlier lines, until they are resolved.
    names: Vec<(String, Need)>,
}

impl Needs {
    /// How many jobs a call can need at most. The schema's trigger has the same number.
    pub const MOST: usize = 100_000;

    /// Adds jobs that have to end like this.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a job that was added before, or for too many of them.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = JobId>, need: Need) -> Result<()> {
        self.extend(jobs.into_iter().map(|job| (job, need)))
    }

    fn extend(&mut self, jobs: impl IntoIterator<Item = (JobId, Need)>) -> Result<()> {
        self.jobs.extend(jobs.into_iter().take(Needs::MOST + 1));
        if self.jobs.len() + self.earlier.len() > Needs::MOST {
            let message = format!("a call can wait for at most {} jobs", Needs::MOST);
            return Err(Error::new(Kind::Usage, message).with_hint("enqueue them with `--batch FILE --then`"));
        }
        self.jobs.sort_by_key(|(job, _)| *job);
        match self.jobs.windows(2).find(|two| two[0].0 == two[1].0) {
            None => Ok(()),
            Some(two) => Err(twice(&format!("job {}", two[0].0))),
        }
    }

    /// Reads what [`Needs::to_json`] writes. A text in a list is the name of an earlier line.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else; and as for [`Needs::add`].
    pub fn parse_json(text: &str) -> Result<Needs> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum JobOrName {
            Job(i64),
            Name(String),
        }
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Lists {
            ok: Vec<JobOrName>,
            any: Vec<JobOrName>,
            failed: Vec<JobOrName>,
        }
        let lists = if text.trim_start().starts_with('{') {
            object::read(text).ok().map(|Lists { ok, any, failed }| [ok, any, failed])
        } else {
            serde_json::from_str(text).ok().map(|ok| [ok, Vec::new(), Vec::new()])
        };
        let Some(lists) = lists else {
            return Err(Error::new(Kind::Invalid, "`after` is not a list of job numbers")
                .with_hint("write \"after\":[7,8], or \"after\":{\"ok\":[7],\"any\":[8],\"failed\":[9]}"));
        };
        let mut needs = Needs::default();
        for (list, need) in lists.into_iter().zip(Need::ALL) {
            let mut jobs = Vec::new();
            for written in list {
                match written {
                    JobOrName::Job(job) => jobs.push(JobId(job)),
                    JobOrName::Name(name) => needs.names.push((name, need)),
                }
            }
            needs.add(jobs, need)?;
        }
        Ok(needs)
    }

    /// Whether the call needs no other job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty() && self.earlier.is_empty() && self.names.is_empty()
    }

    /// The jobs in their order, each with how it has to end.
    #[must_use]
    pub fn jobs(&self) -> &[(JobId, Need)] {
        &self.jobs
    }

    /// Replaces names by the calls that `find` returns.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for a name that is not found; and as for [`Needs::add`].
    pub fn resolve_names(&mut self, find: impl Fn(&str) -> Option<Needed>) -> Result<()> {
        let (mut jobs, mut seen) = (Vec::new(), HashSet::new());
        for (name, need) in std::mem::take(&mut self.names) {
            match find(&name) {
                Some(Needed::Job(job)) => jobs.push((job, need)),
                Some(Needed::Earlier(call)) if seen.insert(call) => self.earlier.push((call, need)),
                Some(Needed::Earlier(_)) => return Err(twice(&format!("`{}`", escape_control(&name)))),
                None => {
                    let message = format!("no earlier line has the name `{}`", escape_control(&name));
                    return Err(Error::new(Kind::Invalid, message)
                        .with_hint("a line can only wait for lines before it, and for jobs by their numbers"));
                }
            }
        }
        self.extend(jobs)
    }

    /// The same needs, with jobs only: `job` returns that of an earlier call, unless that call was refused.
    ///
    /// # Errors
    /// [`Kind::Denied`] when an earlier call was refused, [`Kind::Usage`] for a job that is named twice.
    pub fn resolve_earlier(&self, job: impl Fn(usize) -> Option<JobId>) -> Result<Needs> {
        let jobs: Option<Vec<_>> = self.earlier.iter().map(|(call, need)| Some((job(*call)?, *need))).collect();
        let Some(jobs) = jobs else {
            return Err(Error::new(Kind::Denied, "an earlier call, which this call needs, was refused"));
        };
        let mut needs = Needs { jobs: self.jobs.clone(), ..Needs::default() };
        needs.extend(jobs)?;
        Ok(needs)
    }

    /// Whether it names earlier calls.
    #[must_use]
    pub fn has_earlier(&self) -> bool {
        !self.earlier.is_empty()
    }

    /// The form in the store: `[7,8]`, or `{"ok":[7],"any":[8],"failed":[9]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let of = |need: Need| -> Vec<JobId> { self.jobs.iter().filter(|it| it.1 == need).map(|it| it.0).collect() };
        if self.jobs.iter().all(|(_, need)| *need == Need::Completed) {
            return serde_json::to_string(&of(Need::Completed)).unwrap_or_default();
        }
        let lists = Need::ALL.map(|need| (need.as_str(), of(need)));
        let lists: std::collections::BTreeMap<_, _> = lists.into_iter().filter(|(_, jobs)| !jobs.is_empty()).collect();
        serde_json::to_string(&lists).unwrap_or_default()
    }
}

fn twice(what: &str) -> Error {
    Error::new(Kind::Usage, format!("{what} is named twice among those to wait for")).with_hint("name each job once")
}

/// Jobs as ranges of their numbers: the form in the store for a call that needs a whole batch, `[[1,100],[102,102]]`.
#[must_use]
pub fn ranges_to_json(jobs: &[JobId]) -> String {
    serde_json::to_string(&ranges(jobs.iter().map(|job| [job.0, job.0]).collect())).unwrap_or_default()
}

/// The jobs that a call needs, from the store: ranges of their numbers, in order. If a client has written something invalid, it
/// names no job.
#[must_use]
pub fn ranges_of_json(text: &str) -> Vec<[i64; 2]> {
    if let Ok(found) = serde_json::from_str(text) {
        return ranges(found);
    }
    let needs = Needs::parse_json(text).unwrap_or_default();
    ranges(needs.jobs.iter().map(|(job, _)| [job.0, job.0]).collect())
}

/// The fewest ranges with the same numbers, in order.
fn ranges(mut parts: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    parts.sort_unstable();
    let mut ranges: Vec<[i64; 2]> = Vec::new();
    for [first, last] in parts {
        match ranges.last_mut() {
            Some([_, end]) if first <= end.saturating_add(1) => *end = last.max(*end),
            _ => ranges.push([first, last]),
        }
    }
    ranges
}

/// The jobs that a blocked job waits for; at most [`Blockers::MOST`] of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blockers {
    /// Those that it needs.
    Needs(Vec<JobId>),
    /// Those that are in the queue or run, of its lane.
    Lane(Vec<JobId>),
}

impl Blockers {
    /// How many are looked up.
    pub const MOST: i64 = 10;
}

/// Parses numbers of jobs and ranges of them, as in `7,9-12`.
///
/// # Errors
/// [`Kind::Usage`] for anything else, and for more jobs than a call can need.
pub fn parse_jobs(text: &str) -> Result<Vec<JobId>> {
    let refuse = |part: &str| {
        let message = format!("`{}` is not the number of a job", escape_control(part));
        Err(Error::new(Kind::Usage, message).with_hint("write numbers of jobs and ranges, as in 7,9-12"))
    };
    let mut jobs = Vec::new();
    for part in text.split([',', ' ', '\n', '\t', '\r']).filter(|part| !part.is_empty()) {
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number > 0);
        let range = match part.split_once('-') {
            None => number(part).map(|only| (only, only)),
            Some((first, last)) => number(first).zip(number(last)).filter(|(first, last)| first <= last),
        };
        let Some((first, last)) = range else { return refuse(part) };
        let room = (Needs::MOST + 1).saturating_sub(jobs.len());
        jobs.extend((first..=last).take(room).map(JobId));
    }
    if jobs.is_empty() { refuse(text) } else { Ok(jobs) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[i64]) -> Vec<JobId> {
        numbers.iter().copied().map(JobId).collect()
    }

    #[test]
    fn jobs_are_numbers_and_ranges() {
        assert_eq!(parse_jobs("7,9-12").unwrap(), ids(&[7, 9, 10, 11, 12]));
        assert_eq!(parse_jobs("7\n8\n").unwrap(), ids(&[7, 8]));
        for text in ["", "x", "0", "-1", "9-7", "7-", "7,x", "1-2-3", "99999999999999999999"] {
            assert_eq!(parse_jobs(text).unwrap_err().kind(), Kind::Usage, "{text}");
        }
        assert_eq!(parse_jobs("1-999999999999").unwrap().len(), Needs::MOST + 1);
    }

    #[test]
    fn needs_are_kept_as_json() {
        let mut needs = Needs::default();
        needs.add(ids(&[8, 7]), Need::Completed).unwrap();
        assert_eq!(needs.to_json(), "[7,8]");
        needs.add(ids(&[9]), Need::Failed).unwrap();
        assert_eq!(needs.to_json(), r#"{"failed":[9],"ok":[7,8]}"#);
        assert_eq!(Needs::parse_json(&needs.to_json()).unwrap(), needs);
        for text in ["7", "{}}", r#"[{"a":1}]"#, r#"{"ok":7}"#, r#"{"of":[7]}"#, "[7,7]", "[[7]]"] {
            Needs::parse_json(text).unwrap_err();
        }
        assert_eq!(
            needs.add(ids(&[9]), Need::Ended).unwrap_err().to_string(),
            "job 9 is named twice among those to wait for"
        );
        let too_many = Needs::default().add((1..200_000).map(JobId), Need::Ended).unwrap_err();
        assert_eq!(too_many.to_string(), "a call can wait for at most 100000 jobs");
    }

    #[test]
    fn needs_are_read_as_ranges() {
        assert_eq!(ranges_to_json(&ids(&[9, 1, 2, 3, 7, 8])), "[[1,3],[7,9]]");
        for (text, ranges) in [
            ("[[1,100],[102,102]]", vec![[1, 100], [102, 102]]),
            ("[8,7,1]", vec![[1, 1], [7, 8]]),
            (r#"{"failed":[9],"ok":[7,8]}"#, vec![[7, 9]]),
            ("[]", vec![]),
            ("nonsense", vec![]),
        ] {
            assert_eq!(ranges_of_json(text), ranges, "{text}");
        }
    }

    #[test]
    fn names_are_those_of_earlier_lines() {
        let mut needs = Needs::parse_json(r#"{"ok":["a",7],"any":["b"]}"#).unwrap();
        let find = |name: &str| match name {
            "a" => Some(Needed::Earlier(0)),
            "b" => Some(Needed::Job(JobId(9))),
            _ => None,
        };
        needs.resolve_names(find).unwrap();
        let resolved = needs.resolve_earlier(|call| (call == 0).then_some(JobId(8))).unwrap();
        assert_eq!(resolved.to_json(), r#"{"any":[9],"ok":[7,8]}"#);
        assert_eq!(needs.resolve_earlier(|_| None).unwrap_err().kind(), Kind::Denied);
        let unknown = Needs::parse_json(r#"["c"]"#).unwrap().resolve_names(find).unwrap_err();
        assert_eq!(unknown.to_string(), "no earlier line has the name `c`");
        let twice = Needs::parse_json(r#"["a","a"]"#).unwrap().resolve_names(find).unwrap_err();
        assert_eq!(twice.to_string(), "`a` is named twice among those to wait for");
    }

    #[test]
    fn many_names_are_resolved_at_once_and_counted() {
        let named = |count: usize| {
            let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            Needs::parse_json(&serde_json::to_string(&names).unwrap()).unwrap()
        };
        let earlier = |name: &str| name.parse().ok().map(Needed::Earlier);
        let job = |name: &str| name.parse().ok().map(|number| Needed::Job(JobId(number)));
        let mut needs = named(Needs::MOST);
        needs.resolve_names(earlier).unwrap();
        let resolved = needs.resolve_earlier(|call| i64::try_from(call).ok().map(JobId)).unwrap();
        let mut needs = named(Needs::MOST);
        needs.resolve_names(job).unwrap();
        assert_eq!(resolved, needs);
        for too_many in [named(Needs::MOST + 1).resolve_names(earlier), named(Needs::MOST + 1).resolve_names(job)] {
            assert_eq!(too_many.unwrap_err().to_string(), "a call can wait for at most 100000 jobs");
        }
        let same = needs_of_two_names().resolve_earlier(|_| Some(JobId(7))).unwrap_err();
        assert_eq!(same.to_string(), "job 7 is named twice among those to wait for");
    }

    fn needs_of_two_names() -> Needs {
        let mut needs = Needs::parse_json(r#"["0","1"]"#).unwrap();
        needs.resolve_names(|name| name.parse().ok().map(Needed::Earlier)).unwrap();
        needs
    }

    #[test]
    fn many_jobs_are_ranges() {
        assert_eq!(ranges_to_json(&ids(&[3, 1, 2, 9, 9])), "[[1,3],[9,9]]");
    }

    #[test]
    fn a_need_is_met_by_the_end_that_it_names() {
        let met = |need: Need| [State::Completed, State::Error, State::Cancelled].map(|state| need.is_met_by(state));
        assert_eq!(met(Need::Completed), [true, false, false]);
        assert_eq!(met(Need::Ended), [true, true, true]);
        assert_eq!(met(Need::Failed), [false, true, true]);
    }
}

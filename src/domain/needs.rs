//! What a call needs before it runs: other jobs, and how they have to end.

use serde::Deserialize;

use super::job::{JobId, State};
use super::{object, text::has_names};
use crate::error::{Error, Kind, Result};

/// How a job has to end for a call that needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It completes.
    Completed,
    /// It ends, in whatever way.
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
    /// Whether a job that has ended in this state is what the call needs.
    #[must_use]
    pub fn is_met_by(self, state: State) -> bool {
        match self {
            Need::Completed => state == State::Completed,
            Need::Ended => true,
            Need::Failed => state != State::Completed,
        }
    }
}

/// The jobs that a call needs, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needs(Vec<(JobId, Need)>);

impl Needs {
    /// How many jobs a call can need at most, as in the schema's trigger.
    pub const MOST: usize = 100_000;

    /// Adds jobs that have to end in this way.
    ///
    /// # Errors
    /// [`Kind::Usage`] for a job that is there already, or for too many of them.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = JobId>, need: Need) -> Result<()> {
        self.0.extend(jobs.into_iter().take(Needs::MOST + 1).map(|job| (job, need)));
        if self.0.len() > Needs::MOST {
            let message = format!("a call can wait for at most {} jobs", Needs::MOST);
            return Err(Error::new(Kind::Usage, message).with_hint("enqueue them with `--batch FILE --then`"));
        }
        self.0.sort_by_key(|(job, _)| *job);
        match self.0.windows(2).find(|two| two[0].0 == two[1].0) {
            None => Ok(()),
            Some(two) => {
                Err(Error::new(Kind::Usage, format!("job {} is named twice among those to wait for", two[0].0))
                    .with_hint("name each job once"))
            }
        }
    }

    /// Reads what [`Needs::to_json`] writes.
    ///
    /// # Errors
    /// [`Kind::Invalid`] for anything else; and as for [`Needs::add`].
    pub fn parse_json(text: &str) -> Result<Needs> {
        #[derive(Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        struct Lists {
            ok: Vec<i64>,
            any: Vec<i64>,
            failed: Vec<i64>,
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
        for (jobs, need) in lists.into_iter().zip(Need::ALL) {
            needs.add(jobs.into_iter().map(JobId), need)?;
        }
        Ok(needs)
    }

    /// Whether the call needs no other job.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The jobs, in their order, and how they have to end.
    #[must_use]
    pub fn jobs(&self) -> &[(JobId, Need)] {
        &self.0
    }

    /// As the store keeps it: `[7,8]`, or `{"ok":[7],"any":[8],"failed":[9]}`.
    #[must_use]
    pub fn to_json(&self) -> String {
        let of = |need: Need| -> Vec<JobId> { self.0.iter().filter(|it| it.1 == need).map(|it| it.0).collect() };
        if self.0.iter().all(|(_, need)| *need == Need::Completed) {
            return serde_json::to_string(&of(Need::Completed)).unwrap_or_default();
        }
        let lists = Need::ALL.map(|need| (need.as_str(), of(need)));
        let lists: std::collections::BTreeMap<_, _> = lists.into_iter().filter(|(_, jobs)| !jobs.is_empty()).collect();
        serde_json::to_string(&lists).unwrap_or_default()
    }
}

/// The jobs for which a blocked job waits, of which no more than [`Blockers::MOST`] are looked up.
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
        let message = format!("`{}` is not the number of a job", super::text::escape_control(part));
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
        for text in ["7", "{}}", r#"["7"]"#, r#"{"ok":7}"#, r#"{"of":[7]}"#, "[7,7]", "[[7]]"] {
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
    fn a_need_is_met_by_the_end_that_it_names() {
        let met = |need: Need| [State::Completed, State::Error, State::Cancelled].map(|state| need.is_met_by(state));
        assert_eq!(met(Need::Completed), [true, false, false]);
        assert_eq!(met(Need::Ended), [true, true, true]);
        assert_eq!(met(Need::Failed), [false, true, true]);
    }
}

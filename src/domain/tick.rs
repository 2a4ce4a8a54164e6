//! What happens to the due ticks of a schedule: which of them make a job, which make none and why, and when the next one is.
//!
//! A tick is *due* from its moment until it is handled. All due ticks of a schedule are handled together, and no tick is handled
//! twice. Even when the clock is set back, the next tick of a schedule only moves forward.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::job::JobId;
use super::state::{Phase, State};
use super::text::has_names;
use super::time::{Timestamp, millis, show_span, write_span};
use super::timetable::Timetable;
use crate::error::{Error, Kind, Result};

/// How many due ticks of a schedule to look at. Older ones do not count.
pub const MOST: usize = 1000;

/// A schedule whose last tick is further in the future than this got it from a wrong clock.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// A time zone that changes its rules moves its clock by no more than this.
const ZONE_SHIFT: Duration = Duration::from_secs(3 * 3600);

/// Which jobs several due ticks make, after a pause or while no processor was running.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Missed {
    /// One, which stands for all of them.
    #[default]
    Once,
    /// One if the newest has just come.
    Skip,
    /// One each.
    All,
}

has_names! { Missed { Once: "once", Skip: "skip", All: "all", } }

/// Whether a tick makes a job while the job of an earlier tick has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Overlap {
    /// No.
    #[default]
    Skip,
    /// If that job runs; not if it still waits.
    Queue,
    /// Yes.
    Allow,
}

has_names! { Overlap { Skip: "skip", Queue: "queue", Allow: "allow", } }

/// What a schedule does with ticks that come late or too soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lateness {
    missed: Missed,
    within: Option<Duration>,
    overlap: Overlap,
}

impl Lateness {
    /// Without `within`, a tick may be a minute late for [`Missed::Skip`], and otherwise a day. Without `overlap`, it is
    /// [`Overlap::Allow`] for [`Missed::All`], and otherwise [`Overlap::Skip`].
    ///
    /// # Errors
    /// [`Kind::Usage`] for [`Missed::All`] with another overlap, because the first job would prevent all others.
    pub fn new(missed: Missed, within: Option<Duration>, overlap: Option<Overlap>) -> Result<Lateness> {
        let overlap = match (missed, overlap) {
            (Missed::All, None | Some(Overlap::Allow)) => Overlap::Allow,
            (Missed::All, Some(other)) => {
                let other = other.as_str();
                let message = format!("`--missed all` makes several jobs at once, which `--overlap {other}` forbids");
                return Err(Error::new(Kind::Usage, message)
                    .with_hint("use `--overlap allow`: a service runs no more calls at once than its concurrency"));
            }
            (_, overlap) => overlap.unwrap_or_default(),
        };
        Ok(Lateness { missed, within, overlap })
    }

    /// Which jobs several due ticks make.
    #[must_use]
    pub fn missed(&self) -> Missed {
        self.missed
    }

    /// How late a tick may be and still make a job.
    #[must_use]
    pub fn within(&self) -> Duration {
        let default = if self.missed == Missed::Skip { Duration::from_secs(60) } else { DAY };
        self.within.unwrap_or(default)
    }

    /// The same, if it was given.
    #[must_use]
    pub fn given_within(&self) -> Option<Duration> {
        self.within
    }

    /// Whether a tick makes a job while the one before has not ended.
    #[must_use]
    pub fn overlap(&self) -> Overlap {
        self.overlap
    }
}

/// Where a schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScheduleStanding {
    /// The first tick that is not handled.
    pub next_tick: Timestamp,
    /// The last tick that is handled.
    pub last_tick: Option<Timestamp>,
    /// The last job that a tick made, if it still exists.
    pub last_job: Option<(JobId, State)>,
}

/// A job that a tick makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TickJob {
    /// The tick.
    pub tick: Timestamp,
    /// How many earlier ticks it stands for, too.
    pub missed: u64,
}

/// Why a tick makes no job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "why", rename_all = "lowercase")]
pub enum Why {
    /// It was noticed too late.
    Late {
        /// By how many milliseconds.
        by: i64,
        /// How many are allowed.
        within: i64,
    },
    /// The job of an earlier tick has not ended.
    Overlap {
        /// Its number.
        job: i64,
        /// Whether it runs. Otherwise it waits.
        runs: bool,
    },
    /// There are more than [`MOST`] newer ones.
    Many,
    /// Its call does not fit its function, or a rule of the application refused the job.
    Refused {
        /// What the refusal says. Older builds noted neither this nor the hint, and ignore both.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        /// What helps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hint: Option<String>,
    },
    /// The schedule could not be read.
    Unreadable,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |millis: &i64| Duration::from_millis(millis.unsigned_abs());
        match self {
            Why::Late { by, within } => {
                let (by, within) = (show_span(span(by)), write_span(span(within)));
                write!(f, "it was noticed {by} late, and `--within` is {within}")
            }
            Why::Overlap { job, runs: true } => write!(f, "job {job} of an earlier tick was still running"),
            Why::Overlap { job, runs: false } => write!(f, "job {job} of an earlier tick was still waiting"),
            Why::Many => write!(f, "{MOST} newer ticks were due"),
            Why::Refused { error, .. } => f.write_str(error.as_deref().unwrap_or("it was refused")),
            Why::Unreadable => f.write_str("the schedule could not be read"),
        }
    }
}

/// A tick that makes no job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The tick, in milliseconds since 1970-01-01 UTC.
    pub tick: i64,
    /// Why.
    #[serde(flatten)]
    pub why: Why,
}

/// What the due ticks of a schedule come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firing {
    /// The jobs to make, that of the oldest tick first.
    pub jobs: Vec<TickJob>,
    /// How many ticks made no job and are not among the missed ones of a job either.
    pub skipped: u64,
    /// The newest of these.
    pub last_skip: Option<Skip>,
    /// The next tick after that; `None` if the schedule never ticks again.
    pub next_tick: Option<Timestamp>,
    /// The last tick that is handled then.
    pub last_tick: Option<Timestamp>,
    /// What was out of order.
    pub shift: Option<Shift>,
}

/// Why the next tick of a schedule is not the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shift {
    /// The rules of its time zone have changed.
    Zone,
    /// The clock was ahead by more than a day when the schedule last ticked.
    Clock,
}

/// What went wrong with a schedule when it was to tick.
#[derive(Debug)]
pub enum TickTrouble {
    /// Its next tick has moved.
    Shifted(Shift),
    /// A tick made no job, because its call does not fit its function, or a rule of the application refuses it.
    Refused(Error),
    /// The schedule cannot be read. It is tried again after [`TRIED_AGAIN`].
    Unreadable(Error),
}

/// How long a schedule that cannot be read waits.
pub const TRIED_AGAIN: Duration = Duration::from_secs(3600);

impl fmt::Display for Shift {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Shift::Zone => "the rules of its time zone have changed, so its next tick has moved",
            Shift::Clock => "its last tick lies in the future, because the clock was wrong then; it goes on from now",
        })
    }
}

impl ScheduleStanding {
    /// Whether a clock that was ahead by more than a day has put the schedule to sleep. Then it must be fired although its next
    /// tick is not due.
    #[must_use]
    pub fn is_ahead(&self, now: Timestamp) -> bool {
        self.last_tick.is_some_and(|tick| tick > now.after(DAY))
    }

    /// Decides about all ticks that are due `now`.
    #[must_use]
    pub fn fire(&self, timetable: &Timetable, lateness: &Lateness, now: Timestamp) -> Firing {
        let idle = Firing {
            jobs: Vec::new(),
            skipped: 0,
            last_skip: None,
            next_tick: Some(self.next_tick),
            last_tick: self.last_tick,
            shift: None,
        };
        if self.is_ahead(now) {
            let next_tick = timetable.next(now);
            return Firing { next_tick, last_tick: None, shift: Some(Shift::Clock), ..idle };
        }
        if self.next_tick > now {
            return idle;
        }
        let before = Timestamp(self.next_tick.0.saturating_sub(1));
        let is_tick = timetable.next(before) == Some(self.next_tick);
        // If the tick has moved, its time may be over already.
        let before = if is_tick { before } else { before.before(ZONE_SHIFT) };
        let handled = self.last_tick.map_or(before, |last| last.max(before));
        let idle = Firing { shift: (!is_tick).then_some(Shift::Zone), ..idle };
        let due = newest(timetable, handled, now);
        let Some(last) = due.last() else { return Firing { next_tick: timetable.next(handled), ..idle } };
        let idle = Firing { next_tick: timetable.next(now), last_tick: Some(*last), ..idle };
        self.without_overlaps(in_time(&due, lateness, now, idle), lateness)
    }

    /// Skips ticks that the job of an earlier tick prevents.
    fn without_overlaps(&self, firing: Firing, lateness: &Lateness) -> Firing {
        let (Some((job, state)), Some(newest)) = (self.last_job, firing.jobs.last()) else { return firing };
        let is_free = match (lateness.overlap, state.phase()) {
            (_, Phase::Ended) | (Overlap::Allow, _) | (Overlap::Queue, Phase::Running) => true,
            (Overlap::Skip, _) | (Overlap::Queue, Phase::Waiting) => false,
        };
        if is_free {
            return firing;
        }
        let why = Why::Overlap { job: job.0, runs: state.phase() == Phase::Running };
        let skipped = firing.skipped + firing.jobs.iter().map(|job| job.missed + 1).sum::<u64>();
        let last_skip = Some(Skip { tick: newest.tick.0, why });
        Firing { jobs: Vec::new(), skipped, last_skip, ..firing }
    }
}

/// What these due ticks lead to if no earlier job prevents them. There is at least one tick.
fn in_time(due: &[Timestamp], lateness: &Lateness, now: Timestamp, idle: Firing) -> Firing {
    let within = lateness.within();
    let late =
        |tick: Timestamp| Skip { tick: tick.0, why: Why::Late { by: millis(now.since(tick)), within: millis(within) } };
    // One tick more than there may be jobs shows that there are older ones.
    let many = due.len().saturating_sub(MOST);
    let (older, due) = due.split_at(many);
    let first_in_time = due.partition_point(|tick| now.since(*tick) > within);
    let (too_late, in_time) = due.split_at(first_in_time);
    if lateness.missed == Missed::All {
        let jobs = in_time.iter().map(|tick| TickJob { tick: *tick, missed: 0 }).collect();
        let skip_older = older.last().map(|tick| Skip { tick: tick.0, why: Why::Many });
        let last_skip = too_late.last().map(|tick| late(*tick)).or(skip_older);
        return Firing { jobs, skipped: (older.len() + too_late.len()) as u64, last_skip, ..idle };
    }
    match (in_time.last(), too_late.last()) {
        (Some(newest), _) => {
            let job = TickJob { tick: *newest, missed: due.len() as u64 - 1 };
            Firing { jobs: vec![job], ..idle }
        }
        (None, last) => Firing { skipped: due.len() as u64, last_skip: last.map(|tick| late(*tick)), ..idle },
    }
}

/// The ticks after `handled` up to `now`, oldest first: at most the newest [`MOST`], and one more if there are older ones.
fn newest(timetable: &Timetable, handled: Timestamp, now: Timestamp) -> Vec<Timestamp> {
    let (mut from, mut step) = (now, Duration::from_secs(60 * MOST as u64));
    loop {
        let start = from.before(step).max(handled);
        let ticks = timetable.ticks(start).take_while(|tick| *tick <= now);
        let mut ticks: Vec<Timestamp> = ticks.take(4 * MOST).collect();
        if ticks.len() == 4 * MOST {
            step /= 2;
        } else if ticks.len() > MOST || start == handled {
            return ticks.split_off(ticks.len().saturating_sub(MOST + 1));
        } else {
            (from, step) = (start, step * 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::timetable::Rule;

    const HOUR: i64 = 3_600_000;

    /// Ticks every hour.
    fn hourly() -> Timetable {
        Timetable::new(Rule::every(Duration::from_secs(3600)).unwrap(), None, None).unwrap()
    }

    fn at(hour: i64, minute: i64) -> Timestamp {
        Timestamp(hour * HOUR + minute * 60_000)
    }

    fn lateness(missed: Missed, within: Option<u64>, overlap: Option<Overlap>) -> Lateness {
        Lateness::new(missed, within.map(|minutes| Duration::from_secs(minutes * 60)), overlap).unwrap()
    }

    fn standing(next: i64) -> ScheduleStanding {
        ScheduleStanding { next_tick: at(next, 0), last_tick: Some(at(next - 1, 0)), last_job: None }
    }

    fn jobs(firing: &Firing) -> Vec<(i64, u64)> {
        firing.jobs.iter().map(|job| (job.tick.0 / HOUR, job.missed)).collect()
    }

    fn why(firing: &Firing) -> Option<(i64, String)> {
        firing.last_skip.as_ref().map(|skip| (skip.tick / HOUR, skip.why.to_string()))
    }

    #[test]
    fn a_tick_in_time_makes_a_job() {
        for missed in Missed::ALL {
            let firing = standing(100).fire(&hourly(), &lateness(missed, None, None), at(100, 0));
            let job = TickJob { tick: at(100, 0), missed: 0 };
            let expected = Firing {
                jobs: vec![job],
                skipped: 0,
                last_skip: None,
                next_tick: Some(at(101, 0)),
                last_tick: Some(at(100, 0)),
                shift: None,
            };
            assert_eq!(firing, expected);
        }
    }

    #[test]
    fn missed_ticks() {
        let fire = |missed, within, now| standing(100).fire(&hourly(), &lateness(missed, within, None), now);
        // No processor ran for three days.
        let firing = fire(Missed::Once, None, at(171, 30));
        assert_eq!((jobs(&firing), firing.skipped, firing.next_tick), (vec![(171, 71)], 0, Some(at(172, 0))));
        let firing = fire(Missed::Once, Some(20), at(171, 30));
        let late = Some((171, "it was noticed 30m late, and `--within` is 20m".to_owned()));
        assert_eq!((jobs(&firing), firing.skipped, why(&firing)), (vec![], 72, late));
        assert_eq!((firing.next_tick, firing.last_tick), (Some(at(172, 0)), Some(at(171, 0))));

        let firing = fire(Missed::Skip, None, at(171, 1));
        assert_eq!((jobs(&firing), firing.skipped), (vec![(171, 71)], 0));
        let firing = fire(Missed::Skip, None, at(171, 2));
        let late = Some((171, "it was noticed 2m late, and `--within` is 1m".to_owned()));
        assert_eq!((jobs(&firing), firing.skipped, why(&firing)), (vec![], 72, late));

        let firing = fire(Missed::All, Some(180), at(105, 30));
        let late = Some((102, "it was noticed 3h late, and `--within` is 3h".to_owned()));
        assert_eq!((jobs(&firing), firing.skipped, why(&firing)), (vec![(103, 0), (104, 0), (105, 0)], 3, late));
    }

    #[test]
    fn at_most_so_many_ticks_are_looked_at() {
        let year = Some(366 * 24 * 60);
        let fire = |missed| standing(0).fire(&hourly(), &lateness(missed, year, None), at(5000, 0));
        let firing = fire(Missed::All);
        assert_eq!((firing.jobs.len(), jobs(&firing)[0], jobs(&firing)[999]), (1000, (4001, 0), (5000, 0)));
        assert_eq!((firing.skipped, why(&firing)), (1, Some((4000, "1000 newer ticks were due".to_owned()))));
        assert_eq!(jobs(&fire(Missed::Once)), [(5000, 999)]);

        // Many ticks in a short time, a long time ago; and ten years of seconds.
        let december = Timetable::new(Rule::cron("* * * 12 *", "UTC").unwrap(), None, None).unwrap();
        let now = Timestamp::parse("2026-11-01T00:00:00Z").unwrap();
        let due = newest(&december, Timestamp::parse("2020-01-01T00:00:00Z").unwrap(), now);
        assert_eq!((due.len(), due[MOST].to_string().as_str()), (1001, "2025-12-31T23:59:00.000Z"));
        let seconds = Timetable::new(Rule::every(Duration::from_secs(1)).unwrap(), None, None).unwrap();
        let due = newest(&seconds, Timestamp(0), now);
        assert_eq!((due.len(), due[0]), (1001, now.before(Duration::from_secs(1000))));
    }

    #[test]
    fn an_earlier_job_may_keep_a_tick_away() {
        use State::{Cancelled, Completed, Delayed, Error, Held, Processing, Queued};
        let fire = |overlap, state, now| {
            let standing = ScheduleStanding { last_job: Some((JobId(17), state)), ..standing(100) };
            standing.fire(&hourly(), &lateness(Missed::Once, None, Some(overlap)), now)
        };
        for ended in [Completed, Error, Cancelled] {
            for overlap in Overlap::ALL {
                assert_eq!(jobs(&fire(overlap, ended, at(100, 0))), [(100, 0)]);
            }
        }
        for waiting in [Held, Delayed, Queued] {
            for overlap in [Overlap::Skip, Overlap::Queue] {
                let firing = fire(overlap, waiting, at(102, 0));
                let why_not = Some((102, "job 17 of an earlier tick was still waiting".to_owned()));
                assert_eq!((jobs(&firing), firing.skipped, why(&firing)), (vec![], 3, why_not));
                assert_eq!((firing.next_tick, firing.last_tick), (Some(at(103, 0)), Some(at(102, 0))));
            }
            assert_eq!(jobs(&fire(Overlap::Allow, waiting, at(100, 0))), [(100, 0)]);
        }
        let why_not = Some((100, "job 17 of an earlier tick was still running".to_owned()));
        assert_eq!(why(&fire(Overlap::Skip, Processing, at(100, 0))), why_not);
        assert_eq!(jobs(&fire(Overlap::Queue, Processing, at(102, 0))), [(102, 2)]);
        assert_eq!(jobs(&fire(Overlap::Allow, Processing, at(100, 0))), [(100, 0)]);
    }

    #[test]
    fn all_missed_ticks_cannot_wait_for_each_other() {
        assert_eq!(lateness(Missed::All, None, None).overlap(), Overlap::Allow);
        assert_eq!(lateness(Missed::Once, None, None).overlap(), Overlap::Skip);
        let error = Lateness::new(Missed::All, None, Some(Overlap::Queue)).unwrap_err();
        assert_eq!(error.to_string(), "`--missed all` makes several jobs at once, which `--overlap queue` forbids");
    }

    #[test]
    fn a_clock_that_is_set() {
        let policy = lateness(Missed::Once, None, None);
        let fire = |standing: ScheduleStanding, now| standing.fire(&hourly(), &policy, now);
        // Back by an hour: what has run does not run again.
        let firing = fire(standing(100), at(98, 30));
        assert_eq!((jobs(&firing), firing.next_tick), (vec![], Some(at(100, 0))));
        // Forward: the ticks between are missed.
        assert_eq!(jobs(&fire(standing(100), at(110, 5))), [(110, 10)]);
        // Years ahead, and right again.
        let ahead = standing(50_000);
        assert!(ahead.is_ahead(at(100, 30)) && !standing(100).is_ahead(at(98, 30)));
        let firing = fire(ahead, at(100, 30));
        assert_eq!(
            (jobs(&firing), firing.next_tick, firing.last_tick, firing.shift),
            (vec![], Some(at(101, 0)), None, Some(Shift::Clock))
        );
        // A rare schedule is none of these.
        let rare = ScheduleStanding { last_tick: Some(at(100, 0)), ..standing(50_000) };
        assert_eq!(fire(rare, at(200, 0)).next_tick, Some(at(50_000, 0)));
    }

    #[test]
    fn a_zone_that_changes_its_rules() {
        let daily =
            |hour: i64| Timetable::new(Rule::cron(&format!("0 {hour} * * *"), "UTC").unwrap(), None, None).unwrap();
        let policy = lateness(Missed::Once, None, None);
        let expected = ScheduleStanding { next_tick: at(24 + 3, 0), last_tick: Some(at(3, 0)), last_job: None };
        // The tick is an hour later than was expected: it is put back.
        let firing = expected.fire(&daily(4), &policy, at(24 + 3, 0));
        assert_eq!((jobs(&firing), firing.skipped), (vec![], 0));
        assert_eq!(
            (firing.next_tick, firing.last_tick, firing.shift),
            (Some(at(24 + 4, 0)), expected.last_tick, Some(Shift::Zone))
        );
        // It was an hour earlier.
        let firing = expected.fire(&daily(2), &policy, at(24 + 3, 0));
        assert_eq!((jobs(&firing), firing.next_tick), (vec![(24 + 2, 0)], Some(at(48 + 2, 0))));
    }

    #[test]
    fn a_schedule_that_ends() {
        let rule = Rule::every(Duration::from_secs(3600)).unwrap();
        let until = Timetable::new(rule, None, Some(at(101, 0))).unwrap();
        let firing = standing(100).fire(&until, &lateness(Missed::Once, None, None), at(110, 0));
        assert_eq!((jobs(&firing), firing.next_tick), (vec![(100, 0)], None));
    }

    #[test]
    fn a_skip_is_kept_as_json() {
        for (why, json) in [
            (Why::Late { by: 5, within: 3 }, r#"{"tick":7,"why":"late","by":5,"within":3}"#),
            (Why::Overlap { job: 17, runs: true }, r#"{"tick":7,"why":"overlap","job":17,"runs":true}"#),
            (Why::Many, r#"{"tick":7,"why":"many"}"#),
            (Why::Refused { error: None, hint: None }, r#"{"tick":7,"why":"refused"}"#),
            (
                Why::Refused { error: Some("no".to_owned()), hint: Some("yes".to_owned()) },
                r#"{"tick":7,"why":"refused","error":"no","hint":"yes"}"#,
            ),
        ] {
            let skip = Skip { tick: 7, why };
            assert_eq!(serde_json::to_string(&skip).unwrap(), json);
            assert_eq!(serde_json::from_str::<Skip>(json).unwrap(), skip);
        }
    }

    /// As builds read it that know of no message.
    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(tag = "why", rename_all = "lowercase")]
    enum EarlierWhy {
        Refused,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct EarlierSkip {
        tick: i64,
        #[serde(flatten)]
        why: EarlierWhy,
    }

    #[test]
    fn a_refusal_is_read_by_earlier_builds() {
        let json = r#"{"tick":7,"why":"refused","error":"no","hint":"yes"}"#;
        let read: EarlierSkip = serde_json::from_str(json).unwrap();
        assert_eq!(read, EarlierSkip { tick: 7, why: EarlierWhy::Refused });
    }

    /// However the clock changes, no tick makes two jobs or a job before its time.
    #[test]
    fn no_tick_makes_two_jobs() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let minutes = Timetable::new(Rule::every(Duration::from_secs(60)).unwrap(), None, None).unwrap();
            let missed = Missed::ALL[random.usize(..3)];
            let policy = lateness(missed, random.bool().then_some(30), None);
            let mut now = at(1000, 0);
            let mut it = ScheduleStanding { next_tick: minutes.next(now).unwrap(), last_tick: None, last_job: None };
            let (mut made, mut counted) = (Vec::new(), 0);
            for _ in 0..100 {
                // Mostly a little later, at times an hour back or some hours ahead.
                now = Timestamp(
                    now.0 + if random.u8(..10) == 0 { random.i64(-60..300) * 60_000 } else { random.i64(0..150_000) },
                );
                let firing = it.fire(&minutes, &policy, now);
                assert!(firing.jobs.iter().all(|job| job.tick <= now));
                assert!(firing.next_tick.unwrap() >= it.next_tick && firing.shift.is_none());
                counted += firing.skipped + firing.jobs.iter().map(|job| job.missed + 1).sum::<u64>();
                made.extend(firing.jobs.iter().map(|job| job.tick));
                it = ScheduleStanding {
                    next_tick: firing.next_tick.unwrap(),
                    last_tick: firing.last_tick,
                    last_job: None,
                };
            }
            assert!(made.is_sorted_by(|one, next| one < next), "{made:?}");
            // Each tick is in a job or skipped.
            assert_eq!(counted, it.next_tick.since(at(1000, 0)).as_secs() / 60 - 1);
        }
    }
}

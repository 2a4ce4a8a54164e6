//! Following what a job prints, through all its attempts.

use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};

use super::lookout::Lookout;
use super::wait::{Awaited, JobEnd, not_yet, still_there};
use super::{caller::Caller, queue::Queue};
use crate::domain::attempt::Attempt;
use crate::domain::job::{Job, JobId, State};
use crate::domain::log::{Heard, Log, Stream};
use crate::error::{Error, Kind, Result};
use crate::processor::{LiveOutput, NotLive};
use crate::system::fds;

/// How soon to look again for a call that its processor has not begun yet, or is about to record.
const SOON: Duration = Duration::from_millis(250);

/// Something that happens to a job that is followed.
#[derive(Debug)]
pub enum Followed<'a> {
    /// Its function has printed this.
    Output(Stream, &'a [u8]),
    /// This many bytes of its output are lost.
    Lost(u64),
    /// It does not run yet.
    Waits(&'a Job),
    /// An attempt has ended. The job has not, or has had another attempt since.
    Between(&'a Job, &'a Attempt),
    /// Its output cannot be followed while it runs.
    Barred(&'a Error),
    /// The job has not ended and prints nothing now. Sent after each change of the store, and at each pulse.
    Quiet(&'a Job),
}

/// How following a job has ended.
#[derive(Debug)]
pub(super) enum FollowEnd {
    /// The job has ended.
    Ended(JobEnd),
    /// The time was over, or `stop` became readable, while the job was in this state.
    Stopped(State),
}

/// How far a job is followed.
struct FollowPosition {
    attempt: i64,
    /// How many bytes of that attempt's output were shown, or reported as lost.
    seen: u64,
    /// Whether it was reported why this attempt does not run, or cannot be followed.
    is_told: bool,
}

impl FollowPosition {
    fn at(attempt: i64) -> FollowPosition {
        FollowPosition { attempt, seen: 0, is_told: false }
    }
}

/// Who follows a job.
#[derive(Debug, Clone, Copy)]
pub struct Onlooker<'a> {
    /// The process.
    pub caller: &'a Caller,
    /// The output, if it is a pipe. Following ends when its reader closes it.
    pub reader: Option<BorrowedFd<'a>>,
}

/// How a job is followed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Following<'a> {
    /// The process that follows.
    pub(super) by: Onlooker<'a>,
    /// From which attempt on; `None` for the latest one.
    pub(super) from: Option<i64>,
    /// Until when at most.
    pub(super) until: Option<Instant>,
    /// Following ends when this becomes readable.
    pub(super) stop: Option<BorrowedFd<'a>>,
    /// How often to report that it is [`Followed::Quiet`], if at all.
    pub(super) pulse: Option<Duration>,
}

impl Following<'_> {
    /// Whether the time is over, or `stop` is readable.
    fn is_over(&self) -> bool {
        let mut stop: Vec<_> = self.stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)).collect();
        self.until.is_some_and(|until| until <= Instant::now())
            || !stop.is_empty() && matches!(fds::wait(&mut stop, Some(Duration::ZERO)), Ok(1..))
    }

    /// When to wake at the latest, where `again` says how soon to look again.
    fn wake(&self, again: Option<Duration>) -> Option<Instant> {
        let soon = [again, self.pulse].into_iter().flatten().min().map(|soon| Instant::now() + soon);
        [soon, self.until].into_iter().flatten().min()
    }
}

impl Queue {
    /// Shows what a job prints: the kept output of its latest attempt, then each new piece, through all further attempts until the
    /// job ends. Returns how it ended.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such job, or it is removed meanwhile; [`Kind::Denied`] inside the job itself; and
    /// whatever the store or `show` answers.
    pub fn follow<E: From<Error>>(
        &mut self,
        id: JobId,
        by: Onlooker<'_>,
        show: &mut dyn FnMut(&mut Queue, Followed<'_>) -> Result<(), E>,
    ) -> Result<JobEnd, E> {
        let following = Following { by, from: None, until: None, stop: None, pulse: None };
        match self.follow_as(id, &following, show)? {
            FollowEnd::Ended(end) => Ok(end),
            FollowEnd::Stopped(state) => Err(not_yet(id, state).into()),
        }
    }

    /// The same, with `following` as the options. They may end it before the job ends.
    ///
    /// # Errors
    /// As [`Queue::follow`].
    pub(super) fn follow_as<E: From<Error>>(
        &mut self,
        id: JobId,
        following: &Following<'_>,
        show: &mut dyn FnMut(&mut Queue, Followed<'_>) -> Result<(), E>,
    ) -> Result<FollowEnd, E> {
        let Onlooker { caller, reader } = following.by;
        let mut lookout = Lookout::of(&mut self.store)?;
        let mut job = self.store.job(id)?;
        self.refuse_to_wait_for_itself(&Awaited::All(vec![id]), caller)?;
        let mut position = FollowPosition::at(following.from.unwrap_or(job.counts.attempt.max(1)));
        loop {
            let (latest, runs) = (job.counts.attempt, job.state == State::Processing);
            while position.attempt < latest || position.attempt == latest && !runs {
                self.show_rest(id, &position, show)?;
                if !job.state.has_ended() || position.attempt < latest {
                    let attempts = still_there(id, self.store.attempts(&job))?;
                    if let Some(attempt) = attempts.iter().find(|attempt| attempt.number == position.attempt) {
                        show(self, Followed::Between(&job, attempt))?;
                    }
                }
                position = FollowPosition::at(position.attempt + 1);
            }
            if job.state.has_ended() {
                return Ok(FollowEnd::Ended(JobEnd { id, state: job.state, error: job.error }));
            }
            let again = if runs && position.attempt == latest {
                self.listen(id, &mut position, following, show)?
            } else {
                None
            };
            if !position.is_told && (again.is_none() || still_there(id, self.held_up_by(&job))?.is_some()) {
                position.is_told = true;
                show(self, Followed::Waits(&job))?;
            }
            if reader.is_some_and(is_closed) {
                return Err(closed().into());
            }
            if following.is_over() {
                return Ok(FollowEnd::Stopped(job.state));
            }
            if following.pulse.is_some() {
                show(self, Followed::Quiet(&job))?;
            }
            lookout.sleep(&mut self.store, following.wake(again), reader.or(following.stop))?;
            let before = (job.state, job.counts.attempt);
            job = still_there(id, self.store.job(id))?;
            if before == (job.state, job.counts.attempt) {
                lookout.slow_down();
            }
        }
    }

    /// Shows what a running attempt prints, until the attempt or its processor ends. Returns how soon to look for it again, if it
    /// runs and can be followed.
    fn listen<E: From<Error>>(
        &mut self,
        id: JobId,
        position: &mut FollowPosition,
        following: &Following<'_>,
        show: &mut dyn FnMut(&mut Queue, Followed<'_>) -> Result<(), E>,
    ) -> Result<Option<Duration>, E> {
        // The processor that sent the first part no longer runs the attempt. The store has the rest once it has ended.
        if position.seen > 0 {
            return Ok(Some(SOON));
        }
        let reader = following.by.reader;
        let mut heard = still_there(id, LiveOutput::of(&mut self.store, id, position.attempt))?;
        loop {
            let next = match &mut heard {
                Ok(live) => live.next(id),
                Err(_) => return self.give_up(heard.err(), position, show),
            };
            match next {
                Ok(Heard::Output(stream, bytes)) => {
                    position.seen += bytes.len() as u64;
                    show(self, Followed::Output(stream, &bytes))?;
                    // If a function prints all the time, this is the only moment to check.
                    if following.is_over() {
                        return Ok(Some(SOON));
                    }
                }
                Ok(Heard::Lost(count)) => {
                    position.seen += count;
                    show(self, Followed::Lost(count))?;
                }
                Ok(Heard::End) => return Ok(Some(SOON)),
                Ok(Heard::Nothing) => {
                    let live = heard.as_ref().ok().map(AsFd::as_fd);
                    let mut fds: Vec<_> =
                        live.map(|live| PollFd::from_borrowed_fd(live, PollFlags::IN)).into_iter().collect();
                    fds.extend(reader.iter().map(|reader| PollFd::new(reader, PollFlags::empty())));
                    fds.extend(following.stop.iter().map(|stop| PollFd::new(stop, PollFlags::IN)));
                    let left = following.until.map(|until| until.saturating_duration_since(Instant::now()));
                    // Interrupted or not: it looks.
                    let _ = fds::wait(&mut fds, left);
                    if reader.is_some_and(is_closed) {
                        return Err(closed().into());
                    }
                    if following.is_over() {
                        return Ok(Some(SOON));
                    }
                }
                Err(why) => heard = Err(why),
            }
        }
    }

    fn give_up<E: From<Error>>(
        &mut self,
        why: Option<NotLive>,
        position: &mut FollowPosition,
        show: &mut dyn FnMut(&mut Queue, Followed<'_>) -> Result<(), E>,
    ) -> Result<Option<Duration>, E> {
        let Some(NotLive::Barred(error)) = why else { return Ok(Some(SOON)) };
        if !std::mem::replace(&mut position.is_told, true) {
            show(self, Followed::Barred(&error))?;
        }
        Ok(None)
    }

    /// Shows the rest of the kept output of an ended attempt.
    fn show_rest<E: From<Error>>(
        &mut self,
        id: JobId,
        position: &FollowPosition,
        show: &mut dyn FnMut(&mut Queue, Followed<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let log = still_there(id, self.store.log(id, position.attempt))?;
        for part in rest(&log, position.seen) {
            show(self, part)?;
        }
        Ok(())
    }
}

/// The parts of a log after its first `seen` bytes. Some bytes may not have been kept.
fn rest(log: &Log, seen: u64) -> Vec<Followed<'_>> {
    let gap = if log.dropped > 0 { log.gap } else { log.bytes.len() };
    let (gap_begins, gap_ends) = (gap as u64, gap as u64 + log.dropped);
    let (mut at, mut parts) = (0, Vec::new());
    let lost =
        |at: u64| (log.dropped > 0 && at == gap_begins && seen < gap_ends).then(|| gap_ends - seen.max(gap_begins));
    for (stream, bytes, after_gap) in log.parts() {
        if after_gap {
            parts.extend(lost(at).map(Followed::Lost));
            at = gap_ends;
        }
        let known = usize::try_from(seen.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
        at += bytes.len() as u64;
        if known < bytes.len() {
            parts.push(Followed::Output(stream, &bytes[known..]));
        }
    }
    // Nothing is kept after the gap.
    parts.extend(lost(at).map(Followed::Lost));
    parts
}

/// Whether the reader of a pipe has closed it.
fn is_closed(reader: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(reader, PollFlags::empty())];
    matches!(fds::wait(&mut fds, Some(Duration::ZERO)), Ok(1..))
}

fn closed() -> Error {
    Error::new(Kind::Io, "nobody reads the output any longer").with_source(std::io::Error::from(ErrorKind::BrokenPipe))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(log: &Log, seen: u64) -> String {
        let show = |part: &Followed<'_>| match part {
            Followed::Output(Stream::Out, bytes) => String::from_utf8_lossy(bytes).into_owned(),
            Followed::Output(Stream::Err, bytes) => String::from_utf8_lossy(bytes).to_uppercase(),
            Followed::Lost(count) => format!("({count})"),
            other => format!("{other:?}"),
        };
        rest(log, seen).iter().map(show).collect()
    }

    #[test]
    fn the_rest_begins_where_the_follower_is() {
        let pieces = vec![(Stream::Out, 3), (Stream::Err, 3), (Stream::Out, 3)];
        let whole = Log { bytes: b"oneerrtwo".to_vec(), pieces: pieces.clone(), dropped: 0, gap: 0 };
        let cases = [(0, "oneERRtwo"), (2, "eERRtwo"), (3, "ERRtwo"), (8, "o"), (9, ""), (99, "")];
        for (seen, rest) in cases {
            assert_eq!(shown(&whole, seen), rest, "{seen}");
        }
        let cut = Log { bytes: b"oneerrtwo".to_vec(), pieces: pieces.clone(), dropped: 10, gap: 6 };
        let cases =
            [(0, "oneERR(10)two"), (4, "RR(10)two"), (6, "(10)two"), (9, "(7)two"), (16, "two"), (18, "o"), (19, "")];
        for (seen, rest) in cases {
            assert_eq!(shown(&cut, seen), rest, "{seen}");
        }
        let begun = Log { gap: 0, ..cut.clone() };
        assert_eq!(
            (shown(&begun, 0), shown(&begun, 5), shown(&begun, 11)),
            ("(10)oneERRtwo".into(), "(5)oneERRtwo".into(), "neERRtwo".into())
        );
        let empty = Log { bytes: Vec::new(), pieces: Vec::new(), dropped: 10, gap: 0 };
        assert_eq!(
            (shown(&empty, 0), shown(&empty, 4), shown(&empty, 10)),
            ("(10)".into(), "(6)".into(), String::new())
        );
        assert_eq!(shown(&Log::default(), 7), "");
    }
}

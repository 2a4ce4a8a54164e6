//! Processes that this one cannot end, because they belong to another user: setuid programs, and programs under `sudo`.
//!
//! Invariant: asyncq waits for a process that it cannot end. Only a processor that has to end at once leaves such a process behind.
//! Then the call stays with this processor, even after its death.

use std::{fs, path::Path};

use rustix::io::Errno;
use rustix::process::{Pid, getpid, test_kill_process};

use crate::domain::{event::Unkillable, job::JobId};
use crate::runner::process::identity::{self, Presence};
use crate::runner::process::stat::{Stat, processes};

impl Unkillable {
    /// A process that has refused a signal, unless it has ended since.
    pub(in crate::runner) fn of(pid: Pid, job: Option<JobId>) -> Option<Unkillable> {
        let pid = pid.as_raw_nonzero().get().into();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_ascii_whitespace().next()?;
        Some(Unkillable { pid, user: user.parse().ok()?, job, start: identity::started(pid).ok()? })
    }

    /// Writes it as one line, for other processes.
    pub(in crate::runner) fn note(&self) -> Option<String> {
        let job = self.job.map_or(0, |job| job.0);
        Some(format!("{job} {} {} {} {}\n", self.user, self.pid, self.start, identity::here().ok()?))
    }

    /// The first process of a job in these lines that still exists.
    pub(in crate::runner) fn noted(notes: &str, job: JobId) -> Option<Unkillable> {
        notes.lines().find_map(|line| {
            let mut words = line.splitn(5, ' ');
            let mut number = || words.next()?.parse::<i64>().ok();
            let (of, user, pid, start) = (number()?, number()?, number()?, number()?);
            let mut there = || identity::look(pid, start, words.next().unwrap_or_default()) == Presence::There;
            let user = u32::try_from(user).ok()?;
            (of == job.0 && there()).then_some(Unkillable { pid, user, job: Some(job), start })
        })
    }
}

/// The name of this process's session. Its descendants are in the session, unless they leave it. Empty if this process does not
/// lead a session.
pub(in crate::runner) fn own_session() -> String {
    let own = getpid();
    let leads = |stat: &Stat| stat.field(6) == own.to_string();
    let start = Stat::of(own).ok().filter(leads).map(|stat| stat.number(22));
    let note = start.and_then(|start| Some(format!("{own} {start} {}\n", identity::here().ok()?)));
    note.unwrap_or_default()
}

/// A process in the session of a dead processor that cannot be ended from here. If the leader has another start time, it is a new
/// session with the same number.
pub(in crate::runner) fn in_session(note: &str) -> Option<Unkillable> {
    let (leader, rest) = note.trim_end().split_once(' ')?;
    let (start, place) = rest.split_once(' ')?;
    let is_here = identity::here().is_ok_and(|here| here == place);
    if !is_here || Stat::of(leader).is_ok_and(|stat| stat.field(22) != start) {
        return None;
    }
    processes().ok()?.find_map(|pid| {
        let stat = Stat::of(pid).ok().filter(|stat| stat.field(6) == leader && stat.field(3) != "Z");
        stat.filter(|_| test_kill_process(pid) == Err(Errno::PERM)).and_then(|_| Unkillable::of(pid, None))
    })
}

/// A process of a job that its processor cannot end, by the note in its folder.
pub fn of_job(run_folder: &Path, job: JobId) -> Option<Unkillable> {
    let folders = fs::read_dir(run_folder).ok()?.flatten();
    let mut notes = folders.filter_map(|folder| fs::read_to_string(folder.path().join(FILE)).ok());
    notes.find_map(|notes| Unkillable::noted(&notes, job))
}

/// The file in a processor's folder that lists them.
// Older builds read and write this name.
pub(in crate::runner) const FILE: &str = "immune";

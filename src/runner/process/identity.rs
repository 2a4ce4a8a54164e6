//! Where a processor runs: in which boot of the machine, and in which PID namespace, because each container has its own. Only from
//! the same namespace, or from the machine's first one, can others see and end the processes that a dead processor has left.
//!
//! The number of a namespace identifies it. The kernel uses the number again after its end. That is harmless, because all processes
//! of an ended namespace are gone.

use std::{fs, io};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::domain::processor::NewProcessor;
use crate::runner::process::stat::{Stat, is_gone};

/// The machine's first PID namespace, which shows all processes (`PROC_PID_INIT_INO` of the kernel).
const FIRST: &str = "pid:[4026531836]";

/// Whether this process can see what a dead processor has left running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// It can see all of it, and has the permission to do so.
    Clear,
    /// It ends by itself: the processor was the first process of its namespace, so the kernel ends the others.
    Ending,
    /// It may run where this process cannot see it.
    Hidden,
}

/// Whether this process can see what a dead processor has left.
pub fn visibility(dead: &NewProcessor) -> Visibility {
    let theirs = namespace_of(dead).filter(|_| same_boot(dead));
    match theirs {
        // An old registration without a namespace, or one from an earlier boot.
        None => Visibility::Clear,
        Some(_) if dead.pid == 1 => Visibility::Ending,
        Some(theirs) => match namespace() {
            Ok(own) if (own == theirs || own == FIRST) && proc_is_ours() => Visibility::Clear,
            Ok(_) | Err(_) => Visibility::Hidden,
        },
    }
}

/// Whether the same process that registered is still there. The lock is the proof; this is the best guess without it. The boot
/// identifies a machine, because its name may change. Processes of another machine or an earlier boot count as gone.
pub fn process_lives(is: &NewProcessor) -> bool {
    same_boot(is) && process(is) != Presence::Gone
}

/// Whether this process can see the process that registered.
pub fn process(is: &NewProcessor) -> Presence {
    look(is.pid, is.pid_start, &is.boot)
}

/// Whether this process can see another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is there.
    There,
    /// It has ended.
    Gone,
    /// It is in another PID namespace.
    Hidden,
}

/// Looks for a process by its start time and its place, which has the form of [`here`].
pub(in crate::runner) fn look(pid: i64, start: i64, place: &str) -> Presence {
    let (in_boot, in_namespace) = place.split_once(' ').unwrap_or((place, ""));
    // Without the boot, nothing else is known.
    if boot().is_ok_and(|boot| boot != in_boot) {
        return Presence::Gone;
    }
    if !namespace().is_ok_and(|own| own == in_namespace) || !proc_is_ours() {
        return Presence::Hidden;
    }
    match Stat::of(pid) {
        Err(error) if is_gone(&error) => not_listed(pid),
        // Unknown, so it counts as there.
        Err(_) => Presence::There,
        // The first thread of a process may end before the others.
        Ok(stat) if stat.field(3) == "Z" && stat.number(20) < 2 => Presence::Gone,
        Ok(stat) if stat.field(22) == start.to_string() => Presence::There,
        Ok(_) => Presence::Gone,
    }
}

/// Whether a process is gone that `/proc` does not list. `/proc` may list only those of this user (`hidepid`).
fn not_listed(pid: i64) -> Presence {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let is_free = pid.is_none_or(|pid| pidfd_open(pid, PidfdFlags::empty()).err() == Some(Errno::SRCH));
    if is_free { Presence::Gone } else { Presence::There }
}

/// Whether the machine has not rebooted since a processor registered.
pub fn same_boot(is: &NewProcessor) -> bool {
    boot().is_ok_and(|boot| is.boot.split(' ').next() == Some(&boot))
}

/// The boot and the namespace of this process, as a processor registers them.
pub(in crate::runner) fn here() -> io::Result<String> {
    Ok(format!("{} {}", boot()?, namespace()?))
}

/// When a process began, in clock ticks since boot (field 22). A process that only waits to be reaped is gone.
pub(in crate::runner) fn started(pid: i64) -> io::Result<i64> {
    let stat = Stat::of(pid)?;
    if stat.field(3) == "Z" {
        return Err(io::ErrorKind::NotFound.into());
    }
    stat.field(22).parse().map_err(|_| io::Error::other("`/proc` has another form"))
}

fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

fn namespace() -> io::Result<String> {
    Ok(fs::read_link("/proc/self/ns/pid")?.to_string_lossy().into_owned())
}

fn namespace_of(is: &NewProcessor) -> Option<&str> {
    is.boot.split_once(' ').map(|(_, namespace)| namespace)
}

/// Whether `/proc` shows the namespace of this process, and not the one above it.
fn proc_is_ours() -> bool {
    fs::read_link("/proc/self").is_ok_and(|own| own.to_str() == Some(&getpid().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(boot: String, pid: i64) -> NewProcessor {
        NewProcessor { folder: "folder".to_owned(), host: "host".to_owned(), boot, pid, pid_start: 1 }
    }

    #[test]
    fn only_the_same_namespace_and_the_first_one_see_what_is_left() {
        let boot = boot().unwrap();
        let elsewhere = if namespace().unwrap() == FIRST { Visibility::Clear } else { Visibility::Hidden };
        for (registered, pid, seen) in [
            (here().unwrap(), 7, Visibility::Clear),
            (format!("{boot} pid:[1]"), 7, elsewhere),
            (format!("{boot} pid:[1]"), 1, Visibility::Ending),
            ("another pid:[1]".to_owned(), 7, Visibility::Clear),
            (boot.clone(), 7, Visibility::Clear),
        ] {
            assert_eq!(visibility(&dead(registered.clone(), pid)), seen, "{registered} {pid}");
        }
    }
}

//! The process that holds a lock for which another one has waited in vain.
//!
//! The kernel lists it in `/proc/locks`. Asking for the locks of the files themselves (`F_GETLK`) would need descriptors of them,
//! and closing these would drop the locks of this process.

use std::{fs, ops::RangeInclusive, path::Path};

use rustix::fs::makedev;

use super::files::{Id, Named, with_suffix, without_links};

/// The bytes that SQLite locks in the `-shm`: to write, to recover the WAL, to set it up.
const SHARED_MEMORY: [RangeInclusive<u64>; 3] = [120..=120, 122..=122, 128..=128];

/// The bytes that SQLite locks in the database file: pending, reserved, and those that readers share.
const FILE: RangeInclusive<u64> = 0x4000_0000..=0x4000_01ff;

/// How often to read `/proc/locks` before a lock counts as absent. The kernel returns the list page by page, and a lock that is
/// released between two pages hides another one.
const READINGS: usize = 8;

/// A process that holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::store) struct LockOwner {
    /// Its id.
    pub(in crate::store) pid: u32,
    /// The name of its program.
    pub(in crate::store) name: String,
    /// Whether it was stopped, and does nothing until it gets `SIGCONT`.
    pub(in crate::store) stopped: bool,
}

/// The process that keeps others from writing the store at `path` now, if it can be found. It cannot if processes are hidden, and
/// on file systems whose device numbers differ from those of their locks (btrfs).
pub(in crate::store) fn lock_owner(path: &Path) -> Option<LockOwner> {
    let path = without_links(path);
    (0..READINGS).find_map(|_| lock_owner_among(&locks(), &path))
}

fn lock_owner_among(locks: &[Lock], path: &Path) -> Option<LockOwner> {
    let shared_memory = named(&with_suffix(path, "-shm"));
    let find = |file: &Id, range: &RangeInclusive<u64>, also_readers: bool| {
        let overlaps = |lock: &Lock| lock.range.start() <= range.end() && range.start() <= lock.range.end();
        let here = |lock: &&Lock| lock.file == *file && (lock.writes || also_readers) && overlaps(lock);
        locks.iter().filter(here).find_map(|lock| LockOwner::look(lock.pid))
    };
    if let Some(file) = &shared_memory
        && let Some(found) = SHARED_MEMORY.iter().find_map(|range| find(file, range, false))
    {
        return Some(found);
    }
    let file = named(path)?;
    // With a WAL, all processes that have the store open share the lock of its readers, and block nobody.
    find(&file, &FILE, false).or_else(|| find(&file, &FILE, true).filter(|_| shared_memory.is_none()))
}

/// Whether a stopped process has locked a byte of the file at `path` before this one. It may miss one, and then finds it the next
/// time.
pub(in crate::store) fn a_stopped_one_is_before(path: &Path, byte: i64) -> bool {
    let Some(file) = named(path) else { return false };
    let before = |lock: &Lock| lock.file == file && i64::try_from(*lock.range.start()).is_ok_and(|start| start < byte);
    let stopped = |lock: &Lock| LockOwner::look(lock.pid).is_some_and(|lock_owner| lock_owner.stopped);
    locks().iter().any(|lock| before(lock) && stopped(lock))
}

/// The file that a path leads to, as the kernel names it.
fn named(path: &Path) -> Option<Id> {
    Named::by(path).ok().map(|named| named.id)
}

fn locks() -> Vec<Lock> {
    let text = fs::read_to_string("/proc/locks").unwrap_or_default();
    text.lines().filter_map(Lock::parse).collect()
}

impl LockOwner {
    fn look(pid: u32) -> Option<LockOwner> {
        if pid == std::process::id() {
            return None;
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let stopped = stat.rsplit_once(") ").is_some_and(|(_, after)| after.starts_with('T'));
        Some(LockOwner { pid, name, stopped })
    }
}

/// A line of `/proc/locks`.
#[derive(Debug, PartialEq, Eq)]
struct Lock {
    writes: bool,
    pid: u32,
    file: Id,
    range: RangeInclusive<u64>,
}

impl Lock {
    fn parse(line: &str) -> Option<Lock> {
        let mut words = line.split_ascii_whitespace().skip(1);
        if words.next()? != "POSIX" {
            return None;
        }
        let writes = words.nth(1)? == "WRITE";
        let pid = words.next()?.parse().ok().filter(|pid| *pid > 0)?;
        let mut file = words.next()?.split(':');
        let mut hex = || u32::from_str_radix(file.next()?, 16).ok();
        let device = makedev(hex()?, hex()?);
        let file = Id { device, inode: file.next()?.parse().ok()? };
        let first = words.next()?.parse().ok()?;
        let last = match words.next()? {
            "EOF" => u64::MAX,
            number => number.parse().ok()?,
        };
        Some(Lock { writes, pid, file, range: first..=last })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_kernel() {
        let file = Id { device: makedev(0xfd, 1), inode: 5678 };
        assert_eq!(
            Lock::parse("1: POSIX  ADVISORY  WRITE 1234 fd:01:5678 120 120"),
            Some(Lock { writes: true, pid: 1234, file, range: 120..=120 })
        );
        assert_eq!(Lock::parse("2: POSIX  ADVISORY  READ 7 00:1c:5 128 EOF").unwrap().range, 128..=u64::MAX);
        for other in [
            "",
            "1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF",
            "1: -> POSIX  ADVISORY  WRITE 1234 fd:01:5678 120 120",
            "1: POSIX  ADVISORY  WRITE 0 fd:01:5678 120 120",
            "1: OFDLCK ADVISORY  WRITE -1 fd:01:5678 120 120",
            "1: POSIX  ADVISORY  WRITE 1234 fd:01",
        ] {
            assert_eq!(Lock::parse(other), None, "{other}");
        }
    }
}

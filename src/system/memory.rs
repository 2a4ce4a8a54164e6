//! Whether there is enough memory for calls if the system limits that of this process. A failed allocation would end the process,
//! and count as a crash of the calls that it runs.

use std::{fmt::Display, fs, io};

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// How many bytes must be free before calls begin: for slots, and for the arguments and output of calls.
const ROOM: u64 = 8 * 1024 * 1024;

/// Below this limit of its address space, in bytes, threads get no allocation area of their own. Then all space that is not in use
/// is free. Above it, areas that are hardly used take most of the space.
const SMALL: u64 = 64 * 1024 * 1024;

/// Checks whether there is room for calls under the limits of this process.
///
/// # Errors
/// The error of a failed allocation, when there is not.
pub fn look() -> io::Result<()> {
    let space = getrlimit(Resource::As).current.filter(|limit| *limit < SMALL);
    let data = getrlimit(Resource::Data).current.filter(|limit| *limit < SMALL);
    if space.is_none() && data.is_none() {
        return Ok(());
    }
    // First all of it, sixth what is written.
    for (limit, field) in [(space, 0), (data, 5)] {
        if let Some(limit) = limit
            && size("self", field)? + ROOM > limit
        {
            return Err(Errno::NOMEM.into());
        }
    }
    Ok(())
}

/// How much memory a process has in use, in bytes; 0 if that is unknown.
pub fn resident(pid: impl Display) -> u64 {
    size(pid, 1).unwrap_or(0)
}

/// A size in `/proc/PID/statm` (proc(5)), in bytes.
fn size(pid: impl Display, field: usize) -> io::Result<u64> {
    let sizes = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = sizes.split_ascii_whitespace().nth(field).and_then(|size| size.parse().ok()).unwrap_or(0);
    Ok(pages * u64::try_from(rustix::param::page_size()).unwrap_or(0))
}

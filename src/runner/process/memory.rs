//! Whether there is enough memory for calls, where the system limits it for this process: an allocation that fails would
//! end it, and count as a crash against the calls that it runs.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// How much has to be free before calls are begun, in bytes: for slots, and for what their calls get and print.
const ROOM: u64 = 8 * 1024 * 1024;

/// Below this limit of its address space, in bytes, no thread of a program gets an area of its own to allocate from. What is
/// not taken is free then; above it, areas that are hardly used take most of what there is.
const SMALL: u64 = 64 * 1024 * 1024;

/// Looks whether there is room for calls under the limits of this process.
///
/// # Errors
/// As an allocation fails, when there is not.
pub fn look() -> io::Result<()> {
    let space = getrlimit(Resource::As).current.filter(|limit| *limit < SMALL);
    let data = getrlimit(Resource::Data).current.filter(|limit| *limit < SMALL);
    if space.is_none() && data.is_none() {
        return Ok(());
    }
    let sizes = fs::read_to_string("/proc/self/statm")?;
    // In pages: first all of it, sixth what is written (proc(5)).
    let taken = |field| -> u64 {
        let pages: u64 = sizes.split_ascii_whitespace().nth(field).and_then(|size| size.parse().ok()).unwrap_or(0);
        pages * u64::try_from(rustix::param::page_size()).unwrap_or(0)
    };
    let is_short = |limit: Option<u64>, field| limit.is_some_and(|limit| taken(field) + ROOM > limit);
    if is_short(space, 0) || is_short(data, 5) { Err(Errno::NOMEM.into()) } else { Ok(()) }
}

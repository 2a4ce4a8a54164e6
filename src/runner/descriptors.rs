//! Keeping descriptors from functions: what the processor was started with is not theirs.

use std::fs;
use std::io;
use std::os::fd::BorrowedFd;

use rustix::io::{FdFlags, fcntl_setfd};

/// Marks every descriptor but stdin, stdout and stderr to be closed in the programs that this process starts. Our own
/// are marked from the start; these were inherited.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn keep_to_ourselves() -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?;
    let numbers: Vec<i32> = open.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    for number in numbers.into_iter().filter(|number| *number > 2) {
        mark(number);
    }
    Ok(())
}

#[expect(unsafe_code, reason = "a descriptor that was inherited has no owner in this program")]
fn mark(number: i32) {
    // SAFETY: the number is only used for this call, which changes a flag that nobody here relies on being unset. It may
    // have been closed meanwhile (the one of the directory itself was): then the call fails, and that is as well.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
}

//! Ending what a dead processor left running.
//!
//! A lock that is free proves that the processor is dead, not that its functions are. What belongs to an attempt is known
//! by the attempt's token in its environment, which every descendant inherits unless it clears its environment.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::domain::job::Token;

/// Ends every process that carries one of these tokens, at once, and waits until none is left; says whether that was
/// reached within `patience`.
#[must_use]
pub fn end(tokens: &[Token], patience: Duration) -> bool {
    let marks: Vec<String> = tokens.iter().map(|token| format!("ASYNCQ_TOKEN={}", token.as_str())).collect();
    let until = Instant::now() + patience;
    while !marks.is_empty() {
        let found = kill_all(&marks);
        if found == 0 {
            break;
        }
        if Instant::now() >= until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

/// Kills those that are there now, and counts them; a process that is only waiting to be reaped is gone already.
fn kill_all(marks: &[String]) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut found = 0;
    for pid in pids.filter_map(Pid::from_raw) {
        // Held before its environment is read, so that the signal meets the process that was read.
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else { continue };
        let carries = environment.split(|b| *b == 0).any(|entry| marks.iter().any(|mark| mark.as_bytes() == entry));
        if carries {
            found += 1;
            let _ = pidfd_send_signal(&process, Signal::KILL);
        }
    }
    found
}

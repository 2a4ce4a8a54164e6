//! What the kernel is told about functions: that they are to go first when memory runs out. The same number also tells
//! attempts that run at the same time apart: every descendant has it, whatever becomes of its environment.
//!
//! It tells only of those who have no token any more, as everybody may raise his own. It tells nothing where there is no room
//! for numbers: below a processor whose own score is 500 or more, and so in nested calls.
//!
//! A program that forks in the very moment in which it is started may be faster than this; what it has left by then has
//! its processor's score.

use std::fs;
use std::process::Child;
use std::sync::LazyLock;

use rustix::process::Pid;

/// How much more than its processor a function is a victim, in the units of `/proc/PID/oom_score_adj` (proc(5)):
/// thousandths of all memory.
const OFFER: i32 = 500;

/// The highest score that there is.
const HIGHEST: i32 = 1000;

/// The score of this process.
static OWN: LazyLock<i32> = LazyLock::new(|| {
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok();
    own.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
});

/// Lets the kernel end the function rather than its processor when memory runs out. `number` is that of its attempt among
/// those which run now.
pub(super) fn offer(child: &Child, number: i32) {
    let score = (*OWN + OFFER).saturating_add(number).min(HIGHEST);
    // Raising it is always allowed; where there is no such file, there is no such killer.
    let _ = fs::write(format!("/proc/{}/oom_score_adj", child.id()), score.to_string());
}

/// The number of the attempt to which a process belongs, if its score tells.
pub(super) fn attempt(pid: Pid) -> Option<i32> {
    let score: i32 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()?;
    // Several attempts may have the highest one.
    (*OWN + OFFER..HIGHEST).contains(&score).then(|| score - *OWN - OFFER)
}

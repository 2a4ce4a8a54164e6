//! The `oom_score_adj` of functions. It makes the kernel kill functions before their processor when memory runs out. It also holds
//! the number of the attempt: every descendant has that, whatever happens to its environment.
//!
//! A program needs its score before its first instruction, and inherits it from its parent. So this process takes the score of a
//! program while it starts it, and starts one program at a time. The next start waits for the fork, but not until the earlier
//! program is loaded, which may take long.
//!
//! The numbers only matter for processes without a token, because every process may raise its own score. A processor with a score
//! of 500 or more, as inside a function, has no room for them.

use std::fs::{self, File, OpenOptions};
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::{io, os::unix::fs::FileExt, time::Duration};

use rustix::process::Pid;

/// The difference between the scores of a function and its processor, in the units of `/proc/PID/oom_score_adj` (proc(5)):
/// thousandths of all memory.
const OFFER: i32 = 500;

/// The highest score that there is.
const HIGHEST: i32 = 1000;

/// The score of this process while it starts nothing.
static OWN: LazyLock<i32> = LazyLock::new(|| {
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok();
    own.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
});

/// The file with the score of this process. A system without this file has no such killer.
static OWN_FILE: LazyLock<Option<File>> =
    LazyLock::new(|| OpenOptions::new().write(true).open("/proc/self/oom_score_adj").ok());

/// The thread that starts a program with the current score of this process.
static STARTING: Mutex<Option<Starter>> = Mutex::new(None);

/// Held by the thread that is next, so that only this one polls.
static TURN: Mutex<()> = Mutex::new(());

/// How often to check whether another thread has forked.
const LOOK: Duration = Duration::from_micros(50);

/// A thread that starts a program.
#[derive(Debug)]
struct Starter {
    number: i32,
    /// The kernel's list of the thread's children, and what was on it before. Without the list (`CONFIG_PROC_CHILDREN`), the next
    /// start waits until this one is over.
    children: Option<File>,
    before: Vec<u8>,
}

impl Starter {
    /// This thread, which is about to start the program of the attempt with this number.
    fn new(number: i32) -> Starter {
        let children = File::open("/proc/thread-self/children").ok();
        let mut starter = Starter { number, children, before: Vec::new() };
        starter.before = starter.list();
        starter
    }

    fn list(&self) -> Vec<u8> {
        let mut list = vec![0; 4096];
        let length = self.children.as_ref().and_then(|children| children.read_at(&mut list, 0).ok());
        list.truncate(length.unwrap_or(0));
        list
    }

    /// Whether its program has its score: then it is a process, although perhaps not loaded yet.
    fn has_forked(&self) -> bool {
        let pids = |list: &[u8]| list.split(|b| *b == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let before = pids(&self.before);
        pids(&self.list()).iter().any(|pid| !before.contains(pid))
    }
}

/// The rank of an attempt for the kernel's out-of-memory killer.
#[derive(Debug, Clone, Copy)]
pub(in crate::runner) struct Offer {
    /// The number of the attempt among the running ones.
    pub(super) number: i32,
}

impl Offer {
    /// Starts a program that the kernel kills before this process when memory runs out.
    pub(in crate::runner) fn start(self, command: &mut Command) -> io::Result<Child> {
        self.raise();
        let child = command.spawn();
        let mut starting = starting();
        if starting.take_if(|starter| starter.number == self.number).is_some() {
            set_own(*OWN);
        }
        child
    }

    /// Gives this process the score of the program.
    fn raise(self) {
        let own = *OWN;
        let _turn = TURN.lock();
        loop {
            let mut starting = starting();
            if starting.as_ref().is_none_or(Starter::has_forked) {
                *starting = Some(Starter::new(self.number));
                return set_own((own + OFFER).saturating_add(self.number).min(HIGHEST));
            }
            drop(starting);
            std::thread::sleep(LOOK);
        }
    }
}

fn starting() -> MutexGuard<'static, Option<Starter>> {
    STARTING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process may always raise its score, and go back to the earlier one.
fn set_own(score: i32) {
    if let Some(file) = &*OWN_FILE {
        let _ = file.write_at(score.to_string().as_bytes(), 0);
    }
}

/// The number of the attempt to which a process belongs, if its score shows it.
pub(in crate::runner) fn attempt(pid: Pid) -> Option<i32> {
    let score: i32 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()?;
    // Several attempts may have the highest one.
    (*OWN + OFFER..HIGHEST).contains(&score).then(|| score - *OWN - OFFER)
}

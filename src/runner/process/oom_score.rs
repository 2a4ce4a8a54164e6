//! What the kernel is told about functions: that they are to go first when memory runs out. The same score also tells
//! attempts that run at the same time apart: every descendant has it, whatever becomes of its environment.
//!
//! A program inherits its score, so that it has it before its first instruction, and whatever it forks has it too. From its
//! start on a child has only what its parent has: while this process starts a program, it has the score of that program.
//! So only one program is made at a time; the next one does not wait until the one before is loaded, which may take long.
//!
//! Numbers matter only for processes that have no token, as everybody may raise his own score. There is no room for them
//! below a processor whose own score is 500 or more, and so in nested calls.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::process::{Child, Command};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::Pid;

/// How much more than its processor a function is a victim, in the units of `/proc/PID/oom_score_adj` (proc(5)):
/// thousandths of all memory.
const OFFER: i32 = 500;

/// The highest score that there is.
const HIGHEST: i32 = 1000;

/// The score of this process while it starts nothing.
static OWN: LazyLock<i32> = LazyLock::new(|| {
    let own = fs::read_to_string("/proc/self/oom_score_adj").ok();
    own.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
});

/// Where the score of this process is written. Where there is no such file, there is no such killer.
static OWN_FILE: LazyLock<Option<File>> =
    LazyLock::new(|| OpenOptions::new().write(true).open("/proc/self/oom_score_adj").ok());

/// Whose program is made with the score that this process has now.
static STARTING: Mutex<Option<Starter>> = Mutex::new(None);

/// Held by the thread whose turn is next, so that only one looks when that is.
static TURN: Mutex<()> = Mutex::new(());

/// How often to look whether a program was made that another thread starts.
const LOOK: Duration = Duration::from_micros(50);

/// A thread that starts a program.
#[derive(Debug)]
struct Starter {
    number: i32,
    /// The kernel's list of the thread's children, and what was on it before. Without that list (`CONFIG_PROC_CHILDREN`) nobody
    /// knows before the start is over.
    children: Option<File>,
    before: Vec<u8>,
}

impl Starter {
    /// This thread, which is to start the program of the attempt with this number.
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

    /// Whether its program has got its score: it is a process, if perhaps one that is not loaded yet.
    fn has_forked(&self) -> bool {
        let pids = |list: &[u8]| list.split(|b| *b == b' ').map(<[u8]>::to_vec).collect::<Vec<_>>();
        let before = pids(&self.before);
        pids(&self.list()).iter().any(|pid| !before.contains(pid))
    }
}

/// The place of an attempt among the kernel's victims.
#[derive(Debug, Clone, Copy)]
pub(in crate::runner) struct Offer {
    /// The number of the attempt among those which run now.
    number: i32,
}

impl Offer {
    pub(in crate::runner) fn new(number: i32) -> Offer {
        Offer { number }
    }

    /// Starts a program, which the kernel ends rather than this process when memory runs out.
    pub(in crate::runner) fn start(self, command: &mut Command) -> io::Result<Child> {
        self.raise();
        let child = command.spawn();
        let mut starting = starting();
        if starting.take_if(|starter| starter.number == self.number).is_some() {
            set_own(*OWN);
        }
        child
    }

    /// Gives this process the score that the program is to have.
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

/// Raising it is always allowed, and so is going back to what it was.
fn set_own(score: i32) {
    if let Some(file) = &*OWN_FILE {
        let _ = file.write_at(score.to_string().as_bytes(), 0);
    }
}

/// The number of the attempt to which a process belongs, if its score tells.
pub(in crate::runner) fn attempt(pid: Pid) -> Option<i32> {
    let score: i32 = fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).ok()?.trim().parse().ok()?;
    // Several attempts may have the highest one.
    (*OWN + OFFER..HIGHEST).contains(&score).then(|| score - *OWN - OFFER)
}

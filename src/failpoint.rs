//! Points at which tests have this process killed, stopped or aborted. Release builds have none.
//!
//! Invariant: without debug assertions, [`reached`] is empty and its names are in no binary.

/// Says that a named step is reached. With `ASYNCQ_FAILPOINT=NAME=kill` in the environment of a debug build, the process
/// is killed there; `stop` stops it (SIGSTOP), `abort` aborts it, and `NAME:3=kill` means the third time that it is there.
#[cfg(not(debug_assertions))]
#[inline(always)]
pub fn reached(_name: &'static str) {}

/// Says that a named step is reached. With `ASYNCQ_FAILPOINT=NAME=kill` in the environment of a debug build, the process
/// is killed there; `stop` stops it (SIGSTOP), `abort` aborts it, and `NAME:3=kill` means the third time that it is there.
#[cfg(debug_assertions)]
pub fn reached(name: &'static str) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static WANTED: LazyLock<Option<Wanted>> = LazyLock::new(|| Wanted::parse(&std::env::var("ASYNCQ_FAILPOINT").ok()?));
    static TIMES: AtomicU64 = AtomicU64::new(0);

    if let Some(wanted) = &*WANTED
        && wanted.name == name
        && TIMES.fetch_add(1, Ordering::SeqCst) + 1 == wanted.time
    {
        wanted.action.act();
    }
}

/// Whether a debug build is to play the next version of asyncq, with a schema that comes after this one: with
/// `ASYNCQ_FUTURE_SCHEMA` in the environment, one program is both sides of an upgrade.
#[cfg(debug_assertions)]
pub fn plays_a_newer_build() -> bool {
    std::env::var_os("ASYNCQ_FUTURE_SCHEMA").is_some_and(|value| !value.is_empty())
}

#[cfg(debug_assertions)]
struct Wanted {
    name: String,
    time: u64,
    action: Action,
}

#[cfg(debug_assertions)]
enum Action {
    Kill,
    Stop,
    Abort,
}

#[cfg(debug_assertions)]
impl Wanted {
    fn parse(text: &str) -> Option<Wanted> {
        let (point, action) = text.split_once('=')?;
        let (name, time) = point.split_once(':').unwrap_or((point, "1"));
        let action = match action {
            "kill" => Action::Kill,
            "stop" => Action::Stop,
            "abort" => Action::Abort,
            _ => return None,
        };
        Some(Wanted { name: name.to_owned(), time: time.parse().ok()?, action })
    }
}

#[cfg(debug_assertions)]
impl Action {
    fn act(&self) {
        use rustix::process::{Signal, getpid, kill_process};
        let signal = match self {
            Action::Kill => Signal::KILL,
            Action::Stop => Signal::STOP,
            Action::Abort => std::process::abort(),
        };
        // It always may signal itself.
        let _ = kill_process(getpid(), signal);
    }
}

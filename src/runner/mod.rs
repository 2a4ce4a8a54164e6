//! Running functions: processes, their output, and what a processor keeps on disk while it works.
//!
//! Invariant: knows processes and files, knows no database. What follows from an outcome is decided elsewhere.

pub mod command;
pub mod output;
pub mod process;
mod result_file;
pub mod run_dir;
mod spawn;
mod start_failure;
mod stop_switch;
pub mod system_error;
pub mod worker;

pub use output::capture::Capture;
pub use output::forwarder::{Forwarder, MessageWriter, PieceKind, SkipWait};
pub use output::reader::Output;
pub use process::orphans::Orphans;
pub use run_dir::access::Access;
pub use run_dir::disk_reserve::DiskReserve;
pub use run_dir::home::Home;
pub use run_dir::{LONGEST_NOTE, Mark, Marks, RunDir};
pub use start_failure::{Scarcity, StartFailure, in_words};
pub use stop_switch::{Stop, StopSwitch};

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::domain::attempt::Outcome;
use crate::domain::call::Call;
use crate::domain::function::Definition;
use crate::domain::job::{Claim, Fence, Token};
use crate::domain::json::Json;

/// One call to run.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Which attempt of which job this is.
    pub fence: &'a Fence,
    /// The secret that the function gets.
    pub token: &'a Token,
    /// The call.
    pub call: &'a Call,
    /// How the function is run.
    pub definition: &'a Definition,
}

impl<'a> Request<'a> {
    /// The call of a claim.
    #[must_use]
    pub fn of(claim: &'a Claim) -> Request<'a> {
        let Claim { fence, token, call, definition, .. } = claim;
        Request { fence, token, call, definition }
    }
}

/// What systemd tells a service about itself: functions are not to speak for their processor.
const OF_SYSTEMD: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];

/// What is the same for all functions that a processor runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The store, as functions find it in `ASYNCQ_DB`.
    pub store: OsString,
    /// Where results and long outputs are put while a function runs.
    pub folder: PathBuf,
    /// The same folder, as long as it is there.
    pub home: Home,
    /// How the environment that functions inherit differs from this process's own: it has no `ASYNCQ_*`, nor what
    /// systemd tells the processor, and asyncq itself is on the `PATH`.
    pub env: Vec<(OsString, Option<OsString>)>,
    /// Whether this process itself belongs to a worker, whose token all that it starts carries on.
    pub in_worker: bool,
    /// What got away from its function.
    pub orphans: Arc<Orphans>,
    /// Whether the system lets programs be started.
    pub scarcity: Arc<Scarcity>,
}

impl Surroundings {
    /// Takes `env`, the processor's own environment, and `program`, the path of asyncq itself, as they are. From now on,
    /// this process adopts what its functions leave behind.
    ///
    /// # Errors
    /// As [`Orphans::adopt`].
    pub fn new(
        store: OsString,
        folder: PathBuf,
        env: impl Iterator<Item = (OsString, OsString)>,
        program: &Path,
    ) -> io::Result<Self> {
        let (mut path, mut changes, mut in_worker) = (None, Vec::new(), false);
        for (name, value) in env {
            if name == "PATH" {
                path = Some(value);
            } else if name == process::orphans::WORKER_TOKEN && !value.is_empty() {
                in_worker = true;
            } else if name.as_encoded_bytes().starts_with(b"ASYNCQ_") || OF_SYSTEMD.iter().any(|its| name == *its) {
                changes.push((name, None));
            }
        }
        if let Some(own) = program.parent() {
            let mut path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
            if !std::env::split_paths(&path).any(|entry| entry == own) {
                path.push(":");
                path.push(own);
            }
            changes.push(("PATH".into(), Some(path)));
        }
        let (orphans, scarcity) = (Arc::new(Orphans::adopt()?), Arc::default());
        let home = Home::find(&folder);
        Ok(Surroundings { store, folder, home, env: changes, in_worker, orphans, scarcity })
    }
}

/// How a call ended.
#[derive(Debug)]
pub struct Ended {
    /// What came of it.
    pub outcome: Outcome,
    /// What the function left as its result, if that is valid.
    pub result: Option<Json>,
    /// How long it took.
    pub took: Duration,
    /// What it printed.
    pub output: Capture,
}

impl Ended {
    /// The end of a call that was not run.
    #[must_use]
    pub fn unrun(outcome: Outcome, output: Capture) -> Ended {
        Ended { outcome, result: None, took: Duration::ZERO, output }
    }
}

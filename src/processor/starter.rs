//! Starts processors in the background for calls that no processor would run.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

use super::lives;
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
use crate::runner::Access;
use crate::runner::process::background::{self, StartRight};
use crate::store::Store;
use crate::system::error::io_error;

/// How long to wait before the second start if the processor did not take the call. The time doubles with each start.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest wait before a start.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long to wait before starting another processor, because one with `--follow` may take the call at once.
const AT_WORK: Duration = Duration::from_millis(200);

/// Starts a processor for a service if none works on it. Only one process at a time starts a processor for a store, and it waits
/// until that processor works. So there is never more than one processor too many.
#[derive(Debug)]
pub struct ProcessorStarter {
    service: ServiceName,
    program: PathBuf,
    words: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    began: Instant,
    started: Option<Started>,
    /// When the next one may be started.
    not_before: Instant,
    pause: Duration,
}

/// A processor that was started.
#[derive(Debug)]
struct Started {
    child: Child,
    /// Kept until the processor is at work.
    right: Option<StartRight>,
}

impl ProcessorStarter {
    /// Starts processors of `service` with this program and these words. They get only the usual ones of these variables.
    #[must_use]
    pub fn new(
        service: ServiceName,
        program: PathBuf,
        words: Vec<OsString>,
        env: Vec<(OsString, OsString)>,
    ) -> ProcessorStarter {
        let now = Instant::now();
        ProcessorStarter {
            service,
            program,
            words,
            env,
            began: now,
            started: None,
            not_before: now,
            pause: FIRST_PAUSE,
        }
    }

    /// Starts a processor if `is_needed` says so, unless another process is starting one.
    ///
    /// # Errors
    /// [`Kind::Io`] when it cannot be started, or cannot work; and whatever the store or `is_needed` answers.
    pub fn tend(&mut self, store: &mut Store, is_needed: &mut dyn FnMut(&mut Store) -> Result<bool>) -> Result<()> {
        if self.is_busy(store)? || Instant::now() < self.not_before || !is_needed(store)? {
            return Ok(());
        }
        if self.began.elapsed() < AT_WORK && is_anyone_at_work(store)? {
            return Ok(());
        }
        let cannot_start = |error| io_error("cannot start a processor", &error);
        let access = store.metadata().map(|store| Access::of(&store)).map_err(cannot_start)?;
        let Some(right) = StartRight::take(&store.run_folder(), access).map_err(cannot_start)? else { return Ok(()) };
        // Another process may have started one just before.
        if !is_needed(store)? {
            return Ok(());
        }
        let child = background::start(&self.program, &self.words, &self.env).map_err(cannot_start)?;
        self.started = Some(Started { child, right: Some(right) });
        Ok(())
    }

    /// Whether the processor that was started still runs.
    fn is_busy(&mut self, store: &mut Store) -> Result<bool> {
        let Some(Started { child, right }) = &mut self.started else { return Ok(false) };
        if let Some(status) = child.try_wait().map_err(|error| io_error("cannot watch a processor", &error))? {
            self.started = None;
            self.not_before = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
            return cannot_work(status).map_or(Ok(false), |error| {
                let service = &self.service;
                Err(error.with_hint(format!("`asyncq process {service}` shows why; the call stays in the queue")))
            });
        }
        if right.is_some() && store.holders(&self.service)?.iter().any(|holder| lives(store, holder)) {
            *right = None;
            self.pause = FIRST_PAUSE;
        }
        Ok(true)
    }
}

fn is_anyone_at_work(store: &mut Store) -> Result<bool> {
    Ok(store.processors()?.iter().any(|processor| lives(store, processor)))
}

/// The error for a processor that ended because it cannot work; `None` if it only ran a call that failed, or was killed.
fn cannot_work(status: ExitStatus) -> Option<Error> {
    let code = status.code().filter(|code| ![0, 1, 75].contains(code))?;
    let kind = if code == 77 { Kind::Denied } else { Kind::Io };
    Some(Error::new(kind, format!("the processor that was started ended with exit code {code}")))
}

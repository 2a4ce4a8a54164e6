//! The processor's presence in the store and beside it: made with its first claim, gone when it ends.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::events::EventQueue;
use super::slots::{Common, Slots};
use super::worker_pool::WorkerPool;
use crate::domain::event::Unkillable;
use crate::domain::processor::ProcessorId;
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::processor::random::new_token;
use crate::runner::process::supervisor;
use crate::runner::process::supervisor::SupervisorLink;
use crate::runner::run_dir;
use crate::runner::run_dir::Liveness;
use crate::runner::system_error::io_error;
use crate::runner::worker::host_session::HostSession;
use crate::runner::{Access, DiskReserve, Forwarder, Home, Orphans, RunDir, Surroundings};
use crate::store::Store;

/// Where processors have their folders, and what functions inherit.
#[derive(Debug, Clone)]
pub struct RunDirAccess {
    /// The folder beside the store.
    pub path: PathBuf,
    /// The path of asyncq itself.
    pub program: PathBuf,
    /// The processor's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// The line to the supervisor of this process.
    pub line: Arc<SupervisorLink>,
}

/// What a presence is made of.
pub(super) struct Runtime {
    /// Where its folder is and what functions inherit.
    pub(super) run: RunDirAccess,
    /// Where output of functions goes.
    pub(super) forwarder: Forwarder,
    /// The program that it drains into, if there is one.
    pub(super) host: Option<HostSession>,
}

/// What to do about a run folder that cannot be used.
const WHOSE: &str =
    "it must belong to whom the store belongs to: let root `chown` it, or move it away if a stranger made it";

/// A registered processor with its locked folder and its slots.
pub(super) struct Registration {
    pub(super) id: ProcessorId,
    pub(super) slots: Slots,
    /// What outcomes are recorded with on a full disk.
    pub(super) reserve: Arc<DiskReserve>,
    folder: RunDir,
    home: Home,
    access: Access,
    orphans: Arc<Orphans>,
    /// Kept to the end: whoever reads slowly, or not at all, is waited for when nothing else is left to do.
    forwarder: Arc<Forwarder>,
}

impl Registration {
    /// Locks first and registers then, so that nobody who sees the registration can think us dead.
    pub(super) fn begin(store: &mut Store, runtime: Runtime, events: Arc<EventQueue>) -> Result<Registration> {
        let Runtime { run, forwarder, host } = runtime;
        let fail = |error| {
            let what = format!("cannot work in `{}`", run.path.display());
            io_error(&what, &error)
        };
        let name = new_token()?.as_str().to_owned();
        let access = Access::of(&store.metadata().map_err(fail)?);
        let folder = RunDir::make(&run.path, name, access).map_err(|error| match fail(error) {
            error if error.kind() == Kind::Denied => error.with_hint(WHOSE),
            error => error,
        })?;
        run.line.hand_over(folder.lock()).map_err(fail)?;
        reached("folder locked");
        let reserve = Arc::new(DiskReserve::of(folder.path()));
        let noted = host.as_ref().map_or(Ok(()), |hosted| folder.note_host(hosted.host(), access));
        let filled = noted.and_then(|()| reserve.fill()).map_err(fail);
        let registered =
            filled.and_then(|()| store.register(&folder.describe(supervisor::visible_pid()).map_err(fail)?));
        let id = match registered {
            Ok(id) => id,
            Err(error) => {
                // On a full disk it leaves nothing behind.
                folder.remove();
                return Err(error);
            }
        };
        reached("processor registered");
        let (location, path, forwarder) =
            (store.location().as_os_str().into(), folder.path().to_owned(), Arc::new(forwarder));
        let made = Surroundings::new(location, path, run.env.iter().cloned(), &run.program).map_err(fail);
        let made = made.and_then(|around| {
            let (orphans, home) = (Arc::clone(&around.orphans), around.home.clone());
            sweep(store, &run.path, folder.path())?;
            let workers = Arc::new(WorkerPool::new(Arc::clone(&forwarder), folder.token()));
            let common = Common { around, marks: folder.marks(), forwarder: Arc::clone(&forwarder), workers };
            let mut slots = Slots::new(common, events);
            host.map_or(Ok(()), |hosted| slots.use_host(hosted))?;
            Ok((slots, orphans, home))
        });
        match made {
            Ok((slots, orphans, home)) => {
                Ok(Registration { id, slots, reserve, folder, home, access, orphans, forwarder })
            }
            Err(error) => {
                // So that nobody has to find it dead.
                if store.unregister(id).is_ok() {
                    folder.remove();
                }
                Err(error)
            }
        }
    }

    /// Looks whether its folder is still there: without it, results and long outputs are lost, and so is what tells others
    /// that it lives.
    ///
    /// # Errors
    /// [`Kind::Io`] when it is not.
    pub(super) fn still_there(&self) -> Result<()> {
        if self.home.is_there() {
            return Ok(());
        }
        let message =
            format!("the folder `{}` was removed while this processor worked in it", self.folder.path().display());
        Err(Error::new(Kind::Io, message)
            .with_hint("start it again: what it ran is put back; leave that folder to asyncq"))
    }

    /// Reaps what functions have orphaned and has ended, and ends workers that have been idle for long enough.
    pub(super) fn tidy_up(&self) {
        self.orphans.reap();
        self.slots.retire_idle();
    }

    /// Why it is not known for sure, should this processor die, which calls it ran.
    pub(super) fn flaw(&self) -> Option<&std::io::Error> {
        self.folder.flaw()
    }

    /// The processes that were found since this was asked last and may not be ended: whoever wants to cancel their jobs finds
    /// them in the folder.
    pub(super) fn immune(&self) -> Vec<Unkillable> {
        let found = self.orphans.immune();
        for immune in &found {
            self.folder.note_immune(immune, self.access);
        }
        found
    }

    /// Ends as if it had died, because a host, or what may not be ended, may still run calls: what else it held is over, and
    /// recorded.
    pub(super) fn leave_behind(self) {
        drop(self.slots);
        self.orphans.end();
    }

    /// Ends when nothing is held any more, and leaves nothing behind.
    pub(super) fn end(self, store: &mut Store) -> Result<()> {
        drop(self.slots);
        // Those of them that cleared their environment, while other calls ran.
        self.orphans.end();
        while let Err(error) = store.unregister(self.id) {
            if error.kind() != Kind::Full || !self.reserve.give() {
                return Err(error);
            }
        }
        reached("processor unregistered");
        self.folder.remove();
        drop(self.forwarder);
        Ok(())
    }
}

/// Removes the folders of processors that died before they were registered, or after.
fn sweep(store: &mut Store, run_folder: &Path, ours: &Path) -> Result<()> {
    let registered = store.processors()?;
    for name in run_dir::names(run_folder).unwrap_or_default() {
        if registered.iter().any(|processor| processor.is.folder == name) {
            continue;
        }
        match run_dir::liveness(run_folder, &name) {
            Ok(Liveness::Dead(remains)) => remains.remove(),
            Ok(Liveness::NoRunDir) => run_dir::remove_unfinished(ours, &name),
            Ok(Liveness::Alive) | Err(_) => {}
        }
    }
    Ok(())
}

//! A processor's registration in the store and its run directory. Both are made for its first claim and removed when it ends.

use std::path::{Path, PathBuf};
use std::{ffi::OsString, sync::Arc};

use super::events::{EventQueue, LoopEvent};
use super::{dispatch_queue::DispatchQueue, shared::Shared, slots::Slots, worker_pool::WorkerPool};
use crate::domain::{event::Unkillable, processor::ProcessorId};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::processor::random::new_token;
use crate::runner::{
    Access, DiskReserve, Forwarder, Home, Orphans, RunDir, Surroundings, process::supervisor,
    process::supervisor::SupervisorLink, run_dir, run_dir::Liveness, tap::server::TapServer,
    worker::host_session::HostSession,
};
use crate::store::Store;
use crate::system::error::io_error;

/// What a registration is made of.
pub(super) struct Runtime {
    /// The path of asyncq itself.
    pub(super) program: PathBuf,
    /// The processor's own environment, which functions inherit.
    pub(super) env: Vec<(OsString, OsString)>,
    /// The link to the supervisor of this process.
    pub(super) link: Arc<SupervisorLink>,
    /// Forwards the output of functions.
    pub(super) forwarder: Forwarder,
    /// The program that it drains into, if there is one.
    pub(super) host: Option<HostSession>,
}

/// What to do about a run folder that cannot be used.
const OWNER_HINT: &str =
    "it must have the owner of the store: let root `chown` it, or move it away if a stranger made it";

/// Whether this processor is registered: it registers before its first claim.
pub(super) struct Membership {
    runtime: Option<Runtime>,
    registration: Option<Registration>,
}

impl Membership {
    /// Not yet.
    pub(super) fn new(runtime: Runtime) -> Membership {
        Membership { runtime: Some(runtime), registration: None }
    }

    /// Runs calls in a host, once registered.
    pub(super) fn use_host(&mut self, host: Option<HostSession>) {
        if let Some(runtime) = &mut self.runtime {
            runtime.host = host;
        }
    }

    /// Registers, unless this processor is registered already. Returns whether it did.
    pub(super) fn join(&mut self, store: &mut Store, events: &Arc<EventQueue<LoopEvent>>) -> Result<bool> {
        let Some(runtime) = self.runtime.take() else { return Ok(false) };
        self.registration = Some(Registration::begin(store, runtime, Arc::clone(events))?);
        Ok(true)
    }

    /// The registration, while there is one.
    pub(super) fn get(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// The same, to work with.
    pub(super) fn active(&mut self) -> Option<&mut Registration> {
        self.registration.as_mut()
    }

    /// The number of this processor, while it is registered.
    pub(super) fn id(&self) -> Option<ProcessorId> {
        self.get().map(|registration| registration.id)
    }

    /// Whether its folder was removed.
    pub(super) fn lost_its_folder(&self) -> bool {
        self.get().is_some_and(|registration| registration.still_there().is_err())
    }

    /// Takes the registration out, so that the caller can end it.
    pub(super) fn leave(&mut self) -> Option<Registration> {
        self.registration.take()
    }
}

/// A registered processor with its locked run directory and its slots.
pub(super) struct Registration {
    pub(super) id: ProcessorId,
    pub(super) slots: Slots,
    /// Space for outcomes on a full disk.
    pub(super) reserve: Arc<DiskReserve>,
    folder: RunDir,
    home: Home,
    access: Access,
    orphans: Arc<Orphans>,
    /// Dropped last: only then does the processor wait for a slow reader of its output.
    forwarder: Arc<Forwarder>,
    /// Receives the requests of followers; `None` if that is not possible.
    tap: Option<TapServer>,
}

impl Registration {
    /// Locks first and then registers, so that nobody who sees the registration can take this processor for dead.
    pub(super) fn begin(
        store: &mut Store,
        runtime: Runtime,
        events: Arc<EventQueue<LoopEvent>>,
    ) -> Result<Registration> {
        let Runtime { program, env, link, forwarder, host } = runtime;
        let run_folder = store.run_folder();
        let fail = |error| io_error(&format!("cannot work in `{}`", run_folder.display()), &error);
        let name = new_token()?.as_str().to_owned();
        let access = Access::of(&store.metadata().map_err(fail)?);
        let folder = RunDir::make(&run_folder, name, access).map_err(|error| match fail(error) {
            error if error.kind() == Kind::Denied => error.with_hint(OWNER_HINT),
            error => error,
        })?;
        link.hand_over(folder.lock()).map_err(fail)?;
        reached("folder locked");
        let reserve = Arc::new(DiskReserve::of(&folder.path));
        let noted = host.as_ref().map_or(Ok(()), |session| folder.note_host(session.host(), access));
        let filled = noted.and_then(|()| reserve.fill()).map_err(fail);
        let registered =
            filled.and_then(|()| store.register(&folder.describe(supervisor::visible_pid()).map_err(fail)?));
        let id = match registered {
            Ok(id) => id,
            Err(error) => {
                // It leaves nothing on a full disk.
                folder.remove();
                return Err(error);
            }
        };
        reached("processor registered");
        let (location, path, forwarder) =
            (store.location().as_os_str().into(), folder.path.clone(), Arc::new(forwarder));
        let made = Surroundings::new(location, path, env.into_iter(), &program).map_err(fail);
        let made = made.and_then(|around| {
            let (orphans, home) = (Arc::clone(&around.orphans), around.home.clone());
            sweep(store, &run_folder, &folder.path)?;
            let workers = Arc::new(WorkerPool::new(Arc::clone(&forwarder), folder.token()));
            let (marks, forwarder, queue) =
                (Arc::clone(&folder.marks), Arc::clone(&forwarder), Arc::new(DispatchQueue::default()));
            let (tap, of_server) = (Arc::clone(&queue.state().tap), Arc::clone(&queue));
            let usher = Box::new(move |request| of_server.state().usher(request));
            // If this fails, nobody can follow the output of calls while they run.
            let server = TapServer::start(&folder.path, access, Arc::clone(&tap), usher).ok();
            let mut slots = Slots::new(Shared { around, marks, forwarder, workers, events, queue, tap });
            host.map_or(Ok(()), |session| slots.use_host(session))?;
            Ok((slots, orphans, home, server))
        });
        match made {
            Ok((slots, orphans, home, tap)) => {
                Ok(Registration { id, slots, reserve, folder, home, access, orphans, forwarder, tap })
            }
            Err(error) => {
                // So that no processor has to rescue it.
                if store.unregister(id).is_ok() {
                    folder.remove();
                }
                Err(error)
            }
        }
    }

    /// Checks that its run directory is still there. Without it, results and long outputs are lost, and others take this processor
    /// for dead.
    ///
    /// # Errors
    /// [`Kind::Io`] when it is missing.
    pub(super) fn still_there(&self) -> Result<()> {
        if self.home.is_there() {
            return Ok(());
        }
        let message =
            format!("the folder `{}` was removed while this processor worked in it", self.folder.path.display());
        Err(Error::new(Kind::Io, message)
            .with_hint("start it again: what it ran is put back; leave that folder to asyncq"))
    }

    /// Reaps orphans that have ended, and ends workers that were idle for long enough.
    pub(super) fn tidy_up(&self) {
        self.orphans.reap();
        self.slots.workers().retire_idle();
    }

    /// The error that kept a mark from being written. If this processor dies, others do not know which calls it ran.
    pub(super) fn mark_error(&self) -> Option<&std::io::Error> {
        self.folder.marks.flaw()
    }

    /// Processes that cannot be ended, found since the last call of this. `asyncq job cancel` finds them in the run directory.
    pub(super) fn unkillable(&self) -> Vec<Unkillable> {
        let found = self.orphans.unkillable();
        for unkillable in &found {
            self.folder.note_unkillable(unkillable, self.access);
        }
        found
    }

    /// Ends without unregistering, as if it had died, because calls may still run in a host or in processes that cannot be ended.
    /// Its other calls are recorded.
    pub(super) fn leave_behind(self) {
        drop(self.slots);
        self.orphans.end();
    }

    /// Ends after its last call, and leaves nothing behind.
    pub(super) fn end(self, store: &mut Store) -> Result<()> {
        drop(self.slots);
        drop(self.tap);
        // This includes orphans that have cleared their environment while other calls ran.
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

/// Removes the run directories of dead processors that are not registered.
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

//! Drains services: claims calls, runs them and records their outcomes, until nothing is ready.
//!
//! Invariant: one thread talks to the store. Each slot is a thread that runs one call at a time and knows nothing of the store.
//! Only this layer uses both store and runner.

mod call_source;
mod console;
mod dispatch_queue;
mod events;
mod finished;
mod host;
mod leftovers;
mod live_output;
mod main_loop;
pub mod nested;
mod outcome_journal;
mod prefetch;
mod pruner;
mod random;
mod registration;
mod reporter;
mod rescue;
mod service_state;
mod shared;
mod shutdown;
mod slot;
mod slots;
mod starter;
mod watcher;
mod worker_pool;

use std::{ffi::OsString, os::fd::OwnedFd, os::unix::process::ExitStatusExt, path::PathBuf, sync::Arc};

pub use console::OutputPrinter;
pub use events::EventQueue;
pub use leftovers::{end_leftovers_of_dead, left_folders, working_folders};
pub use live_output::{LiveOutput, NotLive};
pub use rescue::{
    Fate, fate, lives, missing_space, put_back_all_unowned, put_back_copied, put_back_unowned, rescue_copied,
};
pub use starter::ProcessorStarter;
pub use watcher::Notifications;

use main_loop::MainLoop;
use registration::Runtime;

use crate::domain::event::{Event, Unkillable};
use crate::domain::processor::{ProcessOptions, Summary};
use crate::domain::{console::Console, job::JobId, service::ServiceName};
use crate::error::{Error, Kind, Result};
use crate::runner::process::supervisor::{self, SUPERVISOR, SupervisorLink};
use crate::runner::{process::unkillable, worker::host::inherit};
use crate::store::{Patience, Store};
use crate::system::{error::io_error, fds, signals};

/// What a processor works with, apart from the store.
#[derive(Debug)]
pub struct Equipment {
    /// The path of asyncq itself.
    pub program: PathBuf,
    /// The processor's own environment, which functions inherit.
    pub env: Vec<(OsString, OsString)>,
    /// Where the output of functions goes.
    pub console: Console,
    /// How long the store may be locked while nothing is at stake.
    pub patience: Patience,
    /// What this process has from its supervisor.
    pub inherited: Inherited,
}

/// What a processor process has from its supervisor.
#[derive(Debug)]
pub struct Inherited {
    link: SupervisorLink,
    /// The socket to the program that it drains into, if there is one.
    socket: Option<OwnedFd>,
}

/// Which of the two processes of a processor this is.
#[derive(Debug)]
pub enum Role {
    /// The supervisor. The processor process has ended with this exit code, or was killed ([`Kind::Busy`]). The next processor puts
    /// back what it ran.
    Supervisor(Result<u8>),
    /// The one that does the work.
    Processor(Inherited),
}

/// Finds out which of the two processes of a processor this is. The supervisor starts this program again with the same words, as
/// the processor process. When that has ended, the supervisor ends what is left of its calls. `socket` is the number of an
/// inherited socket to the program that it drains into. Call this before anything is opened.
///
/// # Errors
/// [`Kind::Usage`] when there is no such socket, [`Kind::Busy`] when the system gives no process.
pub fn role(words: &[OsString], env: &[(OsString, OsString)], socket: Option<u32>) -> Result<Role> {
    let socket = socket.map(inherit).transpose()?;
    signals::reset()?;
    let supervisor = env.iter().find(|(name, _)| name == SUPERVISOR).and_then(|(_, value)| value.to_str());
    if let Some(link) = SupervisorLink::of_this_process(supervisor) {
        return Ok(Role::Processor(Inherited { link, socket }));
    }
    let status = supervisor::supervise(words, socket).map_err(|error| io_error("cannot start a processor", &error))?;
    if let Some(code) = status.code() {
        return Ok(Role::Supervisor(Ok(u8::try_from(code).unwrap_or(u8::MAX))));
    }
    let signal = status.signal().map_or_else(|| "a signal".to_owned(), signals::name);
    let killed = Error::new(Kind::Busy, format!("the processor was ended by {signal}"))
        .with_hint("nothing is lost: the next `asyncq process` puts back what was running");
    Ok(Role::Supervisor(Err(killed)))
}

/// A process of a running job that its processor cannot end, if there is one.
#[must_use]
pub fn unkillable_of(store: &Store, job: JobId) -> Option<Unkillable> {
    unkillable::of_job(&store.run_folder(), job)
}

/// Drains services one after the other. Then it waits for calls of any of them that are due soon, if that is wanted, and ends. With
/// `--follow`, it serves all of them at once until it is told to stop. After a first signal to stop, it claims nothing more. A
/// second signal ends the running calls and puts them back; a third one does so at once.
///
/// # Errors
/// [`crate::Kind::NotFound`] when a service does not exist, before anything is run; and whatever the store answers.
pub fn process(
    store: &mut Store,
    options: &ProcessOptions,
    equipment: Equipment,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    let Equipment { program, env, console, patience, inherited: Inherited { link, socket } } = equipment;
    let (_attached, forwarder) = console::attach(console)?;
    fds::prepare()?;
    let link = Arc::new(link);
    let chosen = store.select_services(&options.services)?;
    let services: Vec<ServiceName> = chosen.into_iter().map(|service| service.name).collect();
    if services.is_empty() && !options.services.is_all() {
        tell(Event::NoService);
    }
    let no_bell = |error| io_error("cannot wait for what happens", &error);
    let runtime = Runtime { program, env, link: Arc::clone(&link), forwarder, host: None };
    let mut main_loop = MainLoop::new(store, options, (runtime, patience), tell).map_err(no_bell)?;
    let (asked, passed_on, died) = (main_loop.shutdown(), main_loop.shutdown(), main_loop.shutdown());
    if let Some(grace) = options.grace {
        main_loop.shutdown().limit(grace).map_err(|error| io_error("cannot watch for signals", &error))?;
    }
    signals::on_stop(move || asked.signal())?;
    link.listen(move || passed_on.signal(), move || died.supervisor_died())
        .map_err(|error| io_error("cannot watch for signals", &error))?;
    socket.map_or(Ok(()), |socket| main_loop.greet(socket))?;
    let done = if options.follow || services.len() == 1 {
        main_loop.drain(&services, options.wait)
    } else {
        // While calls of one service are ready, it does not wait for calls of another one.
        let mut drained = services.iter().try_for_each(|service| main_loop.drain(std::slice::from_ref(service), None));
        if options.wait.is_some() {
            drained = drained.and_then(|()| main_loop.drain(&services, options.wait));
        }
        drained
    };
    let done = done.and_then(|()| main_loop.prune_at_end());
    main_loop.end(done)
}

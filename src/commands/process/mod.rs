//! Draining services: claim, run, finish, until nothing is ready.
//!
//! Invariant: one thread talks to the store; each slot is a thread that runs one call at a time and knows no store. Only
//! here do store and runner meet.

mod board;
mod brake;
mod desk;
mod drain;
mod host;
mod note;
mod over;
mod pace;
mod presence;
mod rescue;
mod served;
mod slots;
mod wake;
mod workers;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;
use std::time::Duration;

pub use presence::RunFolder;
pub use rescue::rescue_copied;
use rustix::process::geteuid;

use crate::domain::attempt::{Ending, Failure};
use crate::domain::job::{Claim, JobId, State};
use crate::domain::processor::Processor;
use crate::domain::service::ServiceName;
use crate::error::{Error, Kind, Result};
pub use crate::runner::host::inherit;
pub use crate::runner::supervisor::{Line, SUPERVISOR};
pub use crate::runner::{Echo, Immune, Piece, PieceKind, Surroundings, Voice};
use crate::runner::{descriptors, memory, signals, supervisor};
use crate::store::{Location, Patience, Store};

/// What to drain, and when to stop early.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// These services, in this order; all of them, by name, when there are none.
    pub services: Vec<ServiceName>,
    /// Claim at most so many calls.
    pub max_jobs: Option<u64>,
    /// Claim nothing any more after this time.
    pub max_time: Option<Duration>,
    /// Wait for the calls that are to be tried again.
    pub wait_retries: bool,
    /// Stay, and run calls as they come, of all services at once, until told to stop.
    pub follow: bool,
    /// Tell this often that it lives.
    pub pulse: Option<Duration>,
    /// A container in which a processor died is gone, as only one at a time uses the store.
    pub one_container: bool,
}

/// How much stack a thread needs that runs calls or feeds who does: it runs no recursion.
const STACK_OF_A_FEEDER: usize = 256 * 1024;

/// What a processor works with, besides the store.
#[derive(Debug)]
pub struct Equipment {
    /// Where its folder is and what functions inherit.
    pub run_folder: RunFolder,
    /// Where output of functions goes.
    pub echo: Echo,
    /// How long the store may be locked while nothing is at stake.
    pub patience: Patience,
    /// The socket to the program that it drains into, if there is one: it is waited for its hello before anything is run.
    pub socket: Option<OwnedFd>,
}

/// What happens while a processor works, for whoever wants to tell it.
#[derive(Debug)]
pub enum Event<'a> {
    /// There is work, but others have taken all slots of the service.
    Busy {
        /// The service.
        service: &'a ServiceName,
        /// How many slots it has.
        concurrency: i64,
        /// Who has them.
        holders: &'a [Processor],
    },
    /// There is work, but the service is paused.
    Paused {
        /// The service.
        service: &'a ServiceName,
    },
    /// A call has ended and that is recorded.
    Ended(&'a Report),
    /// A call has ended, but was no longer this processor's to finish.
    Late {
        /// Its job.
        job: JobId,
        /// In which state that is now; `None` when it is not in the store any more.
        now: Option<State>,
    },
    /// Jobs that were `processing` and belonged to no processor were put back.
    Unowned {
        /// Which, with their states now.
        jobs: &'a [(JobId, State)],
    },
    /// The jobs of a processor that died were put back.
    Rescued {
        /// The dead one.
        processor: &'a Processor,
        /// Its jobs, with their states now.
        jobs: &'a [(JobId, State)],
    },
    /// A processor died, but what it ran cannot be ended; that is tried again later.
    NotRescued {
        /// The dead one.
        processor: &'a Processor,
        /// A process of it that another user's rights protect, if that is why.
        immune: Option<&'a Immune>,
    },
    /// A process of a call cannot be ended, as it is another user's. Its call goes on until it has ended by itself.
    Immune {
        /// The process.
        immune: &'a Immune,
    },
    /// A processor died, and what it left running can neither be seen nor ended from here.
    OutOfReach {
        /// The dead one.
        processor: &'a Processor,
        /// Why not.
        barrier: Barrier,
    },
    /// A processor died, and the program that it drained into, which lives, may still run calls of it.
    InHost {
        /// The dead one.
        processor: &'a Processor,
        /// The process of that program.
        host: i64,
        /// Their jobs.
        jobs: &'a [JobId],
    },
    /// It cannot be told whether a processor lives.
    Unsure {
        /// Which one.
        processor: &'a Processor,
        /// Why.
        error: &'a std::io::Error,
    },
    /// A rule of the application holds calls back; they are tried again every second.
    HeldBack {
        /// Which rule, and why.
        error: &'a Error,
    },
    /// The processor stays from now on, and runs calls as they come.
    Ready,
    /// It is there and works, as its pulse tells.
    Alive,
    /// The system does not tell when the store changes; it is looked at often instead.
    Deaf {
        /// Why.
        error: &'a std::io::Error,
    },
    /// The processor was asked to stop and waits for what is running.
    Stopping {
        /// How many calls are running.
        running: usize,
    },
    /// The store is failing; it is tried again because outcomes are to be recorded.
    StoreFails {
        /// How it fails.
        error: &'a Error,
    },
    /// It was told to end, and outcomes cannot be recorded.
    GivenUp {
        /// Whose.
        jobs: &'a [JobId],
    },
    /// It cannot be written down which calls run; they do, and a crash might not be counted.
    Unmarked {
        /// Why.
        error: &'a std::io::Error,
    },
    /// A call could not begin for now, as its program was being written; it goes back, and counts no attempt.
    Postponed {
        /// The call.
        claim: &'a Claim,
        /// What was in its way.
        why: &'a Failure,
        /// How long it waits.
        pause: Duration,
    },
    /// No program can be started: calls go back, and nothing begins until one can.
    Scarce {
        /// What the system lacks.
        error: &'a Error,
    },
    /// The disk is full: outcomes are recorded, and nothing begins until there is space.
    NoSpace {
        /// How that was met.
        error: &'a Error,
    },
}

/// What keeps what a dead processor has left out of sight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Barrier {
    /// It belongs to the user with this number; only that user and root can see and end it.
    User(u32),
    /// It is in another PID namespace, as of another container.
    Namespace,
}

/// How a call ended.
#[derive(Debug)]
pub struct Report {
    /// The job.
    pub job: JobId,
    /// Its service.
    pub service: ServiceName,
    /// Its function.
    pub function: String,
    /// How the attempt ended.
    pub ending: Ending,
    /// Why it failed.
    pub error: Option<Failure>,
    /// How long it waits to be tried again.
    pub pause: Option<Duration>,
    /// Where the job stands now.
    pub state: State,
    /// How long it took.
    pub took: Duration,
    /// Whether it could not be run, and has a site of its own that is not there.
    pub lacks_own_site: bool,
}

/// What a processor has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many attempts it ran.
    pub attempts: u64,
    /// How many jobs ended in an error with it.
    pub errors: u64,
    /// How often a rule of the application kept it from claiming a call.
    pub held_back: u64,
}

/// Runs this very program again, with the same words, as a processor, and sees to it that nothing of what it ran is left
/// when it has ended; gives its exit code. A socket to the program that is drained into is handed on.
///
/// # Errors
/// [`Kind::Busy`] when it was killed: whoever processes next puts back what it ran.
pub fn supervise(words: &[OsString], socket: Option<OwnedFd>) -> Result<u8> {
    let status =
        supervisor::supervise(words, socket).map_err(|error| super::io_error("cannot start a processor", &error))?;
    if let Some(code) = status.code() {
        return Ok(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let signal = status.signal().map_or_else(|| "a signal".to_owned(), signals::name);
    Err(Error::new(Kind::Busy, format!("the processor was ended by {signal}"))
        .with_hint("nothing is lost: the next `asyncq process` puts back what was running"))
}

/// Passes on what functions print, to `write`; [`Echo::start`] says how.
///
/// # Errors
/// [`Kind::Busy`] when the system gives no thread, or too little memory for what follows.
pub fn echo(joint: bool, write: impl Fn(&Piece) + Send + Sync + 'static) -> Result<Echo> {
    memory::look().map_err(|error| super::io_error("cannot run functions", &error))?;
    Echo::start(joint, write).map_err(|error| super::io_error("cannot pass on what functions print", &error))
}

/// Refuses to let root run functions out of a store that somebody else could change.
///
/// # Errors
/// [`crate::Kind::Denied`] when this process is root's and there is somebody.
pub fn mind_root(location: &Location) -> Result<()> {
    if geteuid().is_root() { location.only_root_can_change() } else { Ok(()) }
}

/// The same once it is open.
///
/// # Errors
/// As for [`mind_root`].
pub fn mind_root_of(store: &Store) -> Result<()> {
    if geteuid().is_root() { store.only_root_can_change() } else { Ok(()) }
}

/// Drains services one after the other, then ends; or stays, and follows all of them at once. A first signal to stop claims nothing more, a second one ends what is
/// running and puts it back, a third one does so at once.
///
/// # Errors
/// [`crate::Kind::NotFound`] when a service is not there, before anything is run; and whatever the store answers.
pub fn process(
    store: &mut Store,
    options: &Options,
    mut equipment: Equipment,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    descriptors::prepare().map_err(|error| super::io_error("cannot run functions", &error))?;
    let line = Arc::clone(&equipment.run_folder.line);
    let mut services = Vec::new();
    for name in &options.services {
        services.push(store.service(name)?.name);
    }
    if services.is_empty() {
        services.extend(store.services()?.into_iter().map(|service| service.name));
    }
    let no_bell = |error| super::io_error("cannot wait for what happens", &error);
    let socket = equipment.socket.take();
    let mut drain = drain::Drain::new(store, options, equipment, tell).map_err(no_bell)?;
    let fail = |error| super::io_error("cannot watch for signals", &error);
    let (asked, passed_on, lost) = (drain.stop_button(), drain.stop_button(), drain.stop_button());
    signals::on_stop(move || asked.press()).map_err(fail)?;
    line.listen(move || passed_on.press(), move || lost.lose()).map_err(fail)?;
    socket.map_or(Ok(()), |socket| drain.greet(socket))?;
    let done = if options.follow {
        drain.drain(&services)
    } else {
        services.iter().try_for_each(|service| drain.drain(std::slice::from_ref(service)))
    };
    drain.leave(done)
}

//! Draining services: claim, run, finish, until nothing is ready.
//!
//! Invariant: one thread talks to the store; each slot is a thread that runs one call at a time and knows no store. Only
//! here do store and runner meet.

mod call_source;
mod dispatch_queue;
mod events;
mod finished;
mod host;
mod lost_host;
mod main_loop;
pub mod nested;
mod outcome;
mod outcome_journal;
mod prefetch;
mod random;
mod registration;
mod reporter;
mod rescue;
mod service_state;
mod shared;
mod shutdown;
mod slot;
mod slots;
mod watcher;
mod worker_pool;

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::sync::Arc;

pub use registration::{Equipment, RunDirAccess};
pub use rescue::{put_back_all_unowned, put_back_copied, put_back_unowned, rescue_copied};
use rustix::process::geteuid;

use main_loop::MainLoop;

use crate::domain::event::Event;
use crate::domain::processor::{ProcessOptions, Summary};
use crate::error::{Error, Kind, Result};
use crate::runner::process::{fds, signals, supervisor};
use crate::runner::system_error::io_error;
use crate::store::{Location, Store};

/// Runs this very program again, with the same words, as a processor, and sees to it that nothing of what it ran is left
/// when it has ended; gives its exit code. A socket to the program that is drained into is handed on.
///
/// # Errors
/// [`Kind::Busy`] when it was killed: whoever processes next puts back what it ran.
pub fn supervise(words: &[OsString], socket: Option<OwnedFd>) -> Result<u8> {
    let status = supervisor::supervise(words, socket).map_err(|error| io_error("cannot start a processor", &error))?;
    if let Some(code) = status.code() {
        return Ok(u8::try_from(code).unwrap_or(u8::MAX));
    }
    let signal = status.signal().map_or_else(|| "a signal".to_owned(), signals::name);
    Err(Error::new(Kind::Busy, format!("the processor was ended by {signal}"))
        .with_hint("nothing is lost: the next `asyncq process` puts back what was running"))
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
    options: &ProcessOptions,
    mut equipment: Equipment,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Summary> {
    fds::prepare().map_err(|error| io_error("cannot run functions", &error))?;
    let line = Arc::clone(&equipment.run_folder.line);
    let mut services = Vec::new();
    for name in &options.services {
        services.push(store.service(name)?.name);
    }
    if services.is_empty() {
        services.extend(store.services()?.into_iter().map(|service| service.name));
    }
    let no_bell = |error| io_error("cannot wait for what happens", &error);
    let socket = equipment.socket.take();
    let mut main_loop = MainLoop::new(store, options, equipment, tell).map_err(no_bell)?;
    let fail = |error| io_error("cannot watch for signals", &error);
    let (asked, passed_on, died) = (main_loop.shutdown(), main_loop.shutdown(), main_loop.shutdown());
    signals::on_stop(move || asked.signal()).map_err(fail)?;
    line.listen(move || passed_on.signal(), move || died.supervisor_died()).map_err(fail)?;
    socket.map_or(Ok(()), |socket| main_loop.greet(socket))?;
    let done = if options.follow {
        main_loop.drain(&services)
    } else {
        services.iter().try_for_each(|service| main_loop.drain(std::slice::from_ref(service)))
    };
    main_loop.end(done)
}

//! Running the calls that are ready: in a process of its own, which this one supervises.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::sync::Arc;

use super::caller::Caller;
use super::console::{self, Console};
use super::queue::Place;
use crate::domain::event::Event;
use crate::domain::processor::{ProcessOptions, Summary};
use crate::error::Result;
use crate::processor::{self, Equipment, RunDirAccess};
use crate::runner::process::signals;
use crate::runner::process::supervisor::{SUPERVISOR, SupervisorLink};
use crate::runner::system_error::io_error;
use crate::runner::worker::host;

/// Who asks for a processor, and with what.
#[derive(Debug)]
pub struct ProcessRequest<'a> {
    /// What to drain, and when to stop early.
    pub options: &'a ProcessOptions,
    /// The store.
    pub place: &'a Place,
    /// Whose environment functions inherit.
    pub caller: &'a Caller,
    /// The number of an inherited socket to the program that it drains into, if there is one.
    pub socket: Option<u32>,
    /// As root, run functions even out of a store that others can change.
    pub trust_store_writers: bool,
}

/// How processing went.
#[derive(Debug, Clone, Copy)]
pub enum Processed {
    /// The processor process has ended with this exit code: this process supervised it.
    Supervised(u8),
    /// This was the processor process, and did this.
    Done(Summary),
}

/// Runs the calls that are ready, then ends; or stays. Starts this very program again, with the same words, as the
/// processor process, and supervises it; in that process it drains, shows on `console` what functions print, and calls
/// `tell` when something happens.
///
/// # Errors
/// [`crate::Kind::NotFound`] when a service is not there, [`crate::Kind::Denied`] where root does not trust a store,
/// [`crate::Kind::Busy`] when the processor process was killed; and whatever the store answers.
pub fn run(
    request: &ProcessRequest<'_>,
    console: &Arc<dyn Console>,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Processed> {
    let ProcessRequest { options, place, caller, socket, trust_store_writers } = *request;
    // Before anything is opened here.
    let socket = socket.map(host::inherit).transpose()?;
    signals::reset().map_err(|error| io_error("cannot handle signals", &error))?;
    let Some(line) = SupervisorLink::of_this_process(caller.variable(SUPERVISOR).and_then(OsStr::to_str)) else {
        return processor::supervise(&caller.words, socket).map(Processed::Supervised);
    };
    if !trust_store_writers {
        processor::mind_root(&place.location)?;
    }
    let mut store = place.open()?.store;
    // What was opened need not be what a link led to before.
    if !trust_store_writers {
        processor::mind_root_of(&store)?;
    }
    let (program, env) = (caller.program()?, caller.env.clone());
    let run_folder = RunDirAccess { path: store.run_folder(), program, env, line: Arc::new(line) };
    let (forwarder, _attached) = console::attach(console)?;
    let equipment = Equipment { run_folder, forwarder, patience: place.patience, socket };
    let mut told = BTreeSet::new();
    let done = processor::process(&mut store, options, equipment, &mut |event| match event {
        // Found again whenever it is looked for the dead.
        Event::OutOfReach { processor, .. } | Event::NotRescued { processor, .. } | Event::InHost { processor, .. }
            if !told.insert(processor.id) => {}
        event => tell(event),
    });
    done.map(Processed::Done)
}

//! Running the calls that are ready: in a process of its own, which this one supervises.

use std::collections::BTreeSet;

use rustix::process::geteuid;

use super::{caller::Caller, queue::Place};
use crate::domain::processor::{ProcessOptions, Summary};
use crate::domain::{console::Console, event::Event};
use crate::error::Result;
use crate::processor::{self, Equipment, Role};

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
#[derive(Debug)]
pub enum Processed {
    /// This process supervised the processor process, which has ended with this exit code, or was killed
    /// ([`crate::Kind::Busy`]).
    Supervised(Result<u8>),
    /// This was the processor process, and did this.
    Done(Summary),
}

/// Runs the ready calls and then ends, or stays. It starts this program again with the same words, as the processor process, and
/// supervises that one. The processor process drains the queues, shows the output of functions on `console`, and calls `tell` when
/// something happens.
///
/// # Errors
/// [`crate::Kind::NotFound`] when a service does not exist, [`crate::Kind::Denied`] when root does not trust a store; and whatever
/// the store answers.
pub fn run(request: &ProcessRequest<'_>, console: Console, tell: &mut dyn FnMut(Event<'_>)) -> Result<Processed> {
    let ProcessRequest { options, place, caller, socket, trust_store_writers } = *request;
    let inherited = match processor::role(&caller.words, &caller.env, socket)? {
        Role::Supervisor(code) => return Ok(Processed::Supervised(code)),
        Role::Processor(inherited) => inherited,
    };
    // Root runs nothing from a store that somebody else could change.
    let is_careful = !trust_store_writers && geteuid().is_root();
    if is_careful {
        place.location.only_root_can_change()?;
    }
    let mut store = place.open()?.store;
    // A link may have led elsewhere a moment ago, so this checks what was opened.
    if is_careful {
        store.only_root_can_change()?;
    }
    let (program, env, patience) = (caller.program()?, caller.env.clone(), place.patience);
    let equipment = Equipment { program, env, console, patience, inherited };
    let mut told = BTreeSet::new();
    let done = processor::process(&mut store, options, equipment, &mut |event| match event {
        // Each look for dead processors finds these again, so they are reported once.
        Event::OutOfReach { processor, .. } | Event::NotRescued { processor, .. } | Event::InHost { processor, .. }
            if !told.insert(processor.id) => {}
        event => tell(event),
    });
    done.map(Processed::Done)
}

//! Taking over from processors that died.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::finished::FinishedCall;
use super::outcome_journal;
use crate::domain::event::{Barrier, Event};
use crate::domain::job::{JobId, State};
use crate::domain::processor::{ProcessOptions, Processor, ProcessorId, Summary};
use crate::error::Result;
use crate::failpoint::reached;
use crate::runner::process::identity::{Presence, Visibility, process, process_lives, same_boot, visibility};
use crate::runner::process::orphans;
use crate::runner::run_dir::{DeadRunDir, Liveness, is_dying, liveness, token_of};
use crate::runner::worker::host::Host;
use crate::store::Store;

/// How long what a dead processor ran may take to end once it is killed; only the kernel can keep it longer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The same for who is at work: every outcome waits meanwhile, and it looks again before long.
const PATIENCE_AT_WORK: Duration = Duration::from_millis(50);

/// How long to wait for one half of a processor that ends what functions left, after the other half was killed.
const DYING: Duration = Duration::from_secs(5);

/// How long a PID namespace may take to end with its first process: the kernel frees that one's lock a moment before it kills
/// the others.
const NAMESPACE_ENDS: Duration = Duration::from_millis(100);

/// Waits for processors that are just about to die, because somebody has killed one half of them.
pub(super) fn wait_for_the_dying(store: &mut Store) -> Result<()> {
    let run_folder = store.run_folder();
    let until = Instant::now() + DYING;
    for processor in store.processors()? {
        while is_dying(&run_folder, &processor.is) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// Who looks after the dead.
pub(super) struct Rescuer<'a> {
    /// The processor itself, if it is one already.
    pub(super) own: Option<ProcessorId>,
    pub(super) options: &'a ProcessOptions,
    /// A host that runs no call of an earlier processor any more.
    pub(super) idle: Option<Host>,
    /// The dead of which all that is left was ended, but for what is in a host: it is not looked for again.
    pub(super) held: &'a mut BTreeSet<ProcessorId>,
    pub(super) summary: &'a mut Summary,
    pub(super) tell: &'a mut dyn FnMut(Event<'_>),
}

/// What was found of other processors.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    /// Whether there are any, dead or alive.
    pub(super) any: bool,
    /// Whether jobs of a dead one were put back.
    pub(super) rescued: bool,
}

/// Records what every processor that is dead has noted, and puts back its other jobs, after ending what it left running.
pub(super) fn rescue(store: &mut Store, rescuer: &mut Rescuer<'_>) -> Result<Others> {
    let (own, options) = (rescuer.own, rescuer.options);
    let mut others = Others::default();
    let run_folder = store.run_folder();
    let unowned = put_back_unowned(store, &[])?;
    if !unowned.is_empty() {
        others.rescued = true;
        (rescuer.tell)(Event::Unowned { jobs: &unowned });
    }
    for processor in store.processors()? {
        if Some(processor.id) == own {
            continue;
        }
        others.any = true;
        let liveness = match liveness(&run_folder, &processor.is.folder) {
            // Nobody is dead who is not proven to be: its folder may be another user's.
            Err(error) => {
                (rescuer.tell)(Event::Unsure { processor: &processor, error: &error });
                continue;
            }
            Ok(liveness) => liveness,
        };
        let remains = match liveness {
            Liveness::Alive => continue,
            Liveness::NoRunDir if process_lives(&processor.is) && !processor.of_original => continue,
            Liveness::NoRunDir => None,
            Liveness::Dead(remains) => {
                remains.give_space();
                Some(remains)
            }
        };
        // A copy takes its jobs, and leaves alone what the original runs.
        if runs_for_original(&processor, remains.as_ref()) {
            take_from_original(store, &processor, remains, rescuer)?;
            others.rescued = true;
            continue;
        }
        if let Some(barrier) = out_of_reach(&processor, remains.as_ref(), options) {
            (rescuer.tell)(Event::OutOfReach { processor: &processor, barrier });
            continue;
        }
        let hold = match remains.as_ref().map(|remains| hold(remains, rescuer)).transpose() {
            // Nor is a call given to somebody else while it may run.
            Err(error) => {
                (rescuer.tell)(Event::Unsure { processor: &processor, error: &error });
                continue;
            }
            Ok(hold) => hold.flatten(),
        };
        let Noted { begun, outcomes } = Noted::by(&processor, remains.as_ref());
        let mut held = hold.as_ref().map(|hold| hold.jobs.clone()).unwrap_or_default();
        let patience = if own.is_some() { PATIENCE_AT_WORK } else { PATIENCE };
        let mut tokens = store.tokens_but(processor.id, &held)?;
        let only_held = !held.is_empty() && tokens.is_empty();
        tokens.push(token_of(&processor.is.folder));
        if only_held && rescuer.held.contains(&processor.id) {
            continue;
        }
        if !orphans::end(&tokens, patience) {
            (rescuer.tell)(Event::NotRescued { processor: &processor, immune: None });
            continue;
        }
        if let Some(immune) = remains.as_ref().and_then(DeadRunDir::immune) {
            (rescuer.tell)(Event::NotRescued { processor: &processor, immune: Some(&immune) });
            continue;
        }
        reached("leftovers ended");
        if !only_held {
            record(store, processor.id, &outcomes, rescuer)?;
            held = put_back(store, &processor, (begun.as_deref(), &held), rescuer.tell)?;
            others.rescued = true;
        }
        match hold.filter(|_| !held.is_empty()) {
            Some(Hold { host, .. }) => {
                rescuer.held.insert(processor.id);
                (rescuer.tell)(Event::InHost { processor: &processor, host: host.pid, jobs: &held });
            }
            None => drop(remains.map(DeadRunDir::remove)),
        }
    }
    Ok(others)
}

/// Puts back, in a copy of a store, what the original's processors ran when that was copied, and ends nothing of theirs. A
/// processor that may have left something running in this place is for `asyncq process`.
///
/// # Errors
/// Whatever the store answers.
pub fn rescue_copied(store: &mut Store, tell: &mut dyn FnMut(Event<'_>)) -> Result<()> {
    let (options, mut held, mut summary) = (ProcessOptions::default(), BTreeSet::new(), Summary::default());
    let mut rescuer =
        Rescuer { own: None, options: &options, idle: None, held: &mut held, summary: &mut summary, tell };
    let run_folder = store.run_folder();
    for processor in store.processors()?.into_iter().filter(|it| it.of_original) {
        let remains = match liveness(&run_folder, &processor.is.folder) {
            // Nobody is dead who is not proven to be.
            Ok(Liveness::Alive) | Err(_) => continue,
            Ok(Liveness::NoRunDir) => None,
            Ok(Liveness::Dead(remains)) => Some(remains),
        };
        if runs_for_original(&processor, remains.as_ref()) {
            take_from_original(store, &processor, remains, &mut rescuer)?;
        }
    }
    Ok(())
}

/// Whether nothing that a processor ran for this store can be left, as it works for the store's original, elsewhere.
fn runs_for_original(processor: &Processor, remains: Option<&DeadRunDir>) -> bool {
    let is_elsewhere = || !same_boot(&processor.is) || process(&processor.is) == Presence::There;
    processor.of_original && (remains.is_none() || is_elsewhere())
}

/// Puts back, in a copy of a store, what one processor of the original ran.
fn take_from_original(
    store: &mut Store,
    processor: &Processor,
    remains: Option<DeadRunDir>,
    rescuer: &mut Rescuer<'_>,
) -> Result<()> {
    let Noted { begun, outcomes } = Noted::by(processor, remains.as_ref());
    record(store, processor.id, &outcomes, rescuer)?;
    put_back(store, processor, (begun.as_deref(), &[]), rescuer.tell)?;
    if let Some(remains) = remains {
        remains.remove();
    }
    Ok(())
}

/// What a processor has noted of its jobs.
struct Noted {
    /// Those that had begun, if that is known: after a power cut, or without its folder, all may have been running.
    begun: Option<Vec<JobId>>,
    /// What came of those that had ended.
    outcomes: Vec<(JobId, Vec<u8>)>,
}

impl Noted {
    fn by(processor: &Processor, remains: Option<&DeadRunDir>) -> Noted {
        let known = remains.filter(|_| same_boot(&processor.is));
        let begun = known.and_then(|remains| remains.begun().ok());
        Noted { begun, outcomes: known.and_then(|remains| remains.outcomes().ok()).unwrap_or_default() }
    }
}

/// What keeps jobs of a dead processor from being put back: the program that it drained into, which lives.
struct Hold {
    host: Host,
    jobs: Vec<JobId>,
}

/// Looks whether a host may still run calls of a dead processor.
fn hold(remains: &DeadRunDir, rescuer: &Rescuer<'_>) -> std::io::Result<Option<Hold>> {
    let Some(host) = remains.host()? else { return Ok(None) };
    if rescuer.idle.as_ref() == Some(&host) {
        remains.forget_host()?;
        return Ok(None);
    }
    if !host.lives(rescuer.options.one_container) {
        return Ok(None);
    }
    let jobs = remains.in_host()?;
    Ok((!jobs.is_empty()).then_some(Hold { host, jobs }))
}

/// Why what it ran may still run where this process cannot see it, if so: as another user, or in another PID namespace.
/// Nothing is left after the machine has been started anew.
fn out_of_reach(dead: &Processor, remains: Option<&DeadRunDir>, options: &ProcessOptions) -> Option<Barrier> {
    let remains = remains.filter(|_| same_boot(&dead.is))?;
    match visibility(&dead.is) {
        Visibility::Hidden if !options.one_container => return Some(Barrier::Namespace),
        Visibility::Ending => std::thread::sleep(NAMESPACE_ENDS),
        Visibility::Hidden | Visibility::Clear => {}
    }
    remains.out_of_reach().ok().flatten().map(Barrier::User)
}

/// Records what the dead processor has noted, as it would have done itself.
fn record(
    store: &mut Store,
    dead: ProcessorId,
    outcomes: &[(JobId, Vec<u8>)],
    rescuer: &mut Rescuer<'_>,
) -> Result<()> {
    let notes = outcomes.iter().filter_map(|(job, text)| outcome_journal::read(dead, *job, text));
    let over: Vec<FinishedCall> = notes.map(FinishedCall::noted).collect::<Result<_>>()?;
    if over.is_empty() {
        return Ok(());
    }
    let states = store.finish(&over.iter().map(|over| &over.finish).collect::<Vec<_>>())?;
    reached("outcomes recorded");
    for (over, state) in over.into_iter().zip(states) {
        // The dead one may have recorded it after all.
        if state.is_some() {
            over.report(state, rescuer.summary, rescuer.tell);
        }
    }
    Ok(())
}

/// Puts its jobs back but those that are held; gives those of them that are still there.
fn put_back(
    store: &mut Store,
    dead: &Processor,
    (begun, held): (Option<&[JobId]>, &[JobId]),
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<JobId>> {
    let rescued = store.rescue_but(dead.id, begun, held)?;
    reached("processor rescued");
    if !rescued.jobs.is_empty() {
        tell(Event::Rescued { processor: dead, jobs: &rescued.jobs });
    }
    Ok(rescued.held)
}

/// How long what a job without a processor has left may take to end once it is killed.
const LEFTOVER_PATIENCE: Duration = Duration::from_secs(5);

/// Puts back what is `processing` and belongs to no processor, after ending what it may have left running; of the jobs
/// without a token only those that are `named`.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_unowned(store: &mut Store, named: &[JobId]) -> Result<Vec<(JobId, State)>> {
    let (orphaned, tokens): (Vec<_>, Vec<_>) = store.orphaned()?.into_iter().unzip();
    let mut jobs: Vec<JobId> = named.iter().copied().filter(|job| !orphaned.contains(job)).collect();
    if tokens.is_empty() || orphans::end(&tokens, LEFTOVER_PATIENCE) {
        jobs.extend(orphaned);
    }
    jobs.sort_unstable();
    if jobs.is_empty() { Ok(Vec::new()) } else { store.put_back_unowned(&jobs) }
}

/// The same, and finds every job without a token: it looks through the whole store.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_all_unowned(store: &mut Store) -> Result<Vec<(JobId, State)>> {
    let tokenless = store.tokenless()?;
    put_back_unowned(store, &tokenless)
}

/// Puts back, in a copy of a store, what the original's processors ran when it was made: nobody runs that here.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_copied(store: &mut Store) -> Result<()> {
    rescue_copied(store, &mut |_| {})
}

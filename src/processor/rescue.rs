//! Taking over from processors that died.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::{finished::FinishedCall, outcome_journal, reporter::Reporter};
use crate::domain::event::{Barrier, Event};
use crate::domain::job::{JobId, State, Token};
use crate::domain::processor::{ProcessOptions, Processor, ProcessorId};
use crate::error::Result;
use crate::failpoint::reached;
use crate::runner::process::identity::{Presence, Visibility, process, process_lives, same_boot, visibility};
use crate::runner::run_dir::disk_reserve::{self, DiskReserve};
use crate::runner::run_dir::{DeadRunDir, Liveness, is_dying, liveness, token_of};
use crate::runner::{process::orphans, worker::host::Host};
use crate::store::Store;

/// How long processes of a dead processor, or of a job without a processor, may take to end after they are killed.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// The same for a processor that has calls. Their outcomes wait meanwhile, and it soon tries again.
const PATIENCE_AT_WORK: Duration = Duration::from_millis(50);

/// If a supervisor or a processor process was killed, how long to wait for the other one to end the orphans.
const DYING: Duration = Duration::from_secs(5);

/// How long a PID namespace may take to end after its first process. The kernel frees the lock of that process a moment before it
/// kills the others.
const NAMESPACE_ENDS: Duration = Duration::from_millis(100);

/// Waits for processors that are dying, because their supervisor or their processor process was killed.
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

/// Whether a processor works on this store, or may do so: it counts as dead only if that is proven.
#[must_use]
pub fn lives(store: &Store, processor: &Processor) -> bool {
    match liveness(&store.run_folder(), &processor.is.folder) {
        Ok(Liveness::Alive) | Err(_) => !processor.of_original,
        Ok(Liveness::NoRunDir) => !processor.of_original && process_lives(&processor.is),
        Ok(Liveness::Dead(_)) => false,
    }
}

/// What has become of a processor, as far as this process can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It works on this store, or may.
    Lives,
    /// It is dead, and the next processor takes over from it.
    Dead,
    /// It is dead, and this process cannot end what it has left.
    OutOfReach(Barrier),
}

/// Looks what has become of a processor.
#[must_use]
pub fn fate(store: &Store, processor: &Processor) -> Fate {
    if lives(store, processor) {
        return Fate::Lives;
    }
    let Ok(Liveness::Dead(remains)) = liveness(&store.run_folder(), &processor.is.folder) else { return Fate::Dead };
    if runs_for_original(processor, Some(&remains)) || !same_boot(&processor.is) {
        return Fate::Dead;
    }
    if visibility(&processor.is) == Visibility::Hidden {
        return Fate::OutOfReach(Barrier::Namespace);
    }
    remains.out_of_reach().ok().flatten().map_or(Fate::Dead, |user| Fate::OutOfReach(Barrier::User(user)))
}

/// How many bytes the disk reserve lacks before a call can begin. It is the reserve of one of these processors, or that of a new
/// one.
#[must_use]
pub fn missing_space(store: &Store, processors: &[&Processor]) -> u64 {
    let folder = store.run_folder();
    let missing = |folder_of: &str| DiskReserve::of(&folder.join(folder_of)).missing();
    processors.iter().map(|it| missing(&it.is.folder)).min().unwrap_or(disk_reserve::SIZE)
}

/// What a rescue works with.
pub(super) struct Rescuer<'a, 'b> {
    /// The number of this processor, if it is registered.
    pub(super) own: Option<ProcessorId>,
    pub(super) options: &'a ProcessOptions,
    /// A host that says that it runs no call of an earlier processor.
    pub(super) idle: Option<Host>,
    /// Dead processors that have nothing left but calls in a host.
    pub(super) held: &'a mut BTreeSet<ProcessorId>,
    pub(super) reporter: &'a mut Reporter<'b>,
}

/// What was found of other processors.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Others {
    /// Whether there are others, dead or alive.
    pub(super) any: bool,
    /// Whether jobs were put back.
    pub(super) rescued: bool,
}

/// Ends what dead processors left running, records the outcomes that they noted, and puts back their other jobs.
pub(super) fn rescue(store: &mut Store, rescuer: &mut Rescuer<'_, '_>) -> Result<Others> {
    let mut others = Others::default();
    let unowned = put_back_unowned(store, &[])?;
    if !unowned.is_empty() {
        others.rescued = true;
        rescuer.reporter.rescued(&unowned);
        rescuer.reporter.tell(Event::Unowned(&unowned));
    }
    let own = rescuer.own;
    for processor in store.processors()?.into_iter().filter(|processor| Some(processor.id) != own) {
        others.any = true;
        others.rescued |= take_over(store, &processor, rescuer)?;
    }
    Ok(others)
}

/// Takes over from a processor if it is dead. Returns whether jobs of it were put back. If its run directory belongs to another
/// user, it may be unknown whether the processor lives, or what a host runs of it; then this reports that.
fn take_over(store: &mut Store, processor: &Processor, rescuer: &mut Rescuer<'_, '_>) -> Result<bool> {
    let remains = match liveness(&store.run_folder(), &processor.is.folder) {
        Ok(Liveness::Alive) => return Ok(false),
        Ok(Liveness::NoRunDir) if process_lives(&processor.is) && !processor.of_original => return Ok(false),
        Ok(Liveness::NoRunDir) => None,
        Ok(Liveness::Dead(remains)) => {
            remains.give_space();
            Some(remains)
        }
        Err(error) => {
            rescuer.reporter.tell(Event::Unsure { processor, error: &error });
            return Ok(false);
        }
    };
    // A copy of a store takes over the jobs, but does not touch what the original runs.
    if runs_for_original(processor, remains.as_ref()) {
        take_from_original(store, processor, remains, rescuer.reporter)?;
        return Ok(true);
    }
    if let Some(barrier) = out_of_reach(processor, remains.as_ref(), rescuer.options) {
        rescuer.reporter.tell(Event::OutOfReach { processor, barrier });
        return Ok(false);
    }
    let hold = match remains.as_ref().map(|remains| hold(remains, rescuer)).transpose() {
        Ok(hold) => hold.flatten(),
        Err(error) => {
            rescuer.reporter.tell(Event::Unsure { processor, error: &error });
            return Ok(false);
        }
    };
    let held = hold.as_ref().map(|hold| hold.jobs.clone()).unwrap_or_default();
    let tokens = store.tokens(processor.id, &held)?;
    let only_held = !held.is_empty() && tokens.is_empty();
    if only_held && rescuer.held.contains(&processor.id) || !end_leftovers(processor, remains.as_ref(), tokens, rescuer)
    {
        return Ok(false);
    }
    reached("leftovers ended");
    let held = if only_held {
        held
    } else {
        let Noted { begun, outcomes } = Noted::by(processor, remains.as_ref());
        record(store, processor.id, &outcomes, rescuer.reporter)?;
        put_back(store, processor, (begun.as_deref(), &held), rescuer.reporter)?
    };
    match hold.filter(|_| !held.is_empty()) {
        Some(Hold { host, .. }) => {
            rescuer.held.insert(processor.id);
            rescuer.reporter.tell(Event::InHost { processor, host: host.pid, jobs: &held });
        }
        None => drop(remains.map(DeadRunDir::remove)),
    }
    Ok(!only_held)
}

/// Ends all processes that carry one of the tokens, or that of the dead processor. Returns whether all have ended; otherwise it
/// reports that.
fn end_leftovers(
    processor: &Processor,
    remains: Option<&DeadRunDir>,
    mut tokens: Vec<Token>,
    rescuer: &mut Rescuer<'_, '_>,
) -> bool {
    tokens.push(token_of(&processor.is.folder));
    let patience = if rescuer.own.is_some() { PATIENCE_AT_WORK } else { PATIENCE };
    let ended = orphans::end(&tokens, patience);
    let unkillable = remains.filter(|_| ended).and_then(DeadRunDir::unkillable);
    if !ended || unkillable.is_some() {
        rescuer.reporter.tell(Event::NotRescued { processor, unkillable: unkillable.as_ref() });
    }
    ended && unkillable.is_none()
}

/// In a copy of a store, puts back what the processors of the original ran when it was copied. Ends nothing: if a processor may
/// have left processes here, `asyncq process` handles it.
///
/// # Errors
/// Whatever the store answers.
pub fn rescue_copied(store: &mut Store, tell: &mut dyn FnMut(Event<'_>)) -> Result<()> {
    let (run_folder, mut reporter) = (store.run_folder(), Reporter::new(tell));
    for processor in store.processors()?.into_iter().filter(|it| it.of_original) {
        let remains = match liveness(&run_folder, &processor.is.folder) {
            // Only a lock proves a death.
            Ok(Liveness::Alive) | Err(_) => continue,
            Ok(Liveness::NoRunDir) => None,
            Ok(Liveness::Dead(remains)) => Some(remains),
        };
        if runs_for_original(&processor, remains.as_ref()) {
            take_from_original(store, &processor, remains, &mut reporter)?;
        }
    }
    Ok(())
}

/// Whether a processor works for the original of this store, somewhere else, so that it has left nothing here.
pub(super) fn runs_for_original(processor: &Processor, remains: Option<&DeadRunDir>) -> bool {
    let is_elsewhere = || !same_boot(&processor.is) || process(&processor.is) == Presence::There;
    processor.of_original && (remains.is_none() || is_elsewhere())
}

/// In a copy of a store, puts back what one processor of the original ran.
fn take_from_original(
    store: &mut Store,
    processor: &Processor,
    remains: Option<DeadRunDir>,
    reporter: &mut Reporter<'_>,
) -> Result<()> {
    let Noted { begun, outcomes } = Noted::by(processor, remains.as_ref());
    record(store, processor.id, &outcomes, reporter)?;
    put_back(store, processor, (begun.as_deref(), &[]), reporter)?;
    if let Some(remains) = remains {
        remains.remove();
    }
    Ok(())
}

/// What a processor noted of its jobs.
struct Noted {
    /// The jobs that had begun. `None` after a power cut or without the run directory: then all of them may have been running.
    begun: Option<Vec<JobId>>,
    /// Outcomes of those that had ended.
    outcomes: Vec<(JobId, Vec<u8>)>,
}

impl Noted {
    fn by(processor: &Processor, remains: Option<&DeadRunDir>) -> Noted {
        let known = remains.filter(|_| same_boot(&processor.is));
        let begun = known.and_then(|remains| remains.begun().ok());
        Noted { begun, outcomes: known.and_then(|remains| remains.outcomes().ok()).unwrap_or_default() }
    }
}

/// A host that is alive, and the jobs that may still run in it. They are not put back.
struct Hold {
    host: Host,
    jobs: Vec<JobId>,
}

/// Checks whether a host still runs calls of a dead processor.
fn hold(remains: &DeadRunDir, rescuer: &Rescuer<'_, '_>) -> std::io::Result<Option<Hold>> {
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

/// Why processes of a dead processor may run where this process cannot see or end them: in another PID namespace, or as another
/// user. `None` if it can see and end all of them, and after a reboot.
fn out_of_reach(dead: &Processor, remains: Option<&DeadRunDir>, options: &ProcessOptions) -> Option<Barrier> {
    let remains = remains.filter(|_| same_boot(&dead.is))?;
    match visibility(&dead.is) {
        Visibility::Hidden if !options.one_container => return Some(Barrier::Namespace),
        Visibility::Ending => std::thread::sleep(NAMESPACE_ENDS),
        Visibility::Hidden | Visibility::Clear => {}
    }
    remains.out_of_reach().ok().flatten().map(Barrier::User)
}

/// Records the outcomes that a dead processor noted.
fn record(
    store: &mut Store,
    dead: ProcessorId,
    outcomes: &[(JobId, Vec<u8>)],
    reporter: &mut Reporter<'_>,
) -> Result<()> {
    let calls = outcomes.iter().filter_map(|(job, text)| outcome_journal::read(dead, *job, text).transpose());
    let calls: Vec<FinishedCall> = calls.collect::<Result<_>>()?;
    if calls.is_empty() {
        return Ok(());
    }
    let states = store.finish(&calls.iter().map(|call| &call.finish).collect::<Vec<_>>())?;
    reached("outcomes recorded");
    for (call, state) in calls.into_iter().zip(states) {
        // `None` means that the processor had recorded it before it died.
        if state.is_some() {
            reporter.finished(call, state);
        }
    }
    Ok(())
}

/// Puts back the jobs of a dead processor, except for those that are held. Returns the held ones that still exist.
fn put_back(
    store: &mut Store,
    dead: &Processor,
    (begun, held): (Option<&[JobId]>, &[JobId]),
    reporter: &mut Reporter<'_>,
) -> Result<Vec<JobId>> {
    let rescued = store.rescue(dead.id, begun, held)?;
    reached("processor rescued");
    if !rescued.jobs.is_empty() {
        reporter.rescued(&rescued.jobs);
        reporter.tell(Event::Rescued { processor: dead, jobs: &rescued.jobs });
    }
    Ok(rescued.held)
}

/// Puts back jobs that are `processing` and belong to no processor, after ending what they may have left running. Of the jobs
/// without a token, it puts back only those that are `named`.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_unowned(store: &mut Store, named: &[JobId]) -> Result<Vec<(JobId, State)>> {
    let (orphaned, tokens): (Vec<_>, Vec<_>) = store.orphaned()?.into_iter().unzip();
    let mut jobs: Vec<JobId> = named.iter().copied().filter(|job| !orphaned.contains(job)).collect();
    if tokens.is_empty() || orphans::end(&tokens, PATIENCE) {
        jobs.extend(orphaned);
    }
    jobs.sort_unstable();
    if jobs.is_empty() { Ok(Vec::new()) } else { store.put_back_unowned(&jobs) }
}

/// The same for every job without a token. This reads the whole store.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_all_unowned(store: &mut Store) -> Result<Vec<(JobId, State)>> {
    let tokenless = store.tokenless()?;
    put_back_unowned(store, &tokenless)
}

/// In a copy of a store, puts back what the processors of the original ran when it was copied: nobody runs that here.
///
/// # Errors
/// Whatever the store answers.
pub fn put_back_copied(store: &mut Store) -> Result<()> {
    rescue_copied(store, &mut |_| {})
}

//! The main loop of a processor: the one thread that talks to the store.

mod cycle;
mod handling;
mod polling;
mod recording;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::events::{EventQueue, LoopEvent, LostHost, lost};
use super::pruner::Pruner;
use super::registration::{Membership, Runtime};
use super::rescue::{self, Rescuer};
use super::watcher::{POLL, POLL_OTHERS, Watcher};
use super::{prefetch::ClaimBudget, reporter::Reporter, service_state::ServiceState, shutdown::Shutdown};
use crate::domain::job::{Fence, JobId};
use crate::domain::processor::{ProcessOptions, ProcessorId, Summary};
use crate::domain::{event::Event, service::ServiceName};
use crate::error::{Error, Kind, Result, reason};
use crate::runner::{Stop, worker::host::Host, worker::host_session::HostSession};
use crate::store::{Patience, ServiceStatus, Store};

/// For how long nothing is claimed after the system could not start a program.
const START_PAUSE: Duration = Duration::from_secs(1);

/// For how long a processor that is about to end removes old jobs.
const PRUNING: Duration = Duration::from_secs(1);

/// The main loop, and what it works with.
pub(super) struct MainLoop<'a> {
    store: &'a mut Store,
    options: &'a ProcessOptions,
    /// How long to wait for a locked store while nothing would be lost.
    patience: Patience,
    reporter: Reporter<'a>,
    events: Arc<EventQueue<LoopEvent>>,
    shutdown: Shutdown,
    membership: Membership,
    /// The services that are drained now.
    services: Vec<ServiceState>,
    watcher: Watcher,
    budget: ClaimBudget<'a>,
    others: OtherProcessors,
    /// Progress of calls that is not recorded yet.
    progress: BTreeMap<JobId, (Fence, String)>,
    /// Set while the disk is full, or while no program can be started: when that was first seen and last tried.
    full_disk: Option<Obstacle>,
    scarcity: Option<Obstacle>,
    wait_for_due: WaitForDue,
    pruner: Pruner,
}

/// How long to wait for calls that come due.
#[derive(Default)]
struct WaitForDue {
    /// The longest time without a call that runs.
    most: Option<Duration>,
    /// When the last call ended.
    idle_since: Option<Instant>,
}

impl WaitForDue {
    /// How much longer to wait while no call runs.
    fn time_left(&mut self) -> Option<Duration> {
        let since = *self.idle_since.get_or_insert_with(Instant::now);
        self.most.map(|most| most.saturating_sub(since.elapsed()))
    }
}

/// What is known of other processors, and of the host that they may have used.
struct OtherProcessors {
    /// Whether there were any.
    exist: bool,
    /// Dead ones of which nothing is left but calls in a host.
    held_in_host: BTreeSet<ProcessorId>,
    /// A host that says that it runs no call of an earlier processor. Used once.
    idle_host: Option<Host>,
    /// The host of this processor, once it no longer runs calls. From then on, nothing else begins.
    lost_host: Option<LostHost>,
}

/// What keeps calls from beginning.
struct Obstacle {
    error: Error,
    since: Instant,
}

impl Obstacle {
    fn new(error: Error) -> Obstacle {
        Obstacle { error, since: Instant::now() }
    }
}

impl<'a> MainLoop<'a> {
    /// A loop that has not started yet.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new(
        store: &'a mut Store,
        options: &'a ProcessOptions,
        (runtime, patience): (Runtime, Patience),
        tell: &'a mut dyn FnMut(Event<'_>),
    ) -> std::io::Result<MainLoop<'a>> {
        let events = Arc::new(EventQueue::new()?);
        let (exist, held_in_host, idle_host, lost_host) = (true, BTreeSet::new(), None, None);
        Ok(MainLoop {
            store,
            options,
            patience,
            reporter: Reporter::new(tell),
            shutdown: Shutdown::new(Arc::clone(&events)),
            events,
            membership: Membership::new(runtime),
            services: Vec::new(),
            watcher: Watcher::new(),
            budget: ClaimBudget::new(options),
            others: OtherProcessors { exist, held_in_host, idle_host, lost_host },
            progress: BTreeMap::new(),
            full_disk: None,
            scarcity: None,
            wait_for_due: WaitForDue::default(),
            pruner: Pruner::new(),
        })
    }

    /// What signals to stop are passed to.
    pub(super) fn shutdown(&self) -> Shutdown {
        self.shutdown.clone()
    }

    /// Waits until the host at the other end of a socket says hello, or a signal to stop arrives. From then on, calls run in the
    /// host.
    pub(super) fn greet(&mut self, socket: OwnedFd) -> Result<()> {
        let (host, ended) = Host::behind(&socket).map_err(|error| {
            Error::new(Kind::Io, format!("the host cannot be watched: {}", reason(&error)))
                .with_hint("the program that made the socket has to live for as long as calls run in it")
        })?;
        let pid = host.pid;
        let (events, shutdown) = (Arc::clone(&self.events), self.shutdown.clone());
        let wait = |end: BorrowedFd<'_>, time: Duration| {
            events.wait(time, Some(end));
            drop(events.take());
            shutdown.park_if_supervisor_died();
            shutdown.signals() == 0
        };
        let session = HostSession::greet(socket, (host, ended), wait).map_err(|loss| lost(pid, &loss))?;
        if let Some(session) = &session
            && session.is_idle()
        {
            self.others.idle_host = Some(session.host().clone());
        }
        self.membership.use_host(session);
        Ok(())
    }

    /// Drains all these services at once. Ends when no call is ready or comes due within the time `wait`; with `--follow`, at a
    /// signal to stop. After an error, it ends the running calls and, if possible, records those that have ended. The next
    /// processor puts back the rest.
    pub(super) fn drain(&mut self, services: &[ServiceName], wait: Option<Duration>) -> Result<()> {
        self.wait_for_due = WaitForDue { most: wait, idle_since: None };
        let done = self.work(services);
        if done.is_err() {
            self.abandon();
        }
        done
    }

    fn work(&mut self, services: &[ServiceName]) -> Result<()> {
        if self.options.follow {
            self.begin_to_follow()?;
        }
        rescue::wait_for_the_dying(self.store)?;
        self.rescue()?;
        self.services.clear();
        for name in services {
            let status = self.status_of(name)?;
            let mut state = ServiceState::new(name.clone(), status);
            // Several services are drained at once only after each was drained alone. Pauses were reported then.
            if !self.options.follow && services.len() > 1 {
                state.pauses();
            }
            self.services.push(state);
        }
        if !self.options.follow && services.len() == 1 {
            self.fire_ticks()?;
            if self.all_are_blocked()? {
                return Ok(());
            }
        }
        loop {
            self.record_on_full_disk()?;
            self.end_start_pause();
            self.run_cycles()?;
            self.report_paused_services()?;
            self.tell_progress();
            let Some(time) = self.time_to_wait()? else {
                // A signal may have arrived since the last report.
                self.report_signals();
                return Ok(());
            };
            self.wait(time);
            self.report_signals();
            self.poll()?;
            self.prune()?;
            self.put_back_stranded();
        }
    }

    /// Removes a few old jobs, if it is time.
    fn prune(&mut self) -> Result<()> {
        if self.pruner.until().is_zero() && self.full_disk.is_none() && self.may_begin() {
            self.pruner.step(self.store)?;
            // The pruner has set a short patience.
            self.set_patience();
        }
        Ok(())
    }

    /// Removes old jobs for a short time after the last call, because cron does not start the next processor at once.
    pub(super) fn prune_at_end(&mut self) -> Result<()> {
        let began = Instant::now();
        while !self.options.follow && self.may_begin() && began.elapsed() < PRUNING && self.pruner.step(self.store)? {}
        Ok(())
    }

    fn abandon(&mut self) {
        self.budget.halt();
        let Some(registration) = self.membership.active() else { return };
        // Unregistering puts back claims that did not begin, or the next processor does.
        registration.slots.take_back(|_| true);
        self.shutdown.stop(Stop::Kill);
        for service in &mut self.services {
            // The next processor puts them back.
            drop(service.returned());
        }
        while self.open_calls() > 0 {
            self.wait(POLL);
        }
        // The first error is the one that is reported.
        let recorded = self.record_one_by_one(true);
        if self.shutdown.signals() > 1 {
            self.give_up();
        }
        if recorded.is_err() {
            drop(self.membership.leave());
        }
    }

    /// Ends. If the store refuses this processor while it holds nothing, it unregisters first, so that nobody finds it dead.
    pub(super) fn end(mut self, done: Result<()>) -> Result<Summary> {
        self.set_patience();
        if let Err(error) = &done
            && (matches!(error.kind(), Kind::Busy | Kind::Denied) || self.membership.lost_its_folder())
            && !self.has_something_at_stake()
            && self.others.lost_host.is_none()
        {
            self.store.be_patient(Patience::Deadline(Duration::ZERO));
            let _ = self.membership.leave().map(|registration| registration.end(self.store));
        }
        done?;
        let lost = self.others.lost_host;
        match self.membership.leave() {
            Some(registration) if registration.slots.left > 0 => {
                registration.leave_behind();
                return Err(lost.map_or_else(|| self.reporter.left_behind(), |lost| lost.error()));
            }
            Some(registration) => registration.end(self.store)?,
            None => {}
        }
        lost.map_or(Ok(self.reporter.summary), |lost| Err(lost.error()))
    }

    /// How many calls were claimed and have neither ended here nor been left to a host.
    fn open_calls(&self) -> usize {
        self.membership.get().map_or(0, |registration| registration.slots.open())
    }

    fn has_something_at_stake(&self) -> bool {
        self.open_calls() > 0 || self.has_something_to_record()
    }

    fn has_something_to_record(&self) -> bool {
        self.services.iter().any(ServiceState::has_pending)
    }

    /// A processor with calls waits for a locked store as long as necessary, so that no outcome is lost.
    fn set_patience(&mut self) {
        self.store.be_patient(if self.has_something_at_stake() { Patience::Endless } else { self.patience });
    }

    fn rescue(&mut self) -> Result<()> {
        self.set_patience();
        let OtherProcessors { held_in_host: held, idle_host, .. } = &mut self.others;
        let (own, options, idle) = (self.membership.id(), self.options, idle_host.take());
        let mut rescuer = Rescuer { own, options, idle, held, reporter: &mut self.reporter };
        match rescue::rescue(self.store, &mut rescuer) {
            Ok(found) => {
                self.watcher.changed |= found.rescued;
                self.others.exist = found.any;
                Ok(())
            }
            // This works again once there is space.
            Err(error) if error.kind() == Kind::Full && own.is_some() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn may_claim(&self) -> bool {
        self.may_begin() && self.budget.may_claim()
    }

    fn may_begin(&self) -> bool {
        self.shutdown.signals() == 0 && self.others.lost_host.is_none()
    }

    fn status_of(&mut self, service: &ServiceName) -> Result<ServiceStatus> {
        self.set_patience();
        self.store.service_status(service, self.membership.id())
    }

    fn state_of(&mut self, service: &ServiceName) -> Option<&mut ServiceState> {
        self.services.iter_mut().find(|state| state.name == *service)
    }

    /// How long to wait at most for an event; `None` when nothing is left to do.
    fn time_to_wait(&mut self) -> Result<Option<Duration>> {
        if self.open_calls() > 0 || self.waits_for_space() {
            self.wait_for_due.idle_since = None;
            return Ok(Some(self.time_to_rate().map_or(POLL, |time| time.min(POLL))));
        }
        if !self.options.follow
            && let Some(scarcity) = self.scarcity.take()
        {
            return Err(scarcity.error);
        }
        if let Some(outdated) = self.services.iter().find(|service| service.snapshot.status.outdated) {
            // The store refuses this, with a hint.
            let name = outdated.name.clone();
            return self.status_of(&name).map(|_| None);
        }
        if !self.may_claim() {
            return Ok(None);
        }
        if self.options.follow {
            return Ok(Some(self.time_to_follow()));
        }
        if let Some(time) = self.time_to_rate() {
            let most = self.budget.time_left().unwrap_or(POLL_OTHERS).min(POLL_OTHERS);
            return Ok(Some(time.min(most)));
        }
        Ok(self.time_to_due())
    }

    /// How long a processor that follows may sleep when idle.
    fn time_to_follow(&self) -> Duration {
        let due = self.services.iter().filter_map(|service| service.snapshot.until_change()).min();
        let worker = self.membership.get().and_then(|registration| registration.slots.workers().next_end());
        let pulse = self.reporter.until_alive(self.options.pulse);
        let start = self.scarcity.as_ref().map(|scarcity| START_PAUSE.saturating_sub(scarcity.since.elapsed()));
        let prune = Some(self.pruner.until());
        let times = [due, worker, pulse, self.budget.time_left(), start, self.time_to_rate(), prune];
        times.into_iter().flatten().min().unwrap_or(POLL_OTHERS).min(POLL_OTHERS)
    }

    /// How long to wait for the next call that is due, if it is due soon enough to be waited for.
    fn time_to_due(&mut self) -> Option<Duration> {
        let most = self.wait_for_due.time_left()?;
        let most = self.budget.time_left().map_or(most, |left| left.min(most));
        let with_slots = self.services.iter().filter(|service| service.snapshot.status.free() > 0);
        let due = with_slots.filter_map(|service| service.snapshot.until_next()).min()?;
        (due <= most).then(|| due.clamp(Duration::from_millis(1), POLL_OTHERS))
    }

    fn report_signals(&mut self) {
        let Some(registration) = self.membership.get() else { return };
        let signals = self.shutdown.signals();
        if signals > 0 {
            self.reporter.signals(signals, registration.slots.queue().running(), self.options.follow);
        }
    }

    /// Puts back prefetched calls that cannot begin soon: those behind a long call, and all of them if nothing may begin any
    /// longer.
    fn put_back_stranded(&mut self) {
        let over = !self.may_begin() || self.full_disk.is_some() || self.scarcity.is_some() || self.budget.is_late();
        for index in 0..self.services.len() {
            let (Some(registration), service) = (self.membership.get(), &self.services[index]) else { return };
            let stops = over || service.snapshot.status.free() == 0;
            // If a call had ended in this time, the next one would have begun.
            let stuck = service.is_stuck(POLL) && registration.slots.queue().stranded_of(&service.name) > 0;
            if stops || stuck {
                self.give_back_of(index);
            }
        }
    }
}

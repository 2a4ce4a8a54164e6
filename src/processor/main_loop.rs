//! The loop of a processor.

mod change_watcher;
mod cycle;
mod host;
mod poll;
mod recording;
mod scarcity;
mod unkillable;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use change_watcher::ChangeWatcher;
use recording::Shortage;
use scarcity::StartPause;

use super::events::{EventQueue, LoopEvent, ShutdownSignal};
use super::host::Lost;
use super::prefetch::ClaimBudget;
use super::registration::{Registration, Runtime};
use super::service_state::ServiceState;
use super::{Equipment, rescue};
use crate::domain::attempt::Outcome;
use crate::domain::event::{Event, Unkillable};
use crate::domain::job::{Fence, JobId, Token};
use crate::domain::processor::{ProcessOptions, ProcessorId, Summary};
use crate::domain::service::ServiceName;
use crate::error::{Kind, Result};
use crate::runner::Stop;
use crate::runner::worker::EndedCall;
use crate::runner::worker::host::Host;
use crate::store::{Patience, ServiceStatus, Store};

/// How often a processor looks around while its calls run: for calls that became ready, for jobs to cancel. Also how long
/// a call may be held that has not begun.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks whether another processor died, a service was added, or the store is another one.
const LOOK_FOR_OTHERS: Duration = Duration::from_millis(500);

#[expect(clippy::struct_excessive_bools, reason = "each notes one thing that was told, or is to be looked at")]
pub(super) struct MainLoop<'a> {
    store: &'a mut Store,
    options: &'a ProcessOptions,
    tell: &'a mut dyn FnMut(Event<'_>),
    patience: Patience,
    /// What the presence is made of, until it is made.
    runtime: Option<Runtime>,
    registration: Option<Registration>,
    events: Arc<EventQueue>,
    button: ShutdownSignal,
    /// How many presses of the stop button were acted on.
    heeded: usize,
    /// The services that are drained now.
    served: Vec<ServiceState>,
    /// Hears of changes, for who stays.
    watcher: Option<ChangeWatcher>,
    budget: ClaimBudget<'a>,
    /// Secrets for the next claims, drawn and not used.
    tokens: Vec<Token>,
    summary: Summary,
    looked_around: Instant,
    /// How far calls are, as they told and it is not recorded.
    progress: BTreeMap<JobId, (Fence, String)>,
    /// Whether somebody changed the store, and that was not looked at yet.
    changed: bool,
    looked_for_others: Instant,
    /// Whether the store has changed since.
    news_of_others: bool,
    /// Whether there were other processors.
    has_company: bool,
    /// When it last told that it is there.
    told_of_life: Instant,
    /// While the disk is full.
    shortage: Option<Shortage>,
    /// Whether that was told since the latest claim.
    told_of_shortage: bool,
    /// Whether it was told that marks cannot be written.
    told_of_marks: bool,
    /// While no program can be started.
    scarcity: Option<StartPause>,
    /// Whether that was told since a call last ended.
    told_of_scarcity: bool,
    /// Dead processors of which only that is left which a host holds.
    held_elsewhere: BTreeSet<ProcessorId>,
    /// A host that runs no call of an earlier processor any more, until that was made use of.
    idle: Option<Host>,
    /// A host in which nothing can be run any more: nothing else begins either.
    lost: Option<Lost>,
    /// A process that may not be ended, the latest that was found.
    immune: Option<Unkillable>,
}

impl<'a> MainLoop<'a> {
    pub(super) fn new(
        store: &'a mut Store,
        options: &'a ProcessOptions,
        equipment: Equipment,
        tell: &'a mut dyn FnMut(Event<'_>),
    ) -> std::io::Result<MainLoop<'a>> {
        let events = Arc::new(EventQueue::new()?);
        Ok(MainLoop {
            store,
            options,
            tell,
            patience: equipment.patience,
            runtime: Some(Runtime { run: equipment.run_folder, forwarder: equipment.forwarder, host: None }),
            registration: None,
            button: ShutdownSignal::new(Arc::clone(&events)),
            events,
            heeded: 0,
            served: Vec::new(),
            watcher: None,
            budget: ClaimBudget::new(options),
            tokens: Vec::new(),
            summary: Summary::default(),
            looked_around: Instant::now(),
            progress: BTreeMap::new(),
            changed: false,
            looked_for_others: Instant::now(),
            news_of_others: true,
            has_company: true,
            told_of_life: Instant::now(),
            shortage: None,
            told_of_shortage: false,
            told_of_marks: false,
            scarcity: None,
            told_of_scarcity: false,
            held_elsewhere: BTreeSet::new(),
            idle: None,
            lost: None,
            immune: None,
        })
    }

    pub(super) fn stop_button(&self) -> ShutdownSignal {
        self.button.clone()
    }

    /// Drains services, all at once, until nothing of them is ready; or, if it is to follow, until it is told to stop.
    /// After an error, what runs is ended, and what has ended is recorded if that is possible; whoever comes next puts back
    /// the rest.
    pub(super) fn drain(&mut self, services: &[ServiceName]) -> Result<()> {
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
        self.served.clear();
        for name in services {
            let status = self.look(name)?;
            self.served.push(ServiceState::new(name.clone(), status));
        }
        if !self.options.follow && self.tell_why_not()? {
            return Ok(());
        }
        loop {
            self.do_with_the_reserve()?;
            self.outlast_scarcity();
            self.make_rounds()?;
            self.tell_of_pauses();
            let Some(time) = self.time_to_wait()? else { return Ok(()) };
            self.wait(time);
            self.heed_signals();
            match self.look_around() {
                Ok(()) => {}
                // Not worth ending what runs; what cannot be recorded later is told then.
                Err(error)
                    if error.is_transient() && (self.held() > 0 || self.has_news() || self.shortage.is_some()) => {}
                Err(error) => return Err(error),
            }
            self.give_back_what_waits();
        }
    }

    fn abandon(&mut self) {
        self.budget.halt();
        let Some(registration) = &mut self.registration else { return };
        // What was claimed and did not begin is put back when it leaves the store, or by who comes next.
        registration.slots.take_back(|_| true);
        registration.slots.stop_handle().pull(Stop::Kill);
        for served in &mut self.served {
            served.gives_nothing_back();
        }
        while self.held() > 0 {
            self.wait(LOOK);
        }
        // The first error is the one that is told.
        let recorded = self.record_one_by_one(true);
        if self.button.pressed() > 1 {
            self.give_up();
        }
        if recorded.is_err() {
            self.registration = None;
        }
    }

    /// Ends. Who is refused with nothing in its hands leaves too, so that nobody has to find it dead.
    pub(super) fn leave(mut self, done: Result<()>) -> Result<Summary> {
        self.be_patient();
        if let Err(error) = &done
            && (matches!(error.kind(), Kind::Busy | Kind::Denied) || self.is_homeless())
            && self.held() == 0
            && !self.has_news()
            && self.lost.is_none()
        {
            self.store.be_patient(Patience::Deadline(Duration::ZERO));
            let _ = self.registration.take().map(|registration| registration.end(self.store));
        }
        done?;
        match self.registration.take() {
            Some(registration) if registration.slots.left() > 0 => {
                registration.leave_behind();
                let left = self.left_behind();
                return Err(self.lost.map_or(left, |lost| lost.error()));
            }
            Some(registration) => registration.end(self.store)?,
            None => {}
        }
        self.lost.map_or(Ok(self.summary), |lost| Err(lost.error()))
    }

    /// Whether its folder was removed.
    fn is_homeless(&self) -> bool {
        self.registration.as_ref().is_some_and(|registration| registration.still_there().is_err())
    }

    /// A processor with calls in flight waits for a locked store as long as it must: so no outcome is lost.
    fn be_patient(&mut self) {
        let at_stake = self.held() > 0 || self.has_news();
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
    }

    fn rescue(&mut self) -> Result<()> {
        self.be_patient();
        let (own, options, summary, tell) = (self.own_id(), self.options, &mut self.summary, &mut *self.tell);
        let (idle, held) = (self.idle.take(), &mut self.held_elsewhere);
        let others = match rescue::rescue(self.store, &mut rescue::Rescuer { own, options, idle, held, summary, tell })
        {
            // They can be looked after when there is space again.
            Err(error) if error.kind() == Kind::Full && own.is_some() => return Ok(()),
            done => done?,
        };
        self.changed |= others.rescued;
        self.has_company = others.any;
        Ok(())
    }

    fn own_id(&self) -> Option<ProcessorId> {
        self.registration.as_ref().map(|registration| registration.id)
    }

    /// How many claims are not over yet, nor left to a host.
    fn held(&self) -> usize {
        self.registration.as_ref().map_or(0, |registration| registration.slots.open())
    }

    fn may_claim(&self) -> bool {
        self.button.pressed() == 0 && self.lost.is_none() && self.budget.may_claim()
    }

    /// Whether there is something to record.
    fn has_news(&self) -> bool {
        self.served.iter().any(ServiceState::has_news)
    }

    fn look(&mut self, service: &ServiceName) -> Result<ServiceStatus> {
        self.be_patient();
        self.store.service_status(service, self.own_id())
    }

    /// How long to wait at most for what happens next; `None` when nothing is left to do.
    fn time_to_wait(&mut self) -> Result<Option<Duration>> {
        if self.held() > 0 || self.waits_for_space() {
            return Ok(Some(LOOK));
        }
        self.end_with_scarcity()?;
        if let Some(outdated) = self.served.iter().find(|served| served.snapshot.status.outdated) {
            // It is refused, with the way out.
            let name = outdated.name.clone();
            return self.look(&name).map(|_| None);
        }
        if !self.may_claim() {
            return Ok(None);
        }
        if self.options.follow {
            return Ok(Some(self.time_to_listen()));
        }
        self.time_to_retry()
    }

    /// How long to wait for calls that are to be tried again, if that is wanted and there are any.
    fn time_to_retry(&mut self) -> Result<Option<Duration>> {
        let mut time = None;
        for served in self.served.iter().filter(|served| served.snapshot.status.free() > 0) {
            if self.options.wait_retries
                && let Some(due) = self.store.next_retry(&served.name)?
            {
                let due = served.snapshot.until(due).clamp(Duration::from_millis(1), LOOK_FOR_OTHERS);
                time = Some(time.map_or(due, |time: Duration| time.min(due)));
            }
        }
        Ok(time)
    }

    /// Sleeps until something happens, at most for `time`, and takes all that has happened.
    fn wait(&mut self, time: Duration) {
        let listen = self.could_begin_more();
        let watcher = self.watcher.as_ref().filter(|_| listen);
        self.events
            .wait(watcher.map_or(time, |watcher| watcher.at_most(time)), watcher.and_then(ChangeWatcher::watched));
        for wake in self.events.take() {
            self.button.stay_if_lost();
            match wake {
                LoopEvent::EndedCall(done) => self.take_in(done),
                LoopEvent::Unbegun(claim, hitch) => self.take_back_unbegun(&claim, hitch),
                LoopEvent::Progress(fence, text) => drop(self.progress.insert(fence.job, (fence, text))),
                LoopEvent::Lost(lost) => self.lose_host(lost),
                LoopEvent::Left(count) => self.leave_behind(count),
                LoopEvent::Back | LoopEvent::Stop => {}
            }
        }
        self.mind_the_marks();
        self.tell_of_immune();
    }

    fn take_in(&mut self, done: Vec<EndedCall>) {
        if done.iter().any(|done| !matches!(done.ended.outcome, Outcome::Unstarted(_) | Outcome::Cancelled)) {
            self.end_scarcity();
        }
        let Some(registration) = &mut self.registration else { return };
        registration.slots.came_back(done.iter().map(|done| &done.claim));
        for done in done {
            if let Some(served) = self.served.iter_mut().find(|served| served.name == done.claim.call.service) {
                served.ends(done);
            }
        }
    }

    /// The slots heed signals themselves; here they are told.
    fn heed_signals(&mut self) {
        let pressed = self.button.pressed();
        let Some(registration) = self.registration.as_ref().filter(|_| pressed != self.heeded) else { return };
        let running = registration.slots.running();
        if self.heeded == 0 && (running > 0 || self.options.follow) {
            (self.tell)(Event::Stopping { running });
        }
        self.heeded = pressed;
    }

    /// A call that was claimed ahead does not wait for one that takes long, nor where nothing is to begin any more.
    fn give_back_what_waits(&mut self) {
        let over = self.button.pressed() > 0
            || self.lost.is_some()
            || self.shortage.is_some()
            || self.scarcity.is_some()
            || self.budget.is_late();
        let Some(registration) = &mut self.registration else { return };
        for served in &mut self.served {
            let stops = over || served.snapshot.status.free() == 0;
            // Nothing ended for a while, or it would have begun.
            let stuck = served.is_stuck(LOOK) && registration.slots.stranded_of(&served.name) > 0;
            if stops || stuck {
                let claims = registration.slots.take_back(|claim| claim.call.service == served.name);
                self.budget.gave_back(claims.len());
                served.awaits_host = claims.iter().any(|claim| registration.slots.waits_for_host(claim));
                served.gives_back(&claims);
            }
        }
    }
}

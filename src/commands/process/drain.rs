//! The loop of a processor.

mod failing;

use std::collections::{BTreeMap, VecDeque};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use failing::Shortage;

use super::over::{self, Over};
use super::pace::{Pace, View};
use super::presence::{Presence, RunFolder};
use super::wake::{StopButton, Wake};
use super::{Equipment, Event, Options, Summary, rescue};
use crate::commands::new_token;
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence, Finish, JobId, State, Token};
use crate::domain::processor::ProcessorId;
use crate::domain::service::ServiceName;
use crate::error::{Kind, Result};
use crate::failpoint::reached;
use crate::runner::worker::Done;
use crate::runner::{Echo, Stop};
use crate::store::{Advance, Outlook, Patience, Plan, Store};

/// How often a processor looks around while its calls run: for calls that became ready, for jobs to cancel. Also how long
/// a call may be held that has not begun.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks whether another processor died.
const LOOK_FOR_DEAD: Duration = Duration::from_millis(500);

pub(super) struct Drain<'a> {
    store: &'a mut Store,
    options: &'a Options,
    tell: &'a mut dyn FnMut(Event<'_>),
    patience: Patience,
    /// What the presence is made of, until it is made.
    equipment: Option<(RunFolder, Echo)>,
    presence: Option<Presence>,
    wake: Sender<Wake>,
    wakes: Receiver<Wake>,
    button: StopButton,
    /// How many presses of the stop button were acted on.
    heeded: usize,
    /// Calls that have ended, as the slots gave them back.
    done: VecDeque<Done>,
    /// Claims that were not run at all, and so are over as well; and outcomes that could not be recorded.
    unrun: Vec<Over>,
    /// Claims that have not begun and are given back.
    returned: Vec<Fence>,
    pace: Pace<'a>,
    summary: Summary,
    looked_around: Instant,
    /// How far calls are, as they told and it is not recorded.
    progress: BTreeMap<JobId, (Fence, String)>,
    /// Whether somebody changed the store, and that was not looked at yet.
    changed: bool,
    looked_for_dead: Instant,
    /// While the disk is full.
    shortage: Option<Shortage>,
    /// Whether that was told since the latest claim.
    told_of_shortage: bool,
    /// Whether it was told that marks cannot be written.
    told_of_marks: bool,
}

impl<'a> Drain<'a> {
    pub(super) fn new(
        store: &'a mut Store,
        options: &'a Options,
        equipment: Equipment,
        tell: &'a mut dyn FnMut(Event<'_>),
    ) -> Drain<'a> {
        let (wake, wakes) = channel();
        Drain {
            store,
            options,
            tell,
            patience: equipment.patience,
            equipment: Some((equipment.run_folder, equipment.echo)),
            presence: None,
            wakes,
            button: StopButton::new(wake.clone()),
            wake,
            heeded: 0,
            done: VecDeque::new(),
            unrun: Vec::new(),
            returned: Vec::new(),
            pace: Pace::new(options),
            summary: Summary::default(),
            looked_around: Instant::now(),
            progress: BTreeMap::new(),
            changed: false,
            looked_for_dead: Instant::now(),
            shortage: None,
            told_of_shortage: false,
            told_of_marks: false,
        }
    }

    pub(super) fn stop_button(&self) -> StopButton {
        self.button.clone()
    }

    /// Drains one service. After an error, what runs is ended, and what has ended is recorded if that is possible;
    /// whoever comes next puts back the rest.
    pub(super) fn service(&mut self, service: &ServiceName) -> Result<()> {
        let done = self.drain(service);
        if done.is_err() {
            self.abandon();
        }
        done
    }

    fn drain(&mut self, service: &ServiceName) -> Result<()> {
        rescue::wait_for_the_dying(self.store)?;
        self.rescue()?;
        self.pace.careful();
        let mut view = self.look(service)?;
        if view.outlook.ready && view.outlook.free() == 0 && self.may_claim() {
            return self.tell_why_not(service, &view.outlook);
        }
        loop {
            self.do_with_the_reserve(service)?;
            while self.shortage.is_none() && (self.has_news() || self.could_claim(&view.outlook)) {
                view = self.advance(service, &view.outlook)?.unwrap_or(view);
            }
            if self.held() > 0 || self.waits_for_space(&view.outlook) {
                self.wait(LOOK);
            } else if view.outlook.outdated {
                // It is refused, with the way out.
                return self.look(service).map(drop);
            } else if let Some(time) = self.time_to_retry(service, &view)? {
                self.wait(time);
            } else {
                return Ok(());
            }
            self.heed_signals();
            match self.look_around(service, &view) {
                Ok(Some(new)) => view = new,
                Ok(None) => {}
                // Not worth ending what runs; what cannot be recorded later is told then.
                Err(error) if error.can_pass() && (self.held() > 0 || self.has_news() || self.shortage.is_some()) => {}
                Err(error) => return Err(error),
            }
            self.give_back_what_waits(&view.outlook);
        }
    }

    fn abandon(&mut self) {
        self.pace.halt();
        let Some(presence) = &mut self.presence else { return };
        // What was claimed and did not begin is put back when it leaves the store, or by who comes next.
        presence.slots.take_back(|_| true);
        self.returned.clear();
        presence.slots.brake().pull(Stop::Kill);
        while self.held() > 0 {
            self.wait(LOOK);
        }
        // The first error is the one that is told.
        let recorded = self.record_one_by_one(true);
        if self.button.pressed() > 1 {
            self.give_up();
        }
        if recorded.is_err() {
            self.presence = None;
        }
    }

    /// Ends. Who is refused with nothing in its hands leaves too, so that nobody has to find it dead.
    pub(super) fn leave(mut self, done: Result<()>) -> Result<Summary> {
        self.be_patient();
        if let Err(error) = &done
            && error.kind() == Kind::Busy
            && self.held() == 0
            && !self.has_news()
        {
            self.store.be_patient(Patience::Deadline(Duration::ZERO));
            let _ = self.presence.take().map(|presence| presence.end(self.store));
        }
        done?;
        if let Some(presence) = self.presence.take() {
            presence.end(self.store)?;
        }
        Ok(self.summary)
    }

    /// A processor with calls in flight waits for a locked store as long as it must: so no outcome is lost.
    fn be_patient(&mut self) {
        let at_stake = self.held() > 0 || self.has_news();
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
    }

    fn rescue(&mut self) -> Result<bool> {
        self.be_patient();
        let (own, options, summary, tell) = (self.own_id(), self.options, &mut self.summary, &mut *self.tell);
        match rescue::rescue(self.store, &mut rescue::Rescuer { own, options, summary, tell }) {
            // Others can be looked after when there is space again.
            Err(error) if error.kind() == Kind::Full && own.is_some() => Ok(false),
            done => done,
        }
    }

    fn own_id(&self) -> Option<ProcessorId> {
        self.presence.as_ref().map(|presence| presence.id)
    }

    /// How many claims are not over yet.
    fn held(&self) -> usize {
        self.presence.as_ref().map_or(0, |presence| presence.slots.held())
    }

    fn may_claim(&self) -> bool {
        self.button.pressed() == 0 && self.pace.may_claim()
    }

    /// How many more calls could be claimed now.
    fn room(&self, outlook: &Outlook) -> usize {
        if self.button.pressed() == 0 { self.pace.room(outlook, self.held()) } else { 0 }
    }

    fn could_claim(&self, outlook: &Outlook) -> bool {
        outlook.ready && self.room(outlook) > 0
    }

    /// Whether there is something to record.
    fn has_news(&self) -> bool {
        !self.done.is_empty() || !self.unrun.is_empty() || !self.returned.is_empty()
    }

    fn look(&mut self, service: &ServiceName) -> Result<View> {
        self.be_patient();
        self.store.outlook(service, self.own_id()).map(View::new)
    }

    fn tell_why_not(&mut self, service: &ServiceName, outlook: &Outlook) -> Result<()> {
        if outlook.paused {
            (self.tell)(Event::Paused { service });
            return Ok(());
        }
        let holders = self.store.holders(service)?;
        (self.tell)(Event::Busy { service, concurrency: outlook.concurrency, holders: &holders });
        Ok(())
    }

    /// How long to wait for calls that are to be tried again, if that is wanted and there are any.
    fn time_to_retry(&mut self, service: &ServiceName, view: &View) -> Result<Option<Duration>> {
        if !self.options.wait_retries || !self.may_claim() || view.outlook.free() == 0 {
            return Ok(None);
        }
        let due = self.store.next_retry(service)?;
        Ok(due.map(|due| view.until(due).clamp(Duration::from_millis(1), LOOK_FOR_DEAD)))
    }

    /// Records what is over, claims what there is room for, and begins it. Gives the service as it is now, unless nobody
    /// looked, because more calls are held than can run.
    fn advance(&mut self, service: &ServiceName, before: &Outlook) -> Result<Option<View>> {
        let processor = self.presence()?.id;
        let over = self.collect()?;
        let returned = std::mem::take(&mut self.returned);
        let tokens: Vec<Token> = (0..self.room(before)).map(|_| new_token()).collect::<Result<_>>()?;
        let finished: Vec<&Finish> = over.iter().map(|over| &over.finish).collect();
        let slots = &self.presence()?.slots;
        let (held, running) = (slots.held_of(service), slots.running_of(service));
        if tokens.is_empty() && returned.is_empty() && (1..held).contains(&before.free()) {
            return match self.persist(true, |store| store.finish(&finished)) {
                Ok(states) => {
                    self.report(over, states);
                    Ok(None)
                }
                Err(error) => self.keep(over, returned).round_failed(service, error),
            };
        }
        let plan = Plan {
            processor,
            service,
            finished: &finished,
            returned: &returned,
            // What came back and is not recorded yet still counts.
            held: held + self.done.len(),
            running,
            ahead: self.pace.ahead(before),
            tokens: &tokens,
        };
        let at_stake = plan.held > 0 || !finished.is_empty();
        let Advance { finished: states, claims, slots, outlook } =
            match self.persist(at_stake, |store| store.advance(&plan)) {
                Ok(done) => done,
                Err(error) => return self.keep(over, returned).round_failed(service, error),
            };
        reached("claims made");
        self.told_of_shortage = false;
        self.report(over, states);
        self.pace.claimed(&claims);
        let (fit, unfit): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(Over::can_run);
        self.unrun.extend(unfit.iter().map(Over::unfit));
        let presence = self.presence()?;
        presence.slots.share_output(outlook.concurrency > 1);
        presence.slots.begin(service, fit, slots)?;
        Ok(Some(View::new(outlook)))
    }

    /// Keeps what could not be recorded, for another time.
    fn keep(&mut self, over: Vec<Over>, returned: Vec<Fence>) -> &mut Self {
        self.unrun.extend(over);
        self.returned.extend(returned);
        self
    }

    fn report(&mut self, over: Vec<Over>, states: Vec<Option<State>>) {
        for (over, state) in over.into_iter().zip(states) {
            if let (Some(mark), Some(presence)) = (&over.mark, &self.presence) {
                presence.slots.recorded(&over.service, mark);
            }
            over.report(state, &mut self.summary, self.tell);
        }
        self.mind_the_marks();
    }

    /// The presence, which is made when it is needed for the first time.
    fn presence(&mut self) -> Result<&mut Presence> {
        if let Some((run_folder, echo)) = self.equipment.take() {
            let presence = Presence::begin(self.store, run_folder, echo, self.wake.clone())?;
            self.button.connect(presence.slots.brake());
            self.presence = Some(presence);
        }
        Ok(self.presence.as_mut().expect("it is made of the equipment, once"))
    }

    /// What is over, as much of it as one transaction may hold.
    fn collect(&mut self) -> Result<Vec<Over>> {
        over::collect(&mut self.unrun, &mut self.done)
    }

    /// Sleeps until something happens, at most for `time`, and takes all that has happened.
    fn wait(&mut self, time: Duration) {
        let mut next = self.wakes.recv_timeout(time).ok();
        while let Some(wake) = next {
            self.button.stay_if_lost();
            match (wake, &mut self.presence) {
                (Wake::Done(done), Some(presence)) => {
                    presence.slots.came_back(done.iter().map(|done| &done.claim));
                    if let Some(latest) = done.last() {
                        self.pace.took(latest.ended.took);
                    }
                    self.done.extend(done);
                }
                (Wake::Progress(fence, text), _) => drop(self.progress.insert(fence.job, (fence, text))),
                (Wake::Done(_) | Wake::Back | Wake::Stop, _) => {}
            }
            next = self.wakes.try_recv().ok();
        }
        self.mind_the_marks();
    }

    /// The slots heed signals themselves; here they are told.
    fn heed_signals(&mut self) {
        let pressed = self.button.pressed();
        let Some(presence) = self.presence.as_ref().filter(|_| pressed != self.heeded) else { return };
        let running = presence.slots.running();
        if self.heeded == 0 && running > 0 {
            (self.tell)(Event::Stopping { running });
        }
        self.heeded = pressed;
    }

    /// Looks what others have done meanwhile: processors that died, jobs to cancel, calls that became ready. Gives the
    /// service as it is now, unless it is as it was.
    fn look_around(&mut self, service: &ServiceName, view: &View) -> Result<Option<View>> {
        let due = view.outlook.next_due.is_some_and(|due| view.until(due).is_zero());
        if !due && self.looked_around.elapsed() < LOOK {
            return Ok(None);
        }
        self.looked_around = Instant::now();
        self.pass_on_progress();
        self.be_patient();
        self.changed |= self.store.changed()?;
        if self.looked_for_dead.elapsed() >= LOOK_FOR_DEAD {
            self.looked_for_dead = Instant::now();
            self.changed |= self.rescue()?;
            if let Some(presence) = &self.presence {
                presence.reap();
                presence.slots.retire_idle();
            }
        }
        if let (true, Some(presence)) = (self.changed, &mut self.presence) {
            for fence in self.store.cancelling(presence.id)? {
                let unrun = presence.slots.take_back(|claim| claim.fence == fence);
                self.unrun.extend(unrun.iter().map(|claim| Over::unrun(claim, &Outcome::Cancelled)));
                presence.slots.cancel(fence);
            }
        }
        let new = if self.changed || due { Some(self.look(service)?) } else { None };
        self.changed = false;
        Ok(new)
    }

    /// Records how far calls are; not worth waiting for, nor ending what runs.
    fn pass_on_progress(&mut self) {
        let Some(own) = self.own_id().filter(|_| !self.progress.is_empty() && self.shortage.is_none()) else { return };
        let told: Vec<(Fence, String)> = self.progress.values().cloned().collect();
        self.store.be_patient(Patience::Deadline(Duration::ZERO));
        if self.store.tell_progress(own, &told).is_ok() {
            self.progress.clear();
        }
    }

    /// A call that was claimed ahead does not wait for one that takes long, nor where nothing is to begin any more.
    fn give_back_what_waits(&mut self, outlook: &Outlook) {
        let stops = self.button.pressed() > 0 || outlook.free() == 0 || self.shortage.is_some();
        let late = self.pace.is_late();
        let Some(presence) = &mut self.presence else { return };
        // Nothing ended since the last look, or it would have begun.
        let stuck = self.done.is_empty() && presence.slots.waiting() > 0;
        if stops || late || stuck {
            let claims = presence.slots.take_back(|_| true);
            self.pace.gave_back(claims.len());
            self.returned.extend(claims.iter().map(|claim| claim.fence));
        }
    }
}

//! The loop of a processor.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::over::Over;
use super::presence::{Presence, RunFolder};
use super::slots::Done;
use super::wake::{StopButton, Wake};
use super::{Equipment, Event, Options, Summary, rescue};
use crate::commands::new_token;
use crate::domain::attempt::Outcome;
use crate::domain::job::{Claim, Fence, Finish, Token};
use crate::domain::processor::ProcessorId;
use crate::domain::service::ServiceName;
use crate::domain::time::Timestamp;
use crate::error::{Kind, Result};
use crate::runner::{Echo, Stop};
use crate::store::{Advance, Outlook, Patience, Plan, Store};

/// How often a processor looks around while its calls run: for calls that became ready, for jobs to cancel. Also how long
/// a call may be held that has not begun.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks whether another processor died.
const LOOK_FOR_DEAD: Duration = Duration::from_millis(500);

/// How long it waits before it tries a store again that failed while outcomes were to be recorded.
const FAILING: Duration = Duration::from_millis(500);

/// How many bytes of output one transaction records, about: memory is bounded by this, not by how many calls end at
/// once.
const LOGS_AT_ONCE: usize = 4 * 1024 * 1024;

/// How much work is claimed ahead for each slot, as time, taken that calls go on as the latest one went: a few times what
/// a slow disk takes to record outcomes.
const AHEAD: Duration = Duration::from_millis(20);

/// How many calls that may be at most, for each slot.
const MOST_AHEAD: u128 = 16;

/// A service as it was seen at a moment.
struct View {
    outlook: Outlook,
    at: Instant,
}

impl View {
    fn new(outlook: Outlook) -> View {
        View { outlook, at: Instant::now() }
    }

    /// How long from now until `due`; zero when that has passed.
    fn until(&self, due: Timestamp) -> Duration {
        due.since(self.outlook.now).saturating_sub(self.at.elapsed())
    }
}

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
    /// Claims that were not run at all, and so are over as well.
    unrun: Vec<Over>,
    /// Claims that have not begun and are given back.
    returned: Vec<Fence>,
    /// How many calls to claim ahead for each slot.
    ahead: usize,
    claimed: u64,
    summary: Summary,
    began: Instant,
    looked_around: Instant,
    looked_for_dead: Instant,
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
            ahead: 0,
            claimed: 0,
            summary: Summary::default(),
            began: Instant::now(),
            looked_around: Instant::now(),
            looked_for_dead: Instant::now(),
        }
    }

    pub(super) fn stop_button(&self) -> StopButton {
        self.button.clone()
    }

    /// Drains one service.
    pub(super) fn service(&mut self, service: &ServiceName) -> Result<()> {
        rescue::rescue(self.store, self.own_id(), self.tell)?;
        self.ahead = 0;
        let mut view = self.look(service)?;
        if view.outlook.ready && view.outlook.free() == 0 && self.may_claim() {
            return self.tell_why_not(service, &view.outlook);
        }
        loop {
            while self.has_news() || self.could_claim(&view.outlook) {
                view = self.advance(service, &view.outlook)?;
            }
            if self.held() > 0 {
                self.wait(LOOK);
            } else if let Some(time) = self.time_to_retry(service, &view)? {
                self.wait(time);
            } else {
                return Ok(());
            }
            self.heed_signals();
            if let Some(new) = self.look_around(service, &view)? {
                view = new;
            }
            self.give_back_what_waits(&view.outlook);
        }
    }

    /// Ends. After an error, what runs is ended as well; whoever comes next puts it back.
    pub(super) fn leave(mut self, done: Result<()>) -> Result<Summary> {
        if done.is_err()
            && let Some(presence) = &mut self.presence
        {
            presence.slots.take_back(None);
            presence.slots.stop(None, Stop::Kill);
            while self.held() > 0 {
                self.wait(LOOK);
            }
        }
        done?;
        if let Some(presence) = self.presence.take() {
            presence.end(self.store)?;
        }
        Ok(self.summary)
    }

    fn own_id(&self) -> Option<ProcessorId> {
        self.presence.as_ref().map(|presence| presence.id)
    }

    /// How many claims are not over yet.
    fn held(&self) -> usize {
        self.presence.as_ref().map_or(0, |presence| presence.slots.held())
    }

    fn pressed(&self) -> usize {
        self.button.pressed()
    }

    fn may_claim(&self) -> bool {
        self.pressed() == 0
            && self.options.max_jobs.is_none_or(|max| self.claimed < max)
            && self.options.max_time.is_none_or(|max| self.began.elapsed() < max)
    }

    /// How many more calls could be claimed now.
    fn room(&self, outlook: &Outlook) -> usize {
        if !self.may_claim() || outlook.free() == 0 {
            return 0;
        }
        let ahead = self.ahead(outlook);
        let room = (outlook.free() + ahead).saturating_sub(self.held());
        // Many at once is cheaper; and while more are held than can run, nobody waits for it.
        if self.held() > outlook.free() && room < ahead.div_ceil(2) {
            return 0;
        }
        let left = self.options.max_jobs.map_or(u64::MAX, |max| max - self.claimed);
        room.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    fn ahead(&self, outlook: &Outlook) -> usize {
        outlook.free() * self.ahead
    }

    fn could_claim(&self, outlook: &Outlook) -> bool {
        outlook.ready && self.room(outlook) > 0
    }

    /// Whether there is something to record.
    fn has_news(&self) -> bool {
        !self.done.is_empty() || !self.unrun.is_empty() || !self.returned.is_empty()
    }

    fn look(&mut self, service: &ServiceName) -> Result<View> {
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

    /// Records what is over, claims what there is room for, and begins it.
    fn advance(&mut self, service: &ServiceName, before: &Outlook) -> Result<View> {
        let processor = self.presence()?.id;
        let over = self.collect()?;
        let returned = std::mem::take(&mut self.returned);
        let tokens: Vec<Token> = (0..self.room(before)).map(|_| new_token()).collect::<Result<_>>()?;
        let finished: Vec<&Finish> = over.iter().map(|over| &over.finish).collect();
        let slots = &self.presence()?.slots;
        let (held, running) = (slots.held(), slots.running());
        let plan = Plan {
            processor,
            service,
            finished: &finished,
            returned: &returned,
            // What came back and is not recorded yet still counts.
            held: held + self.done.len(),
            running,
            ahead: self.ahead(before),
            tokens: &tokens,
        };
        let at_stake = plan.held > 0 || !finished.is_empty();
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
        let Advance { finished: states, claims, slots, outlook } = self.persist(&plan)?;
        for (over, state) in over.into_iter().zip(states) {
            over.report(state, &mut self.summary, self.tell);
        }
        self.claimed += claims.len() as u64;
        let (fit, unfit): (Vec<Claim>, Vec<Claim>) = claims.into_iter().partition(Over::can_run);
        self.unrun.extend(unfit.iter().map(Over::unfit));
        self.presence()?.slots.begin(fit, slots, outlook.concurrency > 1)?;
        Ok(View::new(outlook))
    }

    /// The presence, which is made when it is needed for the first time.
    fn presence(&mut self) -> Result<&mut Presence> {
        if let Some((run_folder, echo)) = self.equipment.take() {
            self.presence = Some(Presence::begin(self.store, run_folder, echo, self.wake.clone())?);
        }
        Ok(self.presence.as_mut().expect("it is made of the equipment, once"))
    }

    /// What is over, as much of it as one transaction may hold.
    fn collect(&mut self) -> Result<Vec<Over>> {
        let mut over = std::mem::take(&mut self.unrun);
        let mut bytes = 0;
        while bytes < LOGS_AT_ONCE
            && let Some(done) = self.done.pop_front()
        {
            bytes += done.ended.output.kept();
            over.push(Over::of(done)?);
        }
        Ok(over)
    }

    /// A store that fails while there are outcomes to record, on a full disk for instance, is tried until it does not:
    /// an outcome is lost only with the processor.
    fn persist(&mut self, plan: &Plan<'_>) -> Result<Advance> {
        let mut told = false;
        loop {
            match self.store.advance(plan) {
                Err(error) if error.kind() == Kind::Io && error.can_pass() && !plan.finished.is_empty() => {
                    if self.pressed() > 1 {
                        return Err(error);
                    }
                    if !std::mem::replace(&mut told, true) {
                        (self.tell)(Event::StoreFails { error: &error });
                    }
                    std::thread::sleep(FAILING);
                }
                answer => return answer,
            }
        }
    }

    /// Sleeps until something happens, at most for `time`, and takes all that has happened.
    fn wait(&mut self, time: Duration) {
        let mut next = self.wakes.recv_timeout(time).ok();
        while let Some(wake) = next {
            if let (Wake::Done(done), Some(presence)) = (wake, &mut self.presence) {
                presence.slots.came_back();
                self.ahead = how_many_ahead(done.ended.took);
                self.done.push_back(*done);
            }
            next = self.wakes.try_recv().ok();
        }
    }

    fn heed_signals(&mut self) {
        let pressed = self.pressed();
        let Some(presence) = self.presence.as_ref().filter(|_| pressed != self.heeded) else { return };
        let running = presence.slots.running();
        if self.heeded == 0 && running > 0 {
            (self.tell)(Event::Stopping { running });
        }
        self.heeded = pressed;
        match pressed {
            0 | 1 => {}
            2 => presence.slots.stop(None, Stop::Interrupt),
            _ => presence.slots.stop(None, Stop::Kill),
        }
    }

    /// Looks what others have done meanwhile: processors that died, jobs to cancel, calls that became ready. Gives the
    /// service as it is now, unless it is as it was.
    fn look_around(&mut self, service: &ServiceName, view: &View) -> Result<Option<View>> {
        let due = view.outlook.next_due.is_some_and(|due| view.until(due).is_zero());
        if !due && self.looked_around.elapsed() < LOOK {
            return Ok(None);
        }
        self.looked_around = Instant::now();
        let mut changed = self.store.changed()?;
        if self.looked_for_dead.elapsed() >= LOOK_FOR_DEAD {
            self.looked_for_dead = Instant::now();
            changed |= rescue::rescue(self.store, self.own_id(), self.tell)?;
        }
        if let (true, Some(presence)) = (changed, &mut self.presence) {
            for fence in self.store.cancelling(presence.id)? {
                let unrun = presence.slots.take_back(Some(fence));
                self.unrun.extend(unrun.iter().map(|claim| Over::unrun(claim, &Outcome::Cancelled)));
                presence.slots.stop(Some(fence), Stop::Cancel);
            }
        }
        if changed || due { self.look(service).map(Some) } else { Ok(None) }
    }

    /// A call that was claimed ahead does not wait for one that takes long, nor where nothing is to begin any more.
    fn give_back_what_waits(&mut self, outlook: &Outlook) {
        let stops = self.pressed() > 0 || outlook.free() == 0;
        let late = self.options.max_time.is_some_and(|max| self.began.elapsed() >= max);
        let Some(presence) = &mut self.presence else { return };
        // Nothing ended since the last look, or it would have begun.
        let stuck = self.done.is_empty() && presence.slots.waiting() > 0;
        if stops || late || stuck {
            let claims = presence.slots.take_back(None);
            self.claimed -= claims.len() as u64;
            if !claims.is_empty() {
                self.ahead = 0;
            }
            self.returned.extend(claims.iter().map(|claim| claim.fence));
        }
    }
}

/// How many calls to claim ahead for each slot when the latest one took so long.
fn how_many_ahead(took: Duration) -> usize {
    let many = AHEAD.as_micros() / took.as_micros().max(1);
    usize::try_from(many.min(MOST_AHEAD)).unwrap_or(0)
}

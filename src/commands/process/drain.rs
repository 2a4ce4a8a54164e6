//! The loop of a processor.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::over::Over;
use super::presence::Presence;
use super::slots::{Done, Slots};
use super::{Equipment, Event, Options, Summary, rescue};
use crate::commands::new_token;
use crate::domain::job::{Finish, Token};
use crate::domain::processor::ProcessorId;
use crate::domain::service::ServiceName;
use crate::error::{Kind, Result};
use crate::runner::Stop;
use crate::store::{Advance, Outlook, Patience, Plan, Store};

/// How often a processor looks around while its calls run: for calls that became ready, for jobs to cancel.
const LOOK: Duration = Duration::from_millis(50);

/// How often it looks whether another processor died.
const LOOK_FOR_DEAD: Duration = Duration::from_millis(500);

/// How long it waits before it tries a store again that failed while outcomes were to be recorded.
const FAILING: Duration = Duration::from_millis(500);

/// How many bytes of output one transaction records, about: memory is bounded by this, not by how many calls end at
/// once.
const LOGS_AT_ONCE: usize = 4 * 1024 * 1024;

/// What wakes the loop.
pub(super) enum Wake {
    /// A call has ended.
    Done(Box<Done>),
    /// A signal to stop came.
    Stop,
}

/// Counts the signals to stop.
pub(super) struct StopButton {
    pressed: Arc<AtomicUsize>,
    wake: Sender<Wake>,
}

impl StopButton {
    pub(super) fn press(&self) {
        self.pressed.fetch_add(1, Ordering::SeqCst);
        // Without a listener the processor is ending anyway.
        let _ = self.wake.send(Wake::Stop);
    }
}

/// A service as it was seen at a moment.
struct View {
    outlook: Outlook,
    at: Instant,
}

impl View {
    /// How long from now until `due`; zero when that has passed.
    fn until(&self, due: crate::domain::time::Timestamp) -> Duration {
        due.since(self.outlook.now).saturating_sub(self.at.elapsed())
    }
}

pub(super) struct Drain<'a> {
    store: &'a mut Store,
    options: &'a Options,
    run_folder: super::RunFolder,
    patience: Patience,
    tell: &'a mut dyn FnMut(Event<'_>),
    presence: Option<Presence>,
    slots: Slots,
    wakes: Receiver<Wake>,
    button: StopButton,
    /// How many presses of the stop button were acted on.
    heeded: usize,
    /// Calls that have ended, as the slots gave them back.
    done: VecDeque<Done>,
    /// Claims that cannot be run, and so have ended as well.
    unfit: Vec<Over>,
    claimed: u64,
    summary: Summary,
    began: Instant,
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
            run_folder: equipment.run_folder,
            patience: equipment.patience,
            tell,
            presence: None,
            slots: Slots::new(equipment.echo, wake.clone()),
            wakes,
            button: StopButton { pressed: Arc::default(), wake },
            heeded: 0,
            done: VecDeque::new(),
            unfit: Vec::new(),
            claimed: 0,
            summary: Summary::default(),
            began: Instant::now(),
            looked_for_dead: Instant::now(),
        }
    }

    pub(super) fn stop_button(&self) -> StopButton {
        StopButton { pressed: Arc::clone(&self.button.pressed), wake: self.button.wake.clone() }
    }

    /// Drains one service.
    pub(super) fn service(&mut self, service: &ServiceName) -> Result<()> {
        rescue::rescue(self.store, self.own_id(), self.tell)?;
        let mut view = self.look(service)?;
        if view.outlook.ready && view.outlook.free() == 0 && self.may_claim() {
            return self.tell_why_not(service, &view.outlook);
        }
        loop {
            while self.has_ended() || self.could_claim(&view.outlook) {
                view = self.advance(service, &view.outlook)?;
            }
            if self.slots.running() > 0 {
                self.wait(LOOK);
            } else {
                match view.outlook.next_retry {
                    Some(due) if self.options.wait_retries && self.may_claim() && view.outlook.free() > 0 => {
                        self.wait(view.until(due).clamp(Duration::from_millis(1), LOOK_FOR_DEAD));
                    }
                    _ => return Ok(()),
                }
            }
            self.heed_signals();
            if let Some(new) = self.look_around(service, &view)? {
                view = new;
            }
        }
    }

    /// Ends. After an error, what runs is ended as well; whoever comes next puts it back.
    pub(super) fn leave(mut self, done: Result<()>) -> Result<Summary> {
        if done.is_err() {
            self.slots.stop(None, Stop::Kill);
            while self.slots.running() > 0 {
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

    fn pressed(&self) -> usize {
        self.button.pressed.load(Ordering::SeqCst)
    }

    fn may_claim(&self) -> bool {
        self.pressed() == 0
            && self.options.max_jobs.is_none_or(|max| self.claimed < max)
            && self.options.max_time.is_none_or(|max| self.began.elapsed() < max)
    }

    fn could_claim(&self, outlook: &Outlook) -> bool {
        outlook.ready && outlook.free() > self.slots.running() && self.may_claim()
    }

    fn has_ended(&self) -> bool {
        !self.done.is_empty() || !self.unfit.is_empty()
    }

    fn look(&mut self, service: &ServiceName) -> Result<View> {
        let outlook = self.store.outlook(service, self.own_id())?;
        Ok(View { outlook, at: Instant::now() })
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

    /// Records what has ended, claims what there is room for, and begins it.
    fn advance(&mut self, service: &ServiceName, before: &Outlook) -> Result<View> {
        let presence = match &self.presence {
            Some(presence) => presence,
            None => self.presence.insert(Presence::begin(self.store, &self.run_folder)?),
        };
        let (processor, around) = (presence.id, Arc::clone(&presence.around));
        let over = self.collect()?;
        let tokens = self.tokens(before)?;
        let finished: Vec<&Finish> = over.iter().map(|over| &over.finish).collect();
        let running = self.slots.running() + self.done.len();
        let at_stake = running > 0 || !finished.is_empty();
        self.store.be_patient(if at_stake { Patience::Endless } else { self.patience });
        let plan = Plan { processor, service, finished: &finished, running, tokens: &tokens };
        let Advance { finished: states, claims, outlook } = self.persist(&plan)?;
        for (over, state) in over.into_iter().zip(states) {
            over.report(state, &mut self.summary, self.tell);
        }
        for claim in claims {
            self.claimed += 1;
            (self.tell)(Event::Begins { job: claim.fence.job, service, function: &claim.function });
            match Over::unfit(&claim) {
                Some(over) => self.unfit.push(over),
                None => self.slots.begin(claim, &around, outlook.concurrency > 1)?,
            }
        }
        Ok(View { outlook, at: Instant::now() })
    }

    /// What has ended, as much of it as one transaction may hold.
    fn collect(&mut self) -> Result<Vec<Over>> {
        let mut over = std::mem::take(&mut self.unfit);
        let mut bytes = 0;
        while bytes < LOGS_AT_ONCE
            && let Some(done) = self.done.pop_front()
        {
            bytes += done.ended.output.kept();
            over.push(Over::of(done)?);
        }
        Ok(over)
    }

    /// As many secrets as calls could be begun now.
    fn tokens(&self, outlook: &Outlook) -> Result<Vec<Token>> {
        if !self.may_claim() {
            return Ok(Vec::new());
        }
        let mut room = outlook.free().saturating_sub(self.slots.running());
        if let Some(max) = self.options.max_jobs {
            room = room.min(usize::try_from(max - self.claimed).unwrap_or(usize::MAX));
        }
        (0..room).map(|_| new_token()).collect()
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
            if let Wake::Done(done) = wake {
                self.slots.free(&done);
                self.done.push_back(*done);
            }
            next = self.wakes.try_recv().ok();
        }
    }

    fn heed_signals(&mut self) {
        let pressed = self.pressed();
        if pressed == self.heeded {
            return;
        }
        if self.heeded == 0 && self.slots.running() > 0 {
            (self.tell)(Event::Stopping { running: self.slots.running() });
        }
        self.heeded = pressed;
        match pressed {
            0 | 1 => {}
            2 => self.slots.stop(None, Stop::Interrupt),
            _ => self.slots.stop(None, Stop::Kill),
        }
    }

    /// Looks what others have done meanwhile: processors that died, jobs to cancel, calls that became ready. Gives the
    /// service as it is now, unless it is as it was.
    fn look_around(&mut self, service: &ServiceName, view: &View) -> Result<Option<View>> {
        let mut changed = self.store.changed()?;
        if self.looked_for_dead.elapsed() >= LOOK_FOR_DEAD {
            self.looked_for_dead = Instant::now();
            changed |= rescue::rescue(self.store, self.own_id(), self.tell)?;
        }
        if let (true, Some(id)) = (changed, self.own_id()) {
            for fence in self.store.cancelling(id)? {
                self.slots.stop(Some(fence), Stop::Cancel);
            }
        }
        let due = view.outlook.next_due.is_some_and(|due| view.until(due).is_zero());
        if changed || due { self.look(service).map(Some) } else { Ok(None) }
    }
}

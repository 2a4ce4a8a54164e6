//! Rounds: each is one transaction for one service, which records what ended and claims what there is room for.

use super::super::finished::FinishedCall;
use super::super::prefetch::MOST_BYTES;
use super::super::registration::Registration;
use super::super::service_state::{Pending, Snapshot};
use super::MainLoop;
use crate::domain::event::Event;
use crate::domain::job::{Finish, State};
use crate::error::{Error, Kind, Result};
use crate::failpoint::reached;
use crate::processor::random::new_tokens;
use crate::runner::process::memory;
use crate::store::{Cycle, CycleResult};

impl MainLoop<'_> {
    /// Makes rounds for the services, in turn, until there is nothing to record and nothing to claim.
    pub(super) fn make_rounds(&mut self) -> Result<()> {
        let mut any = true;
        while std::mem::take(&mut any) {
            for index in 0..self.served.len() {
                let due = self.served[index].has_news() || self.could_claim(index);
                if due && self.shortage.is_none() {
                    self.advance(index)?;
                    any = true;
                }
            }
        }
        Ok(())
    }

    /// How many more calls of a service could be claimed now.
    fn room(&self, index: usize) -> usize {
        let served = &self.served[index];
        let waits = |other: &usize| *other != index && self.served[*other].snapshot.status.wants_alone;
        // What waits for empty hands gets them.
        let may = self.button.pressed() == 0 && self.lost.is_none() && self.scarcity.is_none();
        if !may || (0..self.served.len()).any(|other| waits(&other)) {
            return 0;
        }
        // What is first in line waits for the host, here or elsewhere: it is not to be claimed and given back all the time.
        if served.awaits_host
            && self.registration.as_ref().is_some_and(|registration| registration.slots.host_is_full())
        {
            return 0;
        }
        let load =
            self.registration.as_ref().map(|registration| registration.slots.load(&served.name)).unwrap_or_default();
        self.budget.room(&served.snapshot.status, served.speed, load)
    }

    fn could_claim(&self, index: usize) -> bool {
        let status = &self.served[index].snapshot.status;
        let alone = status.wants_alone && self.held() == 0;
        (status.ready || alone) && self.room(index) > 0
    }

    /// Records what is over of a service, claims what there is room for, and begins it. Afterwards the service is seen as
    /// it is now, unless nobody looked, because more calls are held than can run.
    fn advance(&mut self, index: usize) -> Result<()> {
        let processor = self.registration()?.id;
        let mut room = self.room(index);
        if room > 0 {
            self.home_is_there()?;
            if let Err(error) = memory::look() {
                if self.could_claim(index) {
                    self.meet_scarcity("cannot run functions", &error);
                }
                room = 0;
            }
        }
        let missing = room.saturating_sub(self.tokens.len());
        if missing > 0 {
            self.tokens.extend(new_tokens(missing)?);
        }
        let tokens = std::mem::take(&mut self.tokens);
        let served = &mut self.served[index];
        let (service, before, speed) = (served.name.clone(), served.snapshot.status, served.speed);
        let news = served.news()?;
        let ended = served.ended();
        let finished: Vec<&Finish> = news.over.iter().map(|over| &over.finish).collect();
        let slots = &self.registration()?.slots;
        let (load, running) = (slots.load(&service), slots.running_of(&service));
        let gives_back = !news.returned.is_empty() || !news.postponed.is_empty();
        if room == 0 && !gives_back && (1..load.held).contains(&before.free()) {
            self.tokens = tokens;
            return match self.persist(true, |store| store.finish(&finished)) {
                Ok(states) => {
                    self.report(news.over, states);
                    Ok(())
                }
                Err(error) => self.keep(index, news).round_failed(error),
            };
        }
        let plan = Cycle {
            processor,
            service: &service,
            finished: &finished,
            returned: &news.returned,
            postponed: &news.postponed,
            // What came back and is not recorded yet still counts.
            held: load.held + ended,
            elsewhere: load.elsewhere,
            running,
            ahead: self.budget.ahead(&before, speed),
            tokens: &tokens[..room],
            bytes: MOST_BYTES.saturating_sub(load.bytes).max(1),
        };
        let at_stake = plan.held > 0 || !finished.is_empty();
        let done = self.persist(at_stake, |store| store.run_cycle(&plan));
        // Those that no call got are for the next. What failed may be there all the same, with some of them.
        if let Ok(done) = &done {
            self.tokens.extend(tokens.into_iter().skip(done.claims.len() + done.broken.len()));
        }
        let CycleResult { finished: states, claims, broken, refusal, slots, status } = match done {
            Ok(done) => done,
            Err(error) => return self.keep(index, news).round_failed(error),
        };
        reached("claims made");
        self.told_of_shortage = false;
        self.report(news.over, states);
        self.budget.claimed(&claims, broken.len());
        self.tell_of_refusal(refusal.as_ref());
        let whole_lines = status.concurrency > 1 || self.served.len() > 1;
        let served = &mut self.served[index];
        served.never_ran(broken.into_iter().map(FinishedCall::broken));
        served.snapshot = Snapshot::new(status);
        served.begins();
        let registration = self.registration()?;
        registration.slots.share_output(whole_lines);
        let begun = registration.slots.begin(&service, claims, slots);
        begun.or_else(|error| {
            self.give_back_of(index);
            self.meet_scarcity("cannot run functions", &error);
            Ok(())
        })
    }

    /// Gives back what has not begun of a service.
    fn give_back_of(&mut self, index: usize) {
        let (Some(registration), served) = (&mut self.registration, &mut self.served[index]) else { return };
        let claims = registration.slots.take_back(|claim| claim.call.service == served.name);
        self.budget.gave_back(claims.len());
        served.gives_back(&claims);
    }

    /// Tells, the first time, that a rule of the application holds calls back.
    fn tell_of_refusal(&mut self, refusal: Option<&Error>) {
        let Some(error) = refusal else { return };
        if self.summary.held_back == 0 {
            (self.tell)(Event::HeldBack { error });
        }
        self.summary.held_back += 1;
    }

    /// Keeps what could not be recorded, for another time.
    fn keep(&mut self, index: usize, news: Pending) -> &mut Self {
        self.served[index].keep(news);
        self
    }

    pub(super) fn report(&mut self, over: Vec<FinishedCall>, states: Vec<Option<State>>) {
        for (over, state) in over.into_iter().zip(states) {
            if let (Some(mark), Some(registration)) = (&over.mark, &self.registration) {
                registration.slots.recorded(&over.service, mark);
            }
            if state.is_none() {
                let job = over.finish.fence.job;
                let now = match self.store.job(job) {
                    Ok(job) => Some(job.state),
                    Err(error) if error.kind() == Kind::NotFound => None,
                    // A newer build has upgraded the store: what is not ours is somebody else's.
                    Err(_) => Some(State::Processing),
                };
                (self.tell)(Event::Late { job, now });
            }
            over.report(state, &mut self.summary, self.tell);
        }
        self.mind_the_marks();
    }

    /// The presence, which is made when it is needed for the first time.
    pub(super) fn registration(&mut self) -> Result<&mut Registration> {
        if let Some(runtime) = self.runtime.take() {
            let registration = Registration::begin(self.store, runtime, std::sync::Arc::clone(&self.events))?;
            self.button.connect(registration.slots.stop_handle());
            self.registration = Some(registration);
        }
        Ok(self.registration.as_mut().expect("it is made of the equipment, once"))
    }
}

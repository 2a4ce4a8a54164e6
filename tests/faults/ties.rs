//! What ties the two jobs of a [`Protocol`] to each other, and what follows for one when the other ends.
//!
//! Rates are left out: a claim takes what a rate allows within its own transaction, so that no order of steps matters.

use asyncq::domain::job::State;
use asyncq::domain::needs::Need;
use asyncq::domain::new_job::KeyUntil;

use crate::protocol::{Check, Phase, Protocol, World, Wrong};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tie {
    Nothing,
    /// Both are in one lane, which runs one call at once.
    Lane,
    /// The second one needs the first.
    Needs(Need),
    /// The second one is enqueued as soon as the key of the first is free, which is its key, too.
    Key(KeyUntil),
}

/// Who has changed a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A processor that records an end: `finish_all` of `store/finish.rs`, `follow_up::changed`.
    Processor,
    /// `Store::rescue` and `Store::unregister`.
    Rescuer,
    /// A command or a program, followed up by triggers of the schema.
    Client,
}

impl By {
    fn check(self) -> Check {
        match self {
            By::Processor => Check::FollowEnd,
            By::Rescuer => Check::FollowRescue,
            By::Client => Check::FollowClient,
        }
    }
}

impl World {
    /// Follows up that a job may have ended, or left the head of its lane.
    pub fn changed(&mut self, protocol: &Protocol, job: usize, by: By) {
        let has_ended = self.rows[job].state.has_ended();
        if protocol.without == Some(by.check()) {
            return;
        }
        match protocol.tie {
            Tie::Nothing => {}
            Tie::Lane => self.let_out(),
            Tie::Needs(_) => self.noted |= job == 0 && has_ended && self.link,
            Tie::Key(_) => self.rows[job].key &= !has_ended,
        }
    }

    /// Lets out the first that waits in the lane if nobody is at its head: `lane::let_out`.
    fn let_out(&mut self) {
        let is_head = |state: State| matches!(state, State::Queued | State::Processing);
        if !self.rows.iter().any(|row| is_head(row.state))
            && let Some(first) = self.rows.iter_mut().find(|row| row.state == State::Blocked)
        {
            first.become_(State::Queued);
        }
    }

    /// Lets a job go where it has to wait: it is due, released, or tried again.
    pub fn enter(&mut self, protocol: &Protocol, job: usize) {
        match protocol.tie {
            Tie::Lane if protocol.without != Some(Check::Line) => {
                self.rows[job].become_(State::Blocked);
                self.let_out();
            }
            Tie::Needs(_) if job == 1 && self.link => self.rows[job].become_(State::Blocked),
            _ => self.rows[job].become_(State::Queued),
        }
    }

    /// Tells the second job that the first one has ended: `needs::settle`.
    pub fn settle(&mut self, protocol: &Protocol) {
        let Tie::Needs(need) = protocol.tie else { return };
        if !std::mem::take(&mut self.noted) {
            return;
        }
        let (is_met, waits) = (need.is_met_by(self.rows[0].state), self.rows[1].state == State::Blocked);
        if is_met || protocol.without == Some(Check::Need) {
            self.link = false;
            if waits {
                self.rows[1].become_(State::Queued);
            }
            if waits && !is_met {
                self.rows[1].wrong = Some(Wrong::TooEarly);
            }
        } else if waits {
            self.rows[1].become_(State::Cancelled);
            self.lost = need == Need::Completed;
        }
    }

    /// What `needs::revive` does, and the trigger `asyncq_job_released`, when a job is to be tried again.
    pub fn try_again(&mut self, protocol: &Protocol, job: usize) {
        if job == 1 {
            self.lost = false;
            self.link &= !self.rows[0].state.has_ended();
        }
        self.enter(protocol, job);
        if job == 0 && protocol.without != Some(Check::Revive) {
            self.noted = false;
            if std::mem::take(&mut self.lost) {
                self.rows[1].become_(State::Blocked);
            }
        }
    }
}

/// What is wrong with how the jobs wait for each other.
pub fn fault(protocol: &Protocol, world: &World) -> Option<&'static str> {
    let [first, second] = &world.rows[..] else { return None };
    let both = |is: fn(State) -> bool| is(first.state) && is(second.state);
    let is_untouched = world.left.retries == protocol.times.retries;
    // Who completes its own job is out of its lane, and without its key, before it comes to its own end.
    let runs = |job: u8| {
        let is_it = |call: &&crate::protocol::Call| call.fence.job == job && call.phase != Phase::CompletedItself;
        world.calls.iter().filter(is_it).any(|call| call.phase.is_process())
    };
    match protocol.tie {
        Tie::Nothing => None,
        Tie::Lane if both(|state| matches!(state, State::Queued | State::Processing)) => Some("too many heads"),
        Tie::Lane if runs(0) && runs(1) => Some("two programs of a lane at once"),
        Tie::Lane => {
            let waits = first.state == State::Blocked || second.state == State::Blocked;
            let stands = |state| !matches!(state, State::Queued | State::Processing);
            (waits && both(stands)).then_some("a lane stands still")
        }
        Tie::Needs(_) if world.lost && !first.state.has_ended() => Some("stays cancelled"),
        Tie::Needs(_) => {
            let is_told = first.state.has_ended() && !world.noted;
            (second.state == State::Blocked && (is_told || !world.link)).then_some("waits for nothing")
        }
        Tie::Key(_) if first.key && second.key => Some("a key held by two"),
        Tie::Key(until) => {
            let begun = |claim: u8| until == KeyUntil::Started && claim > 0;
            let kept = |row: &crate::protocol::Row| row.key && (row.state.has_ended() || begun(row.claim));
            let lost = |row: &crate::protocol::Row| {
                row.is_there && !row.key && !row.state.has_ended() && !begun(row.claim) && is_untouched
            };
            match () {
                () if kept(first) || kept(second) => Some("keeps its key"),
                () if lost(first) || lost(second) => Some("has lost its key"),
                () if until == KeyUntil::Ended && is_untouched && runs(0) && runs(1) => {
                    Some("two programs of a key at once")
                }
                () => None,
            }
        }
    }
}

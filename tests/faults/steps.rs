//! The steps of the protocol: of people, of processors and their slots, of programs, of rescuers, and misfortunes.

use asyncq::domain::job::State;
use asyncq::domain::new_job::KeyUntil;

use crate::explorer::Model;
use crate::protocol::{Asked, Call, Check, End, Fence, JOBS, Liveness, Phase, Processor, Protocol, Rescue, World};
use crate::ties::{By, Tie};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// `job start`, and a delayed job that is due.
    Start(usize),
    Due(usize),
    /// A call whose key is free.
    Enqueue(usize),
    Cancel(usize),
    Retry(usize),
    /// `Presence::begin`, and its `sweep` of folders.
    Come(usize),
    Sweep(usize),
    /// `Store::advance`, and whether its answer is heard.
    CycleResult {
        processor: usize,
        claims: usize,
        heard: bool,
    },
    /// `Drain::give_back_what_waits`.
    PutBack(Fence),
    /// `Store::cancelling`, and what `Drain::look_around` does then.
    Heed(usize),
    /// Two signals to stop.
    Stop(usize),
    /// `Presence::end`.
    Leave(usize),
    /// A slot, and the program that it starts: `Marks::set`, fork, `execve`, and on.
    Begin(Fence, &'static str),
    CompleteItself(Fence),
    Ends(Fence, End),
    /// `rescue::rescue`: who looks, at whom.
    Look(usize, usize),
    Tokens(usize),
    Kill(usize, Fence),
    NotRescued(usize),
    Record(usize),
    Rescue(usize),
    Remove(usize),
    /// SIGKILL, before or after `Marks::note`.
    Crash(usize, bool),
    Restore,
    Unseen(usize),
}

/// Every step that can be taken now.
pub fn all(protocol: &Protocol, now: &World) -> Vec<(Step, World)> {
    let mut steps = Steps { protocol, now, found: Vec::new() };
    steps.people();
    for processor in 0..now.processors.len() {
        steps.main_thread(processor);
        steps.take_over(processor);
        steps.misfortunes(processor);
    }
    steps.slots();
    steps.found
}

/// The steps found so far.
struct Steps<'a> {
    protocol: &'a Protocol,
    now: &'a World,
    found: Vec<(Step, World)>,
}

impl Steps<'_> {
    fn without(&self, check: Check) -> bool {
        self.protocol.without == Some(check)
    }

    fn add(&mut self, step: Step, change: impl FnOnce(&mut World)) {
        let mut world = self.now.clone();
        change(&mut world);
        world.calls.sort_unstable();
        self.found.push((step, world));
    }

    fn people(&mut self) {
        let protocol = self.protocol;
        for (job, row) in self.now.rows.iter().enumerate() {
            if !row.is_there {
                if !self.now.rows.iter().any(|row| row.key) {
                    self.add(Step::Enqueue(job), |world| {
                        (world.rows[job].is_there, world.rows[job].key) = (true, true);
                    });
                }
                continue;
            }
            match row.state {
                State::Held => self.add(Step::Start(job), |world| world.enter(protocol, job)),
                State::Delayed => self.add(Step::Due(job), |world| world.enter(protocol, job)),
                State::Error | State::Cancelled if self.now.left.retries > 0 => self.add(Step::Retry(job), |world| {
                    world.left.retries -= 1;
                    world.try_again(protocol, job);
                    let row = &mut world.rows[job];
                    (row.conflicts, row.crashes, row.cancelling, row.result) = (0, 0, false, None);
                }),
                _ => {}
            }
            if self.now.left.cancels > 0 && !row.state.has_ended() && !row.cancelling {
                self.add(Step::Cancel(job), |world| {
                    world.left.cancels -= 1;
                    if world.rows[job].state == State::Processing {
                        world.rows[job].cancelling = true;
                    } else {
                        world.rows[job].become_(State::Cancelled);
                        world.changed(protocol, job, By::Client);
                        world.settle(protocol);
                    }
                });
            }
        }
    }

    fn misfortunes(&mut self, processor: usize) {
        let left = self.now.left;
        if left.crashes > 0 && self.now.lives(processor) {
            let folder = self.now.processors[processor].folder;
            let ended = |call: &Call| matches!(call.phase, Phase::Over(End::Completed | End::Conflict | End::Failed));
            let can_note = folder && self.now.of(processor).any(ended);
            for noted in [false, true].into_iter().take(1 + usize::from(can_note)) {
                self.add(Step::Crash(processor, noted), |world| {
                    world.left.crashes -= 1;
                    world.processors[processor].life = Liveness::Over;
                    world.processors[processor].rescue = None;
                    world.calls.retain_mut(|call| {
                        if usize::from(call.fence.processor) != processor || call.phase.is_process() {
                            return true;
                        }
                        let stays = noted && ended(call);
                        if let Phase::Over(end) = call.phase {
                            call.phase = Phase::Noted(end);
                        }
                        stays
                    });
                });
            }
        }
        if left.unseen > 0 && self.now.lives(processor) {
            self.add(Step::Unseen(processor), |world| {
                world.left.unseen -= 1;
                world.processors[processor].unseen = true;
                world.processors[processor].folder = false;
            });
        }
        if processor == 0 && left.restores > 0 {
            let World { rows, link, noted, lost, .. } = self.protocol.first();
            self.add(Step::Restore, |world| {
                world.left.restores -= 1;
                (world.rows, world.link, world.noted, world.lost) = (rows, link, noted, lost);
            });
        }
    }

    fn main_thread(&mut self, processor: usize) {
        let is = self.now.processors[processor];
        let there = (0..self.now.processors.len()).filter(|other| self.now.lives(*other)).count();
        let next = self.now.processors.iter().position(|it| it.life == Liveness::NotYet);
        if next == Some(processor) && there < self.protocol.processors {
            self.add(Step::Come(processor), |world| {
                let it = &mut world.processors[processor];
                (it.life, it.registered, it.folder) = (Liveness::Alive, true, true);
            });
        }
        // Whoever sweeps has read which are registered before this one was, and looks at its folder after it died.
        if is.life == Liveness::Over && is.folder && !self.is_locked(processor) && there > 0 {
            self.add(Step::Sweep(processor), |world| remove(world, processor));
        }
        if !self.now.is_free(processor) {
            return;
        }
        self.advance(processor);
        let asked = self.to_cancel(processor);
        if asked.iter().any(|which| self.now.calls[*which].asked == Asked::Nothing) {
            self.add(Step::Heed(processor), |world| {
                for which in &asked {
                    heed_cancel(&mut world.calls[*which]);
                }
            });
        }
        for (which, call) in self.now.calls.iter().enumerate() {
            if usize::from(call.fence.processor) == processor
                && call.phase == Phase::Held
                && self.now.left.put_backs > 0
            {
                self.add(Step::PutBack(call.fence), |world| {
                    world.left.put_backs -= 1;
                    world.change(which, Phase::Returned);
                });
            }
        }
        if is.life == Liveness::Alive && self.now.left.stops > 0 {
            self.add(Step::Stop(processor), |world| {
                world.left.stops -= 1;
                world.processors[processor].life = Liveness::Stopping;
                let theirs = world.calls.iter_mut().filter(|call| usize::from(call.fence.processor) == processor);
                theirs.for_each(interrupt);
            });
        }
        let ready = self.is_any_queued() || self.knows_of_ends();
        if (is.life == Liveness::Stopping || !ready) && self.now.of(processor).next().is_none() {
            let protocol = self.protocol;
            self.add(Step::Leave(processor), |world| leave(world, processor, protocol));
        }
        for dead in (0..self.now.processors.len()).filter(|dead| *dead != processor) {
            self.look(processor, dead);
        }
    }

    fn is_any_queued(&self) -> bool {
        self.now.rows.iter().any(|row| row.is_there && row.state == State::Queued)
    }

    /// Whether a processor sees that a job has ended of which others were not told.
    fn knows_of_ends(&self) -> bool {
        self.now.noted && !self.without(Check::Noted)
    }

    /// The calls of a processor that the store has as to be cancelled.
    fn to_cancel(&self, processor: usize) -> Vec<usize> {
        let wanted = |call: &Call| {
            let row = &self.now.rows[usize::from(call.fence.job)];
            let theirs = usize::from(call.fence.processor) == processor && row.owner == Some(call.fence.processor);
            theirs && row.cancelling && row.state == State::Processing && row.claim == call.fence.claim
        };
        let can = |call: &Call| !matches!(call.phase, Phase::Returned | Phase::Over(_));
        let calls = self.now.calls.iter().enumerate();
        calls.filter(|(_, call)| wanted(call) && can(call)).map(|(which, _)| which).collect()
    }

    fn advance(&mut self, processor: usize) {
        let is = self.now.processors[processor];
        let over = |call: &Call| matches!(call.phase, Phase::Over(_) | Phase::Returned);
        let news = self.now.of(processor).any(over);
        let queued = self.now.rows.iter().filter(|row| row.is_there && row.state == State::Queued).count();
        // What is put back or interrupted can be claimed in the same transaction, and what goes on because of it.
        let back = self.now.of(processor).filter(|call| over(call)).count();
        let released = usize::from(self.protocol.tie != Tie::Nothing && (news || self.now.noted));
        let most = if is.life == Liveness::Alive && is.registered { queued + back + released } else { 0 };
        let news = news || self.knows_of_ends();
        for claims in 0..=most {
            for heard in [true, false] {
                if (news || claims > 0) && (heard || self.now.left.unheard > 0) {
                    let protocol = self.protocol;
                    self.add(Step::CycleResult { processor, claims, heard }, |world| {
                        advance(world, (processor, claims), heard, protocol);
                    });
                }
            }
        }
    }

    fn slots(&mut self) {
        for (which, call) in self.now.calls.iter().enumerate() {
            let (fence, lives) = (call.fence, self.now.lives(call.fence.processor.into()));
            let mark = |world: &mut World| world.processors[usize::from(fence.processor)].marks |= 1 << fence.job;
            let late = self.without(Check::MarkFirst);
            let (word, phase) = match call.phase {
                Phase::Held if self.now.processors[usize::from(fence.processor)].life == Liveness::Alive => {
                    ("mark", Phase::Marked)
                }
                Phase::Marked if lives => ("fork", Phase::Forked),
                Phase::Forked => ("exec", Phase::Starting),
                Phase::Starting => ("run", Phase::Running),
                _ => continue,
            };
            let marks = call.phase == if late { Phase::Starting } else { Phase::Held };
            let restores = self.protocol.times.restores;
            self.add(Step::Begin(fence, word), |world| {
                world.change(which, phase);
                // After a restore, another claim may have the same number, and of the same processor.
                if phase == Phase::Forked && world.left.restores == restores {
                    world.row(fence).began = fence.claim;
                }
                if marks && lives {
                    mark(world);
                }
            });
        }
        for (which, call) in self.now.calls.iter().enumerate().filter(|(_, call)| call.phase.has_token()) {
            self.program(which, *call);
        }
    }

    /// What a running program does.
    fn program(&mut self, which: usize, call: Call) {
        let fence = call.fence;
        let row = &self.now.rows[usize::from(fence.job)];
        // The statement of `docs/sql.md`, whose token is that of one claim only.
        let theirs = row.token && row.owner == Some(fence.processor) && row.claim == fence.claim;
        if call.phase == Phase::Running && theirs && row.state == State::Processing {
            let protocol = self.protocol;
            self.add(Step::CompleteItself(fence), |world| {
                world.row(fence).become_(State::Completed);
                world.changed(protocol, fence.job.into(), By::Client);
                world.change(which, Phase::CompletedItself);
            });
        }
        let asked = match call.asked {
            Asked::Nothing => None,
            Asked::Cancel => Some(End::Cancelled),
            Asked::Interrupt => Some(End::Interrupted),
        };
        for end in [End::Completed, End::Conflict, End::Failed].into_iter().chain(asked) {
            self.add(Step::Ends(fence, end), |world| {
                if world.lives(fence.processor.into()) {
                    world.change(which, Phase::Over(end));
                } else {
                    world.calls.remove(which);
                }
            });
        }
    }

    /// Whether somebody holds the lock on the file of a processor.
    fn is_locked(&self, dead: usize) -> bool {
        let starting = |call: &Call| call.phase == Phase::Forked && !self.without(Check::LockWhileStarting);
        let rescuer = |it: &Processor| it.rescue.is_some_and(|it| usize::from(it.dead) == dead && it.locked);
        let held = self.now.lives(dead) && !self.without(Check::Lock);
        held || self.now.of(dead).any(starting) || self.now.processors.iter().any(rescuer)
    }

    /// `run_dir::liveness`, `DeadRunDir::begun` and `DeadRunDir::outcomes`. The list of processors may have been read long ago, so that one can be looked
    /// at that is forgotten already.
    fn look(&mut self, rescuer: usize, dead: usize) {
        let is = self.now.processors[dead];
        let gone = !is.folder && (!self.now.lives(dead) || is.unseen);
        if is.life == Liveness::NotYet || is.folder && self.is_locked(dead) || !is.folder && !gone {
            return;
        }
        // Nothing can come of it.
        if !is.registered && !is.folder {
            return;
        }
        let tokens = self.without(Check::TokensAfterLock).then_some([0; JOBS]);
        let number = u8::try_from(dead).expect("few processors");
        let begun = is.folder.then_some(is.marks);
        self.add(Step::Look(rescuer, dead), |world| {
            let (locked, recorded, done) = (is.folder, false, false);
            let rescue = Rescue { dead: number, locked, begun, tokens, recorded, done };
            world.processors[rescuer].rescue = Some(rescue);
        });
    }

    /// `rescue::rescue`, step by step.
    fn take_over(&mut self, rescuer: usize) {
        let Some(rescue) = self.now.processors[rescuer].rescue.filter(|_| self.now.lives(rescuer)) else { return };
        let dead = usize::from(rescue.dead);
        let next = |world: &mut World, change: &dyn Fn(&mut Rescue)| {
            world.processors[rescuer].rescue.as_mut().into_iter().for_each(change);
        };
        if rescue.done {
            return self.add(Step::Remove(rescuer), |world| {
                world.processors[rescuer].rescue = None;
                if rescue.locked {
                    remove(world, dead);
                }
            });
        }
        let Some(tokens) = rescue.tokens else {
            return self.add(Step::Tokens(rescuer), |world| {
                let mut tokens = [0; JOBS];
                world.owned(dead).for_each(|(job, row)| tokens[job] = row.claim);
                next(world, &|rescue| rescue.tokens = Some(tokens));
            });
        };
        let hidden = self.now.processors[dead].unseen;
        let is_left = |call: &Call| {
            let marked = call.phase.has_token() && tokens[usize::from(call.fence.job)] == call.fence.claim;
            marked && usize::from(call.fence.processor) == dead && !hidden
        };
        let starts = |call: &Call| call.phase == Phase::Starting && !self.without(Check::Starting) && !hidden;
        let leftovers = !self.without(Check::Leftovers);
        if leftovers && self.now.calls.iter().any(|call| is_left(call) || starts(call)) {
            self.add(Step::NotRescued(rescuer), |world| world.processors[rescuer].rescue = None);
            for (which, call) in self.now.calls.iter().enumerate().filter(|(_, call)| is_left(call)) {
                // A processor that lives hears of it.
                self.add(Step::Kill(rescuer, call.fence), |world| {
                    if world.lives(dead) {
                        world.change(which, Phase::Over(End::Failed));
                    } else {
                        world.calls.remove(which);
                    }
                });
            }
            return;
        }
        let noted = |call: &&Call| matches!(call.phase, Phase::Noted(_));
        if rescue.locked && !rescue.recorded && self.now.of(dead).any(|call| noted(&call)) {
            let protocol = self.protocol;
            return self.add(Step::Record(rescuer), |world| {
                let calls = world.calls.clone();
                for call in calls.iter().filter(|call| usize::from(call.fence.processor) == dead) {
                    if let Phase::Noted(end) = call.phase {
                        world.row(call.fence).finish(call.fence, end, call.conflicts, protocol.without);
                        world.changed(protocol, call.fence.job.into(), By::Processor);
                    }
                }
                world.settle(protocol);
                next(world, &|rescue| rescue.recorded = true);
            });
        }
        let protocol = self.protocol;
        self.add(Step::Rescue(rescuer), |world| {
            put_back(world, dead, rescue.begun, protocol);
            next(world, &|rescue| rescue.done = true);
        });
    }
}

/// `Slots::take_back` and `Slots::cancel`.
fn heed_cancel(call: &mut Call) {
    match call.phase {
        Phase::Held => call.phase = Phase::Over(End::Cancelled),
        _ if call.asked == Asked::Nothing => call.asked = Asked::Cancel,
        _ => {}
    }
}

/// `Brake::pull`, and `Drain::give_back_what_waits`.
fn interrupt(call: &mut Call) {
    match call.phase {
        Phase::Held => call.phase = Phase::Returned,
        Phase::Returned | Phase::Over(_) => {}
        _ if call.asked == Asked::Nothing => call.asked = Asked::Interrupt,
        _ => {}
    }
}

/// `Store::advance`: what is over is recorded, what did not begin goes back, and the first that are queued are claimed.
fn advance(world: &mut World, (processor, claims): (usize, usize), heard: bool, protocol: &Protocol) {
    let without = protocol.without;
    let calls = world.calls.clone();
    for call in calls.iter().filter(|call| usize::from(call.fence.processor) == processor) {
        match call.phase {
            Phase::Over(end) => world.row(call.fence).finish(call.fence, end, call.conflicts, without),
            Phase::Returned => world.row(call.fence).give_back(call.fence, without),
            _ => continue,
        }
        world.changed(protocol, call.fence.job.into(), By::Processor);
        if heard {
            world.calls.retain(|other| other != call);
            world.processors[processor].marks &= !(1 << call.fence.job);
        }
    }
    if without != Some(Check::Noted) {
        world.settle(protocol);
    }
    let owner = u8::try_from(processor).expect("few processors");
    let frees_key = protocol.tie == Tie::Key(KeyUntil::Started) && without != Some(Check::KeyAtStart);
    let queued = world.rows.iter_mut().enumerate().filter(|(_, row)| row.is_there && row.state == State::Queued);
    for (job, row) in queued.take(claims) {
        row.become_(State::Processing);
        (row.claim, row.owner, row.token) = (row.claim + 1, Some(owner), true);
        row.key &= !frees_key;
        let job = u8::try_from(job).expect("few jobs");
        let fence = Fence { job, claim: row.claim, processor: owner };
        if heard {
            let (conflicts, phase, asked) = (row.conflicts, Phase::Held, Asked::Nothing);
            world.calls.push(Call { fence, conflicts, phase, asked });
        }
    }
    world.left.unheard -= u8::from(!heard);
}

/// `Store::rescue`.
fn put_back(world: &mut World, dead: usize, begun: Option<u8>, protocol: &Protocol) {
    let mut changed = Vec::new();
    for (job, row) in world.owned(dead).filter(|(_, row)| row.state == State::Processing) {
        if begun.is_none_or(|begun| begun & (1 << job) != 0) {
            row.crashed();
        } else {
            row.go_back();
        }
        changed.push(job);
    }
    for job in changed {
        world.changed(protocol, job, By::Rescuer);
    }
    world.owned(dead).for_each(|(_, row)| row.token = false);
    world.processors[dead].registered = false;
}

/// The folder is removed, with what is noted in it.
fn remove(world: &mut World, dead: usize) {
    world.processors[dead].folder = false;
    let noted = |call: &Call| matches!(call.phase, Phase::Noted(_));
    world.calls.retain(|call| usize::from(call.fence.processor) != dead || !noted(call));
}

/// `Presence::end`, with `Store::unregister`.
fn leave(world: &mut World, processor: usize, protocol: &Protocol) {
    if protocol.without != Some(Check::Unheard) {
        put_back(world, processor, Some(0), protocol);
    }
    // Nothing of it is left, so that its place can stand for the next one.
    world.processors[processor] = Processor::NONE;
}

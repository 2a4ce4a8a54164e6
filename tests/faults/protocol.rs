//! The protocol by which processors claim, run, finish and rescue, as a model: what the store holds, what each processor
//! has in its hands, and every step that any of them, a person or a misfortune can take next. Each step names the code
//! that it stands for.
//!
//! A pause (SIGSTOP) needs no step of its own: whoever takes none, while the others take theirs, is paused, and goes on
//! with all that he had read before. Transactions are single steps, because SQLite runs one writer at a time. Left out:
//! slots and priorities, which decide when something runs, and nested calls, which live and end with their parent. What ties
//! jobs to each other is in [`crate::ties`].

use std::fmt;

use asyncq::domain::attempt::{Conflict, Failure, FailureKind, Outcome};
use asyncq::domain::job::State;
use asyncq::domain::retry::{AttemptCounts, CRASHES};
use asyncq::domain::retry_policy::RetryPolicy;

use crate::explorer::Model;
use crate::steps::{self, Step};
use crate::ties::{self, Tie};

pub const JOBS: usize = 2;

/// What can be left out, to see that it is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// `claim = ?4` in the statements of `store/finish.rs`.
    Claim,
    /// `processor = ?3` there.
    Processor,
    /// `run_dir::liveness`: who holds the lock on its file is alive.
    Lock,
    /// A program that is being started holds the lock of its processor until `execve` has taken place.
    LockWhileStarting,
    /// `orphans::end` waits for programs whose environment cannot be read yet.
    Starting,
    /// `orphans::end` at all.
    Leftovers,
    /// `Store::tokens` is asked after the lock was taken, not before.
    TokensAfterLock,
    /// `Store::unregister` puts back claims that the processor never heard of.
    Unheard,
    /// `cancelling = 0` in `AGAIN` of `store/finish.rs`.
    Cancelling,
    /// The mark is set before the program is started, not after.
    MarkFirst,
    /// What follows for other jobs when a processor records an end.
    FollowEnd,
    /// The same when a rescuer puts jobs back.
    FollowRescue,
    /// The triggers that do the same for people and programs.
    FollowClient,
    /// What comes back goes to the end of its lane.
    Line,
    /// `Need::is_met_by` in `needs::follow`.
    Need,
    /// A processor looks for ends that calls were not told of.
    Noted,
    /// `needs::revive`.
    Revive,
    /// `FREE_KEY` of `store/claim.rs`.
    KeyAtStart,
}

/// How often a misfortune, or what a person does, happens at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Times {
    pub crashes: u8,
    pub stops: u8,
    pub put_backs: u8,
    pub cancels: u8,
    pub retries: u8,
    /// Commits that are told as failures.
    pub unheard: u8,
    /// Stores put back to an older copy, in place, under those who work with them.
    pub restores: u8,
    /// Processors whose folder is removed, and whose process cannot be seen, while they live.
    pub unseen: u8,
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Times { crashes, stops, put_backs, cancels, retries, unheard, restores, unseen } = *self;
        let times = [crashes, stops, put_backs, cancels, retries, unheard, restores, unseen];
        let names = ["crash", "stop", "put back", "cancel", "retry", "unheard commit", "restore", "unseen processor"];
        let told = names.into_iter().zip(times).filter(|(_, times)| *times > 0);
        let told: Vec<_> = told.map(|(name, times)| format!("{times} {name}")).collect();
        f.write_str(&if told.is_empty() { "no misfortune".to_owned() } else { told.join(" + ") })
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Protocol {
    /// How many processors are there at once.
    pub processors: usize,
    pub jobs: usize,
    /// The state of the last job at first.
    pub last: State,
    pub times: Times,
    pub tie: Tie,
    pub without: Option<Check>,
}

/// A row of `asyncq_job`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Row {
    /// Whether it was enqueued.
    pub is_there: bool,
    pub state: State,
    pub key: bool,
    pub claim: u8,
    pub owner: Option<u8>,
    pub token: bool,
    pub cancelling: bool,
    pub conflicts: u8,
    pub crashes: u8,
    /// Of which claim the result is.
    pub result: Option<u8>,
    /// From here on what the store does not know: how often a success was recorded, which claim began to run, and what
    /// went wrong.
    pub successes: u8,
    pub began: u8,
    pub wrong: Option<Wrong>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wrong {
    Transition(State, State),
    NotTheirs,
    /// An attempt that ran went back as if it had not begun, so that it could run for ever.
    NotCharged,
    /// It may run although the job that it needs has not ended so.
    TooEarly,
}

/// Who is meant in the statements of `store/finish.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fence {
    pub job: u8,
    pub claim: u8,
    pub processor: u8,
}

/// A claim, from when its processor has heard of it until its end is recorded; its program may outlive the processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    pub fence: Fence,
    pub conflicts: u8,
    pub phase: Phase,
    pub asked: Asked,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Phase {
    /// Claimed, and not begun.
    Held,
    /// To be put back, as it was not begun.
    Returned,
    /// Marked as begun.
    Marked,
    /// Forked: it has its processor's environment, and its lock.
    Forked,
    /// In the middle of `execve`: it has no environment that could be read, and no lock.
    Starting,
    /// It carries its token.
    Running,
    /// It has completed its own job in a transaction of its own.
    CompletedItself,
    Over(End),
    /// Its processor is dead, and had noted that.
    Noted(End),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Asked {
    Nothing,
    Cancel,
    Interrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    Completed,
    Conflict,
    Failed,
    Cancelled,
    Interrupted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Processor {
    pub life: Liveness,
    pub registered: bool,
    pub folder: bool,
    pub unseen: bool,
    /// The jobs marked in its lock file, as bits.
    pub marks: u8,
    pub rescue: Option<Rescue>,
}

impl Processor {
    pub const NONE: Processor =
        Processor { life: Liveness::NotYet, registered: false, folder: false, unseen: false, marks: 0, rescue: None };
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Liveness {
    NotYet,
    Alive,
    /// Told to stop: claims nothing more.
    Stopping,
    Over,
}

/// What a rescuer has in its hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rescue {
    pub dead: u8,
    /// Whether it holds the lock; not if there was no folder.
    pub locked: bool,
    pub begun: Option<u8>,
    /// For each job the claim whose token was found, or 0.
    pub tokens: Option<[u8; JOBS]>,
    /// Whether what was noted is recorded, and the rest put back.
    pub recorded: bool,
    pub done: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub rows: Vec<Row>,
    pub processors: Vec<Processor>,
    /// Sorted, so that the same calls are the same state.
    pub calls: Vec<Call>,
    pub left: Times,
    /// Whether the second job is still linked to the first, whether it does not know yet that that has ended, and whether it
    /// was cancelled because of that.
    pub link: bool,
    pub noted: bool,
    pub lost: bool,
}

impl Row {
    fn new(state: State) -> Row {
        let (claim, conflicts, crashes, successes, began) = (0, 0, 0, 0, 0);
        let (owner, result, wrong, token, cancelling) = (None, None, None, false, false);
        let (is_there, key) = (true, false);
        Row {
            is_there,
            state,
            key,
            claim,
            owner,
            token,
            cancelling,
            conflicts,
            crashes,
            result,
            successes,
            began,
            wrong,
        }
    }

    pub fn become_(&mut self, next: State) {
        if !self.state.may_become(next) {
            self.wrong = Some(Wrong::Transition(self.state, next));
        }
        self.successes += u8::from(next == State::Completed);
        self.state = next;
    }

    /// Whether the claim of the row is that of the fence, for all that the statements look at.
    fn is_of(&mut self, fence: Fence, state: State, without: Option<Check>) -> bool {
        let claim = self.claim == fence.claim;
        let processor = self.owner == Some(fence.processor);
        let holds = self.state == state
            && (claim || without == Some(Check::Claim))
            && (processor || without == Some(Check::Processor));
        if holds && !(claim && processor) {
            self.wrong = Some(Wrong::NotTheirs);
        }
        holds
    }

    /// `finish` of `store/finish.rs`.
    pub fn finish(&mut self, fence: Fence, end: End, conflicts: u8, without: Option<Check>) {
        let mut state = RetryPolicy::default()
            .decide(&outcome(end), AttemptCounts { conflicts: conflicts.into(), ..AttemptCounts::default() }, 0.5)
            .state;
        if !self.is_of(fence, State::Processing, without) {
            // `COMPLETED_ITSELF`.
            if self.token && self.is_of(fence, State::Completed, without) {
                (self.result, self.token, self.cancelling) = (Some(fence.claim), false, false);
            }
            return;
        }
        if state.is_waiting() && self.cancelling && without != Some(Check::Cancelling) {
            state = State::Cancelled;
        }
        self.become_(state);
        self.token = false;
        self.conflicts += u8::from(end == End::Conflict);
        if !state.is_waiting() {
            self.cancelling = false;
        }
        if state == State::Completed {
            self.result = Some(fence.claim);
        }
    }

    /// `GIVE_BACK` of `store/finish.rs`.
    pub fn give_back(&mut self, fence: Fence, without: Option<Check>) {
        if self.is_of(fence, State::Processing, without) {
            self.go_back();
        }
    }

    pub fn go_back(&mut self) {
        if self.began == self.claim {
            self.wrong = Some(Wrong::NotCharged);
        }
        self.become_(if self.cancelling { State::Cancelled } else { State::Queued });
        (self.token, self.cancelling) = (false, false);
    }

    /// `crashed` of `store/rescue.rs`.
    pub fn crashed(&mut self) {
        self.crashes += 1;
        self.become_(match () {
            () if self.cancelling => State::Cancelled,
            () if i64::from(self.crashes) >= CRASHES => State::Error,
            () => State::Queued,
        });
        (self.token, self.cancelling) = (false, false);
    }
}

fn outcome(end: End) -> Outcome {
    match end {
        End::Completed => Outcome::Completed,
        End::Conflict => Outcome::Conflict(Conflict::default()),
        End::Failed => Outcome::Failed(Failure::new(FailureKind::Exit, "exit code 1")),
        End::Cancelled => Outcome::Cancelled,
        End::Interrupted => Outcome::Interrupted,
    }
}

impl Phase {
    /// Whether there is a process, or half of one.
    pub fn is_process(self) -> bool {
        matches!(self, Phase::Forked | Phase::Starting | Phase::Running | Phase::CompletedItself)
    }

    pub fn has_token(self) -> bool {
        matches!(self, Phase::Running | Phase::CompletedItself)
    }
}

impl World {
    pub fn lives(&self, processor: usize) -> bool {
        matches!(self.processors[processor].life, Liveness::Alive | Liveness::Stopping)
    }

    /// Whether its main thread can take a step of its own; slots always can.
    pub fn is_free(&self, processor: usize) -> bool {
        self.lives(processor) && self.processors[processor].rescue.is_none()
    }

    pub fn of(&self, processor: usize) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(move |call| usize::from(call.fence.processor) == processor)
    }

    pub fn row(&mut self, fence: Fence) -> &mut Row {
        &mut self.rows[usize::from(fence.job)]
    }

    pub fn change(&mut self, which: usize, phase: Phase) {
        self.calls[which].phase = phase;
    }

    /// The row of the processor, at which the store has it as the owner of a claim.
    pub fn owned(&mut self, processor: usize) -> impl Iterator<Item = (usize, &mut Row)> {
        let owner = u8::try_from(processor).ok();
        self.rows.iter_mut().enumerate().filter(move |(_, row)| row.token && row.owner == owner)
    }
}

impl Model for Protocol {
    type State = World;
    type Step = Step;

    fn first(&self) -> World {
        let mut rows = vec![Row::new(State::Queued); self.jobs];
        rows[self.jobs - 1].state = self.last;
        match self.tie {
            Tie::Nothing => {}
            Tie::Lane | Tie::Needs(_) => rows[1].state = State::Blocked,
            Tie::Key(_) => (rows[0].key, rows[1].is_there) = (true, false),
        }
        let processors = vec![Processor::NONE; self.processors + usize::from(self.times.crashes)];
        let link = matches!(self.tie, Tie::Needs(_));
        World { rows, processors, calls: Vec::new(), left: self.times, link, noted: false, lost: false }
    }

    fn steps(&self, now: &World) -> Vec<(Step, World)> {
        steps::all(self, now)
    }

    fn fault(&self, world: &World) -> Option<String> {
        if let Some(wrong) = world.rows.iter().find_map(|row| row.wrong) {
            return Some(format!("{wrong:?}"));
        }
        if let Some(fault) = ties::fault(self, world) {
            return Some(fault.to_owned());
        }
        for (job, row) in world.rows.iter().enumerate() {
            if row.cancelling && row.state.is_waiting() {
                return Some("what was to be cancelled waits to be run".to_owned());
            }
            if row.successes > 1 {
                return Some("two successes of one job".to_owned());
            }
            if row.state == State::Completed && row.result.is_some_and(|claim| claim != row.claim) {
                return Some("the result of another attempt".to_owned());
            }
            let running =
                world.calls.iter().filter(|call| usize::from(call.fence.job) == job && call.phase.is_process());
            let running: Vec<_> = running.collect();
            // Whose lock can be lost, or whose store, has these promises no more, and only the fences are left.
            if self.times.unseen + self.times.restores > 0 {
                continue;
            }
            if running.len() > 1 {
                return Some("two programs of one job at once".to_owned());
            }
            let theirs = |call: &&&Call| row.owner == Some(call.fence.processor) && row.claim == call.fence.claim;
            let is_current = matches!(row.state, State::Processing | State::Completed);
            if running.iter().any(|call| !is_current || !theirs(&call)) {
                return Some("a program runs whose attempt is over".to_owned());
            }
        }
        None
    }

    fn has_ended(&self, world: &World) -> bool {
        world.rows.iter().all(|row| !row.is_there || row.state.has_ended())
    }

    fn is_misfortune(&self, step: Step) -> bool {
        let by_people = matches!(step, Step::Cancel(_) | Step::Retry(_) | Step::Stop(_));
        let rare = matches!(step, Step::Crash(..) | Step::Restore | Step::Unseen(_) | Step::PutBack(_));
        by_people || rare || matches!(step, Step::CycleResult { heard: false, .. })
    }
}

//! Putting calls on queues.
//!
//! Own calls are checked here, not by the schema's triggers, which do the same for plain INSERTs and take time for each.

use std::collections::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};

use super::engine::{Triggers, Tx, one};
use super::insert::{Insertion, Standing, alike, insert};
use super::{Store, function, key, lane, needs};
use crate::domain::call::{Call, Principal};
use crate::domain::job::{JobId, State};
use crate::domain::lane::Lane;
use crate::domain::new_job::{Enqueued, NewJob};
use crate::domain::signature::Signature;
use crate::error::{Error, Kind, Result};

/// Why a batch was refused. Nothing of it is enqueued.
#[derive(Debug)]
pub struct Refused {
    /// Which of the calls is the reason, counted from 0, if it is one of them.
    pub call: Option<usize>,
    /// What is wrong.
    pub error: Error,
}

impl Store {
    /// Puts a call on its service's queue; durable when this returns. The job waits if it is to be held.
    ///
    /// # Errors
    /// [`Kind::NotFound`] when there is no such service or function; [`Kind::Usage`] when the function does not take these
    /// arguments; [`Kind::Denied`] when the key belongs to another call.
    pub fn enqueue(&mut self, new: &NewJob) -> Result<Enqueued> {
        let done = self.enqueue_all(std::slice::from_ref(new)).map_err(|refused| refused.error)?;
        one(done.first().copied())
    }

    /// Puts calls on their services' queues, in this order, all in one transaction or none; durable when this returns.
    ///
    /// # Errors
    /// As [`Store::enqueue`], of the first call that is refused.
    pub fn enqueue_all(&mut self, new: &[NewJob]) -> Result<Vec<Enqueued>, Refused> {
        self.enqueue_all_and(new, &mut |_, _| Ok(()))
    }

    /// Does the same, and more with the jobs in the same transaction.
    pub(super) fn enqueue_all_and(&mut self, new: &[NewJob], and: &mut AndThen<'_>) -> Result<Vec<Enqueued>, Refused> {
        let done = self.insert_all(new, &mut |_, error| Err(error), and)?;
        // Where one was refused, there is an error.
        Ok(done.into_iter().flatten().collect())
    }

    /// Puts each of these calls on its service's queue that is not refused, in this order, in one transaction; durable when this
    /// returns. Says of each what became of it. It takes several transactions where a rule of the application ends one.
    ///
    /// # Errors
    /// Whatever the database answers; then none is enqueued. The refusal of a call is as for [`Store::enqueue`].
    pub fn enqueue_each(&mut self, new: &[NewJob]) -> Result<Vec<Result<Enqueued>>> {
        let mut refused = BTreeMap::new();
        let done = self.insert_all(
            new,
            &mut |index, error| {
                refused.insert(index, error);
                Ok(())
            },
            &mut |_, _| Ok(()),
        );
        match done {
            Ok(done) => {
                let done = done.into_iter().enumerate();
                Ok(done
                    .map(|(index, done)| done.ok_or_else(|| refused.remove(&index).expect("it was refused")))
                    .collect())
            }
            // It may also fail at the commit, and then it is unknown which call is the cause.
            Err(Refused { error, .. }) if error.kind() == Kind::Denied && !new.is_empty() => {
                self.enqueue_around(new, error)
            }
            Err(Refused { error, .. }) => Err(error),
        }
    }

    /// Enqueues calls again after a rule of the application has refused one of them and ended the transaction. The others go
    /// in without it.
    fn enqueue_around(&mut self, new: &[NewJob], refusal: Error) -> Result<Vec<Result<Enqueued>>> {
        if new.len() == 1 {
            return Ok(vec![Err(refusal)]);
        }
        let (first, second) = new.split_at(new.len() / 2);
        let mut done = self.enqueue_each(first)?;
        // The first ones are durable by now, so this fails for the second ones only.
        done.extend(self.enqueue_each(second).unwrap_or_else(|error| {
            second.iter().map(|_| Err(error.reworded(error.kind(), error.to_string()))).collect()
        }));
        Ok(done)
    }

    /// Inserts calls in one transaction. The error tells which of them has ended it, if one has.
    fn insert_all(
        &mut self,
        new: &[NewJob],
        refuse: &mut OnRefusal<'_>,
        and: &mut AndThen<'_>,
    ) -> Result<Vec<Option<Enqueued>>, Refused> {
        let mut reached = None;
        // An application's own triggers are to see its calls.
        let done = self.change(Triggers::IfForeign, |tx| {
            let way = if tx.runs_triggers() { Insertion::Client } else { Insertion::Own };
            let mut calls = Calls { way, known: HashMap::new(), done: Vec::with_capacity(new.len()) };
            let enqueued = calls.enqueue(tx, new, refuse);
            reached = Some(calls.done.len()).filter(|at| enqueued.is_err() && *at < new.len());
            enqueued?;
            let jobs: Vec<Enqueued> = calls.done.iter().copied().flatten().collect();
            and(tx, &jobs)?;
            Ok(calls.done)
        });
        done.map_err(|error| match error.kind() {
            // SQLite says the same of a full disk and of a table without a number left.
            Kind::Full => Refused { call: None, error: self.check_numbers().err().unwrap_or(error) },
            Kind::NotFound | Kind::Denied | Kind::Busy | Kind::Usage => Refused { call: reached, error },
            _ => Refused { call: None, error },
        })
    }
}

/// What happens with the new jobs in the same transaction.
type AndThen<'a> = dyn FnMut(&mut dyn Tx, &[Enqueued]) -> Result<()> + 'a;

/// Makes jobs of calls that asyncq makes itself, within a transaction; says of each which job that is, or why it was refused.
pub(super) fn make(tx: &mut dyn Tx, new: &[NewJob]) -> Result<Vec<Result<JobId>>> {
    let way = if tx.runs_triggers() { Insertion::Client } else { Insertion::Own };
    let mut calls = Calls { way, known: HashMap::new(), done: Vec::with_capacity(new.len()) };
    let mut refused = BTreeMap::new();
    calls.enqueue(tx, new, &mut |index, error| {
        refused.insert(index, error);
        Ok(())
    })?;
    let done = calls.done.into_iter().enumerate();
    Ok(done
        .map(|(index, done)| {
            done.map(Enqueued::id).ok_or_else(|| refused.remove(&index).expect("what is not there was refused"))
        })
        .collect())
}

/// Gets the number of a call that is refused, counted from 0, and why. To end the transaction without a change, it fails.
type OnRefusal<'a> = dyn FnMut(usize, Error) -> Result<()> + 'a;

/// Calls that become jobs, in one transaction.
struct Calls<'a> {
    way: Insertion,
    /// Functions that are there, with their services.
    known: HashMap<(&'a str, &'a str), KnownFunction>,
    /// The jobs of the calls so far; `None` for one that was refused.
    done: Vec<Option<Enqueued>>,
}

/// What calls have to know of their function.
struct KnownFunction {
    /// The lane of calls that name none.
    lane: Option<Lane>,
    takes: Option<Signature>,
}

impl KnownFunction {
    /// Which of the next calls can be inserted together, of this number that could be: all that are as they were given, or the
    /// first one alone, as the function gets it. The error says why the function does not take the first one.
    fn fit(&self, next: &[NewJob], together: usize) -> Result<(usize, Option<NewJob>)> {
        let Some(takes) = &self.takes else { return Ok((together, None)) };
        if let Some((args, kwargs)) = takes.fit(&next[0].call)? {
            let call = Call { args, kwargs, ..next[0].call.clone() };
            return Ok((1, Some(NewJob { call, ..next[0].clone() })));
        }
        let all_fit = next[1..together].iter().all(|new| matches!(takes.fit(&new.call), Ok(None)));
        Ok((if all_fit { together } else { 1 }, None))
    }
}

impl<'a> Calls<'a> {
    /// Inserts all calls as jobs, and goes on after one that is refused if `refuse` lets it.
    fn enqueue(&mut self, tx: &mut dyn Tx, new: &'a [NewJob], refuse: &mut OnRefusal<'_>) -> Result<()> {
        // Calls before this one are inserted one by one.
        let mut singly = 0;
        while self.done.len() < new.len() {
            let (at, rest) = (self.done.len(), &new[self.done.len()..]);
            let may_group = self.way == Insertion::Own && at >= singly;
            let fitting = self.know(tx, &rest[0])?.and_then(|known| {
                let together = if may_group && known.lane.is_none() { alike(rest) } else { 1 };
                Ok((together, known.fit(rest, together)?))
            });
            let (together, (alike, fitted)) = match fitting {
                Ok(fitting) => fitting,
                Err(error) => {
                    refuse(at, error)?;
                    self.done.push(None);
                    continue;
                }
            };
            if alike < together {
                singly = at + together;
            }
            match self.enqueue_alike(tx, fitted.as_ref().map_or(&rest[..alike], std::slice::from_ref))? {
                Ok(()) => {}
                // Which of them is refused?
                Err(_) if alike > 1 => singly = at + alike,
                Err(error) => {
                    refuse(at, error)?;
                    self.done.push(None);
                }
            }
        }
        let is_there = |it: &_| matches!(it, Some(Enqueued::Same(_)));
        let is_new = |it: &_| matches!(it, Some(Enqueued::New(_)));
        if self.done.iter().any(is_there) && !self.done.iter().any(is_new) { tx.force_sync() } else { Ok(()) }
    }

    /// Looks whether the function of a call is there; the inner error says why not.
    fn know(&mut self, tx: &mut dyn Tx, new: &'a NewJob) -> Result<Result<&KnownFunction>> {
        let Call { service, function, .. } = &new.call;
        match self.known.entry((service.as_str(), function.as_str())) {
            Entry::Occupied(known) => Ok(Ok(known.into_mut())),
            Entry::Vacant(unknown) => {
                let found = refusal(function::find_to_use(tx, service, function))?;
                Ok(found.map(|found| {
                    let (lane, takes) = (found.definition.policy.lane, found.definition.inputs.takes);
                    &*unknown.insert(KnownFunction { lane, takes })
                }))
            }
        }
    }

    /// Where the job of a call stands first; `waits` says whether it needs a job that has not ended. The triggers bring the
    /// call of a client there.
    fn standing(&self, tx: &dyn Tx, new: &NewJob, waits: bool) -> Standing {
        let Call { service, function, principal, .. } = &new.call;
        let options = &new.options;
        let after = (!options.needs.is_empty()).then(|| options.needs.to_json());
        if self.way == Insertion::Client {
            let state = if new.hold { State::Held } else { State::Queued };
            return Standing { lane: options.lane.clone(), after, ..Standing::alone(state) };
        }
        let of_function = self.known.get(&(service.as_str(), function.as_str())).and_then(|known| known.lane.as_ref());
        let lane = options
            .lane
            .clone()
            .or_else(|| of_function.and_then(|lane| lane.of_call(principal.as_ref().map(Principal::as_str))));
        let is_later = new.due.moment(tx.now()).is_some_and(|due| due > tx.now());
        let (state, waits) = match (new.hold, waits, is_later, &lane) {
            (true, ..) => (State::Held, 0),
            (false, true, ..) => (State::Blocked, 1),
            (false, false, true, _) => (State::Delayed, 0),
            (false, false, false, Some(_)) => (State::Blocked, 2),
            (false, false, false, None) => (State::Queued, 0),
        };
        Standing { state, waits, lane, after }
    }

    /// Inserts one call, or several that are [`alike`]. The inner error says why it is refused; then others can still be
    /// inserted.
    fn enqueue_alike(&mut self, tx: &mut dyn Tx, calls: &[NewJob]) -> Result<Result<()>> {
        let resolved;
        let (first, calls) = if calls[0].options.needs.has_earlier() {
            let job = |call: usize| self.done.get(call).copied().flatten().map(Enqueued::id);
            let mut new = calls[0].clone();
            match refusal(new.options.needs.resolve_earlier(job))? {
                Ok(needs) => new.options.needs = needs,
                Err(error) => return Ok(Err(error)),
            }
            resolved = [new];
            (&resolved[0], &resolved[..])
        } else {
            (&calls[0], calls)
        };
        match key::taken(tx, first, self.way)? {
            Ok(None) => {}
            Ok(Some(id)) => {
                self.done.push(Some(Enqueued::Same(id)));
                return Ok(Ok(()));
            }
            Err(error) => return Ok(Err(error)),
        }
        let waits = match refusal(needs::check(tx, &first.options.needs))? {
            Ok(waits) => waits,
            Err(error) => return Ok(Err(error)),
        };
        let stands = self.standing(tx, first, waits);
        let jobs = match insert(tx, calls, &stands, self.way)? {
            Ok(jobs) => jobs,
            Err(error) => return Ok(Err(error)),
        };
        if let ([job], Insertion::Own) = (&jobs[..], self.way) {
            needs::link(tx, *job, &first.options.needs)?;
            if stands.lane.is_some() {
                lane::let_out(tx, *job)?;
            }
        }
        if jobs.len() == calls.len() {
            self.done.extend(jobs.into_iter().map(|id| Some(Enqueued::New(id))));
            return Ok(Ok(()));
        }
        // Somebody else has just taken the key; else it is the application that wants no such job.
        match key::taken(tx, first, self.way)? {
            Ok(Some(id)) => {
                self.done.push(Some(Enqueued::Same(id)));
                Ok(Ok(()))
            }
            Ok(None) => refusal(Err(tx.passed_over())),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// Tells what refuses a call, which has changed nothing, from what fails.
fn refusal<T>(done: Result<T>) -> Result<Result<T>> {
    match done {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Denied) => Ok(Err(error)),
        done => done.map(Ok),
    }
}

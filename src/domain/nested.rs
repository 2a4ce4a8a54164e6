//! Calls that ran inside a call, in the same process, as its worker reports them.

use std::time::Duration;

use super::attempt::Outcome;
use super::call::Call;
use super::json::Json;

/// How deep nested calls may be: a queued job is at depth 0, a nested call that it makes at depth 1.
pub const MAX_NESTING: i64 = 32;

/// How many of them are recorded. The rest is only counted.
pub const MOST_RECORDED: usize = 100;

/// How many bytes their reports have together at most.
pub const LONGEST: usize = 1024 * 1024;

/// The calls inside a call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NestedCalls {
    /// Those to record, in the order in which they began.
    pub calls: Vec<NestedCall>,
    /// How many more there were.
    pub unrecorded: u64,
    /// The calls that were running when the latest one began, from the outside in, as places in `calls`; `None` for one that is not
    /// recorded.
    running: Vec<Option<usize>>,
}

/// A call inside another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NestedCall {
    /// The call. Its principal and its site are those of the job.
    pub call: Call,
    /// The place in the list of the call that made it; `None` if that is the job itself.
    pub parent: Option<usize>,
    /// How deep it is in the job: 1 for a call that the job itself made.
    pub depth: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// What it returned.
    pub result: Option<Json>,
    /// How long it took.
    pub took: Duration,
}

impl NestedCalls {
    /// Whether another call can be recorded.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.calls.len() < MOST_RECORDED
    }

    /// Adds the next call, at this depth, or at an unknown depth below 1; `None` stands for one that cannot be recorded. A call is
    /// not recorded either if the call that made it is not.
    pub fn add(&mut self, depth: i64, call: Option<NestedCall>) {
        // After a call of unknown depth, nobody knows which calls the next ones run in.
        let above = usize::try_from(depth.saturating_sub(1)).ok();
        let is_placed = above.is_some_and(|above| depth <= MAX_NESTING && above <= self.running.len());
        if is_placed || above.is_none() {
            self.running.truncate(above.unwrap_or_default());
        }
        let parent = self.running.last().copied();
        let call = call.filter(|_| is_placed && self.has_room() && parent != Some(None));
        let place = call.is_some().then_some(self.calls.len());
        match call {
            Some(call) => self.calls.push(NestedCall { parent: parent.flatten(), depth, ..call }),
            None => self.leave_out(1),
        }
        if is_placed {
            self.running.push(place);
        }
    }

    /// Counts calls that are not recorded.
    pub fn leave_out(&mut self, count: u64) {
        self.unrecorded = self.unrecorded.saturating_add(count);
    }

    /// Counts all of them and records none.
    pub fn leave_out_all(&mut self) {
        self.leave_out(self.calls.len() as u64);
        self.calls.clear();
    }

    /// About how many bytes they have.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let of = |it: &NestedCall| {
            it.call.args.as_str().len()
                + it.call.kwargs.as_str().len()
                + it.result.as_ref().map_or(0, |it| it.as_str().len())
        };
        self.calls.iter().map(of).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::super::function::FunctionName;
    use super::super::service::ServiceName;
    use super::*;

    fn call() -> NestedCall {
        let (service, function) = (ServiceName::parse("events").unwrap(), FunctionName::parse("inner").unwrap());
        let call = Call::new(service, function, Json::parse("[]").unwrap(), Json::parse("{}").unwrap());
        NestedCall { call, parent: None, depth: 0, outcome: Outcome::Completed, result: None, took: Duration::ZERO }
    }

    /// Depths, negative for calls that cannot be recorded; the parents of those that are, and how many are not.
    fn tree(depths: &[i64]) -> (Vec<Option<usize>>, u64) {
        let mut nested = NestedCalls::default();
        for depth in depths {
            nested.add(depth.abs(), (*depth > 0).then(call));
        }
        (nested.calls.iter().map(|call| call.parent).collect(), nested.unrecorded)
    }

    #[test]
    fn each_call_has_the_one_that_made_it() {
        assert_eq!(tree(&[1, 2, 3, 2, 1, 2]), (vec![None, Some(0), Some(1), Some(0), None, Some(4)], 0));
    }

    #[test]
    fn a_call_whose_caller_is_missing_is_left_out() {
        assert_eq!(tree(&[2, 3, 1, 3, 2]), (vec![None, Some(0)], 3));
        assert_eq!(tree(&[1, -1, 2, 3, 1, 2]), (vec![None, None, Some(1)], 3));
        assert_eq!(tree(&[1, 2, -2, 3, 2]), (vec![None, Some(0), Some(0)], 2));
        assert_eq!(tree(&[1, 0, 2, 1, i64::MAX, 2]), (vec![None, None, Some(1)], 3));
        let deep: Vec<i64> = (1..=40).collect();
        assert_eq!((tree(&deep).0.len(), tree(&deep).1), (32, 8));
    }

    #[test]
    fn as_many_as_there_is_room_for_are_kept() {
        let (parents, rest) = tree(&[1; 150]);
        assert_eq!((parents.len(), rest), (MOST_RECORDED, 50));
    }
}

//! Goes through every state that a model can be in, breadth first, so that a trace to a fault is a shortest one.
//!
//! States are known by 64 bits of hash, as in other model checkers: for ten million states the chance that two share one
//! is about three in a million.

use std::collections::{HashMap, VecDeque};
use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

/// What is explored.
pub trait Model {
    type State: Clone + Hash + Debug;
    type Step: Copy + Debug;

    fn first(&self) -> Self::State;
    /// Every step that can be taken, with the state after it.
    fn steps(&self, state: &Self::State) -> Vec<(Self::Step, Self::State)>;
    /// What is wrong with a state.
    fn fault(&self, state: &Self::State) -> Option<String>;
    /// Whether everything has ended.
    fn has_ended(&self, state: &Self::State) -> bool;
    /// Whether a step is a misfortune, on which nobody may rely to reach the end.
    fn is_misfortune(&self, step: Self::Step) -> bool;
}

/// What was found.
#[derive(Debug)]
pub struct Explored {
    pub states: usize,
    pub transitions: usize,
    pub deepest: usize,
    /// The first fault, with the steps that lead to it.
    pub fault: Option<String>,
}

struct Search<'a, M: Model> {
    model: &'a M,
    known: HashMap<u64, u32>,
    /// From where and by which step each state was reached first.
    parents: Vec<(u32, Option<M::Step>)>,
    /// To and from, without the misfortunes.
    edges: Vec<(u32, u32)>,
    ended: Vec<u32>,
    transitions: usize,
}

/// Explores all of it, or up to the first fault. A state from which the end cannot be reached is one.
pub fn explore<M: Model>(model: &M) -> Explored {
    let (known, parents) = (HashMap::new(), Vec::new());
    let mut search = Search { model, known, parents, edges: Vec::new(), ended: Vec::new(), transitions: 0 };
    let fault = search.forward().or_else(|| search.backward());
    let (states, transitions) = (search.parents.len(), search.transitions);
    let deepest = search.path(states.saturating_sub(1)).len();
    Explored { states, transitions, deepest, fault }
}

impl<M: Model> Search<'_, M> {
    fn forward(&mut self) -> Option<String> {
        let mut queue = VecDeque::from([self.model.first()]);
        self.meet(&queue[0], 0, None);
        let mut index = 0;
        while let Some(state) = queue.pop_front() {
            if let Some(fault) = self.model.fault(&state) {
                return Some(self.tell(&fault, index as usize, &state));
            }
            if self.model.has_ended(&state) {
                self.ended.push(index);
            }
            for (step, next) in self.model.steps(&state) {
                self.transitions += 1;
                let (to, new) = self.meet(&next, index, Some(step));
                if !self.model.is_misfortune(step) {
                    self.edges.push((to, index));
                }
                if new {
                    queue.push_back(next);
                }
            }
            index += 1;
        }
        None
    }

    fn meet(&mut self, state: &M::State, from: u32, step: Option<M::Step>) -> (u32, bool) {
        let mut hasher = DefaultHasher::new();
        state.hash(&mut hasher);
        let next = u32::try_from(self.parents.len()).expect("fewer than 2^32 states");
        let index = *self.known.entry(hasher.finish()).or_insert(next);
        if index == next {
            self.parents.push((from, step));
        }
        (index, index == next)
    }

    /// Looks from the ends backwards for a state that reaches none.
    fn backward(&mut self) -> Option<String> {
        self.edges.sort_unstable();
        let mut reaches = vec![false; self.parents.len()];
        let mut todo = std::mem::take(&mut self.ended);
        while let Some(state) = todo.pop() {
            if std::mem::replace(&mut reaches[state as usize], true) {
                continue;
            }
            let begin = self.edges.partition_point(|edge| edge.0 < state);
            let before = self.edges[begin..].iter().take_while(|edge| edge.0 == state).map(|edge| edge.1);
            todo.extend(before.filter(|from| !reaches[*from as usize]));
        }
        let stuck = reaches.iter().position(|reaches| !reaches)?;
        Some(self.tell("the end cannot be reached from here", stuck, &self.replay(stuck)))
    }

    fn path(&self, mut index: usize) -> Vec<M::Step> {
        let mut steps = Vec::new();
        while let Some(&(from, Some(step))) = self.parents.get(index) {
            steps.push(step);
            index = from as usize;
        }
        steps.reverse();
        steps
    }

    fn replay(&self, index: usize) -> M::State {
        self.path(index).into_iter().fold(self.model.first(), |state, step| {
            let wanted = format!("{step:?}");
            let found = self.model.steps(&state).into_iter().find(|(step, _)| format!("{step:?}") == wanted);
            found.expect("a step that was taken once").1
        })
    }

    fn tell(&self, fault: &str, index: usize, state: &M::State) -> String {
        let steps: Vec<_> = self.path(index).iter().map(|step| format!("{step:?}")).collect();
        format!("{fault}, after {} steps:\n  {}\nthen: {state:#?}", steps.len(), steps.join("\n  "))
    }
}

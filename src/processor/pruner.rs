//! When a processor removes old jobs, and how many at once.

use std::time::{Duration, Instant};

use crate::error::{Kind, Result};
use crate::store::{Patience, Store};

/// How long to wait after a round, and after an error that may pass.
const BETWEEN: Duration = Duration::from_secs(60);

/// How long to wait for a store that others keep busy.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long a step should take. Other writers wait during a step.
const STEP: Duration = Duration::from_millis(15);

/// While calls run, steps take at most one part in this many of the time.
const SHARE: u32 = 20;

/// How many jobs one step removes at least, and at most.
const FEWEST: u16 = 10;
const MOST: u16 = 2000;

/// Removes jobs that are older than their service keeps them.
pub(super) struct Pruner {
    /// When to make the next step.
    next: Instant,
    /// How many jobs it removes at most.
    most: u16,
}

impl Pruner {
    /// One that makes its first step at once.
    pub(super) fn new() -> Pruner {
        Pruner { next: Instant::now(), most: 200 }
    }

    /// How long until the next step.
    pub(super) fn until(&self) -> Duration {
        self.next.saturating_duration_since(Instant::now())
    }

    /// Makes a step. Returns whether old jobs are left.
    pub(super) fn step(&mut self, store: &mut Store) -> Result<bool> {
        store.be_patient(Patience::Deadline(PATIENCE));
        let began = Instant::now();
        let pruned = match store.prune(self.most) {
            Ok(pruned) => pruned,
            Err(error) if error.is_transient() || error.kind() == Kind::Full => {
                self.next = Instant::now() + BETWEEN;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let took = began.elapsed();
        if pruned.removed > 0 {
            let scale = STEP.as_secs_f64() / took.as_secs_f64().max(1e-6);
            // At most twice as many as before, because the next jobs may have long outputs.
            let next = f64::from(self.most) * scale.clamp(0.1, 2.0);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is clamped")]
            let next = next.clamp(f64::from(FEWEST), f64::from(MOST)) as u16;
            self.most = next;
        }
        self.next = Instant::now() + if pruned.more { took * SHARE } else { BETWEEN };
        Ok(pruned.more)
    }
}

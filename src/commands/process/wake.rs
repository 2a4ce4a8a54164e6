//! What wakes a processor that waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, OnceLock};

use super::slots::{Brake, Done};
use crate::runner::Stop;

/// What wakes the loop.
pub(super) enum Wake {
    /// A call has ended.
    Done(Box<Done>),
    /// A signal to stop came.
    Stop,
}

/// Counts the signals to stop.
#[derive(Clone)]
pub(super) struct StopButton {
    pressed: Arc<AtomicUsize>,
    brake: Arc<OnceLock<Brake>>,
    wake: Sender<Wake>,
}

impl StopButton {
    pub(super) fn new(wake: Sender<Wake>) -> StopButton {
        StopButton { pressed: Arc::default(), brake: Arc::default(), wake }
    }

    /// From now on, signals reach the slots themselves: the loop may be waiting for the store.
    pub(super) fn connect(&self, brake: Brake) {
        if self.brake.set(brake).is_ok() {
            self.pull();
        }
    }

    fn pull(&self) {
        let Some(brake) = self.brake.get() else { return };
        match self.pressed() {
            0 => {}
            1 => brake.pull(Stop::No),
            2 => brake.pull(Stop::Interrupt),
            _ => brake.pull(Stop::Kill),
        }
    }

    /// How many signals have come.
    pub(super) fn pressed(&self) -> usize {
        self.pressed.load(Ordering::SeqCst)
    }

    pub(super) fn press(&self) {
        self.pressed.fetch_add(1, Ordering::SeqCst);
        self.pull();
        // Without a listener the processor is ending anyway.
        let _ = self.wake.send(Wake::Stop);
    }
}

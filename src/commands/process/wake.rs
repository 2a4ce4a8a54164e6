//! What wakes a processor that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Sender;

use super::slots::Done;

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
    wake: Sender<Wake>,
}

impl StopButton {
    pub(super) fn new(wake: Sender<Wake>) -> StopButton {
        StopButton { pressed: Arc::default(), wake }
    }

    /// How many signals have come.
    pub(super) fn pressed(&self) -> usize {
        self.pressed.load(Ordering::SeqCst)
    }

    pub(super) fn press(&self) {
        self.pressed.fetch_add(1, Ordering::SeqCst);
        // Without a listener the processor is ending anyway.
        let _ = self.wake.send(Wake::Stop);
    }
}

//! The signals by which a person, cron or a service manager asks a program to stop.

use std::io;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `asked` in a thread of its own whenever this process is asked to stop, from now on until it ends.
///
/// # Errors
/// When the system refuses handlers.
pub fn on_stop(mut asked: impl FnMut() + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".to_owned()).stack_size(64 * 1024).spawn(move || {
        for _ in signals.forever() {
            asked();
        }
    })?;
    Ok(())
}

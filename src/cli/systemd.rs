//! What systemd wants to hear of a service that stays.

use std::time::Duration;

use sd_notify::NotifyState;

/// Tells systemd, if it listens (`$NOTIFY_SOCKET`). What it does not hear is its own affair.
pub fn tell(what: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(what);
}

/// How often systemd wants to hear that the service lives: twice in the time after which it takes it for dead
/// (`$WATCHDOG_USEC`, `sd_watchdog_enabled(3)`).
pub fn pulse() -> Option<Duration> {
    // `$WATCHDOG_PID` names the process that systemd has started, which supervises this one.
    let time: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (time > 0).then(|| Duration::from_micros(time / 2))
}

//! Notifications for systemd.

use std::time::Duration;

use sd_notify::NotifyState;

/// Notifies systemd, if it listens (`$NOTIFY_SOCKET`). A notification that fails is ignored.
pub fn notify(what: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(what);
}

/// How often to send a keep-alive: twice within the time after which systemd takes the service for dead (`$WATCHDOG_USEC`,
/// `sd_watchdog_enabled(3)`).
pub fn keep_alive_interval() -> Option<Duration> {
    // `$WATCHDOG_PID` is not checked: it names the process that systemd started, which is the supervisor of this one.
    let time: u64 = std::env::var("WATCHDOG_USEC").ok()?.parse().ok()?;
    (time > 0).then(|| Duration::from_micros(time / 2))
}

//! What a service manager is told (sd_notify): that the program is ready, still runs, and ends. Without one nothing is told.

use std::time::Duration;

use sd_notify::NotifyState;

/// The manager is told that often within the time after which it takes a silent program for dead.
const WITHIN_WATCHDOG: u32 = 3;

/// The program serves from now on.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The program begins to end.
pub fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Tells the manager that the program still runs, as often as it wants to hear it. Never ends; safe to drop.
pub async fn watchdog() {
    let every = sd_notify::watchdog_enabled().map(|limit| limit / WITHIN_WATCHDOG);
    // A manager that sets no time wants to hear nothing.
    let Some(every) = every.filter(|every| *every > Duration::ZERO) else {
        return std::future::pending().await;
    };
    loop {
        tell(&[NotifyState::Watchdog]);
        tokio::time::sleep(every).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("cannot tell the service manager how this program is: {error}");
    }
}

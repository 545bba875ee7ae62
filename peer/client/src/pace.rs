//! Which rate limits hold now: those that the user set, or those of the schedule's windows. They are switched when a window
//! begins or ends.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{Timestamp, Zoned};
use tokio::sync::Notify;

use crate::schedule::{Limits, MAX_WINDOWS, Window, limits_at, next_change};
use crate::store::{Store, StoreError};
use crate::{Client, ClientError, Direction};

/// Settings that hold the usual rate limits, in bytes per second, and the windows, one per line.
const LIMIT_UP: &str = "limit_up";
const LIMIT_DOWN: &str = "limit_down";
const SCHEDULE: &str = "schedule";
/// At the latest after this time the clock is looked at again, while there are windows: it may have been set, or the machine was
/// asleep or carried into another time zone.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Pace {
    wanted: Mutex<Wanted>,
    changed: Notify,
}

#[derive(Default)]
struct Wanted {
    usual: Limits,
    windows: Vec<Window>,
    /// What holds since the last look.
    applied: Limits,
}

impl Pace {
    /// What was set before.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn load(store: &Store) -> Result<Self, StoreError> {
        let usual = Limits { up: limit(store, LIMIT_UP).await?, down: limit(store, LIMIT_DOWN).await? };
        let text = store.setting(SCHEDULE).await?.unwrap_or_default();
        let windows = text.lines().filter_map(|line| match line.parse() {
            Ok(window) => Some(window),
            Err(error) => {
                tracing::warn!(%error, line, "a window of the schedule is left out");
                None
            }
        });
        let mut wanted = Wanted { usual, windows: windows.take(MAX_WINDOWS).collect(), applied: usual };
        wanted.applied = wanted.now();
        Ok(Self { wanted: Mutex::new(wanted), changed: Notify::new() })
    }

    /// What holds now.
    pub(crate) fn applied(&self) -> Limits {
        self.wanted().applied
    }

    fn wanted(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    fn now(&self) -> Limits {
        if self.windows.is_empty() {
            return self.usual;
        }
        limits_at(&self.windows, self.usual, Zoned::now().datetime())
    }
}

impl Client {
    /// The usual limits of uploads and downloads, in bytes per second; `None` is no limit.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn limits(&self) -> Result<(Option<u64>, Option<u64>), ClientError> {
        let store = &self.0.store;
        Ok((limit(store, LIMIT_UP).await?, limit(store, LIMIT_DOWN).await?))
    }

    /// The limits that hold now: the usual ones, or those of the schedule.
    #[must_use]
    pub fn limits_now(&self) -> Limits {
        self.0.pace.applied()
    }

    /// Sets the usual limit of a rate, in bytes per second, from now on and after a restart; `None` is no limit. While a window of
    /// the schedule holds, it is kept for later.
    ///
    /// # Errors
    /// When nobody is logged in, or the store fails.
    pub async fn set_limit(&self, direction: Direction, rate: Option<u64>) -> Result<(), ClientError> {
        self.who()?;
        let rate = rate.filter(|&rate| rate > 0);
        let setting = match direction {
            Direction::Up => LIMIT_UP,
            Direction::Down => LIMIT_DOWN,
        };
        self.0.store.set_setting(setting, rate.unwrap_or(0).to_string()).await?;
        {
            let mut wanted = self.0.pace.wanted();
            match direction {
                Direction::Up => wanted.usual.up = rate,
                Direction::Down => wanted.usual.down = rate,
            }
        }
        self.apply_limits();
        Ok(())
    }

    /// The day and time by which the schedule goes: this machine's, such as "Sat 15:30".
    #[must_use]
    pub fn local_time(&self) -> String {
        Zoned::now().strftime("%a %H:%M").to_string()
    }

    /// The windows of the week in which other limits hold.
    #[must_use]
    pub fn schedule(&self) -> Vec<Window> {
        self.0.pace.wanted().windows.clone()
    }

    /// Sets the windows of the week in which other limits hold, from now on and after a restart. Where several hold, the lowest
    /// limit counts.
    ///
    /// # Errors
    /// When there are more than [`MAX_WINDOWS`], or the store fails.
    pub async fn set_schedule(&self, windows: Vec<Window>) -> Result<(), ClientError> {
        if windows.len() > MAX_WINDOWS {
            return Err(ClientError::TooManyWindows);
        }
        let lines: Vec<String> = windows.iter().map(ToString::to_string).collect();
        self.0.store.set_setting(SCHEDULE, lines.join("\n")).await?;
        self.0.pace.wanted().windows = windows;
        self.apply_limits();
        self.0.pace.changed.notify_one();
        Ok(())
    }

    /// Switches to the limits that hold now. A limit that stays is not set again: that would forget what passed.
    pub(crate) fn apply_limits(&self) {
        let mut wanted = self.0.pace.wanted();
        let (before, now) = (wanted.applied, wanted.now());
        wanted.applied = now;
        if before.up != now.up {
            self.0.swarm.set_upload_limit(now.up);
        }
        if before.down != now.down {
            self.0.engine.set_download_limit(now.down);
        }
        if before != now {
            tracing::info!(?now, "other rate limits hold from now on");
        }
    }
}

/// Switches the limits when a window begins or ends, until the client leaves.
pub(crate) async fn run(client: Client) {
    loop {
        client.apply_limits();
        let windows = client.schedule();
        let next = async {
            match next_change(&windows, &Zoned::now()) {
                None => std::future::pending().await,
                Some(next) => tokio::time::sleep(until(next).min(LOOK_EVERY)).await,
            }
        };
        tokio::select! {
            () = client.0.stop.cancelled() => return,
            () = client.0.pace.changed.notified() => {}
            () = next => {}
        }
    }
}

fn until(next: Timestamp) -> Duration {
    Duration::try_from(next.duration_since(Timestamp::now())).unwrap_or_default()
}

/// A rate limit that was set, in bytes per second.
async fn limit(store: &Store, setting: &'static str) -> Result<Option<u64>, StoreError> {
    let text = store.setting(setting).await?;
    Ok(text.and_then(|text| text.parse().ok()).filter(|rate| *rate > 0))
}

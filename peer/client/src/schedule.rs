//! Rate limits by time of day: windows of the week, in local time. Pure: the time comes in.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::{Timestamp, ToSpan, Zoned};
use serde::Serialize;
use serde::ser::{SerializeStruct, Serializer};

/// Most windows of a schedule: more than a week needs.
pub const MAX_WINDOWS: usize = 32;
const MINUTES_OF_DAY: u16 = 24 * 60;
const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
/// A look this many days ahead finds the next boundary of every window.
const DAYS_AHEAD: i64 = 8;

/// Limits in bytes per second; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Of uploads.
    pub up: Option<u64>,
    /// Of downloads.
    pub down: Option<u64>,
}

/// A time of the week in which other limits hold, in local time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The days on which it begins, Monday first.
    days: [bool; 7],
    /// Minutes since midnight.
    from: u16,
    /// Minutes since midnight; if it is not later than `from`, on the next day.
    to: u16,
    up: Option<u64>,
    down: Option<u64>,
}

/// Why a text is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// The days.
    #[error("{0:?} names no days; write for example mon-fri, sat,sun or daily")]
    Days(String),
    /// The time of day.
    #[error("{0:?} is no time of day; write for example 08:00-18:00, or 00:00-24:00 for the whole day")]
    Time(String),
    /// It has no length.
    #[error("a window from {0} to the same time is empty; write 00:00-24:00 for the whole day")]
    Empty(String),
    /// A rate.
    #[error("{0:?} is not a rate; write for example 500K, 20M or 0 for no limit")]
    Rate(String),
    /// What it changes.
    #[error("a window limits something; write for example: mon-fri 08:00-18:00 up 500K down 2M")]
    NoLimit,
    /// Something else is there.
    #[error("{0:?} is not understood; write for example: mon-fri 08:00-18:00 up 500K down 2M")]
    Words(String),
}

impl Window {
    /// A window that begins on `days` (`mon-fri`, `sat,sun`, `daily`) at `from` and ends at `to` (`HH:MM`), on the next day if that
    /// is not later. Limits are in bytes per second: 0 for none in this window, `None` for what holds outside of it.
    ///
    /// # Errors
    /// See [`WindowError`].
    pub fn new(
        days: &str,
        from: &str,
        to: &str,
        up: Option<u64>,
        down: Option<u64>,
    ) -> Result<Self, WindowError> {
        let days = parse_days(days)?;
        let begin = minutes(from).filter(|&from| from < MINUTES_OF_DAY);
        let begin = begin.ok_or_else(|| WindowError::Time(from.to_owned()))?;
        let end = minutes(to).ok_or_else(|| WindowError::Time(to.to_owned()))?;
        if begin == end {
            return Err(WindowError::Empty(from.to_owned()));
        }
        if up.is_none() && down.is_none() {
            return Err(WindowError::NoLimit);
        }
        Ok(Self { days, from: begin, to: end, up, down })
    }

    /// Reads the words of a window: `mon-fri 08:00-18:00 up 500K down 2M`.
    ///
    /// # Errors
    /// See [`WindowError`].
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self, WindowError> {
        let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
        let [days, times, limits @ ..] = words.as_slice() else {
            return Err(WindowError::Words(words.join(" ")));
        };
        let (from, to) = times.split_once('-').ok_or_else(|| WindowError::Time((*times).to_owned()))?;
        let (mut up, mut down) = (None, None);
        for limit in limits.chunks(2) {
            let &[direction, rate] = limit else { return Err(WindowError::Words(limit.join(" "))) };
            let place = match direction.to_ascii_lowercase().as_str() {
                "up" => &mut up,
                "down" => &mut down,
                _ => return Err(WindowError::Words(direction.to_owned())),
            };
            let rate = shoal_console::rate(rate).ok_or_else(|| WindowError::Rate(rate.to_owned()))?;
            if place.replace(rate).is_some() {
                return Err(WindowError::Words(format!("{direction} twice")));
            }
        }
        Self::new(days, from, to, up, down)
    }

    /// The limit of uploads in it, in bytes per second: 0 for none, `None` for what holds outside.
    #[must_use]
    pub fn up(&self) -> Option<u64> {
        self.up
    }

    /// The same for downloads.
    #[must_use]
    pub fn down(&self) -> Option<u64> {
        self.down
    }

    /// The days on which it begins: `mon-fri`.
    #[must_use]
    pub fn days(&self) -> String {
        if self.days == [true; 7] {
            return "daily".to_owned();
        }
        let mut parts = Vec::new();
        let mut day = 0;
        while day < 7 {
            let run = self.days[day..].iter().take_while(|&&there| there).count();
            match run {
                0 => {}
                1 | 2 => parts.extend(NAMES[day..day + run].iter().map(|&name| name.to_owned())),
                _ => parts.push(format!("{}-{}", NAMES[day], NAMES[day + run - 1])),
            }
            day += run.max(1);
        }
        parts.join(",")
    }

    /// When it begins: `08:00`.
    #[must_use]
    pub fn from(&self) -> String {
        time_text(self.from)
    }

    /// When it ends: `18:00`.
    #[must_use]
    pub fn to(&self) -> String {
        time_text(self.to)
    }

    /// Whether it is this time.
    fn holds(&self, at: DateTime) -> bool {
        let minute = u16::try_from(i32::from(at.hour()) * 60 + i32::from(at.minute())).unwrap_or(0);
        let today = self.begins_on(at.weekday());
        if self.from < self.to {
            return today && (self.from..self.to).contains(&minute);
        }
        (today && minute >= self.from) || (self.begins_on(at.weekday().previous()) && minute < self.to)
    }

    fn begins_on(&self, day: Weekday) -> bool {
        usize::try_from(day.to_monday_zero_offset()).is_ok_and(|day| self.days[day])
    }

    /// When it begins and ends, if it begins on that day.
    fn of(&self, date: Date) -> Option<[DateTime; 2]> {
        if !self.begins_on(date.weekday()) {
            return None;
        }
        let last = if self.from < self.to { date } else { date.tomorrow().ok()? };
        Some([at(date, self.from)?, at(last, self.to)?])
    }
}

/// What holds at this time: of the windows that hold, the lowest limits, and outside of them the `usual` ones.
#[must_use]
pub fn limits_at(windows: &[Window], usual: Limits, now: DateTime) -> Limits {
    let lowest = |of: fn(&Window) -> Option<u64>, usual: Option<u64>| {
        let rates = windows.iter().filter(|window| window.holds(now)).filter_map(of);
        // 0 is no limit: the highest of all.
        match rates.map(|rate| if rate == 0 { u64::MAX } else { rate }).min() {
            None => usual,
            Some(u64::MAX) => None,
            Some(rate) => Some(rate),
        }
    };
    Limits { up: lowest(|window| window.up, usual.up), down: lowest(|window| window.down, usual.down) }
}

/// The next time at which a window begins or ends, or the clock is put forward or back; `None` without windows.
#[must_use]
pub fn next_change(windows: &[Window], now: &Zoned) -> Option<Timestamp> {
    if windows.is_empty() {
        return None;
    }
    let (zone, here) = (now.time_zone(), now.timestamp());
    // A time that comes twice is a boundary twice; one that is left out is one where the clock is put forward.
    let times = |at: DateTime| {
        let ambiguous = || zone.to_ambiguous_zoned(at);
        [ambiguous().earlier(), ambiguous().later()].into_iter().filter_map(Result::ok)
    };
    let days = (-1..=DAYS_AHEAD).filter_map(|ahead| now.date().checked_add(ahead.days()).ok());
    let boundaries = days.flat_map(|date| windows.iter().filter_map(move |window| window.of(date)).flatten());
    let boundaries = boundaries.flat_map(times).map(|at| at.timestamp());
    let put = zone.following(here).next().map(|transition| transition.timestamp());
    boundaries.chain(put).filter(|at| *at > here).min()
}

impl fmt::Display for Window {
    /// As [`Window::parse`] reads it; rates in bytes per second.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}-{}", self.days(), self.from(), self.to())?;
        for (direction, rate) in [("up", self.up), ("down", self.down)] {
            if let Some(rate) = rate {
                write!(f, " {direction} {rate}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Window {
    type Err = WindowError;

    fn from_str(text: &str) -> Result<Self, WindowError> {
        Self::parse(&text.split_whitespace().collect::<Vec<_>>())
    }
}

impl Serialize for Window {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut window = serializer.serialize_struct("Window", 5)?;
        window.serialize_field("days", &self.days())?;
        window.serialize_field("from", &self.from())?;
        window.serialize_field("to", &self.to())?;
        window.serialize_field("up", &self.up)?;
        window.serialize_field("down", &self.down)?;
        window.end()
    }
}

fn parse_days(text: &str) -> Result<[bool; 7], WindowError> {
    let wrong = || WindowError::Days(text.to_owned());
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "daily" | "all" | "every-day") {
        return Ok([true; 7]);
    }
    let number = |name: &str| NAMES.iter().position(|known| *known == name);
    let mut days = [false; 7];
    for part in lower.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first).ok_or_else(wrong)?, number(last).ok_or_else(wrong)?);
        // sat-mon goes over the end of the week.
        let count = (last + 7 - first) % 7 + 1;
        (first..first + count).for_each(|day| days[day % 7] = true);
    }
    Ok(days)
}

/// Minutes since midnight, from `HH:MM`; 24:00 is the end of the day.
fn minutes(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |part: &str| (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(hour) || !digits(minute) || minute.len() != 2 {
        return None;
    }
    let (hour, minute): (u16, u16) = (hour.parse().ok()?, minute.parse().ok()?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= MINUTES_OF_DAY).then_some(all)
}

fn time_text(minutes: u16) -> String {
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn at(date: Date, minutes: u16) -> Option<DateTime> {
    if minutes == MINUTES_OF_DAY {
        return Some(date.tomorrow().ok()?.to_datetime(Time::midnight()));
    }
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    Some(date.to_datetime(Time::new(hour, minute, 0, 0).ok()?))
}

#[cfg(test)]
mod tests;

//! Which times no honest row bears, and what an operator's `restamp` does about rows that bear them.

use super::{META_BEGAN, META_DROPPED, META_HLC, ReplicaState, number};
use crate::event::{Now, OpenError};
use crate::limits::MAX_AHEAD_MS;
use crate::row::{Kind, Row, Rule, Stamp};
use crate::rows::{Rows, scan_all};

/// There was no Shoal before this, in milliseconds since the Unix epoch (2020).
const NEVER_BEFORE_MS: u64 = 1_577_836_800_000;

/// The limits of the times that a row may bear.
#[derive(Debug)]
pub(crate) struct TimeLimits {
    /// No stamp may be later.
    latest: Stamp,
    /// When the cluster began, in milliseconds, once this tracker has synced with all others.
    began_ms: Option<u64>,
    /// The time of the oldest row that was stored here, in milliseconds.
    oldest_ms: u64,
    /// An operator says that this clock is right. Only then can held rows count as impossible; otherwise this
    /// clock may be the wrong one.
    is_confirmed: bool,
}

impl TimeLimits {
    /// Reads what is stored. In a store of an earlier version the oldest claim says when the cluster began.
    pub(super) fn open<R: Rows>(rows: &R) -> Result<Self, OpenError<R::Error>> {
        let began_ms = rows.meta(META_BEGAN).map_err(OpenError::Store)?.as_deref().and_then(number);
        let mut times = Self { latest: Stamp::MAX, began_ms, oldest_ms: u64::MAX, is_confirmed: false };
        if began_ms.is_none() {
            for kind in [Kind::USER_CLAIM, Kind::GROUP_CLAIM] {
                scan_all(rows, kind, &[], |row| times.saw(&row)).map_err(OpenError::Store)?;
            }
        }
        Ok(times)
    }

    /// Records the time of a stored row.
    pub(super) fn saw(&mut self, row: &Row) {
        if row.stamp.ms() >= NEVER_BEFORE_MS {
            self.oldest_ms = self.oldest_ms.min(row.stamp.ms());
        }
    }

    /// Whether a stamp lies further ahead than any that an honest tracker mints.
    pub(crate) fn is_far(&self, stamp: Stamp) -> bool {
        stamp > self.latest
    }

    /// Whether no honest tracker writes a row with this time: it is later than any clock, or, where the first
    /// row stays, from before the cluster began.
    pub(crate) fn is_impossible(&self, row: &Row) -> bool {
        let first_ms = self.began_ms.map_or(0, |ms| ms.saturating_sub(MAX_AHEAD_MS)).max(NEVER_BEFORE_MS);
        let too_old = row.kind.rule() == Rule::FirstStays && row.stamp.ms() < first_ms;
        too_old || self.is_far(row.stamp) || self.is_far(row.born)
    }

    /// Whether a held row is known to bear an impossible time, so that it must not stand in the way of
    /// others.
    pub(super) fn is_disowned(&self, row: &Row) -> bool {
        self.is_confirmed && self.is_impossible(row)
    }
}

impl ReplicaState {
    /// Updates the latest allowed time. The stamps that this tracker wrote count as well, so that a machine
    /// whose clock starts in 1970 does not refuse all rows of others.
    pub(crate) fn look_at_clock(&mut self, now: Now) {
        let ms = now.wall_ms.max(self.hlc.ms());
        self.times.latest = Stamp::at_ms(ms.saturating_add(MAX_AHEAD_MS));
    }

    /// Whether this tracker mints stamps so far ahead of its own clock that others refuse them: the clock was
    /// set back.
    pub(crate) fn was_set_back(&self, now: Now) -> bool {
        self.hlc.ms() > now.wall_ms.saturating_add(MAX_AHEAD_MS)
    }

    /// This tracker has synced with all others: the oldest row says, for good, when the cluster began.
    pub(crate) fn seal_beginning<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let oldest_ms = self.times.oldest_ms;
        if self.times.began_ms.is_none() && oldest_ms < u64::MAX {
            let began_ms = oldest_ms.min(now.wall_ms);
            self.times.began_ms = Some(began_ms);
            rows.put_meta(META_BEGAN, &began_ms.to_be_bytes())?;
        }
        Ok(())
    }

    /// An operator says that the clock is right: what it showed before no longer counts.
    pub(crate) fn trust_clock<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let latest = Stamp::at_ms(now.wall_ms.saturating_add(MAX_AHEAD_MS));
        if self.hlc > latest {
            self.hlc = Stamp::at_ms(now.wall_ms);
            rows.put_meta(META_HLC, &self.hlc.as_u64().to_be_bytes())?;
        }
        if self.dropped > latest {
            self.dropped = Stamp::at_ms(now.wall_ms);
            rows.put_meta(META_DROPPED, &self.dropped.as_u64().to_be_bytes())?;
        }
        self.times.is_confirmed = true;
        self.look_at_clock(now);
        Ok(())
    }

    /// All rows were processed: the clock may be wrong again.
    pub(crate) fn end_restamping(&mut self) {
        self.times.is_confirmed = false;
    }

    /// Rewrites a row with the present time and a number of this tracker.
    pub(crate) fn restamp<R: Rows>(&mut self, rows: &mut R, row: Row, now: Now) -> Result<Row, R::Error> {
        let stamp = self.mint(rows, None, now)?.of_new_row(row.kind.rule());
        let row = Row { stamp, born: row.born.min(stamp), writer: self.writer, seq: self.seq() + 1, ..row };
        self.put(rows, &row)?;
        self.cover(rows, self.writer, row.seq)?;
        Ok(row)
    }
}

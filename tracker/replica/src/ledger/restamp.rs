//! Which times no honest row bears, and what an operator's `restamp` does about those that are held.

use super::{Ledger, META_BEGAN, META_DROPPED, META_HLC, number};
use crate::event::{Now, OpenError};
use crate::limits::{MAX_AHEAD_MS, READ_ROWS};
use crate::row::{Kind, Row, Rule, Stamp};
use crate::rows::Rows;

/// Before this there was no Shoal, in milliseconds since the Unix epoch (2020).
const NEVER_BEFORE_MS: u64 = 1_577_836_800_000;

/// The times that a row may bear.
#[derive(Debug)]
pub(crate) struct Times {
    /// No stamp may be later.
    latest: Stamp,
    /// When the cluster began, in milliseconds, once every other tracker was heard.
    began_ms: Option<u64>,
    /// The oldest of the rows that were stored here, in milliseconds.
    oldest_ms: u64,
    /// An operator says that this clock is right. Only then what is held counts as impossible: else this clock may be the
    /// wrong one.
    is_confirmed: bool,
}

impl Times {
    /// Reads what is kept. A store of an earlier version says by its oldest claim when the cluster began.
    pub(super) fn open<R: Rows>(rows: &R) -> Result<Self, OpenError<R::Error>> {
        let began_ms = rows.meta(META_BEGAN).map_err(OpenError::Store)?.as_deref().and_then(number);
        let mut times = Self { latest: Stamp::MAX, began_ms, oldest_ms: u64::MAX, is_confirmed: false };
        if began_ms.is_none() {
            for kind in [Kind::USER_CLAIM, Kind::GROUP_CLAIM] {
                times.look_for_oldest(rows, kind).map_err(OpenError::Store)?;
            }
        }
        Ok(times)
    }

    fn look_for_oldest<R: Rows>(&mut self, rows: &R, kind: Kind) -> Result<(), R::Error> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let page = rows.scan(kind, &[], after.as_deref(), READ_ROWS)?;
            page.iter().for_each(|row| self.saw(row));
            if page.len() < READ_ROWS {
                return Ok(());
            }
            after = page.into_iter().next_back().map(|row| row.key);
        }
    }

    /// A row is stored.
    pub(super) fn saw(&mut self, row: &Row) {
        if row.stamp.ms() >= NEVER_BEFORE_MS {
            self.oldest_ms = self.oldest_ms.min(row.stamp.ms());
        }
    }

    /// Whether a stamp lies further ahead than any that an honest tracker mints.
    pub(crate) fn is_far(&self, stamp: Stamp) -> bool {
        stamp > self.latest
    }

    /// Whether no honest tracker writes a row with such a time: later than any clock, or, where the first row stays, from
    /// before the cluster began.
    pub(crate) fn is_impossible(&self, row: &Row) -> bool {
        let first_ms = self.began_ms.map_or(0, |ms| ms.saturating_sub(MAX_AHEAD_MS)).max(NEVER_BEFORE_MS);
        let too_old = row.kind.rule() == Rule::FirstStays && row.stamp.ms() < first_ms;
        too_old || self.is_far(row.stamp) || self.is_far(row.born)
    }

    /// Whether what is held is known to bear an impossible time, so that it must not stand in the way of anything.
    pub(super) fn is_disowned(&self, row: &Row) -> bool {
        self.is_confirmed && self.is_impossible(row)
    }
}

impl Ledger {
    /// What time it is. What this tracker wrote counts as well: a machine whose clock begins in 1970 must not take all that
    /// others send for impossible.
    pub(crate) fn look_at_clock(&mut self, now: Now) {
        let ms = now.wall_ms.max(self.hlc.ms());
        self.times.latest = Stamp::at_ms(ms.saturating_add(MAX_AHEAD_MS));
    }

    /// Whether this tracker mints stamps so far ahead of its own clock that others refuse them: that was set back.
    pub(crate) fn was_set_back(&self, now: Now) -> bool {
        self.hlc.ms() > now.wall_ms.saturating_add(MAX_AHEAD_MS)
    }

    /// Everybody was heard: the oldest row says when the cluster began, for good.
    pub(crate) fn seal_beginning<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        let oldest_ms = self.times.oldest_ms;
        if self.times.began_ms.is_none() && oldest_ms < u64::MAX {
            let began_ms = oldest_ms.min(now.wall_ms);
            self.times.began_ms = Some(began_ms);
            rows.put_meta(META_BEGAN, &began_ms.to_be_bytes())?;
        }
        Ok(())
    }

    /// An operator says that the clock is right: what it showed before does not count any more.
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

    /// Everything was looked through: the clock may be wrong again.
    pub(crate) fn end_restamping(&mut self) {
        self.times.is_confirmed = false;
    }

    /// Gives a row the present time and a number of this tracker.
    pub(crate) fn restamp<R: Rows>(&mut self, rows: &mut R, row: Row, now: Now) -> Result<Row, R::Error> {
        let stamp = self.mint(rows, None, now)?.of_new_row(row.kind.rule());
        let row = Row { stamp, born: row.born.min(stamp), origin: self.origin, seq: self.seq() + 1, ..row };
        self.put(rows, &row)?;
        self.cover(rows, self.origin, row.seq)?;
        Ok(row)
    }
}

//! Which times a row may bear: from the cluster's beginning to some hours ahead of the wall clock. And what the ledger keeps
//! besides so that one tracker's word does little harm: its own new numbers, and how much was removed lately.

use super::{Ledger, META_BEGAN, META_REMOVED, META_RENUMBERED, META_SET_BACK, meta_key, number};
use crate::event::{Now, OpenError};
use crate::limits::{MAX_AHEAD_MS, READ_ROWS};
use crate::row::{Kind, Origin, Row, Rule, Stamp};
use crate::rows::Rows;

/// Before this there was no Shoal, in milliseconds since the Unix epoch (2020): what bears such a time says nothing about
/// when the cluster began.
const NEVER_BEFORE_MS: u64 = 1_577_836_800_000;
const DAY_MS: u64 = 24 * 3_600 * 1_000;

/// The bounds of time.
#[derive(Debug)]
pub(crate) struct Times {
    /// No stamp may be later.
    latest: Stamp,
    /// When the cluster began, in milliseconds, once every other tracker was heard; or what others say of it before that.
    began_ms: Option<u64>,
    is_sealed: bool,
    /// The oldest stamp stored here, in milliseconds.
    oldest_ms: u64,
    /// The wall clock was set back by hours: rows with impossible times are held.
    pub(super) set_back: bool,
    /// Others, whose clocks agree with this one, are connected, or an operator says that it is right. Only then what is held
    /// may be impossible: else this clock may be the wrong one.
    pub(crate) is_confirmed: bool,
}

impl Times {
    /// Reads what is kept. A store of an earlier version says by its oldest row when the cluster began.
    pub(super) fn open<R: Rows>(rows: &R, now: Now) -> Result<Self, OpenError<R::Error>> {
        let kept = rows.meta(META_BEGAN).map_err(OpenError::Store)?;
        let began_ms = kept.as_deref().and_then(number);
        let mut times = Self {
            latest: Stamp::default(),
            began_ms,
            is_sealed: began_ms.is_some(),
            oldest_ms: u64::MAX,
            is_confirmed: false,
            set_back: rows.meta(META_SET_BACK).map_err(OpenError::Store)?.is_some(),
        };
        times.at(now);
        if !times.is_sealed {
            times.look_for_oldest(rows).map_err(OpenError::Store)?;
        }
        Ok(times)
    }

    fn look_for_oldest<R: Rows>(&mut self, rows: &R) -> Result<(), R::Error> {
        for kind in 0..=u8::MAX {
            let mut after: Option<Vec<u8>> = None;
            loop {
                let page = rows.scan(Kind(kind), &[], after.as_deref(), READ_ROWS)?;
                page.iter().for_each(|row| self.saw(row.stamp));
                if page.len() < READ_ROWS {
                    break;
                }
                after = page.into_iter().next_back().map(|row| row.key);
            }
        }
        Ok(())
    }

    /// What time it is.
    pub(crate) fn at(&mut self, now: Now) {
        self.latest = Stamp::at_ms(now.wall_ms.saturating_add(MAX_AHEAD_MS));
    }

    /// Whether a stamp lies too far ahead.
    pub(crate) fn is_far(&self, stamp: Stamp) -> bool {
        stamp > self.latest
    }

    /// Whether something that is held has a stamp too far ahead.
    pub(crate) fn is_held_too_far(&self, stamp: Stamp) -> bool {
        self.is_confirmed && self.is_far(stamp)
    }

    /// Whether a row that stays for being first is older than the cluster.
    fn is_too_old(&self, row: &Row) -> bool {
        let first = self.began_ms.map_or(0, |ms| ms.saturating_sub(MAX_AHEAD_MS));
        row.kind.rule() == Rule::FirstStays && row.stamp.ms() < first
    }

    /// A row with this stamp is stored.
    pub(super) fn saw(&mut self, stamp: Stamp) {
        if stamp.ms() >= NEVER_BEFORE_MS {
            self.oldest_ms = self.oldest_ms.min(stamp.ms());
        }
    }

    /// When the cluster began, if that is certain.
    pub(crate) fn began(&self) -> Option<u64> {
        self.began_ms.filter(|_| self.is_sealed)
    }

    /// A peer says when the cluster began. Says whether rows are held here that are older: this tracker was alone with a
    /// clock that was far behind.
    pub(crate) fn heard_began(&mut self, ms: u64, now: Now) -> bool {
        let older = !self.is_sealed && ms <= now.wall_ms && self.oldest_ms < ms.saturating_sub(MAX_AHEAD_MS);
        if older {
            self.began_ms = Some(ms);
        }
        older
    }
}

impl Ledger {
    /// Whether a row bears a time that no row can have.
    pub(crate) fn is_impossible(&self, row: &Row) -> bool {
        let times = &self.times;
        times.is_far(row.stamp) || times.is_far(row.born) || times.is_too_old(row)
    }

    /// Whether the wall clock was set back by so much that rows written before that are impossible now.
    pub(crate) fn was_set_back(&self) -> bool {
        self.times.is_confirmed && (self.times.set_back || self.times.is_far(self.hlc))
    }

    /// Everybody was heard: the oldest row says when the cluster began, for good.
    pub(crate) fn seal_beginning<R: Rows>(&mut self, rows: &mut R) -> Result<(), R::Error> {
        let times = &mut self.times;
        if !times.is_sealed && times.oldest_ms < u64::MAX {
            // What others say of it comes first, where this tracker's own clock was far behind.
            let began_ms = times.began_ms.unwrap_or(times.oldest_ms);
            times.is_sealed = true;
            times.began_ms = Some(began_ms);
            rows.put_meta(META_BEGAN, &began_ms.to_be_bytes())?;
        }
        Ok(())
    }

    /// Gives a row the present time and a number of this tracker.
    pub(crate) fn restamp<R: Rows>(&mut self, rows: &mut R, row: Row, now: Now) -> Result<Row, R::Error> {
        let stamp = self.mint(rows, None, now)?.of_new_row(row.kind.rule());
        let born = if self.times.is_far(row.born) || row.born > stamp { stamp } else { row.born };
        let row = Row { stamp, born, origin: self.origin, seq: self.seq() + 1, ..row };
        self.put(rows, &row)?;
        self.cover(rows, self.origin, row.seq)?;
        Ok(row)
    }

    /// No row with an impossible time is held any more.
    pub(crate) fn end_restamping<R: Rows>(&mut self, rows: &mut R, now: Now) -> Result<(), R::Error> {
        if std::mem::take(&mut self.times.set_back) {
            rows.remove_meta(META_SET_BACK)?;
        }
        if self.times.is_far(self.hlc) {
            self.hlc = Stamp::at_ms(now.wall_ms);
            rows.put_meta(super::META_HLC, &self.hlc.as_u64().to_be_bytes())?;
        }
        if self.times.is_far(self.dropped) {
            self.dropped = Stamp::at_ms(now.wall_ms);
            rows.put_meta(super::META_DROPPED, &self.dropped.as_u64().to_be_bytes())?;
        }
        Ok(())
    }

    /// Whether so many rows more may be removed today by one tracker's word, if it may be `small` of them in a day; notes
    /// them if so.
    pub(crate) fn may_remove<R: Rows>(
        &mut self,
        rows: &mut R,
        count: u64,
        small: u64,
        now: Now,
    ) -> Result<bool, R::Error> {
        let kept = rows.meta(META_REMOVED)?.unwrap_or_default();
        let (before, since) = match kept.split_first_chunk::<8>() {
            Some((before, since)) => (u64::from_be_bytes(*before), number(since).unwrap_or(0)),
            None => (0, 0),
        };
        let is_today = now.wall_ms.abs_diff(since) < DAY_MS;
        let (before, since) = if is_today { (before, since) } else { (0, now.wall_ms) };
        let sum = before.saturating_add(count);
        if sum > small {
            return Ok(false);
        }
        rows.put_meta(META_REMOVED, &[sum.to_be_bytes(), since.to_be_bytes()].concat())?;
        Ok(true)
    }

    /// Takes another origin from now on: somebody spoke of numbers of the present one that were never given out. Not to be
    /// foreseen by who did, and the same again after a rollback.
    pub(crate) fn renumber(&mut self, now: Now) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.origin.0);
        hasher.update(&now.mono_ms.to_be_bytes());
        hasher.update(&now.wall_ms.to_be_bytes());
        hasher.update(&self.hlc.as_u64().to_be_bytes());
        let mut origin = [0; 16];
        hasher.finalize_xof().fill(&mut origin);
        self.renumbered.get_or_insert(self.origin);
        self.origin = Origin(origin);
    }

    /// Keeps that another origin was taken, so that it is the same after a rollback.
    pub(crate) fn keep_origin<R: Rows>(&mut self, rows: &mut R) -> Result<(), R::Error> {
        let Some(before) = self.renumbered.take() else { return Ok(()) };
        rows.put_meta(&meta_key(META_RENUMBERED, before), &self.origin.0)
    }
}

/// The origin that has taken this one's place.
pub(super) fn renumbered<R: Rows>(rows: &R, mut origin: Origin) -> Result<Origin, R::Error> {
    while let Some(next) = rows.meta(&meta_key(META_RENUMBERED, origin))? {
        let Ok(next) = next.try_into() else { break };
        origin = Origin(next);
    }
    Ok(origin)
}

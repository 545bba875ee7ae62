//! What one tracker holds: numbers and stamps for its own rows, the version vector, and the only way in for
//! rows of other trackers. Knows nothing of links. Everything in memory is a copy of what is stored beside
//! the rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Config, Now, OpenError, Write};
use crate::limits::{MAX_CLOCK_LEAD_MS, MAX_PENDING_WRITES, MAX_TRACKERS, MAX_WRITERS};
use crate::merge::wins;
use crate::names::NameSpace;
use crate::row::{BlobHash, Kind, Row, Rule, Stamp, TrackerNo, WriterId};
use crate::rows::{Admission, Rows};
use crate::vector::VersionVector;

mod removed;
mod restamp;
mod writers;

use restamp::TimeLimits;

/// The durable replication state of one tracker.
#[derive(Debug)]
pub(crate) struct ReplicaState {
    pub(crate) me: TrackerNo,
    pub(crate) configured: BTreeSet<TrackerNo>,
    pub(crate) writer: WriterId,
    /// The store was empty when it was opened, and this tracker has not synced with all others since.
    pub(crate) was_blank: bool,
    /// New writers whose rows a peer may send.
    admitted: BTreeSet<WriterId>,
    /// For each writer, the number up to which all rows are held or superseded.
    pub(crate) vector: VersionVector,
    /// The highest number held beyond the vector.
    ahead: VersionVector,
    /// The GC watermark: tombstones up to it were dropped here, or at a tracker that rows came from.
    pub(crate) gc_watermark: VersionVector,
    /// No dropped tombstone has a later stamp. A row that replaces a deleted key needs a later one, or it
    /// would lose where the tombstone is still held.
    pub(crate) dropped: Stamp,
    hlc: Stamp,
    pub(crate) times: TimeLimits,
    /// Names whose majority rests on a vote of this tracker that no other tracker is known to hold, by the
    /// vote's number.
    undecided: Undecided,
}

/// Names by the number of this tracker's vote.
type Undecided = BTreeMap<(WriterId, u64), (NameSpace, Vec<u8>)>;

/// The outcome of applying a row.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// It is held now and was not before.
    pub(crate) stored: bool,
    /// It contradicts what was held, in a way that only lost disks explain.
    pub(crate) conflict: bool,
    /// It does not prove itself, or its time is impossible.
    pub(crate) refused: bool,
}

/// How far a row from another tracker is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// A row that the vector covers and that is not held was deleted here.
    Vector,
    /// As `Vector`; and rows of this writer will be covered by the end of this transaction.
    Next(WriterId),
    /// The sender knows better: take the union.
    Sender,
}

impl ReplicaState {
    /// Reads what is stored beside the rows, or initialises an empty store.
    pub(crate) fn open<R: Rows>(rows: &mut R, config: &Config) -> Result<Self, OpenError<R::Error>> {
        let configured: BTreeSet<_> = config.configured.iter().copied().collect();
        if !configured.contains(&config.me) || configured.len() > MAX_TRACKERS {
            return Err(OpenError::Config { me: config.me });
        }
        match rows.meta(META_ME).map_err(OpenError::Store)?.as_deref() {
            None => rows.put_meta(META_ME, &[config.me.0]).map_err(OpenError::Store)?,
            Some(&[no]) if no == config.me.0 => {}
            Some(&[no]) => return Err(OpenError::OtherTracker(TrackerNo(no))),
            Some(_) => return Err(OpenError::Corrupt("the tracker's number")),
        }
        let vector: VersionVector = load(rows, META_VECTOR)?;
        let mut state = Self {
            was_blank: vector.is_empty(),
            admitted: BTreeSet::new(),
            me: config.me,
            configured,
            writer: config.writer,
            vector,
            ahead: load(rows, META_AHEAD)?,
            gc_watermark: load(rows, META_GC_WATERMARK)?,
            dropped: load_stamp(rows, META_DROPPED)?,
            hlc: load_stamp(rows, META_HLC)?,
            times: TimeLimits::open(rows)?,
            undecided: load_undecided(rows)?,
        };
        // In memory only. Nothing is written to a store that was opened before, so that it also opens on a
        // full disk.
        for writer in state.ahead() {
            if !state.holds_ahead(rows, writer).map_err(OpenError::Store)? {
                state.ahead.forget(writer);
            }
        }
        Ok(state)
    }

    /// The number of the last row written in this process.
    pub(crate) fn seq(&self) -> u64 {
        self.vector.at(self.writer)
    }

    /// Whether nothing is held beyond the vector, so that equal vectors mean equal rows.
    pub(crate) fn is_clean(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Writers with rows held beyond the vector.
    pub(crate) fn ahead(&self) -> Vec<WriterId> {
        self.ahead.iter().map(|(writer, _)| writer).collect()
    }

    /// Writes a row of this tracker, with a new number and a stamp above that of the row it replaces.
    pub(crate) fn write<R: Rows>(&mut self, rows: &mut R, write: Write, now: Now) -> Result<Row, R::Error> {
        let held = rows.get(write.kind, &write.key)?;
        let rule = write.kind.rule();
        let before = match &held {
            Some(row) => Some(row.stamp),
            None => Some(self.dropped).filter(|_| rule == Rule::LastWins),
        };
        // No other tracker holds an impossible row, so this one need not be later than it.
        let disowned = held.as_ref().is_some_and(|held| self.times.is_disowned(held));
        let before = before.filter(|_| !disowned);
        let stamp = self.mint(rows, before, now)?.of_new_row(rule);
        let born = held.filter(|row| !row.tombstone && !write.tombstone).map_or(stamp, |row| row.born);
        // A clock that was ahead must not cause the row to be refused because of its time of creation.
        let born = born.min(stamp);
        let row = Row {
            kind: write.kind,
            key: write.key,
            stamp,
            writer: self.writer,
            seq: self.seq() + 1,
            born,
            tombstone: write.tombstone,
            value: write.value,
            blobs: write.blobs.into_iter().map(|(hash, _)| hash).collect(),
        };
        self.put(rows, &row)?;
        self.cover(rows, self.writer, row.seq)?;
        Ok(row)
    }

    /// Gives a row that its own writer can no longer cover a number of this tracker. Its stamp changes by so
    /// little that it wins over itself and over nothing else. (With the same stamp, a tracker could fall back
    /// to a number that loses to one that it has already ignored.) `None` if that was done too often.
    pub(crate) fn adopt<R: Rows>(&mut self, rows: &mut R, row: Row) -> Result<Option<Row>, R::Error> {
        let Some(stamp) = row.stamp.renumbered(row.kind.rule()) else {
            return Ok(None);
        };
        let row = Row { stamp, writer: self.writer, seq: self.seq() + 1, ..row };
        self.put(rows, &row)?;
        self.cover(rows, self.writer, row.seq)?;
        Ok(Some(row))
    }

    /// The blobs that must be held before a row from another tracker is taken; none if the row loses.
    pub(crate) fn lacks<R: Rows>(
        &self,
        rows: &R,
        row: &Row,
        trust: Trust,
    ) -> Result<Vec<BlobHash>, R::Error> {
        let mut missing = Vec::new();
        for &blob in &row.blobs {
            if rows.blob_len(blob)?.is_none() {
                missing.push(blob);
            }
        }
        if !missing.is_empty() {
            let held = rows.get(row.kind, &row.key)?;
            let admission = rows.admits(row, held.as_ref())?;
            if !self.stays(row, held.as_ref(), trust, admission) {
                missing.clear();
            }
        }
        Ok(missing)
    }

    /// Takes a row from another tracker if it wins.
    pub(crate) fn apply<R: Rows>(
        &mut self,
        rows: &mut R,
        row: &Row,
        trust: Trust,
        now: Now,
    ) -> Result<Applied, R::Error> {
        if row.stamp <= Stamp::at_ms(now.wall_ms.saturating_add(MAX_CLOCK_LEAD_MS)) {
            self.hlc = self.hlc.max(row.stamp);
        }
        let held = rows.get(row.kind, &row.key)?;
        let admission = rows.admits(row, held.as_ref())?;
        let refused = admission == Admission::Refused || self.times.is_impossible(row);
        let conflict = !refused && held.as_ref().is_some_and(|held| contradicts(row, held));
        let stored = self.stays(row, held.as_ref(), trust, admission);
        if stored {
            self.store(rows, row, trust)?;
        }
        Ok(Applied { stored, conflict, refused })
    }

    /// Stores a row from another tracker.
    pub(crate) fn store<R: Rows>(&mut self, rows: &mut R, row: &Row, trust: Trust) -> Result<(), R::Error> {
        self.put(rows, row)?;
        if !self.vector.covers(row.writer, row.seq) && trust != Trust::Next(row.writer) {
            self.note_ahead(rows, row.writer, row.seq)?;
        }
        Ok(())
    }

    /// Records that a row beyond the vector is held. The stored number is rounded up, so that a long sync
    /// does not write it with every row.
    fn note_ahead<R: Rows>(&mut self, rows: &mut R, writer: WriterId, seq: u64) -> Result<(), R::Error> {
        let before = self.ahead.at(writer);
        if self.ahead.raise(writer, seq) && (before == 0 || before | AHEAD_STEP < seq) {
            rows.put_meta(&meta_key(META_AHEAD, writer), &(seq | AHEAD_STEP).to_be_bytes())?;
        }
        Ok(())
    }

    /// Whether a row from another tracker replaces what is held.
    fn stays(&self, row: &Row, held: Option<&Row>, trust: Trust, admission: Admission) -> bool {
        let refused = matches!(admission, Admission::Refused | Admission::Below);
        if refused || self.is_dropped(row) || self.times.is_impossible(row) {
            return false;
        }
        match held {
            // An earlier version took it. No tracker takes it any more, so it must not stand in the way.
            Some(held) if self.times.is_disowned(held) => true,
            Some(_) if admission == Admission::Above => true,
            // At other trackers the tombstone is gone, and this row was taken.
            Some(held) if self.is_dropped(held) && !self.vector.covers(row.writer, row.seq) => true,
            Some(held) => wins(row, held),
            None => {
                let unknown = !self.vector.covers(row.writer, row.seq);
                unknown || trust == Trust::Sender || row.kind.rule() == Rule::FirstStays
            }
        }
    }

    /// Whether a row is a dropped tombstone: it no longer counts anywhere, even where it is still held.
    pub(crate) fn is_dropped(&self, row: &Row) -> bool {
        row.tombstone && self.gc_watermark.covers(row.writer, row.seq)
    }

    /// Whether a vector can be merged without exceeding the number of known writers.
    pub(crate) fn has_room_for(&self, vector: &VersionVector) -> bool {
        let new = vector.iter().filter(|&(writer, _)| self.vector.at(writer) == 0).count();
        self.vector.len() + new <= MAX_WRITERS
    }

    /// Whether rows of this writer may be taken.
    pub(crate) fn has_room_for_writer(&self, writer: WriterId) -> bool {
        self.ahead.at(writer) > 0 || self.vector.at(writer) > 0 || self.ahead.len() < MAX_WRITERS
    }

    /// Records that everything in `vector` is held or superseded.
    pub(crate) fn merge<R: Rows>(&mut self, rows: &mut R, vector: &VersionVector) -> Result<(), R::Error> {
        for (writer, seq) in vector.iter().filter(|&(writer, _)| writer != self.writer).collect::<Vec<_>>() {
            self.cover(rows, writer, seq)?;
        }
        Ok(())
    }

    /// The writer itself says that it wrote nothing above `seq`. Peers that said otherwise are no longer
    /// believed.
    pub(crate) fn take_back<R: Rows>(
        &mut self,
        rows: &mut R,
        writer: WriterId,
        seq: u64,
    ) -> Result<(), R::Error> {
        if self.vector.at(writer) <= seq {
            return Ok(());
        }
        self.vector.lower(writer, seq);
        match seq {
            0 => rows.remove_meta(&meta_key(META_VECTOR, writer))?,
            _ => rows.put_meta(&meta_key(META_VECTOR, writer), &seq.to_be_bytes())?,
        }
        if let Some(last) = rows.above(writer, seq, MAX_WRITERS)?.last() {
            self.note_ahead(rows, writer, last.seq)?;
        }
        Ok(())
    }

    /// Records that all rows of `writer` up to `seq` are held or superseded.
    pub(crate) fn cover<R: Rows>(
        &mut self,
        rows: &mut R,
        writer: WriterId,
        seq: u64,
    ) -> Result<(), R::Error> {
        if !self.vector.raise(writer, seq) {
            return Ok(());
        }
        self.admitted.remove(&writer);
        rows.put_meta(&meta_key(META_VECTOR, writer), &seq.to_be_bytes())?;
        self.close_gap(rows, writer)
    }

    /// Records it if no row of `writer` is held beyond the vector any more.
    pub(crate) fn close_gap<R: Rows>(&mut self, rows: &mut R, writer: WriterId) -> Result<(), R::Error> {
        if self.ahead.at(writer) > 0 && !self.holds_ahead(rows, writer)? {
            self.ahead.forget(writer);
            rows.remove_meta(&meta_key(META_AHEAD, writer))?;
        }
        Ok(())
    }

    /// Whether any row of `writer` is held beyond the vector.
    fn holds_ahead<R: Rows>(&self, rows: &R, writer: WriterId) -> Result<bool, R::Error> {
        let covered = self.vector.at(writer);
        Ok(self.ahead.at(writer) > covered && !rows.above(writer, covered, 1)?.is_empty())
    }

    /// Drops a tombstone that every tracker knows of. Returns whether the GC watermark rose.
    pub(crate) fn drop_tombstone<R: Rows>(&mut self, rows: &mut R, row: &Row) -> Result<bool, R::Error> {
        rows.remove(row.kind, &row.key)?;
        let mut gc_watermark = VersionVector::default();
        gc_watermark.raise(row.writer, row.seq);
        self.raise_gc_watermark(rows, &gc_watermark, row.stamp)
    }

    /// Raises the GC watermark. Returns whether it rose.
    pub(crate) fn raise_gc_watermark<R: Rows>(
        &mut self,
        rows: &mut R,
        gc_watermark: &VersionVector,
        dropped: Stamp,
    ) -> Result<bool, R::Error> {
        let mut risen = false;
        for (writer, seq) in gc_watermark.iter() {
            if self.gc_watermark.raise(writer, seq) {
                rows.put_meta(&meta_key(META_GC_WATERMARK, writer), &seq.to_be_bytes())?;
                risen = true;
            }
        }
        if dropped > self.dropped {
            self.dropped = dropped;
            rows.put_meta(META_DROPPED, &dropped.as_u64().to_be_bytes())?;
            risen = true;
        }
        Ok(risen)
    }

    /// Records that a name can be decided once another tracker holds this tracker's vote.
    pub(crate) fn note_undecided<R: Rows>(
        &mut self,
        rows: &mut R,
        (writer, seq): (WriterId, u64),
        (space, name): (NameSpace, &[u8]),
    ) -> Result<(), R::Error> {
        if self.undecided.insert((writer, seq), (space, name.to_vec())).is_none() {
            let number = [&writer.0[..], &seq.to_be_bytes()].concat();
            rows.put_meta(&name_key(META_UNDECIDED, space, name), &number)?;
        }
        Ok(())
    }

    /// Takes up to `limit` names whose votes are held by another tracker now.
    pub(crate) fn take_undecided<R: Rows>(
        &mut self,
        rows: &mut R,
        held: impl Fn(WriterId, u64) -> bool,
        limit: usize,
    ) -> Result<Vec<(NameSpace, Vec<u8>)>, R::Error> {
        let due = self.undecided.extract_if(.., |(writer, seq), _| held(*writer, *seq)).take(limit);
        let names: Vec<_> = due.map(|(_, name)| name).collect();
        for (space, name) in &names {
            rows.remove_meta(&name_key(META_UNDECIDED, *space, name))?;
        }
        Ok(names)
    }

    fn put<R: Rows>(&mut self, rows: &mut R, row: &Row) -> Result<(), R::Error> {
        self.times.saw(row);
        for &blob in &row.blobs {
            rows.remove_meta(&idle_key(blob))?;
        }
        rows.put(row)
    }

    /// A stamp above the wall clock, all stamps seen, and `before`. A stamp that a wrong clock drove far
    /// ahead stays with its row and does not move the local clock.
    fn mint<R: Rows>(&mut self, rows: &mut R, before: Option<Stamp>, now: Now) -> Result<Stamp, R::Error> {
        let clock = self.hlc.max(Stamp::at_ms(now.wall_ms)).next().min(Stamp::MAX);
        let stamp = before.map_or(clock, |before| clock.max(before.next())).min(Stamp::MAX);
        self.hlc =
            if stamp <= Stamp::at_ms(now.wall_ms.saturating_add(MAX_CLOCK_LEAD_MS)) { stamp } else { clock };
        rows.put_meta(META_HLC, &self.hlc.as_u64().to_be_bytes())?;
        Ok(stamp)
    }
}

/// The key of the time since which no row has named a blob.
pub(crate) fn idle_key(hash: BlobHash) -> Vec<u8> {
    [META_IDLE, &hash.0].concat()
}

/// The key of the note ([`Rows::put_meta`]) that a name, or its place, still has to be examined: this tracker votes on it as soon
/// as it may.
#[must_use]
pub fn pending_key(space: NameSpace, name: &[u8]) -> Vec<u8> {
    name_key(META_PENDING, space, name)
}

fn name_key(prefix: &[u8], space: NameSpace, name: &[u8]) -> Vec<u8> {
    let space = match space {
        NameSpace::User => b'u',
        NameSpace::Group => b'g',
    };
    [prefix, &[space], name].concat()
}

/// The name in such a key.
pub(crate) fn parse_pending_key(key: &[u8]) -> Option<(NameSpace, &[u8])> {
    parse_name_key(META_PENDING, key)
}

fn parse_name_key<'a>(prefix: &[u8], key: &'a [u8]) -> Option<(NameSpace, &'a [u8])> {
    match key.strip_prefix(prefix)?.split_first()? {
        (b'u', name) => Some((NameSpace::User, name)),
        (b'g', name) => Some((NameSpace::Group, name)),
        _ => None,
    }
}

/// Eight bytes as a number.
pub(crate) fn number(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

const AHEAD_STEP: u64 = 0x3ff;
const META_ME: &[u8] = b"me";
const META_HLC: &[u8] = b"hlc";
const META_DROPPED: &[u8] = b"dropped";
const META_VECTOR: &[u8] = b"v/";
const META_AHEAD: &[u8] = b"a/";
const META_GC_WATERMARK: &[u8] = b"f/";
const META_IDLE: &[u8] = b"i/";
const META_UNDECIDED: &[u8] = b"u/";
const META_REMOVED: &[u8] = b"removed";
const META_BEGAN: &[u8] = b"began";
/// The prefix of the keys of names that still have to be examined.
pub(crate) const META_PENDING: &[u8] = b"n/";

fn meta_key(prefix: &[u8], writer: WriterId) -> Vec<u8> {
    [prefix, &writer.0].concat()
}

fn load<R: Rows>(rows: &R, prefix: &[u8]) -> Result<VersionVector, OpenError<R::Error>> {
    let entries = rows.scan_meta(prefix, 2 * MAX_WRITERS).map_err(OpenError::Store)?;
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let writer = key.get(prefix.len()..)?.try_into().ok()?;
        Some((WriterId(writer), number(value)?))
    };
    entries.iter().map(|entry| parse(entry).ok_or(OpenError::Corrupt("the version vector"))).collect()
}

fn load_undecided<R: Rows>(rows: &R) -> Result<Undecided, OpenError<R::Error>> {
    let entries = rows.scan_meta(META_UNDECIDED, MAX_PENDING_WRITES).map_err(OpenError::Store)?;
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let (space, name) = parse_name_key(META_UNDECIDED, key)?;
        let (writer, seq) = value.split_first_chunk::<16>()?;
        Some(((WriterId(*writer), number(seq)?), (space, name.to_vec())))
    };
    entries.iter().map(|entry| parse(entry).ok_or(OpenError::Corrupt("the list of names"))).collect()
}

fn load_stamp<R: Rows>(rows: &R, key: &[u8]) -> Result<Stamp, OpenError<R::Error>> {
    match rows.meta(key).map_err(OpenError::Store)? {
        Some(value) => Ok(Stamp::from_u64(number(&value).ok_or(OpenError::Corrupt("the clock"))?)),
        None => Ok(Stamp::default()),
    }
}

fn contradicts(row: &Row, held: &Row) -> bool {
    let choice =
        matches!(row.kind, Kind::USER_VOTE | Kind::GROUP_VOTE | Kind::USER_DECISION | Kind::GROUP_DECISION);
    choice && row.value != held.value
}

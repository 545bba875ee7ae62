//! What one tracker holds and how far: numbers and stamps for its own rows, the version vector, and the one way in for
//! rows of others. Knows nothing of links. Everything it keeps in memory is a copy of what lies beside the rows.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::{Config, Now, OpenError, Write};
use crate::limits::{MAX_CLOCK_LEAD_MS, MAX_ORIGINS, MAX_PENDING_WRITES, MAX_TRACKERS};
use crate::merge::wins;
use crate::names::NameSpace;
use crate::row::{BlobHash, Kind, Origin, Row, Rule, Stamp, TrackerNo};
use crate::rows::{Admission, Rows};
use crate::vector::VersionVector;

mod removed;
mod restamp;
mod writers;

use restamp::Times;

/// The durable truth of one tracker.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) me: TrackerNo,
    pub(crate) configured: BTreeSet<TrackerNo>,
    pub(crate) origin: Origin,
    /// Nothing was held when it was opened, and not all others were heard since.
    pub(crate) was_blank: bool,
    /// Writers of which a peer may bring rows, before there are any.
    admitted: BTreeSet<Origin>,
    /// Everything up to here is held or superseded.
    pub(crate) vector: VersionVector,
    /// The highest number held, where that lies beyond the vector.
    ahead: VersionVector,
    /// Tombstones up to here were dropped: here, or by whoever this tracker had its rows from.
    pub(crate) floor: VersionVector,
    /// No dropped tombstone has a later stamp. What takes a deleted key's place must have one, or it would lose where the
    /// tombstone is still held.
    pub(crate) dropped: Stamp,
    hlc: Stamp,
    pub(crate) times: Times,
    /// Names with a majority that rests on a vote of this tracker of which no other is known to hold it, by its number.
    unsettled: Unsettled,
}

/// Names by the number of this tracker's vote.
type Unsettled = BTreeMap<(Origin, u64), (NameSpace, Vec<u8>)>;

/// What became of a row.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// It is held now and was not before.
    pub(crate) stored: bool,
    /// It contradicts what was held, in a way that only lost disks explain.
    pub(crate) conflict: bool,
    /// It does not prove itself, or its time is impossible.
    pub(crate) refused: bool,
}

/// How far a row from elsewhere is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trust {
    /// What the vector covers and is not held was deleted here.
    Vector,
    /// The same; and rows of this origin will be covered by the end of this transaction.
    Next(Origin),
    /// The sender knows better: take the union.
    Sender,
}

impl Ledger {
    /// Reads what is kept beside the rows, or begins anew in an empty store.
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
        let mut ledger = Self {
            was_blank: vector.is_empty(),
            admitted: BTreeSet::new(),
            me: config.me,
            configured,
            origin: config.origin,
            vector,
            ahead: load(rows, META_AHEAD)?,
            floor: load(rows, META_FLOOR)?,
            dropped: load_stamp(rows, META_DROPPED)?,
            hlc: load_stamp(rows, META_HLC)?,
            times: Times::open(rows)?,
            unsettled: load_unsettled(rows)?,
        };
        // In memory only: nothing is written on a store that was opened before, so that a full disk does not hinder it.
        for origin in ledger.ahead() {
            if !ledger.holds_ahead(rows, origin).map_err(OpenError::Store)? {
                ledger.ahead.forget(origin);
            }
        }
        Ok(ledger)
    }

    /// The number of the last row written here in this process.
    pub(crate) fn seq(&self) -> u64 {
        self.vector.at(self.origin)
    }

    /// Whether nothing is held beyond the vector, so that two equal vectors mean equal rows.
    pub(crate) fn is_clean(&self) -> bool {
        self.ahead.is_empty()
    }

    /// Origins with rows held beyond the vector.
    pub(crate) fn ahead(&self) -> Vec<Origin> {
        self.ahead.iter().map(|(origin, _)| origin).collect()
    }

    /// Writes a row of this tracker's own, with a new number and a stamp above whatever was there.
    pub(crate) fn write<R: Rows>(&mut self, rows: &mut R, write: Write, now: Now) -> Result<Row, R::Error> {
        let held = rows.get(write.kind, &write.key)?;
        let rule = write.kind.rule();
        let before = match &held {
            Some(row) => Some(row.stamp),
            None => Some(self.dropped).filter(|_| rule == Rule::LastWins),
        };
        // Nobody else holds an impossible row, so this one has to be later than it nowhere.
        let disowned = held.as_ref().is_some_and(|held| self.times.is_disowned(held));
        let before = before.filter(|_| !disowned);
        let stamp = self.mint(rows, before, now)?.of_new_row(rule);
        let born = held.filter(|row| !row.tombstone && !write.tombstone).map_or(stamp, |row| row.born);
        // A clock that was ahead must not have the row refused for what came before it.
        let born = born.min(stamp);
        let row = Row {
            kind: write.kind,
            key: write.key,
            stamp,
            origin: self.origin,
            seq: self.seq() + 1,
            born,
            tombstone: write.tombstone,
            value: write.value,
            blobs: write.blobs.into_iter().map(|(hash, _)| hash).collect(),
        };
        self.put(rows, &row)?;
        self.cover(rows, self.origin, row.seq)?;
        Ok(row)
    }

    /// Gives a row that its own origin can never cover any more a number of this tracker, and so little another stamp
    /// that it wins over itself and over nothing else. (With the same stamp, a tracker could fall back to a number that
    /// loses to one which it has already ignored.) `None` if that was done too often.
    pub(crate) fn adopt<R: Rows>(&mut self, rows: &mut R, row: Row) -> Result<Option<Row>, R::Error> {
        let Some(stamp) = row.stamp.renumbered(row.kind.rule()) else {
            return Ok(None);
        };
        let row = Row { stamp, origin: self.origin, seq: self.seq() + 1, ..row };
        self.put(rows, &row)?;
        self.cover(rows, self.origin, row.seq)?;
        Ok(Some(row))
    }

    /// The blobs that have to be held before a row from elsewhere is taken: none if it is not the one that stays.
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

    /// Takes a row from elsewhere, if it is the one that stays.
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

    /// Stores a row from elsewhere.
    pub(crate) fn store<R: Rows>(&mut self, rows: &mut R, row: &Row, trust: Trust) -> Result<(), R::Error> {
        self.put(rows, row)?;
        if !self.vector.covers(row.origin, row.seq) && trust != Trust::Next(row.origin) {
            self.note_ahead(rows, row.origin, row.seq)?;
        }
        Ok(())
    }

    /// Notes that a row beyond the vector is held. In the store the number is rounded up, so that a long round does not
    /// write it with every row.
    fn note_ahead<R: Rows>(&mut self, rows: &mut R, origin: Origin, seq: u64) -> Result<(), R::Error> {
        let before = self.ahead.at(origin);
        if self.ahead.raise(origin, seq) && (before == 0 || before | AHEAD_STEP < seq) {
            rows.put_meta(&meta_key(META_AHEAD, origin), &(seq | AHEAD_STEP).to_be_bytes())?;
        }
        Ok(())
    }

    /// Whether a row from elsewhere takes the place of what is held.
    fn stays(&self, row: &Row, held: Option<&Row>, trust: Trust, admission: Admission) -> bool {
        let refused = matches!(admission, Admission::Refused | Admission::Below);
        if refused || self.is_dropped(row) || self.times.is_impossible(row) {
            return false;
        }
        match held {
            // An earlier version took it; nobody takes it any more, so it must not stand in the way.
            Some(held) if self.times.is_disowned(held) => true,
            Some(_) if admission == Admission::Above => true,
            // Elsewhere the tombstone is gone, and this row was taken.
            Some(held) if self.is_dropped(held) && !self.vector.covers(row.origin, row.seq) => true,
            Some(held) => wins(row, held),
            None => {
                let unknown = !self.vector.covers(row.origin, row.seq);
                unknown || trust == Trust::Sender || row.kind.rule() == Rule::FirstStays
            }
        }
    }

    /// Whether a row is a tombstone that somebody has dropped: then it counts nowhere any more, wherever it is still held.
    pub(crate) fn is_dropped(&self, row: &Row) -> bool {
        row.tombstone && self.floor.covers(row.origin, row.seq)
    }

    /// Whether a vector may be merged without knowing more origins than are allowed.
    pub(crate) fn has_room_for(&self, vector: &VersionVector) -> bool {
        let new = vector.iter().filter(|&(origin, _)| self.vector.at(origin) == 0).count();
        self.vector.len() + new <= MAX_ORIGINS
    }

    /// Whether rows of this origin may be taken at all.
    pub(crate) fn has_room_for_origin(&self, origin: Origin) -> bool {
        self.ahead.at(origin) > 0 || self.vector.at(origin) > 0 || self.ahead.len() < MAX_ORIGINS
    }

    /// Notes that everything of `vector` is held or superseded.
    pub(crate) fn merge<R: Rows>(&mut self, rows: &mut R, vector: &VersionVector) -> Result<(), R::Error> {
        for (origin, seq) in vector.iter().filter(|&(origin, _)| origin != self.origin).collect::<Vec<_>>() {
            self.cover(rows, origin, seq)?;
        }
        Ok(())
    }

    /// The writer itself says that there is nothing of `origin` above `seq`: whoever said otherwise is not believed any more.
    pub(crate) fn take_back<R: Rows>(
        &mut self,
        rows: &mut R,
        origin: Origin,
        seq: u64,
    ) -> Result<(), R::Error> {
        if self.vector.at(origin) <= seq {
            return Ok(());
        }
        self.vector.lower(origin, seq);
        match seq {
            0 => rows.remove_meta(&meta_key(META_VECTOR, origin))?,
            _ => rows.put_meta(&meta_key(META_VECTOR, origin), &seq.to_be_bytes())?,
        }
        if let Some(last) = rows.above(origin, seq, MAX_ORIGINS)?.last() {
            self.note_ahead(rows, origin, last.seq)?;
        }
        Ok(())
    }

    /// Notes that all rows of `origin` up to `seq` are held or superseded.
    pub(crate) fn cover<R: Rows>(&mut self, rows: &mut R, origin: Origin, seq: u64) -> Result<(), R::Error> {
        if !self.vector.raise(origin, seq) {
            return Ok(());
        }
        self.admitted.remove(&origin);
        rows.put_meta(&meta_key(META_VECTOR, origin), &seq.to_be_bytes())?;
        self.close_gap(rows, origin)
    }

    /// Takes note if nothing of `origin` is held beyond the vector any more.
    pub(crate) fn close_gap<R: Rows>(&mut self, rows: &mut R, origin: Origin) -> Result<(), R::Error> {
        if self.ahead.at(origin) > 0 && !self.holds_ahead(rows, origin)? {
            self.ahead.forget(origin);
            rows.remove_meta(&meta_key(META_AHEAD, origin))?;
        }
        Ok(())
    }

    /// Whether anything of `origin` is held beyond the vector.
    fn holds_ahead<R: Rows>(&self, rows: &R, origin: Origin) -> Result<bool, R::Error> {
        let covered = self.vector.at(origin);
        Ok(self.ahead.at(origin) > covered && !rows.above(origin, covered, 1)?.is_empty())
    }

    /// Drops a tombstone that every tracker knows of; says whether the floor rose.
    pub(crate) fn drop_tombstone<R: Rows>(&mut self, rows: &mut R, row: &Row) -> Result<bool, R::Error> {
        rows.remove(row.kind, &row.key)?;
        let mut floor = VersionVector::default();
        floor.raise(row.origin, row.seq);
        self.raise_floor(rows, &floor, row.stamp)
    }

    /// Notes up to where tombstones may be missing; says whether that is more than before.
    pub(crate) fn raise_floor<R: Rows>(
        &mut self,
        rows: &mut R,
        floor: &VersionVector,
        dropped: Stamp,
    ) -> Result<bool, R::Error> {
        let mut risen = false;
        for (origin, seq) in floor.iter() {
            if self.floor.raise(origin, seq) {
                rows.put_meta(&meta_key(META_FLOOR, origin), &seq.to_be_bytes())?;
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

    /// Notes that a name can be settled once another tracker holds this tracker's vote.
    pub(crate) fn note_unsettled<R: Rows>(
        &mut self,
        rows: &mut R,
        (origin, seq): (Origin, u64),
        (space, name): (NameSpace, &[u8]),
    ) -> Result<(), R::Error> {
        if self.unsettled.insert((origin, seq), (space, name.to_vec())).is_none() {
            let number = [&origin.0[..], &seq.to_be_bytes()].concat();
            rows.put_meta(&name_key(META_UNSETTLED, space, name), &number)?;
        }
        Ok(())
    }

    /// Takes the names whose votes are held elsewhere now, so many at most.
    pub(crate) fn take_unsettled<R: Rows>(
        &mut self,
        rows: &mut R,
        held: impl Fn(Origin, u64) -> bool,
        limit: usize,
    ) -> Result<Vec<(NameSpace, Vec<u8>)>, R::Error> {
        let due = self.unsettled.extract_if(.., |(origin, seq), _| held(*origin, *seq)).take(limit);
        let names: Vec<_> = due.map(|(_, name)| name).collect();
        for (space, name) in &names {
            rows.remove_meta(&name_key(META_UNSETTLED, *space, name))?;
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

    /// A stamp above the wall clock, everything seen, and `before`. One that a broken clock drove far ahead stays with
    /// its row and does not move the local clock.
    fn mint<R: Rows>(&mut self, rows: &mut R, before: Option<Stamp>, now: Now) -> Result<Stamp, R::Error> {
        let clock = self.hlc.max(Stamp::at_ms(now.wall_ms)).next().min(Stamp::MAX);
        let stamp = before.map_or(clock, |before| clock.max(before.next())).min(Stamp::MAX);
        self.hlc =
            if stamp <= Stamp::at_ms(now.wall_ms.saturating_add(MAX_CLOCK_LEAD_MS)) { stamp } else { clock };
        rows.put_meta(META_HLC, &self.hlc.as_u64().to_be_bytes())?;
        Ok(stamp)
    }
}

/// Where it is kept since when a blob is named by no row.
pub(crate) fn idle_key(hash: BlobHash) -> Vec<u8> {
    [META_IDLE, &hash.0].concat()
}

/// Where it is kept that a name still has to be looked at.
pub(crate) fn pending_key(space: NameSpace, name: &[u8]) -> Vec<u8> {
    name_key(META_PENDING, space, name)
}

fn name_key(prefix: &[u8], space: NameSpace, name: &[u8]) -> Vec<u8> {
    let space = match space {
        NameSpace::User => b'u',
        NameSpace::Group => b'g',
    };
    [prefix, &[space], name].concat()
}

/// The name that such a key is about.
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
const META_FLOOR: &[u8] = b"f/";
const META_IDLE: &[u8] = b"i/";
const META_UNSETTLED: &[u8] = b"u/";
const META_REMOVED: &[u8] = b"removed";
const META_BEGAN: &[u8] = b"began";
/// Begins the keys of names that still have to be looked at.
pub(crate) const META_PENDING: &[u8] = b"n/";

fn meta_key(prefix: &[u8], origin: Origin) -> Vec<u8> {
    [prefix, &origin.0].concat()
}

fn load<R: Rows>(rows: &R, prefix: &[u8]) -> Result<VersionVector, OpenError<R::Error>> {
    let entries = rows.scan_meta(prefix, 2 * MAX_ORIGINS).map_err(OpenError::Store)?;
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let origin = key.get(prefix.len()..)?.try_into().ok()?;
        Some((Origin(origin), number(value)?))
    };
    entries.iter().map(|entry| parse(entry).ok_or(OpenError::Corrupt("the version vector"))).collect()
}

fn load_unsettled<R: Rows>(rows: &R) -> Result<Unsettled, OpenError<R::Error>> {
    let entries = rows.scan_meta(META_UNSETTLED, MAX_PENDING_WRITES).map_err(OpenError::Store)?;
    let parse = |(key, value): &(Vec<u8>, Vec<u8>)| {
        let (space, name) = parse_name_key(META_UNSETTLED, key)?;
        let (origin, seq) = value.split_first_chunk::<16>()?;
        Some(((Origin(*origin), number(seq)?), (space, name.to_vec())))
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
        matches!(row.kind, Kind::USER_VOTE | Kind::GROUP_VOTE | Kind::USER_SETTLED | Kind::GROUP_SETTLED);
    choice && row.value != held.value
}

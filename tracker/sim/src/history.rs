//! What was acknowledged to clients and must therefore hold.

use std::collections::BTreeMap;

use shoal_replica::{Frame, Kind, Live, NameSpace, Row, Rule, Stamp, Uid, VersionVector, WriterId};

use crate::disk::{Disk, look};

/// Everything acknowledged so far, and every row seen.
#[derive(Default)]
pub(crate) struct History {
    acked: BTreeMap<(Kind, Vec<u8>), Row>,
    deleted: BTreeMap<(Kind, Vec<u8>), Stamp>,
    /// Trackers of an earlier version give names that look alike.
    pub(crate) is_earlier: bool,
    /// By what the name looks like: no two definite names look alike.
    created: BTreeMap<(NameSpace, Vec<u8>), Uid>,
    numbers: BTreeMap<(WriterId, u64), Seen>,
    /// A deleted row may rise again with a lower stamp, for one of two reasons: clocks were wrong by more
    /// than tombstones are kept, so a tracker that lost its disk may write what all others have dropped as
    /// deleted; or a tracker lost its disk twice, so its backup may bring a row that no other tracker ever
    /// saw and that was deleted unseen.
    pub(crate) deletions_fade: bool,
    /// One tracker lies: of several deletions of one key any may be held, because digests do not count them.
    pub(crate) is_lied_to: bool,
}

/// A row that was written or sent.
struct Seen {
    digest: u128,
    kind: Kind,
    key: Vec<u8>,
    stamp: Stamp,
}

impl History {
    /// A write was attempted, acknowledged or not.
    pub(crate) fn tried(&mut self, row: &Row) {
        if row.tombstone {
            let stamp = self.deleted.entry((row.kind, row.key.clone())).or_default();
            *stamp = row.stamp.max(*stamp);
        }
    }

    /// These rows were acknowledged to a client, for good.
    pub(crate) fn acked(&mut self, rows: &[Row]) {
        for row in rows {
            let place = (row.kind, row.key.clone());
            let demanding = |known: &Row| match row.kind.rule() {
                Rule::LastWins => known.stamp < row.stamp,
                Rule::FirstStays => known.stamp > row.stamp,
            };
            if self.acked.get(&place).is_none_or(demanding) {
                self.acked.insert(place, row.clone());
            }
        }
    }

    /// A name was reported as definitely held by this uid: invariant 3.
    pub(crate) fn created(&mut self, space: NameSpace, name: &[u8], uid: Uid) -> Result<(), String> {
        let given = if self.is_earlier { name.to_vec() } else { look(name) };
        let first = *self.created.entry((space, given)).or_insert(uid);
        if first == uid {
            Ok(())
        } else {
            Err(format!(
                "invariant 3: {name:?}, or what looks like it, was given to {first:?} and to {uid:?}"
            ))
        }
    }

    /// A frame was sent: invariant 6.
    pub(crate) fn sent(&mut self, frame: &Frame) -> Result<(), String> {
        match frame {
            Frame::Rows { rows, .. } | Frame::Live(Live { rows, .. }) => {
                rows.iter().try_for_each(|row| self.numbered(row))
            }
            _ => Ok(()),
        }
    }

    fn numbered(&mut self, row: &Row) -> Result<(), String> {
        let digest = row.digest();
        if let Some(seen) = self.numbers.get(&(row.writer, row.seq)) {
            return if seen.digest == digest {
                Ok(())
            } else {
                Err(format!("invariant 6: two rows are {:?} {}", row.writer, row.seq))
            };
        }
        self.tried(row);
        let seen = Seen { digest, kind: row.kind, key: row.key.clone(), stamp: row.stamp };
        self.numbers.insert((row.writer, row.seq), seen);
        Ok(())
    }

    /// Everything acknowledged is held or superseded: invariants 2 and 4.
    pub(crate) fn check<D: Disk>(&mut self, store: &D) -> Result<(), String> {
        for row in store.all() {
            self.numbered(&row)?;
        }
        for row in self.acked.values() {
            let held = store.get(row.kind, &row.key).unwrap();
            if !self.stands_for(held.as_ref(), row) {
                return Err(format!("invariants 2 and 4: {row:?} was acknowledged, and there is {held:?}"));
            }
        }
        Ok(())
    }

    /// What a vector covers is held or superseded. This holds always, and everything else rests on it.
    pub(crate) fn check_vector<D: Disk>(&self, store: &D, vector: &VersionVector) -> Result<(), String> {
        for ((writer, seq), seen) in
            self.numbers.iter().filter(|((writer, seq), _)| vector.covers(*writer, *seq))
        {
            let held = store.get(seen.kind, &seen.key).unwrap();
            if !self.is_past(held.as_ref(), seen.kind, &seen.key, seen.stamp) {
                return Err(format!(
                    "vector: {writer:?} {seq} ({:?} {:?} at {:?}) is covered, and there is {held:?}",
                    seen.kind, seen.key, seen.stamp
                ));
            }
        }
        Ok(())
    }

    /// Whether the held row is this row or supersedes it.
    pub(crate) fn stands_for(&self, held: Option<&Row>, row: &Row) -> bool {
        self.is_past(held, row.kind, &row.key, row.stamp)
    }

    fn is_past(&self, held: Option<&Row>, kind: Kind, key: &[u8], stamp: Stamp) -> bool {
        match (kind.rule(), held) {
            (Rule::FirstStays, Some(held)) => held.stamp <= stamp,
            (Rule::FirstStays, None) => false,
            (Rule::LastWins, Some(held)) => {
                held.stamp >= stamp
                    || ((self.deletions_fade || (self.is_lied_to && held.tombstone))
                        && self.deleted.get(&(kind, key.to_vec())).is_some_and(|&it| it >= stamp))
            }
            (Rule::LastWins, None) => {
                self.deleted.get(&(kind, key.to_vec())).is_some_and(|&deleted| deleted >= stamp)
            }
        }
    }

    /// What the names look like that were definitely given to a uid. It is a name as well.
    pub(crate) fn names(&self) -> impl Iterator<Item = (NameSpace, &[u8], Uid)> {
        self.created.iter().map(|((space, name), &uid)| (*space, name.as_slice(), uid))
    }
}

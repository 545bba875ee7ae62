//! What clients were told, and what may therefore never be otherwise.

use std::collections::BTreeMap;

use shoal_replica::memory::Memory;
use shoal_replica::{Frame, Kind, Live, NameSpace, Origin, Row, Rows, Rule, Stamp, Uid};

/// Everything acknowledged so far, and every number seen.
#[derive(Default)]
pub(crate) struct History {
    acked: Vec<Row>,
    deleted: BTreeMap<(Kind, Vec<u8>), Stamp>,
    created: BTreeMap<(NameSpace, Vec<u8>), Uid>,
    numbers: BTreeMap<(Origin, u64), u128>,
}

impl History {
    /// A deletion was tried, acknowledged or not.
    pub(crate) fn tried(&mut self, row: &Row) {
        if row.tombstone {
            let stamp = self.deleted.entry((row.kind, row.key.clone())).or_default();
            *stamp = row.stamp.max(*stamp);
        }
    }

    /// A client was told that these rows are written, for good.
    pub(crate) fn acked(&mut self, rows: &[Row]) {
        self.acked.extend_from_slice(rows);
    }

    /// A client was told that a name is its own for good: invariant 3.
    pub(crate) fn created(&mut self, space: NameSpace, name: &[u8], uid: Uid) -> Result<(), String> {
        let first = *self.created.entry((space, name.to_vec())).or_insert(uid);
        if first == uid {
            Ok(())
        } else {
            Err(format!("invariant 3: {name:?} was given to {first:?} and to {uid:?}"))
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
        let first = *self.numbers.entry((row.origin, row.seq)).or_insert(digest);
        if first == digest {
            Ok(())
        } else {
            Err(format!("invariant 6: two rows are {:?} {}", row.origin, row.seq))
        }
    }

    /// Everything acknowledged is there, or what superseded it: invariants 2 and 4.
    pub(crate) fn check(&mut self, store: &Memory) -> Result<(), String> {
        for row in store.rows() {
            self.numbered(row)?;
        }
        for row in &self.acked {
            let held = store.get(row.kind, &row.key).unwrap();
            if !self.stands_for(held.as_ref(), row) {
                return Err(format!("invariants 2 and 4: {row:?} was acknowledged, and there is {held:?}"));
            }
        }
        Ok(())
    }

    /// Whether what is held is the row or what superseded it.
    pub(crate) fn stands_for(&self, held: Option<&Row>, row: &Row) -> bool {
        match (row.kind.rule(), held) {
            (Rule::FirstStays, Some(held)) => held.stamp <= row.stamp,
            (Rule::FirstStays, None) => false,
            (Rule::LastWins, Some(held)) => held.stamp >= row.stamp,
            (Rule::LastWins, None) => {
                self.deleted.get(&(row.kind, row.key.clone())).is_some_and(|&stamp| stamp >= row.stamp)
            }
        }
    }

    /// Who was told to have a name for good.
    pub(crate) fn names(&self) -> impl Iterator<Item = (NameSpace, &[u8], Uid)> {
        self.created.iter().map(|((space, name), &uid)| (*space, name.as_slice(), uid))
    }
}

//! The storage seam and what a simulation does to disks: they crash, are lost, and are restored from backups.

use std::fmt::Debug;

use shoal_replica::memory::Memory;
use shoal_replica::{Kind, Row, Rows};

/// One tracker's disk. An error is a panic, because it means that the simulation itself failed.
pub trait Disk: Rows<Error: Debug> + Sized {
    /// A copy of a disk.
    type Backup: Clone;

    /// An empty disk.
    fn blank() -> Self;

    /// Begins a transaction. None is open.
    fn begin(&mut self);

    /// Makes the open transaction durable.
    fn commit(&mut self);

    /// Undoes the open transaction, if there is one.
    fn rollback(&mut self);

    /// The process died and another one opens the disk. What was not committed is lost.
    fn crash(&mut self);

    /// A copy of what is durable now. No transaction is open.
    fn backup(&self) -> Self::Backup;

    /// A disk with the content of a backup.
    fn restore(backup: &Self::Backup) -> Self;

    /// All rows, tombstones included, by kind and key.
    fn all(&self) -> Vec<Row> {
        let mut found: Vec<Row> = Vec::new();
        for kind in (1..=6).chain([Kind::FIRST_STAYS.0, Kind::LAST_WINS.0]).map(Kind) {
            loop {
                let last = found.last().filter(|row| row.kind == kind).map(|row| row.key.clone());
                let page = self.scan(kind, &[], last.as_deref(), PAGE).unwrap();
                let complete = page.len() < PAGE;
                found.extend(page);
                if complete {
                    break;
                }
            }
        }
        found
    }
}

/// What a name of the simulation looks like: the names of one phase and number are three that look alike.
#[must_use]
pub fn look(name: &[u8]) -> Vec<u8> {
    name.get(..2).unwrap_or(name).to_vec()
}

const PAGE: usize = 256;

impl Disk for Memory {
    type Backup = Self;

    fn blank() -> Self {
        let mut disk = Self::new();
        disk.alike_by(look);
        disk
    }

    fn begin(&mut self) {}

    fn commit(&mut self) {
        Self::commit(self);
    }

    fn rollback(&mut self) {
        Self::rollback(self);
    }

    fn crash(&mut self) {
        Self::rollback(self);
    }

    fn backup(&self) -> Self {
        self.clone()
    }

    fn restore(backup: &Self) -> Self {
        backup.clone()
    }

    fn all(&self) -> Vec<Row> {
        self.rows().cloned().collect()
    }
}

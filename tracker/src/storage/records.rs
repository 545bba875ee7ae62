//! Reads the records of the encrypted store into the planner: all of them once, then the changed ones.

use shoal_common::storage::StoreManifest;
use shoal_common::tracker_api::Refusal;
use shoal_common::{Blake3, PeerId};
use shoal_replica::{BlobHash, Kind, MemberStatus, Row, Rows};

use super::{Known, Storage};
use crate::clock::{is_credible, wall_ms};
use crate::database::{Fault, Tx};
use crate::record::{
    ALLOWANCE, Allowance, CAUTION, Caution, POINTER, Pointer, STORAGE_NODE, StorageNode, parse_pointer_key,
    part, put,
};
use crate::store::{Beginning, STORAGE_KINDS};

/// Rows read at a time, because clients' commands wait meanwhile.
const MAX_ROWS: usize = 64;
/// Bytes of manifests read at a time; see [`MAX_ROWS`].
const MAX_BYTES: usize = 4 * 1024 * 1024;
/// Trackers and allowances are few.
const MAX_FEW: usize = 256;

/// How far reading has come.
#[derive(Debug, Default)]
pub(super) struct Reader {
    generation: Option<u64>,
    /// The kind that is being read whole, and the last key read; `None` once all are read.
    at: Option<(usize, Option<Vec<u8>>)>,
    /// Whether everything was read once since this process began. What comes after that is new.
    was_loaded: bool,
}

/// A row of the encrypted store as it is now.
struct Change {
    kind: Kind,
    key: Vec<u8>,
    row: Option<Row>,
    /// The manifest that it names.
    manifest: Option<Vec<u8>>,
}

/// One look at the records.
struct Look {
    generation: u64,
    beginning: Beginning,
    changes: Vec<Change>,
    at: Option<(usize, Option<Vec<u8>>)>,
    more: bool,
    members: Vec<MemberStatus>,
    cautions: Vec<(u8, u64)>,
    allowed_ms: Option<u64>,
}

impl Reader {
    pub(super) async fn refresh(&mut self, storage: &Storage) -> Result<(), Refusal> {
        loop {
            let (generation, at) = (self.generation, self.at.clone());
            let look = storage.database().run(move |tx| look(tx, generation, at)).await?;
            if self.generation != Some(look.generation) {
                self.generation = Some(look.generation);
                storage.planner().clear_files();
                storage.known().loaded = false;
                if look.beginning != Beginning::Known {
                    warn_of(storage, look.beginning).await?;
                }
            }
            self.at = look.at;
            let now = storage.now_ms();
            for change in look.changes {
                apply(storage, change, !self.was_loaded, now);
            }
            let loaded = self.at.is_none();
            self.was_loaded |= loaded;
            *storage.known() =
                Known { members: look.members, cautions: look.cautions, allowed_ms: look.allowed_ms, loaded };
            if !look.more {
                return Ok(());
            }
        }
    }
}

/// Lets all trackers know that this one started without what it held before.
async fn warn_of(storage: &Storage, beginning: Beginning) -> Result<(), Refusal> {
    let number = storage.me.0;
    tracing::warn!(?beginning, "nothing is deleted on storage nodes for 24 h, unless an operator allows it");
    let write = put(CAUTION, vec![number], &Caution { since_ms: wall_ms() });
    storage.database().run(move |tx| tx.write(vec![write])).await
}

fn look(tx: &mut Tx<'_>, known: Option<u64>, at: Option<(usize, Option<Vec<u8>>)>) -> Result<Look, Fault> {
    let generation = tx.store().generation();
    let at = if known == Some(generation) {
        at
    } else {
        tx.store().forget_storage_changes()?;
        Some((0, None))
    };
    let now_ms = tx.now().wall_ms;
    let mut look = Look {
        generation,
        beginning: tx.store().beginning(),
        changes: Vec::new(),
        at: None,
        more: false,
        members: tx.members(),
        cautions: Vec::new(),
        allowed_ms: live(tx, ALLOWANCE)?
            .iter()
            .filter_map(decode::<Allowance>)
            .map(|found| found.at_ms)
            .filter(|at_ms| is_credible(*at_ms, now_ms))
            .max(),
    };
    for row in live(tx, CAUTION)? {
        // A time far ahead would hold deletions for ever, whatever an operator allows.
        let since = decode::<Caution>(&row).map(|caution| caution.since_ms);
        let since = since.filter(|since_ms| is_credible(*since_ms, now_ms));
        look.cautions.extend(row.key.first().copied().zip(since));
    }
    match at {
        Some((kind, after)) => read_all(tx, kind, after, &mut look)?,
        None => read_changed(tx, &mut look)?,
    }
    Ok(look)
}

/// One page of everything.
fn read_all(tx: &Tx<'_>, number: usize, after: Option<Vec<u8>>, look: &mut Look) -> Result<(), Fault> {
    let Some(&kind) = STORAGE_KINDS.iter().rev().nth(number) else { return Ok(()) };
    let rows = tx.store().scan(kind, &[], after.as_deref(), MAX_ROWS)?;
    let mut complete = rows.len() < MAX_ROWS;
    let (mut bytes, mut last) = (0, after);
    for row in rows {
        if bytes > MAX_BYTES {
            complete = false;
            break;
        }
        let manifest = manifest_of(tx, &row)?;
        bytes += manifest.as_ref().map_or(0, Vec::len);
        last = Some(row.key.clone());
        look.changes.push(Change { kind, key: row.key.clone(), row: Some(row), manifest });
    }
    look.at = match complete {
        false => Some((number, last)),
        true if number + 1 < STORAGE_KINDS.len() => Some((number + 1, None)),
        true => None,
    };
    look.more = look.at.is_some();
    Ok(())
}

fn read_changed(tx: &Tx<'_>, look: &mut Look) -> Result<(), Fault> {
    // 64 of the longest manifests are 120 MB. They are not put at once, and stay in memory only for a moment.
    let changed = tx.store().take_storage_changes(MAX_ROWS)?;
    look.more = changed.len() == MAX_ROWS;
    for (kind, key) in changed {
        let row = tx.store().get(kind, &key)?;
        let manifest = row.as_ref().map_or(Ok(None), |row| manifest_of(tx, row))?;
        look.changes.push(Change { kind, key, row, manifest });
    }
    Ok(())
}

fn manifest_of(tx: &Tx<'_>, row: &Row) -> Result<Option<Vec<u8>>, Fault> {
    if row.kind != POINTER || row.tombstone {
        return Ok(None);
    }
    let Some(pointer) = decode::<Pointer>(row) else { return Ok(None) };
    Ok(tx.store().read_blob(BlobHash(pointer.version.0), 0, shoal_common::storage::MAX_STORE_MANIFEST)?)
}

fn live(tx: &Tx<'_>, kind: Kind) -> Result<Vec<Row>, Fault> {
    let mut rows = tx.store().scan(kind, &[], None, MAX_FEW)?;
    rows.retain(|row| !row.tombstone);
    Ok(rows)
}

fn decode<T: for<'b> minicbor::Decode<'b, ()>>(row: &Row) -> Option<T> {
    minicbor::decode(&row.value).ok()
}

fn apply(storage: &Storage, change: Change, old: bool, now: u64) {
    let Change { kind, key, row, manifest } = change;
    let row = row.filter(|row| !row.tombstone);
    match kind {
        POINTER => {
            let Some(pointer) = parse_pointer_key(&key) else { return };
            // What cannot be read was written by a later version and must not be lost.
            let version =
                row.as_ref().map(|row| decode::<Pointer>(row).map_or(Blake3([0; 32]), |found| found.version));
            let manifest = manifest.and_then(|bytes| StoreManifest::read(&bytes).ok());
            storage.planner().point(pointer, version, manifest, old, now);
        }
        STORAGE_NODE => {
            let Some(peer) = part(&key, 0).map(PeerId) else { return };
            let record = row.as_ref().and_then(decode::<StorageNode>);
            let record = record.map(|node| (node.name, node.address, node.successor));
            storage.planner().set_node(peer, record, now);
        }
        _ => {}
    }
}

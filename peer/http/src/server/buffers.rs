//! Bytes that are kept in memory for clients until they take them: bounded in all, whatever clients do.
//!
//! A connection always gets small blocks ([`SMALL`], one on its way and one read ahead), so that nobody waits for others'
//! bytes. Larger ones come out of a common store, for connections that work: those that take nothing would keep them from
//! the others until they are cut off. Long texts have a store of their own: a connection that does not take its
//! text gives way to one that asks for one.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::server::places::Place;

/// Bytes read at once: large enough that a hand-over to another thread costs nothing beside it.
pub(super) const BLOCK: u64 = 256 * 1024;
/// Bytes read at once when there is no room for large blocks. At most two for each connection: 32 MiB in all.
pub(super) const SMALL: u64 = 16 * 1024;
/// Room for large blocks: for 128 connections at full speed.
const BLOCKS: usize = 64 << 20;
/// Room for long texts. The longest, a Metalink with `MAX_PIECES` digests, has about 7 MB.
const TEXTS: usize = 64 << 20;
/// Texts up to this length are not counted. At most one for each connection.
const SHORT_TEXT: u64 = 16 * 1024;
/// Long answers that are put together at once. Each has its whole text in memory before it is counted, and takes one of the
/// threads that read files, too.
const ANSWERS: usize = 8;
/// Permits are for so many bytes.
const UNIT: usize = 1024;

/// See the module. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct Buffers {
    blocks: Arc<Semaphore>,
    texts: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

/// Room that is taken until this is dropped.
pub(super) type Room = OwnedSemaphorePermit;

impl Buffers {
    pub(super) fn new() -> Self {
        let room = |bytes: usize| Arc::new(Semaphore::new(bytes / UNIT));
        Self { blocks: room(BLOCKS), texts: room(TEXTS), answers: Arc::new(Semaphore::new(ANSWERS)) }
    }

    /// How many of the next `length` bytes may be read at once, and the room for them. `works`: whether the client has shown
    /// that it takes what it is sent.
    pub(super) fn block(&self, length: u64, works: bool) -> (u64, Option<Room>) {
        let large = length.min(BLOCK);
        if large <= SMALL || !works {
            return (length.min(SMALL), None);
        }
        match self.blocks.clone().try_acquire_many_owned(units(large)) {
            Ok(room) => (large, Some(room)),
            Err(_) => (length.min(SMALL), None),
        }
    }

    /// A turn to put a long answer together.
    pub(super) async fn turn(&self) -> Option<Room> {
        self.answers.clone().acquire_owned().await.ok()
    }

    /// Room for a text of that length.
    ///
    /// # Errors
    /// When there is none now. Those that do not take theirs have given way, so there is some in a moment.
    pub(super) fn text(&self, length: u64, place: &Place) -> Result<Option<Room>, NoRoom> {
        if length <= SHORT_TEXT {
            place.keeps_text(0);
            return Ok(None);
        }
        let wanted = units(length.min(TEXTS as u64));
        let room = match self.texts.clone().try_acquire_many_owned(wanted) {
            Ok(room) => room,
            Err(_) => {
                place.keeps_text(0);
                place.all().free_text(length);
                return Err(NoRoom);
            }
        };
        place.keeps_text(length);
        Ok(Some(room))
    }
}

/// There is no room for a long text now.
#[derive(Debug)]
pub(super) struct NoRoom;

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT as u64)).unwrap_or(u32::MAX)
}

/// The bytes, which keep their room until nobody has them.
pub(super) fn with_room(bytes: Bytes, room: Option<Room>) -> Bytes {
    match room {
        Some(room) => Bytes::from_owner(Kept { bytes, _room: room }),
        None => bytes,
    }
}

struct Kept {
    bytes: Bytes,
    _room: Room,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_blocks_are_bounded_and_small_ones_are_always_there() {
        let buffers = Buffers::new();
        let mut kept = Vec::new();
        loop {
            let (bytes, room) = buffers.block(u64::MAX, true);
            if room.is_none() {
                assert_eq!(bytes, SMALL);
                break;
            }
            kept.push(with_room(vec![0; usize::try_from(bytes).unwrap()].into(), room));
        }
        assert_eq!(kept.len(), BLOCKS / 1024 / 256);
        let part = kept.pop().unwrap().slice(7..9);
        assert!(buffers.block(BLOCK, true).1.is_none(), "a part keeps the whole");
        drop(part);
        assert_eq!(buffers.block(BLOCK, true).0, BLOCK);
        assert_eq!(buffers.block(BLOCK, false).0, SMALL, "one that takes nothing has none");
    }
}

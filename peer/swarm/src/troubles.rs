//! What peers said is the matter with their copies of files that we want, so that a user can be told why nothing comes.
//! Written by the sources' connections, read by whoever lists downloads.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use shoal_common::PeerId;
use shoal_common::peer_wire::CopyTrouble;

use super::FileKey;

/// Troubles that are remembered at most: what a screen shows of them is a few. Beyond, new ones are not taken.
const MAX_TROUBLES: usize = 4_096;

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Troubles(Arc<Mutex<BTreeMap<(FileKey, PeerId), CopyTrouble>>>);

impl Troubles {
    /// A peer refused a file, and said what is the matter with its copy, if anything is.
    pub(super) fn refused(&self, key: FileKey, peer: PeerId, trouble: Option<CopyTrouble>) {
        let mut known = self.known();
        match trouble {
            Some(trouble) if known.len() < MAX_TROUBLES || known.contains_key(&(key, peer)) => {
                known.insert((key, peer), trouble);
            }
            _ => {
                known.remove(&(key, peer));
            }
        }
    }

    /// All that is known of a file.
    pub(super) fn of(&self, key: FileKey) -> Vec<(PeerId, CopyTrouble)> {
        let known = self.known();
        let of_file = known.range((key, PeerId([0; 32]))..=(key, PeerId([0xff; 32])));
        of_file.map(|(&(_, peer), &trouble)| (peer, trouble)).collect()
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<(FileKey, PeerId), CopyTrouble>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::{Fid, Gid};

    #[test]
    fn the_last_word_of_each_peer_counts() {
        let troubles = Troubles::default();
        let key = |n| FileKey { group: Gid([1; 16]), file: Fid([n; 16]) };
        let peer = |n| PeerId([n; 32]);
        for n in 0..3 {
            troubles.refused(key(n), peer(0), Some(CopyTrouble::Changed));
            troubles.refused(key(n), peer(0xff), Some(CopyTrouble::Missing));
        }
        troubles.refused(key(1), peer(0), Some(CopyTrouble::Checked));
        assert_eq!(
            troubles.of(key(1)),
            [(peer(0), CopyTrouble::Checked), (peer(0xff), CopyTrouble::Missing)]
        );
        troubles.refused(key(1), peer(0), None);
        assert_eq!(troubles.of(key(1)), [(peer(0xff), CopyTrouble::Missing)]);
    }
}

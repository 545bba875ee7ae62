//! What is the matter with the copies of a file that others hold, in words for whoever waits for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use shoal_common::peer_wire::CopyTrouble;
use shoal_common::{PeerId, UserName};

use shoal_swarm::{FileKey, Swarm};

/// Holders whose names are kept; more than a screen shows.
const MAX_NAMES: usize = 256;
/// Copies of which is told; the rest is counted.
const MAX_TOLD: usize = 3;

/// The copies of one file. Cheap to clone.
#[derive(Clone)]
pub(super) struct Copies {
    swarm: Swarm,
    key: FileKey,
    names: Arc<Mutex<BTreeMap<PeerId, UserName>>>,
}

impl Copies {
    pub(super) fn new(swarm: Swarm, key: FileKey) -> Self {
        Self { swarm, key, names: Arc::default() }
    }

    /// A holder of a copy is asked for it.
    pub(super) fn asked(&self, peer: PeerId, user: &UserName) {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        if names.len() < MAX_NAMES || names.contains_key(&peer) {
            names.insert(peer, user.clone());
        }
    }

    /// What their holders said is the matter with them: `ann's copy changed on disk`.
    pub(super) fn trouble(&self) -> Option<String> {
        let troubles = self.swarm.troubles(self.key);
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let named = troubles.into_iter().filter_map(|(peer, trouble)| Some((names.get(&peer)?, trouble)));
        sentence(&named.collect::<Vec<_>>())
    }
}

fn sentence(troubles: &[(&UserName, CopyTrouble)]) -> Option<String> {
    let mut words: Vec<String> =
        troubles.iter().take(MAX_TOLD).map(|(user, trouble)| told(user, *trouble)).collect();
    if troubles.len() > MAX_TOLD {
        words.push(format!("and {} more cannot serve it", troubles.len() - MAX_TOLD));
    }
    (!words.is_empty()).then(|| words.join(", "))
}

fn told(user: &UserName, trouble: CopyTrouble) -> String {
    match trouble {
        CopyTrouble::Checked => format!("{user} is checking the file"),
        CopyTrouble::Missing => format!("{user}'s copy is not there now"),
        CopyTrouble::Unreadable => format!("{user} cannot read the file"),
        CopyTrouble::Changed => format!("{user}'s copy changed on disk"),
        CopyTrouble::Unknown => format!("{user} does not serve the file now"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_the_matter_is_said_in_one_sentence() {
        let users: Vec<UserName> =
            ["ann", "bob", "cem", "dan", "eva"].map(|name| UserName::create(name).unwrap()).into();
        let troubles = [CopyTrouble::Checked, CopyTrouble::Changed, CopyTrouble::Missing];
        let all: Vec<_> = users.iter().zip(troubles.into_iter().cycle()).collect();
        assert_eq!(sentence(&[]), None);
        assert_eq!(sentence(&all[..1]).unwrap(), "ann is checking the file");
        assert_eq!(
            sentence(&all).unwrap(),
            "ann is checking the file, bob's copy changed on disk, cem's copy is not there now, and 2 more cannot serve it"
        );
    }
}

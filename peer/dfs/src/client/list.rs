//! LIST and RM.

use shoal_common::storage::ChunkId;
use shoal_common::tracker_api::storage::{Health, StoreAnswer, StoreCall, StoredEntry};
use shoal_common::{RequestId, Sha1};
use shoal_session::CallError;
use shoal_wipe::without_traces;

use super::get::Opened;
use super::{Client, StoreError, store};
use crate::name::StoredName;
use crate::seal::Sealer;
use crate::wire::{MAX_DELETES, RemovalKey};

/// Pages of a list that are asked for at most: a million files.
const MAX_PAGES: usize = 4_000;

/// A stored file in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: StoredName,
    /// Its size in bytes.
    pub size: u64,
    /// Its SHA-1.
    pub sha1: Sha1,
    /// When it was stored, in milliseconds since 1970.
    pub stored_ms: u64,
    /// Where its copies stand.
    pub health: Health,
}

/// What became of the chunks of a file that was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// The file.
    pub name: StoredName,
    /// Servers that deleted its chunks at once; the others do so by the trackers' rule.
    pub cleared: usize,
    /// Servers that may have some.
    pub servers: usize,
}

impl Client {
    /// The user's stored files, by name. Entries that do not open are left out, with a warning in the log.
    ///
    /// # Errors
    /// When no tracker answers.
    pub async fn list(&self) -> Result<Vec<Listed>, StoreError> {
        let keyring = self.keyring()?;
        let entries = self.entries().await?;
        let opened = |StoredEntry { key, version, sealed, stored_ms, health }: StoredEntry| match keyring
            .open(&key, &version, &sealed)
        {
            Ok(file) => {
                Some(Listed { name: file.name, size: file.size, sha1: file.digest.sha1, stored_ms, health })
            }
            Err(error) => {
                tracing::warn!(%key, %error, "a stored file is left out of the list");
                None
            }
        };
        // At once, because each time takes a while.
        let mut listed: Vec<_> = without_traces(|| entries.into_iter().filter_map(opened).collect());
        listed.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(listed)
    }

    /// The stored file that is meant by what was typed: the one of that name, else the only one whose name is that with an ending
    /// behind it, such as `Richard III.txt` for `Richard III`.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] with the names that come near.
    pub async fn resolve(&self, typed: &str) -> Result<StoredName, StoreError> {
        let name = StoredName::typed(typed)?;
        if let Some(stored) = self.stored_as(&name).await? {
            return Ok(stored);
        }
        let mut near: Vec<StoredName> = self.list().await?.into_iter().map(|file| file.name).collect();
        // Some systems write names in a form of their own.
        if let Some(same) = near.iter().find(|stored| **stored == name) {
            return Ok(same.clone());
        }
        near.retain(|stored| is_near(stored.as_str(), typed));
        let ending =
            |stored: &&StoredName| stored.as_str().rsplit_once('.').is_some_and(|(stem, _)| stem == typed);
        let mut meant = near.iter().filter(ending);
        match (meant.next(), meant.next()) {
            (Some(only), None) => Ok(only.clone()),
            _ => Err(StoreError::NotFound { name, near }),
        }
    }

    /// The name in the form in which the file is stored; `None` if it is not.
    pub(super) async fn stored_as(&self, name: &StoredName) -> Result<Option<StoredName>, StoreError> {
        for form in std::iter::once(name.clone()).chain(name.other_forms()) {
            match self.find(&form).await {
                Err(StoreError::NotFound { .. }) => {}
                found => return found.map(|_| Some(form)),
            }
        }
        Ok(None)
    }

    /// Where the copies of each of the user's stored files stand, in no order.
    ///
    /// # Errors
    /// When no tracker answers.
    pub async fn health(&self) -> Result<Vec<Health>, StoreError> {
        Ok(self.entries().await?.into_iter().map(|entry| entry.health).collect())
    }

    /// What the trackers have of the user's stored files.
    async fn entries(&self) -> Result<Vec<StoredEntry>, StoreError> {
        let (mut entries, mut after) = (Vec::new(), None);
        for _ in 0..MAX_PAGES {
            let StoreAnswer::Files { files, more } = store(&self.session, StoreCall::List { after }).await?
            else {
                return Err(CallError::Unexpected.into());
            };
            after = files.last().map(|entry| entry.key);
            entries.extend(files);
            if !more || after.is_none() {
                break;
            }
        }
        Ok(entries)
    }

    /// Removes a stored file, and its chunks from the servers that can be reached, unless it is being read.
    ///
    /// # Errors
    /// When there is no such file, or no tracker answers.
    pub async fn remove(&self, name: &StoredName) -> Result<Removed, StoreError> {
        self.refresh().await?;
        let name = &self.stored_as(name).await?.unwrap_or_else(|| name.clone());
        let found = self.find(name).await?;
        let key = self.keyring()?.pointer(name);
        let request = RequestId::random();
        let StoreAnswer::Removed { existed, leased } =
            store(&self.session, StoreCall::Remove { request, key }).await?
        else {
            return Err(CallError::Unexpected.into());
        };
        if !existed {
            return Err(StoreError::not_found(name));
        }
        let servers = found.manifest.servers.len();
        let chunks = with_keys(&found);
        let mut cleared = 0;
        if !leased {
            let deletes = found.manifest.servers.iter().map(|peer| self.clear(*peer, &chunks));
            cleared = futures::future::join_all(deletes).await.into_iter().filter(|done| *done).count();
        }
        Ok(Removed { name: name.clone(), cleared, servers })
    }

    async fn clear(&self, peer: shoal_common::PeerId, chunks: &[(ChunkId, RemovalKey)]) -> bool {
        let Ok(connection) = self.nodes.connection(self.nodes.present(peer).await).await else {
            return false;
        };
        for chunks in chunks.chunks(MAX_DELETES) {
            let (ids, keys) = chunks.iter().copied().unzip();
            if let Err(error) = connection.delete(ids, Some(keys)).await {
                tracing::info!(%peer, %error, "chunks of a removed file stay until the trackers' rule");
                return false;
            }
        }
        true
    }
}

/// Whether a stored name is one that was probably meant.
fn is_near(stored: &str, typed: &str) -> bool {
    stored.to_lowercase().starts_with(&typed.to_lowercase())
}

/// A file's chunks, each with the key that has it deleted. Chunks stored before there were such keys end otherwise; they stay
/// until the trackers' rule.
fn with_keys(file: &Opened) -> Vec<(ChunkId, RemovalKey)> {
    let count = u32::try_from(file.manifest.chunks.len()).unwrap_or(u32::MAX);
    let sealer = Sealer::new(&file.description.secret, count);
    file.manifest.chunks.iter().zip(0..).map(|(chunk, index)| (chunk.id, sealer.removal_key(index))).collect()
}

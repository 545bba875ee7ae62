//! Which server holds which chunks of a stored file, live: every server is asked.

use shoal_common::PeerId;
use shoal_common::storage::ChunkId;

use super::nodes::Nodes;
use super::{Client, StoreError};
use crate::connection::NodeConnection;
use crate::name::StoredName;
use crate::wire::MAX_CHUNK_LIST;

/// Where the chunks of a stored file are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holders {
    /// The file.
    pub name: StoredName,
    /// Its chunks.
    pub chunks: usize,
    /// Copies that there are to be of each.
    pub wanted: u8,
    /// The file's servers, in the order of its list.
    pub servers: Vec<Holder>,
}

/// What one server holds of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// What the server is called.
    pub server: String,
    /// The numbers of the chunks that it holds, from 1; or why it was not reached.
    pub chunks: Result<Vec<usize>, String>,
}

impl Holders {
    /// The chunks, from 1, of which the servers that were reached hold fewer than `copies`.
    #[must_use]
    pub fn fewer_than(&self, copies: usize) -> Vec<usize> {
        let mut held = vec![0; self.chunks];
        for chunk in self.servers.iter().filter_map(|server| server.chunks.as_ref().ok()).flatten() {
            if let Some(count) = held.get_mut(chunk - 1) {
                *count += 1;
            }
        }
        held.iter().zip(1..).filter(|(count, _)| **count < copies).map(|(_, chunk)| chunk).collect()
    }
}

impl Client {
    /// Asks the servers of a stored file which of its chunks they hold now.
    ///
    /// # Errors
    /// When there is no such file, or no tracker answers.
    pub async fn holders(&self, name: &StoredName) -> Result<Holders, StoreError> {
        self.refresh().await?;
        let name = &self.stored_as(name).await?.unwrap_or_else(|| name.clone());
        let manifest = self.find(name).await?.manifest;
        let ids: Vec<ChunkId> = manifest.chunks.iter().map(|chunk| chunk.id).collect();
        let mut peers: Vec<PeerId> = Vec::new();
        for peer in &manifest.servers {
            let present = self.nodes.present(*peer).await;
            if !peers.contains(&present) {
                peers.push(present);
            }
        }
        let asked = peers.into_iter().map(|peer| {
            let ids = &ids;
            async move {
                let held = held(&self.nodes, peer, ids).await.map(|(_, held)| {
                    held.iter().zip(1..).filter(|(held, _)| **held).map(|(_, chunk)| chunk).collect()
                });
                Holder { server: self.nodes.name(peer).await, chunks: held }
            }
        });
        let servers = futures::future::join_all(asked).await;
        Ok(Holders { name: name.clone(), chunks: ids.len(), wanted: manifest.copies, servers })
    }
}

/// A connection to a server, and which of these chunks it holds.
pub(super) async fn held(
    nodes: &Nodes,
    peer: PeerId,
    ids: &[ChunkId],
) -> Result<(NodeConnection, Vec<bool>), String> {
    let connection = nodes.connection(peer).await?;
    let mut all = Vec::with_capacity(ids.len());
    for ids in ids.chunks(MAX_CHUNK_LIST) {
        all.extend(connection.holds(ids.to_vec()).await.map_err(|error| error.to_string())?);
    }
    Ok((connection, all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_with_too_few_copies_are_named() {
        let holder = |chunks: &[usize]| Holder { server: "DFS".into(), chunks: Ok(chunks.to_vec()) };
        let away = Holder { server: "DFS3".into(), chunks: Err("it does not answer".into()) };
        let servers = vec![holder(&[1, 2]), holder(&[2, 4]), away];
        let holders = Holders { name: StoredName::new("f").unwrap(), chunks: 4, wanted: 2, servers };
        assert_eq!(holders.fewer_than(1), [3]);
        assert_eq!(holders.fewer_than(2), [1, 3, 4]);
    }
}

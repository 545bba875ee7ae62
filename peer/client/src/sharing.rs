//! Files of groups: shared, listed, found.

use std::path::{Path, PathBuf};

use shoal_common::GroupName;
use shoal_common::tracker_api::{Answer, Call, Completeness, FileEntry};
use shoal_disk::Held;
use shoal_http::mirror::{MirrorRefused, Reach};
use shoal_session::text;
use shoal_swarm::FileKey;

use crate::client::unexpected;
use crate::groups::MAX_ENTRIES;
use crate::results::{PeerRow, ShareRow, SharedFile};
use crate::shares::{ShareError, Uploaded};
use crate::{Client, ClientError, FileRef};

/// What keeps other members' clients from a mirror, as far as its URL shows.
fn private(url: &str) -> Option<String> {
    match Reach::Global.allow(url) {
        Err(refused @ MirrorRefused::Private(_)) => Some(format!("the mirror {url} {refused}")),
        // Another proxy is another member's matter.
        _ => None,
    }
}

fn shared(group: GroupName, uploaded: Uploaded, private_mirrors: Vec<String>) -> SharedFile {
    let Uploaded { file, size, sha1, folder } = uploaded;
    let (files, left_out) = folder.map(|folder| (folder.files, folder.left_out)).unzip();
    SharedFile { group, file, size, sha1, files, left_out, private_mirrors }
}

impl Client {
    /// Hashes a file or folder and shares it with a group; see [`Client::hashing`] for how far it came. Dropping the future stops the
    /// hashing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload(
        &self,
        path: &Path,
        group: GroupName,
        mirrors: Vec<String>,
    ) -> Result<SharedFile, ClientError> {
        self.who()?;
        let private_mirrors = mirrors.iter().filter_map(|url| private(url)).collect();
        let uploaded = self.0.shares.upload(path, &group, mirrors, &self.0.hashing).await?;
        Ok(shared(group, uploaded, private_mirrors))
    }

    /// The same for a file that is held: that very file is hashed and shared, whatever its path leads to meanwhile.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn upload_held(&self, held: &Held, group: GroupName) -> Result<SharedFile, ClientError> {
        self.who()?;
        let uploaded = self.0.shares.upload_held(held, &group, &self.0.hashing).await?;
        Ok(shared(group, uploaded, Vec::new()))
    }

    /// Fails where the user may not share anything with a group: before a long way, what would fail at its end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn may_share(&self, group: &GroupName) -> Result<(), ClientError> {
        Ok(self.0.shares.must_be_member(&self.who()?, group).await?)
    }

    /// All that the user shares on this client: what is not served now has a reason.
    ///
    /// # Errors
    /// When nobody is logged in, or the store fails.
    pub async fn shares(&self) -> Result<Vec<ShareRow>, ClientError> {
        let who = self.who()?;
        Ok(self.0.shares.rows(&who).await?)
    }

    /// Stops sharing a file, also one that is being downloaded.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn stop_share(&self, file: &FileRef) -> Result<(), ClientError> {
        let who = self.who()?;
        let key = match self.0.shares.find(&who, file).await?.or_else(|| self.0.transfers.key_of(file)) {
            Some(key) => key,
            // It may be shared here under another name than it goes by now.
            None => self.find(file).await?,
        };
        let downloading = self.0.transfers.stop_share(who.user, key).await?;
        let shared = self.0.shares.stop(who.user, key).await?;
        if downloading || shared { Ok(()) } else { Err(ShareError::NotShared(file.clone()).into()) }
    }

    /// Shares a file from the path where it is now, after it was moved; see [`Client::hashing`]. Gives the whole path.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn relocate(&self, file: &FileRef, path: &Path) -> Result<PathBuf, ClientError> {
        let who = self.who()?;
        let key = self.0.shares.find(&who, file).await?;
        let key = key.ok_or_else(|| ShareError::NotShared(file.clone()))?;
        let path = self.0.shares.relocate(&who, (key, file), path, &self.0.hashing).await?;
        self.0.transfers.is_at(who.user, key, &path).await?;
        Ok(path)
    }

    /// A group's files.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn files(&self, group: &GroupName) -> Result<Vec<FileEntry>, ClientError> {
        self.who()?;
        let mut all: Vec<FileEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let call = Call::ListFiles { group: group.clone(), after };
            let Answer::Files { files, more } = self.0.session.call(call).await? else { return unexpected() };
            let end = !more || files.is_empty() || all.len() >= MAX_ENTRIES;
            all.extend(files);
            if end {
                return Ok(all);
            }
        }
    }

    /// The clients that hold a file, or parts of it; this one first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn peers(&self, file: &FileRef) -> Result<Vec<PeerRow>, ClientError> {
        let (who, key) = (self.who()?, self.find(file).await?);
        let call = Call::Holders { group: key.group, file: key.file };
        let Answer::Holders { holders, .. } = self.0.session.call(call).await? else { return unexpected() };
        let own = match self.0.holdings.completeness(key) {
            Completeness::None => None,
            Completeness::Complete => Some(100),
            Completeness::Some => self.0.transfers.percent(key),
        };
        let own = own.map(|percent| PeerRow {
            user: who.name,
            peer: self.peer_id(),
            address: self.reached_at().to_string(),
            percent: Some(percent),
            way: None,
            own: true,
        });
        let held = holders
            .into_iter()
            .filter(|holder| holder.completeness != Completeness::None && holder.peer != self.peer_id());
        let others = held.map(|holder| PeerRow {
            percent: match holder.completeness {
                Completeness::Complete => Some(100),
                _ => self.0.swarm.peer_percent(key, holder.peer),
            },
            way: self.0.swarm.peer_way(key, holder.peer).map(shoal_swarm::Way::name),
            user: holder.user,
            peer: holder.peer,
            address: text::printable(&holder.address),
            own: false,
        });
        Ok(own.into_iter().chain(others).collect())
    }

    async fn find(&self, file: &FileRef) -> Result<FileKey, ClientError> {
        self.who()?;
        let call = Call::Find { group: file.group.clone(), file: file.file.clone() };
        match self.0.session.call(call).await? {
            Answer::Found { group, file, .. } => Ok(FileKey { group, file }),
            _ => unexpected(),
        }
    }
}

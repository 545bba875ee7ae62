//! Questions to the trackers whose answers are lists, put together from as many answers as it takes.

use shoal_common::tracker_api::{
    Answer, Call, Extent, FileEntry, GroupEntry, QuotaAnswer, SessionEntry, UserEntry,
};
use shoal_common::{GroupName, UserName};

use super::{App, AppError, PeerRow, unexpected};
use crate::command::FileRef;
use crate::swarm::FileKey;
use crate::text;

/// Entries of a list that one command takes at most: a cluster's groups fit, and memory stays bounded.
const MAX_ENTRIES: usize = 1_000_000;

impl App {
    pub(super) async fn find(&self, file: &FileRef) -> Result<FileKey, AppError> {
        let call = Call::Find { group: file.group.clone(), file: file.file.clone() };
        match self.0.session.call(call).await? {
            Answer::Found { group, file, .. } => Ok(FileKey { group, file }),
            _ => unexpected(),
        }
    }

    pub(super) async fn peers(&self, file: &FileRef) -> Result<Vec<PeerRow>, AppError> {
        let key = self.find(file).await?;
        let call = Call::Holders { group: key.group, file: key.file };
        let Answer::Holders { holders, .. } = self.0.session.call(call).await? else { return unexpected() };
        let rows = holders.into_iter().filter(|holder| holder.extent != Extent::None);
        Ok(rows
            .map(|holder| PeerRow {
                percent: match holder.extent {
                    Extent::Complete => Some(100),
                    _ => self.0.swarm.peer_percent(key, holder.peer),
                },
                user: holder.user,
                peer: holder.peer,
                address: text::printable(&holder.address),
            })
            .collect())
    }

    pub(super) async fn sessions(&self) -> Result<Vec<SessionEntry>, AppError> {
        match self.0.session.call(Call::Sessions).await? {
            Answer::Sessions(sessions) => Ok(sessions
                .into_iter()
                .map(|entry| SessionEntry { address: text::printable(&entry.address), ..entry })
                .collect()),
            _ => unexpected(),
        }
    }

    pub(super) async fn quota(&self, group: Option<&GroupName>) -> Result<QuotaAnswer, AppError> {
        match self.0.session.call(Call::Quota { group: group.cloned() }).await? {
            Answer::Quota(quota) => Ok(*quota),
            _ => unexpected(),
        }
    }

    pub(super) async fn groups(&self) -> Result<Vec<GroupEntry>, AppError> {
        let mut all: Vec<GroupEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let Answer::Groups { groups, more } = self.0.session.call(Call::ListGroups { after }).await?
            else {
                return unexpected();
            };
            let end = !more || groups.is_empty() || all.len() >= MAX_ENTRIES;
            all.extend(groups);
            if end {
                return Ok(all);
            }
        }
    }

    pub(super) async fn files(&self, group: &GroupName) -> Result<Vec<FileEntry>, AppError> {
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

    pub(super) async fn users(
        &self,
        call: impl Fn(Option<UserName>) -> Call,
    ) -> Result<Vec<UserEntry>, AppError> {
        let mut all: Vec<UserEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let Answer::Users { users, more } = self.0.session.call(call(after)).await? else {
                return unexpected();
            };
            let end = !more || users.is_empty() || all.len() >= MAX_ENTRIES;
            all.extend(users);
            if end {
                return Ok(all);
            }
        }
    }
}

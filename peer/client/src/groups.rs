//! Groups and their members.

use shoal_common::tracker_api::{Answer, Call, GroupEntry, UserEntry};
use shoal_common::{GroupName, RequestId, UserName};

use crate::client::unexpected;
use crate::results::GroupCreated;
use crate::{Client, ClientError, shares};

/// Most entries of a list that one command takes: a cluster's groups fit, and memory stays bounded.
pub(crate) const MAX_ENTRIES: usize = 1_000_000;

impl Client {
    /// Creates a group, which the user then owns.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn create_group(&self, group: GroupName) -> Result<GroupCreated, ClientError> {
        let call = Call::create_group(self.who()?.user, group.clone()).1;
        let Answer::Created { provisional } = self.0.session.call(call).await? else { return unexpected() };
        // The owner's ticket; without it the next renewal brings it.
        let _ = self.0.session.renew().await;
        Ok(GroupCreated { group, provisional })
    }

    /// Asks to join a group.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn join_group(&self, group: &GroupName) -> Result<(), ClientError> {
        let user = self.who()?.user;
        self.0.session.call(Call::JoinGroup { request: RequestId::random(), group: group.clone() }).await?;
        self.0.asked.add(user, group.clone());
        Ok(())
    }

    /// Leaves a group. Its files are not served any more, and downloads from it end.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn leave_group(&self, group: &GroupName) -> Result<(), ClientError> {
        let who = self.who()?;
        self.0.session.call(Call::LeaveGroup { request: RequestId::random(), group: group.clone() }).await?;
        if let Some(gid) = shares::gid(&who, group) {
            self.0.transfers.leave(gid).await;
            self.0.shares.leave(who.user, gid).await?;
        }
        // The tickets of the other groups; without them the next renewal brings them.
        let _ = self.0.session.renew().await;
        Ok(())
    }

    /// All groups in the network.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn groups(&self) -> Result<Vec<GroupEntry>, ClientError> {
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

    /// A group's members.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn members(&self, group: &GroupName) -> Result<Vec<UserEntry>, ClientError> {
        self.users(|after| Call::ListMembers { group: group.clone(), after }).await
    }

    /// Who asks to join a group.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn requests(&self, group: &GroupName) -> Result<Vec<UserEntry>, ClientError> {
        self.users(|after| Call::ListRequests { group: group.clone(), after }).await
    }

    /// Decides a join request.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn decide(&self, group: GroupName, user: UserName, accept: bool) -> Result<(), ClientError> {
        self.who()?;
        self.0.session.call(Call::Decide { request: RequestId::random(), group, user, accept }).await?;
        Ok(())
    }

    async fn users(&self, call: impl Fn(Option<UserName>) -> Call) -> Result<Vec<UserEntry>, ClientError> {
        self.who()?;
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

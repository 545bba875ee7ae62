//! `quota`.

use clap::Args;
use shoal_common::GroupName;
use shoal_session::text;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Show how much of its quotas this account, or a group, has used
///
/// Files counts what you share, once per client and group, and what you stored with dfs. Anyone who reaches a quota can
/// share and store again after stop_share, or when the trackers' operator raises it.
#[derive(Debug, Args)]
pub struct Quota {
    /// The group; without it, the account.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: Option<GroupName>,
}

impl Run for Quota {
    const EXAMPLE: &'static str = "quota";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let quota = context.client.quota(self.group.as_ref()).await?;
        let reply = Reply::new(text::quota(&quota), &quota);
        Ok(match &self.group {
            Some(group) => reply.with("group", group),
            None => reply,
        })
    }
}

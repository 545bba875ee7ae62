//! `join_group`.

use clap::Args;
use shoal_common::GroupName;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Ask to join a group; its owner decides
#[derive(Debug, Args)]
pub struct JoinGroup {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
}

impl Run for JoinGroup {
    const EXAMPLE: &'static str = "join_group holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        context.client.join_group(&self.group).await?;
        let text = format!("asked to join {}; its owner decides", self.group);
        Ok(Reply { text, ..Reply::default() }.with("group", &self.group))
    }
}

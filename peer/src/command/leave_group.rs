//! `leave_group`.

use clap::Args;
use shoal_common::GroupName;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Leave a group, and stop sharing in it
///
/// When the owner leaves, the member who joined first becomes the owner. A group without members is gone, and its name is
/// not given out again.
#[derive(Debug, Args)]
pub struct LeaveGroup {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
}

impl Run for LeaveGroup {
    const EXAMPLE: &'static str = "leave_group holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        context.client.leave_group(&self.group).await?;
        Ok(Reply { text: format!("left {}", self.group), ..Reply::default() }.with("group", &self.group))
    }
}

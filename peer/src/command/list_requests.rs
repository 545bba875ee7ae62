//! `list_requests`.

use clap::Args;
use shoal_common::GroupName;

use super::args::user_list;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// List who asks to join a group (owner only)
#[derive(Debug, Args)]
pub struct ListRequests {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
}

impl Run for ListRequests {
    const EXAMPLE: &'static str = "list_requests holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let users = context.client.requests(&self.group).await?;
        let none = format!("nobody asks to join {}", self.group);
        Ok(user_list("requests", &users, &none).with("group", &self.group))
    }
}

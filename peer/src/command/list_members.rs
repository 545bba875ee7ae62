//! `list_members`.

use clap::Args;
use shoal_common::GroupName;

use super::args::user_list;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// List a group's members
#[derive(Debug, Args)]
pub struct ListMembers {
    /// The group.
    #[arg(value_name = "group_id", value_parser = GroupName::refer)]
    group: GroupName,
}

impl Run for ListMembers {
    const EXAMPLE: &'static str = "list_members holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let users = context.client.members(&self.group).await?;
        Ok(user_list("members", &users, &format!("{} has no members", self.group)).with("group", &self.group))
    }
}

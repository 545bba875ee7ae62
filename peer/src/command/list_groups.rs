//! `list_groups`.

use clap::Args;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// List all groups in the network
#[derive(Debug, Args)]
pub struct ListGroups {}

impl Run for ListGroups {
    const EXAMPLE: &'static str = "list_groups";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let groups = context.client.groups().await?;
        let none = "there are no groups yet; create one with: create_group <group_id>";
        Ok(Reply::list("groups", &groups, none, |group| {
            let member = if group.member { ", member" } else { "" };
            let provisional = if group.provisional { ", provisional" } else { "" };
            format!("{}  (owner {}{member}{provisional})", group.name, group.owner)
        }))
    }
}

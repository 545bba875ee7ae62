//! `list_groups`.

use clap::Args;
use shoal_common::tracker_api::GroupEntry;

use super::{Context, Failure, Run};
use crate::reply::Reply;

const TITLES: &[&str] = &["GROUP", "OWNER", "YOU", ""];

/// List all groups in the network
#[derive(Debug, Args)]
pub struct ListGroups {}

impl Run for ListGroups {
    const EXAMPLE: &'static str = "list_groups";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let groups = context.client.groups().await?;
        let none = "there are no groups yet; create one with: create_group <group_id>";
        let line = |group: &GroupEntry| {
            let member = if group.member { ", member" } else { "" };
            let provisional = if group.provisional { ", provisional" } else { "" };
            format!("{}  (owner {}{member}{provisional})", group.name, group.owner)
        };
        let row = |group: &GroupEntry| {
            let member = if group.member { "member" } else { "" };
            let state = if group.provisional { "provisional" } else { "" };
            vec![group.name.to_string(), group.owner.to_string(), member.to_owned(), state.to_owned()]
        };
        Ok(Reply::list("groups", &groups, none, line).in_columns(TITLES, &groups, row))
    }
}

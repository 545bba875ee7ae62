//! `create_group`.

use clap::Args;
use shoal_common::GroupName;

use super::context::note;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Create a group, which you then own
#[derive(Debug, Args)]
pub struct CreateGroup {
    /// Its name.
    #[arg(value_name = "group_id", value_parser = GroupName::create)]
    group: GroupName,
}

impl Run for CreateGroup {
    const EXAMPLE: &'static str = "create_group holidays";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let created = context.client.create_group(self.group).await?;
        Ok(Reply::new(format!("group {} created{}", created.group, note(created.provisional)), &created))
    }
}

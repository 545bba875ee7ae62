//! `reject_request`.

use clap::Args;

use super::args::RequestArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Refuse a user who asked to join a group (owner only)
#[derive(Debug, Args)]
pub struct RejectRequest {
    #[command(flatten)]
    request: RequestArgs,
}

impl Run for RejectRequest {
    const EXAMPLE: &'static str = "reject_request holidays bob";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        self.request.decide(context, false).await
    }
}

//! `accept_request`.

use clap::Args;

use super::args::RequestArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Let a user into a group (owner only)
#[derive(Debug, Args)]
pub struct AcceptRequest {
    #[command(flatten)]
    request: RequestArgs,
}

impl Run for AcceptRequest {
    const EXAMPLE: &'static str = "accept_request holidays bob";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        self.request.decide(context, true).await
    }
}

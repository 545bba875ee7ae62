//! `forget_client`.

use clap::Args;
use shoal_session::text::count;

use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Take back everything that this account shared on a client that is lost
///
/// The command quota shows the clients on which this account shares. The last characters of a client's key are enough if
/// only one has them. A client that comes back shares its files again.
#[derive(Debug, Args)]
pub struct ForgetClient {
    /// The client's key, or its last characters.
    #[arg(value_name = "client")]
    client: String,
}

impl Run for ForgetClient {
    const EXAMPLE: &'static str = "forget_client hJk4Qz7P";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let forgotten = context.client.forget_client(&self.client).await?;
        let files = count(usize::try_from(forgotten.files).unwrap_or(usize::MAX), "file");
        let text = format!("{files} that were shared on {} are not any more", forgotten.peer);
        Ok(Reply::new(text, &forgotten))
    }
}

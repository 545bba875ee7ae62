//! `show_peers`.

use clap::Args;
use shoal_client::PeerRow;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

/// Show who holds a file, and how much of it
#[derive(Debug, Args)]
pub struct ShowPeers {
    #[command(flatten)]
    file: FileArgs,
}

impl Run for ShowPeers {
    const EXAMPLE: &'static str = "show_peers holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let peers = context.client.peers(&file).await?;
        let none = format!("nobody who is online holds {}", file.file);
        let line = |peer: &PeerRow| {
            let part = match peer.percent {
                Some(100) => "all of it".to_owned(),
                Some(percent) => format!("{percent}%"),
                None => "a part of it".to_owned(),
            };
            let own = if peer.own { "  (this client)" } else { "" };
            format!("{}  {}  {part}  {}{own}", peer.user, peer.address, peer.peer)
        };
        let reply = Reply::list("peers", &peers, &none, line);
        Ok(reply.with("group", &file.group).with("file", &file.file))
    }
}

//! `show_peers`.

use clap::Args;
use shoal_client::PeerRow;
use shoal_session::text;

use super::args::FileArgs;
use super::{Context, Failure, Run};
use crate::reply::Reply;

const TITLES: &[&str] = &["USER", "HOLDS", "WAY", "ADDRESS", "PEER ID"];

/// Show who holds a file, and how much of it
#[derive(Debug, Args)]
pub struct ShowPeers {
    #[command(flatten)]
    file: FileArgs,
    /// Whole peer ids on a terminal, too.
    #[arg(short, long)]
    verbose: bool,
}

impl Run for ShowPeers {
    const EXAMPLE: &'static str = "show_peers holidays beach.zip";

    async fn run(self, context: &Context) -> Result<Reply, Failure> {
        let file = self.file.name();
        let peers = context.client.peers(&file).await?;
        let none = format!("nobody who is online holds {}", file.file);
        let part = |peer: &PeerRow| match peer.percent {
            Some(100) => "all of it".to_owned(),
            Some(percent) => format!("{percent}%"),
            None => "a part of it".to_owned(),
        };
        let line = |peer: &PeerRow| {
            let own = if peer.own { "  (this client)" } else { "" };
            let way = peer.way.map(|way| format!("  {way}")).unwrap_or_default();
            format!("{}  {}  {}{way}  {}{own}", peer.user, peer.address, part(peer), peer.peer)
        };
        let row = |peer: &PeerRow| {
            let own = if peer.own { " (this client)" } else { "" };
            let id = if self.verbose { peer.peer.to_string() } else { text::short_peer_id(&peer.peer) };
            vec![
                format!("{}{own}", peer.user),
                part(peer),
                peer.way.unwrap_or_default().to_owned(),
                peer.address.clone(),
                id,
            ]
        };
        let reply = Reply::list("peers", &peers, &none, line).in_columns(TITLES, &peers, row);
        Ok(reply.with("group", &file.group).with("file", &file.file))
    }
}

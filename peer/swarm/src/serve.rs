//! One connection on which a peer asks us for pieces. [`reader`] takes its messages, [`writer`] sends what the
//! [`Uploads`] decide; they share the [`Table`] of what is open and asked for. Whatever comes is hostile until proven
//! otherwise: a message that makes no sense, or more than the limits allow, ends the connection.

mod reader;
mod table;
mod writer;

use std::sync::Arc;

use shoal_common::PeerId;
use shoal_common::limits::{MAX_CHANNELS, MAX_PEER_MESSAGE, MAX_PEER_REQUESTS};
use shoal_net::bulk::frame::{FrameReader, FrameWriter};
use shoal_net::{MessageBudget, Place};
use tokio::io::{AsyncBufRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::reader::Reader;
use self::table::Table;
use self::writer::Writer;
use super::uploads::{Outbox, Uploads};
use shoal_session::tickets::TicketBook;

/// What waits for a connection's writer at most: an answer to each request, new pieces and an end for each channel, and as
/// much again for what crosses on the way.
const MAX_OUTBOX: usize = 2 * (MAX_PEER_REQUESTS + 2 * MAX_CHANNELS);

/// The longest frame that a requester sends.
#[expect(clippy::cast_possible_truncation, reason = "32 KiB")]
const MAX_FRAME: u32 = MAX_PEER_MESSAGE as u32;

/// A peer that connected to us.
pub(super) struct Requester {
    /// Proven by the handshake.
    pub(super) peer: PeerId,
    pub(super) uploads: Uploads,
    pub(super) tickets: TicketBook,
    /// A stranger's, until it opens a file of a group that it is a member of.
    pub(super) place: Arc<Place>,
    /// What its messages are paid with: its address' budget, then its user's.
    pub(super) budget: MessageBudget,
    /// Ends the connection.
    pub(super) end: CancellationToken,
}

/// Serves a connection until it ends, and says why it did. Dropping the future ends it without a word.
pub(super) async fn serve<R, W>(requester: Requester, input: R, output: W) -> String
where
    R: AsyncBufRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send,
{
    let (sender, outbox) = mpsc::channel(MAX_OUTBOX);
    let table = Arc::new(Table::default());
    let end = requester.end.clone();
    let uploads = requester.uploads.clone();
    let mut writer = Writer::new(FrameWriter::new(output), table.clone(), uploads, requester.place.clone());
    let mut reader = Reader::new(
        requester,
        FrameReader::new(input, MAX_FRAME),
        table,
        Outbox { sender, end: end.clone() },
    );
    tokio::select! {
        ended = reader.run() => ended.to_string(),
        ended = writer.run(outbox) => ended.to_string(),
        () = end.cancelled() => "closed here".into(),
    }
}

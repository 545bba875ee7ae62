//! What a requester says: decoded, checked against the limits, its ticket judged, and passed to the uploads.

use std::sync::Arc;
use std::time::Duration;

use shoal_common::limits::MAX_PEER_MESSAGE;
use shoal_common::peer_wire::{Refused, TO_SERVER, ToServer};
use shoal_common::tokens::Ticket;
use shoal_common::{Gid, Layout, PieceIndex, Uid};
use shoal_net::bulk::frame::{FrameError, FrameReader};
use shoal_net::{Overdrawn, Payer};
use tokio::io::AsyncBufRead;
use tokio::time::{Instant, timeout_at};

use super::Requester;
use super::table::{Channel, NotTaken, Table};
use crate::FileKey;
use crate::price;
use crate::refusal::Refusal;
use crate::uploads::{Out, Outbox};
use shoal_session::tickets::TicketError;

/// A requester that says nothing for so long is gone: it repeats itself every [`crate::KEEP_ALIVE`].
const SILENCE: Duration = Duration::from_secs(120);
/// Time in which a stranger must open a file before it is shown the door.
const STRANGER: Duration = Duration::from_secs(5);
/// Refused tickets on one connection at most: each costs us a signature check, and an honest requester learns. Openings of
/// files that are not served now are not counted: a member comes back for many of them, on the connection of all the others.
const MAX_REFUSALS: u32 = 64;
/// How often a requester may announce the same piece, on average: once, and again whenever it is asked to.
const MAX_REPETITIONS: u64 = 4;

/// Why a connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error("the requester left")]
    Left,
    #[error("the requester was silent for too long")]
    Silent,
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("the requester broke the protocol: {0}")]
    Malformed(&'static str),
    #[error("the requester broke a limit: {0}")]
    Limit(&'static str),
    #[error("{0}")]
    Overdrawn(#[from] Overdrawn),
    #[error("all places are taken, and no other user has more of them")]
    Full,
}

/// See the module.
pub(super) struct Reader<R> {
    requester: Requester,
    frames: FrameReader<R>,
    table: Arc<Table>,
    outbox: Outbox,
    refusals: u32,
    /// Whose it is, once it opened a file of a group that it is a member of. It stays that user's.
    user: Option<Uid>,
    born: Instant,
}

impl<R: AsyncBufRead + Unpin> Reader<R> {
    pub(super) fn new(
        requester: Requester,
        frames: FrameReader<R>,
        table: Arc<Table>,
        outbox: Outbox,
    ) -> Self {
        Self { requester, frames, table, outbox, refusals: 0, user: None, born: Instant::now() }
    }

    /// Reads until the connection ends.
    pub(super) async fn run(&mut self) -> Ended {
        loop {
            // Checked also while messages come without a pause.
            if self.user.is_none() && Instant::now() >= self.born + STRANGER {
                return Ended::Silent;
            }
            let deadline = if self.user.is_some() { Instant::now() + SILENCE } else { self.born + STRANGER };
            let (message, length) = match timeout_at(deadline, self.message()).await {
                Ok(Ok(message)) => message,
                Ok(Err(ended)) => return ended,
                Err(_) => return Ended::Silent,
            };
            if let Err(ended) = self.pay_and_take(message, length).await {
                return ended;
            }
        }
    }

    /// The next message and its length.
    async fn message(&mut self) -> Result<(ToServer, usize), Ended> {
        let header = self.frames.next().await?.ok_or(Ended::Left)?;
        if header.kind != TO_SERVER {
            return Err(Ended::Malformed("a frame that no requester sends"));
        }
        let payload = self.frames.payload(MAX_PEER_MESSAGE).await?;
        let message =
            minicbor::decode(&payload).map_err(|_| Ended::Malformed("a message that makes no sense"))?;
        Ok((message, payload.len()))
    }

    async fn pay_and_take(&mut self, message: ToServer, length: usize) -> Result<(), Ended> {
        let budget = &mut self.requester.budget;
        budget.put_back(self.table.take_earned());
        budget.charge(price::of_request(&message, length)).await?;
        if let ToServer::Ticket { channel, .. }
        | ToServer::Request { channel, .. }
        | ToServer::Cancel { channel, .. }
        | ToServer::Have { channel, .. }
        | ToServer::Close { channel } = message
            && !self.table.is_open(channel)
        {
            return Ok(budget.charge(price::USELESS).await?);
        }
        self.take(message).await
    }

    async fn take(&mut self, message: ToServer) -> Result<(), Ended> {
        match message {
            ToServer::Open { channel, group, file, ticket } => {
                self.open(channel, FileKey { group, file }, &ticket).await
            }
            ToServer::Ticket { channel, ticket } => self.renew(channel, &ticket).await,
            ToServer::Request { channel, piece } => self.request(channel, piece),
            ToServer::Cancel { channel, piece } => {
                if let Some((id, piece)) = self.piece(channel, piece)? {
                    self.requester.uploads.cancel(id, piece);
                }
                Ok(())
            }
            ToServer::Have { channel, pieces } => self.have(channel, &pieces).await,
            ToServer::Close { channel } => {
                if let Some(id) = self.table.with(channel, |channel| channel.id) {
                    // At once, not when the writer comes to it: the next message may open the channel again.
                    self.table.remove(channel, id);
                    self.requester.uploads.close(id, None);
                }
                Ok(())
            }
        }
    }

    async fn open(&mut self, wire: u32, key: FileKey, ticket: &[u8]) -> Result<(), Ended> {
        if self.table.is_open(wire) {
            return Err(Ended::Malformed("a channel that is in use"));
        }
        if self.table.is_full() {
            self.refuse(wire, Refused::Limit);
            return Ok(());
        }
        let (shown, expires) = match self.judge(ticket, key.group).await {
            Ok(judged) => judged,
            Err(reason) => {
                self.refuse(wire, reason);
                return self.count_refusal();
            }
        };
        let user = self.recognise(shown.user)?;
        let who = (user, self.requester.peer);
        let Some(opened) = self.requester.uploads.open(key, who, wire, &self.outbox) else {
            self.refuse(wire, self.requester.uploads.refusal(key));
            return Ok(());
        };
        let channel = Channel {
            id: opened.id,
            group: key.group,
            layout: opened.layout.clone(),
            log: opened.log,
            cursor: opened.cursor,
            expires,
            announced: 0,
        };
        self.table.insert(wire, channel);
        Ok(self.requester.budget.charge(price::of_table(&opened.layout)).await?)
    }

    /// The requester is that user's, unless it is another's already.
    fn recognise(&mut self, shown: Uid) -> Result<Uid, Ended> {
        if let Some(user) = self.user {
            return Ok(user);
        }
        self.requester.place.recognise(shown).map_err(|_| Ended::Full)?;
        self.requester.budget.is_paid_by(Payer::User(shown), price::MEMBER);
        Ok(*self.user.insert(shown))
    }

    async fn renew(&mut self, wire: u32, ticket: &[u8]) -> Result<(), Ended> {
        let Some((id, group)) = self.table.with(wire, |channel| (channel.id, channel.group)) else {
            return Ok(());
        };
        match self.judge(ticket, group).await {
            Ok((_, expires)) => {
                self.table.with(wire, |channel| channel.expires = channel.expires.max(expires));
                Ok(())
            }
            Err(reason) => {
                self.requester.uploads.close(id, Some(reason));
                self.count_refusal()
            }
        }
    }

    /// Judges a ticket; gives it with the time until which it opens the group's files.
    async fn judge(&self, ticket: &[u8], group: Gid) -> Result<(Ticket, Instant), Refused> {
        let tickets = &self.requester.tickets;
        match tickets.judge_asking(ticket, self.requester.peer, group).await {
            Ok(ticket) => {
                let expires = Instant::now() + tickets.time_left(ticket.expires_ms);
                Ok((ticket, expires))
            }
            Err(TicketError::Expired) => Err(Refused::Expired),
            Err(TicketError::UnknownKey | TicketError::Invalid) => Err(Refused::Ticket),
        }
    }

    fn request(&self, wire: u32, piece: u32) -> Result<(), Ended> {
        let Some((id, piece)) = self.piece(wire, piece)? else { return Ok(()) };
        match self.table.begin(id, piece) {
            Ok(()) => {
                self.requester.place.is_used();
                self.requester.uploads.request(id, piece);
                Ok(())
            }
            Err(NotTaken::Twice) => Err(Ended::Malformed("a request that is under way already")),
            Err(NotTaken::TooMany) => Err(Ended::Limit("requests in flight")),
        }
    }

    async fn have(&mut self, wire: u32, pieces: &[u32]) -> Result<(), Ended> {
        let known = self.table.with(wire, |channel| {
            channel.announced += pieces.len() as u64;
            (channel.id, channel.layout.clone(), channel.announced)
        });
        // A channel that was just closed here may still be written to.
        let Some((id, layout, announced)) = known else { return Ok(()) };
        if announced > u64::from(layout.pieces()) * MAX_REPETITIONS {
            return Err(Ended::Limit("the same pieces announced again and again"));
        }
        let pieces: Option<Vec<PieceIndex>> = pieces.iter().map(|&piece| layout.piece(piece)).collect();
        let pieces = pieces.ok_or(Ended::Malformed("a piece that the file does not have"))?;
        if !pieces.is_empty() && !self.requester.uploads.have(id, pieces) {
            self.requester.budget.charge(price::USELESS).await?;
        }
        Ok(())
    }

    /// The piece of an open channel; `None` if the channel is not open any more.
    fn piece(&self, wire: u32, piece: u32) -> Result<Option<(shoal_policy::ChannelId, PieceIndex)>, Ended> {
        let known = self.table.with(wire, |channel| (channel.id, channel.layout.clone()));
        let in_file = |(id, layout): (_, Layout)| layout.piece(piece).map(|piece| (id, piece));
        match known.map(in_file) {
            None => Ok(None),
            Some(Some(found)) => Ok(Some(found)),
            Some(None) => Err(Ended::Malformed("a piece that the file does not have")),
        }
    }

    fn refuse(&self, channel: u32, refusal: impl Into<Refusal>) {
        self.outbox.push(Out::Say(refusal.into().on(channel)));
    }

    fn count_refusal(&mut self) -> Result<(), Ended> {
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS { Err(Ended::Limit("refused tickets")) } else { Ok(()) }
    }
}

impl<R> Drop for Reader<R> {
    fn drop(&mut self) {
        for id in self.table.clear() {
            self.requester.uploads.close(id, None);
        }
    }
}

//! The channels on one connection to a server: how each stands, what the server holds of its file, and the pieces that
//! were asked for on it. The connection's task brings what comes in, the sources put their requests in.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_PEER_REQUESTS;
use shoal_common::peer_wire::{CopyTrouble, DataHead, Refused, ToRequester};
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_engine::{Have, PieceBuf, SourceError};
use shoal_net::Overdrawn;
use shoal_net::bulk::frame::FrameError;
use shoal_net::requests::{Asked, NotAsked, Requests, Violation};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The longest time for which a server can put a request off.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// When to ask again after the connection was full, or the same request had not ended.
const NOT_YET: Duration = Duration::from_millis(50);
/// The shortest time for which a server can put a request off without naming a better one: it must not make us ask without
/// a pause.
const SHORTEST_DELAY: Duration = Duration::from_millis(10);
/// When to ask again while the channel is being opened, or waits for a ticket.
pub(super) const NOT_OPEN: Duration = Duration::from_millis(200);

/// How a connection to a server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It broke, or nothing came any more.
    Gone(String),
    /// The server broke the protocol.
    Invalid(String),
}

impl From<FrameError> for Fault {
    fn from(error: FrameError) -> Self {
        Self::Gone(error.to_string())
    }
}

impl From<&str> for Fault {
    fn from(reason: &str) -> Self {
        Self::Invalid(reason.to_owned())
    }
}

impl From<Overdrawn> for Fault {
    fn from(_: Overdrawn) -> Self {
        Self::Invalid("sent too many messages for too long".to_owned())
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Invalid(violation.to_string())
    }
}

/// How a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ChannelState {
    /// No answer yet.
    Opening,
    /// Pieces may be asked for.
    Open,
    /// The server does not serve us the file.
    Refused(Refused, Option<CopyTrouble>),
    /// The connection ended.
    Lost(Fault),
}

/// A request is known by its channel and piece.
type Key = (u32, u32);
type Answer = Result<PieceBuf, SourceError>;

/// See the module.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) requests: Arc<Requests<Key, PieceBuf, Answer, Fault>>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    channels: HashMap<u32, Channel>,
    next: u32,
}

#[derive(Debug)]
struct Channel {
    layout: Layout,
    state: watch::Sender<ChannelState>,
    have: watch::Sender<Have>,
}

impl Channels {
    /// None yet; `end` ends the connection.
    pub(super) fn new(end: CancellationToken) -> Self {
        let requests = Arc::new(Requests::new(MAX_PEER_REQUESTS, end));
        Self { requests, table: Mutex::default() }
    }

    /// A new channel; what the server holds goes to `have`.
    pub(super) fn open(
        &self,
        layout: Layout,
        have: watch::Sender<Have>,
    ) -> Result<(u32, watch::Receiver<ChannelState>), Fault> {
        let (state, seen) = watch::channel(ChannelState::Opening);
        let number = {
            let mut table = self.table();
            let number = table.next;
            // Numbers are never used twice, so that a late message cannot be taken for a new channel's.
            table.next = number.checked_add(1).ok_or(Fault::Gone("all channels are used up".into()))?;
            table.channels.insert(number, Channel { layout, state, have });
            number
        };
        // Looked at last: an end after this finds the channel.
        match self.requests.reason() {
            None => Ok((number, seen)),
            Some(fault) => {
                self.table().channels.remove(&number);
                Err(fault)
            }
        }
    }

    /// Forgets a channel. What was asked for on it may still come.
    pub(super) fn close(&self, channel: u32) {
        self.table().channels.remove(&channel);
        self.requests.abandon(|&(other, _)| other == channel, || Err(SourceError::Busy(NOT_OPEN)));
    }

    /// Asks for a piece; `recall` takes the request back at the server.
    pub(super) fn ask<F: FnMut()>(
        &self,
        channel: u32,
        piece: PieceIndex,
        buffer: PieceBuf,
        recall: F,
    ) -> Result<Asked<Key, PieceBuf, Answer, Fault, F>, SourceError> {
        let Ok(Some(layout)) = self.layout(channel) else { return Err(SourceError::Busy(NOT_YET)) };
        let length = u64::from(layout.length(piece));
        let asked = self.requests.ask((channel, piece.get()), Some((length, buffer)), recall);
        let asked = asked.map_err(|not| match not {
            NotAsked::Twice => SourceError::NotNow { piece, after: NOT_YET, instead: None },
            NotAsked::Full | NotAsked::Ended(_) => SourceError::Busy(NOT_YET),
        })?;
        if !self.is_open(channel) {
            // Closed in between, before the request was there to be abandoned.
            self.close(channel);
        }
        Ok(asked)
    }

    /// Waits for a piece.
    pub(super) async fn answer<F: FnMut()>(asked: Asked<Key, PieceBuf, Answer, Fault, F>) -> Answer {
        // What follows from the connection's end, the source's supervisor decides.
        asked.answer().await.unwrap_or(Err(SourceError::Busy(NOT_YET)))
    }

    /// Takes a message of the server's; whether it meant anything.
    pub(super) fn take(&self, message: ToRequester) -> Result<bool, Fault> {
        match message {
            ToRequester::Opened { channel, have } => {
                self.opened(channel, have.as_deref())?;
            }
            ToRequester::Refused { channel, reason, copy } => {
                return self.refused(channel, reason, copy);
            }
            ToRequester::Have { channel, pieces } => return self.have(channel, &pieces),
            ToRequester::NotNow { channel, piece, after_ms, instead } => {
                self.end(channel, piece, |layout, piece| {
                    let instead = instead.map(|instead| in_file(layout, instead)).transpose()?;
                    Ok(SourceError::NotNow { piece, after: delay(after_ms), instead })
                })?;
            }
            ToRequester::Busy { channel, piece, after_ms } => {
                self.end(channel, piece, |_, _| Ok(SourceError::Busy(delay(after_ms))))?;
            }
        }
        Ok(true)
    }

    /// A block of `length` bytes begins to come: the buffer for it, or none if it is not wanted any more.
    pub(super) fn part(&self, head: DataHead, length: u32) -> Result<Option<PieceBuf>, Fault> {
        self.layout(head.channel)?;
        Ok(self.requests.part((head.channel, head.piece), head.offset.into(), length.into())?)
    }

    /// A block came, whole; `buffer` is what [`Channels::part`] lent, or why it takes nothing more.
    pub(super) fn part_came(
        &self,
        head: DataHead,
        length: u32,
        buffer: Option<Result<PieceBuf, SourceError>>,
    ) {
        let buffer = buffer.map(|buffer| buffer.map_err(Err));
        self.requests.part_came((head.channel, head.piece), length.into(), buffer, Ok);
    }

    /// The connection ended, and so do all channels.
    pub(super) fn lose(&self) {
        let Some(fault) = self.requests.reason() else { return };
        for (_, channel) in self.table().channels.drain() {
            channel.state.send_replace(ChannelState::Lost(fault.clone()));
        }
    }

    /// The layout of an open channel; `None` for one that we closed.
    fn layout(&self, channel: u32) -> Result<Option<Layout>, Fault> {
        let table = self.table();
        match table.channels.get(&channel) {
            Some(open) => Ok(Some(open.layout.clone())),
            None if channel < table.next => Ok(None),
            None => Err("named a channel that was never opened".into()),
        }
    }

    fn is_open(&self, channel: u32) -> bool {
        self.table().channels.contains_key(&channel)
    }

    fn opened(&self, number: u32, have: Option<&[u8]>) -> Result<(), Fault> {
        self.layout(number)?;
        let table = self.table();
        let Some(channel) = table.channels.get(&number) else { return Ok(()) };
        if *channel.state.borrow() != ChannelState::Opening {
            return Err("opened a channel twice".into());
        }
        let have = match have {
            None => Have::All,
            Some(bytes) => {
                let bits =
                    Bitfield::from_bytes(&channel.layout, bytes).map_err(|_| "sent a malformed bitfield")?;
                Have::Bits(bits.into())
            }
        };
        channel.have.send_replace(have);
        channel.state.send_replace(ChannelState::Open);
        Ok(())
    }

    /// Whether the channel was there.
    fn refused(&self, number: u32, reason: Refused, copy: Option<CopyTrouble>) -> Result<bool, Fault> {
        self.layout(number)?;
        let Some(channel) = self.table().channels.remove(&number) else { return Ok(false) };
        channel.state.send_replace(ChannelState::Refused(reason, copy));
        self.requests.abandon(|&(other, _)| other == number, || Err(SourceError::Busy(NOT_YET)));
        Ok(true)
    }

    /// Whether any of the pieces is new.
    fn have(&self, number: u32, pieces: &[u32]) -> Result<bool, Fault> {
        let Some(layout) = self.layout(number)? else { return Ok(false) };
        let pieces: Vec<PieceIndex> =
            pieces.iter().map(|&piece| in_file(&layout, piece)).collect::<Result<_, _>>()?;
        let table = self.table();
        let Some(channel) = table.channels.get(&number) else { return Ok(false) };
        if *channel.state.borrow() != ChannelState::Open {
            return Err("announced pieces on a channel that is not open".into());
        }
        Ok(channel.have.send_if_modified(|have| match have {
            Have::All => false,
            Have::Bits(bits) => {
                if pieces.iter().all(|&piece| bits.has(piece)) {
                    return false;
                }
                let mut more = Bitfield::clone(bits);
                pieces.iter().for_each(|&piece| {
                    more.insert(piece);
                });
                *have = if more.is_all() { Have::All } else { Have::Bits(more.into()) };
                true
            }
        }))
    }

    /// Ends a request without its piece.
    fn end(
        &self,
        channel: u32,
        piece: u32,
        error: impl FnOnce(&Layout, PieceIndex) -> Result<SourceError, Fault>,
    ) -> Result<(), Fault> {
        let Some(layout) = self.layout(channel)? else { return Ok(()) };
        let error = error(&layout, in_file(&layout, piece)?)?;
        match self.requests.refuse((channel, piece), Err(error)) {
            // Closed in between, and abandoned with the channel.
            Err(_) if !self.is_open(channel) => Ok(()),
            ended => Ok(ended?),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn in_file(layout: &Layout, piece: u32) -> Result<PieceIndex, Fault> {
    layout.piece(piece).ok_or("named a piece that the file does not have".into())
}

fn delay(after_ms: u32) -> Duration {
    Duration::from_millis(after_ms.into()).clamp(SHORTEST_DELAY, LONGEST_DELAY)
}

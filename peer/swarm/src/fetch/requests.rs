//! What we asked for on one connection to a server, and whether what comes is that. A value behind a lock: the
//! connection's task feeds it what comes in, the sources put their requests in.
//!
//! Every request has exactly one end: its last block, or word that it is not coming. A request that was taken back stays
//! here until that end, so that blocks which were under way are known for what they are.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::limits::MAX_PEER_REQUESTS;
use shoal_common::peer_wire::{CopyTrouble, DataHead, Refused, ToRequester};
use shoal_common::{Bitfield, Layout, PieceIndex};
use shoal_engine::{Have, PieceBuf, SourceError};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

/// The longest time a server can put a request off; whoever asks for more is asked again after that all the same.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// What a request is told that finds the connection full, or its own predecessor not ended.
const NOT_YET: Duration = Duration::from_millis(50);

/// How a connection to a server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// It broke, or nothing came any more.
    Gone(String),
    /// The server broke the protocol.
    Invalid(String),
}

/// How a channel stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineState {
    /// No answer yet.
    Opening,
    /// Pieces may be asked for.
    Open,
    /// The server does not serve us the file.
    Refused(Refused, Option<CopyTrouble>),
    /// The connection ended.
    Lost(Fault),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Requests {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    lines: HashMap<u32, Line>,
    next_channel: u32,
    pending: HashMap<(u32, PieceIndex), Pending>,
    /// Bytes of requests without an end.
    in_flight: u64,
    /// Bytes that may still come on channels that we closed.
    late: u64,
    /// Since when there is a request without an end.
    owed_since: Instant,
    fault: Option<Fault>,
}

#[derive(Debug)]
struct Line {
    layout: Layout,
    state: watch::Sender<LineState>,
    have: watch::Sender<Have>,
}

#[derive(Debug)]
struct Pending {
    length: u32,
    received: u32,
    /// Away while a block is read into it; none for a request that was taken back.
    buffer: Option<PieceBuf>,
    /// None for a request that was taken back.
    done: Option<oneshot::Sender<Result<PieceBuf, SourceError>>>,
}

/// Where a block goes.
#[derive(Debug)]
pub(super) enum Block {
    /// Into this buffer; [`Requests::put_back`] returns it.
    Into(PieceBuf),
    /// Nowhere: it was asked for and then not wanted any more.
    Discard,
}

impl Requests {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                lines: HashMap::new(),
                next_channel: 0,
                pending: HashMap::new(),
                in_flight: 0,
                late: 0,
                owed_since: Instant::now(),
                fault: None,
            }),
        }
    }

    /// A new channel; what the server holds goes to `have`.
    pub(super) fn open(
        &self,
        layout: Layout,
        have: watch::Sender<Have>,
    ) -> Result<(u32, watch::Receiver<LineState>), Fault> {
        let mut state = self.state();
        if let Some(fault) = &state.fault {
            return Err(fault.clone());
        }
        let channel = state.next_channel;
        // Channels are never used twice, so that a late message cannot be taken for a new channel's.
        state.next_channel = channel.checked_add(1).ok_or(Fault::Gone("all channels are used up".into()))?;
        let (line, seen) = watch::channel(LineState::Opening);
        state.lines.insert(channel, Line { layout, state: line, have });
        Ok((channel, seen))
    }

    /// Forgets a channel. What was asked for on it may still come.
    pub(super) fn close(&self, channel: u32) {
        let mut state = self.state();
        state.lines.remove(&channel);
        let State { pending, in_flight, late, .. } = &mut *state;
        pending.retain(|&(other, _), pending| {
            if other == channel {
                *in_flight -= u64::from(pending.length);
                *late += u64::from(pending.length - pending.received);
            }
            other != channel
        });
    }

    /// Notes a request; what becomes of it comes through the receiver.
    pub(super) fn begin(
        &self,
        channel: u32,
        piece: PieceIndex,
        buffer: PieceBuf,
    ) -> Result<oneshot::Receiver<Result<PieceBuf, SourceError>>, SourceError> {
        let mut state = self.state();
        let Some(line) = state.lines.get(&channel) else { return Err(SourceError::Busy(NOT_YET)) };
        let length = line.layout.length(piece);
        if state.pending.len() >= MAX_PEER_REQUESTS {
            return Err(SourceError::Busy(NOT_YET));
        }
        if state.pending.contains_key(&(channel, piece)) {
            return Err(SourceError::NotNow { piece, after: NOT_YET, instead: None });
        }
        if state.pending.is_empty() {
            state.owed_since = Instant::now();
        }
        let (done, result) = oneshot::channel();
        state.in_flight += u64::from(length);
        let pending = Pending { length, received: 0, buffer: Some(buffer), done: Some(done) };
        state.pending.insert((channel, piece), pending);
        Ok(result)
    }

    /// Takes a request back; true if the server is to be told.
    pub(super) fn cancel(&self, channel: u32, piece: PieceIndex) -> bool {
        match self.state().pending.get_mut(&(channel, piece)) {
            Some(pending) => {
                pending.buffer = None;
                pending.done.take().is_some()
            }
            None => false,
        }
    }

    /// Bytes asked for that have not come.
    pub(super) fn in_flight(&self) -> u64 {
        self.state().in_flight
    }

    /// For how long the server has owed us something.
    pub(super) fn owed_for(&self) -> Duration {
        let state = self.state();
        if state.pending.is_empty() { Duration::ZERO } else { state.owed_since.elapsed() }
    }

    /// Takes what the server says.
    pub(super) fn told(&self, message: ToRequester) -> Result<(), &'static str> {
        let mut state = self.state();
        match message {
            ToRequester::Opened { channel, have } => state.opened(channel, have.as_deref()),
            ToRequester::Refused { channel, reason, copy } => state.refused(channel, reason, copy),
            ToRequester::Have { channel, pieces } => state.have(channel, &pieces),
            ToRequester::NotNow { channel, piece, after_ms, instead } => {
                let Some(layout) = state.layout(channel)? else { return Ok(()) };
                let piece = layout.piece(piece).ok_or("refused a piece that the file does not have")?;
                let instead = match instead {
                    Some(piece) => {
                        Some(layout.piece(piece).ok_or("named a piece that the file does not have")?)
                    }
                    None => None,
                };
                state.end(channel, piece, SourceError::NotNow { piece, after: delay(after_ms), instead })
            }
            ToRequester::Busy { channel, piece, after_ms } => {
                let Some(layout) = state.layout(channel)? else { return Ok(()) };
                let piece = layout.piece(piece).ok_or("refused a piece that the file does not have")?;
                state.end(channel, piece, SourceError::Busy(delay(after_ms)))
            }
        }
    }

    /// A block of `length` bytes begins to come.
    pub(super) fn block(&self, head: DataHead, length: u32) -> Result<Block, &'static str> {
        let mut state = self.state();
        let Some(layout) = state.layout(head.channel)? else {
            state.late =
                state.late.checked_sub(u64::from(length)).ok_or("sent more than it was asked for")?;
            return Ok(Block::Discard);
        };
        let piece = layout.piece(head.piece).ok_or("sent a piece that the file does not have")?;
        let pending =
            state.pending.get_mut(&(head.channel, piece)).ok_or("sent a piece that it was not asked for")?;
        if length == 0 || head.offset != pending.received || length > pending.length - pending.received {
            return Err("sent blocks out of order");
        }
        Ok(pending.buffer.take().map_or(Block::Discard, Block::Into))
    }

    /// A block came, whole; `buffer` is what [`Requests::block`] lent, or why it takes nothing more.
    pub(super) fn put_back(
        &self,
        head: DataHead,
        length: u32,
        buffer: Option<Result<PieceBuf, SourceError>>,
    ) {
        let mut state = self.state();
        let Some(piece) = state.lines.get(&head.channel).and_then(|line| line.layout.piece(head.piece))
        else {
            // Closed while the block came.
            state.late = state.late.saturating_sub(u64::from(length));
            return;
        };
        let Some(pending) = state.pending.get_mut(&(head.channel, piece)) else { return };
        pending.received += length;
        let whole = pending.received == pending.length;
        match buffer {
            Some(Ok(buffer)) if pending.done.is_some() => pending.buffer = Some(buffer),
            Some(Err(error)) => {
                if let Some(done) = pending.done.take() {
                    let _ = done.send(Err(error));
                }
            }
            _ => {}
        }
        if whole
            && let Some(Pending { done: Some(done), buffer: Some(buffer), .. }) =
                state.forget(head.channel, piece)
        {
            // Whoever asked may have left just now.
            let _ = done.send(Ok(buffer));
        }
    }

    /// The connection ended; so does everything on it.
    pub(super) fn fail(&self, fault: &Fault) {
        let mut state = self.state();
        state.fault = Some(fault.clone());
        for (_, pending) in state.pending.drain() {
            if let Some(done) = pending.done {
                // What follows from the fault, its source's keeper decides.
                let _ = done.send(Err(SourceError::Busy(NOT_YET)));
            }
        }
        state.in_flight = 0;
        for (_, line) in state.lines.drain() {
            line.state.send_replace(LineState::Lost(fault.clone()));
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().fault.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The layout of an open channel; `None` for one that we closed.
    fn layout(&self, channel: u32) -> Result<Option<Layout>, &'static str> {
        match self.lines.get(&channel) {
            Some(line) => Ok(Some(line.layout)),
            None if channel < self.next_channel => Ok(None),
            None => Err("named a channel that was never opened"),
        }
    }

    fn opened(&mut self, channel: u32, have: Option<&[u8]>) -> Result<(), &'static str> {
        if self.layout(channel)?.is_none() {
            return Ok(());
        }
        let Some(line) = self.lines.get(&channel) else { return Ok(()) };
        if *line.state.borrow() != LineState::Opening {
            return Err("opened a channel twice");
        }
        let have = match have {
            None => Have::All,
            Some(bytes) => {
                let bits =
                    Bitfield::from_bytes(&line.layout, bytes).map_err(|_| "sent a malformed bitfield")?;
                Have::Bits(bits.into())
            }
        };
        line.have.send_replace(have);
        line.state.send_replace(LineState::Open);
        Ok(())
    }

    fn refused(
        &mut self,
        channel: u32,
        reason: Refused,
        copy: Option<CopyTrouble>,
    ) -> Result<(), &'static str> {
        if self.layout(channel)?.is_none() {
            return Ok(());
        }
        if let Some(line) = self.lines.remove(&channel) {
            line.state.send_replace(LineState::Refused(reason, copy));
        }
        let pieces: Vec<PieceIndex> =
            self.pending.keys().filter(|&&(other, _)| other == channel).map(|&(_, piece)| piece).collect();
        for piece in pieces {
            if let Some(done) = self.forget(channel, piece).and_then(|pending| pending.done) {
                let _ = done.send(Err(SourceError::Busy(NOT_YET)));
            }
        }
        Ok(())
    }

    fn have(&mut self, channel: u32, pieces: &[u32]) -> Result<(), &'static str> {
        let Some(layout) = self.layout(channel)? else { return Ok(()) };
        let pieces: Option<Vec<PieceIndex>> = pieces.iter().map(|&piece| layout.piece(piece)).collect();
        let pieces = pieces.ok_or("announced a piece that the file does not have")?;
        let Some(line) = self.lines.get(&channel) else { return Ok(()) };
        if *line.state.borrow() != LineState::Open {
            return Err("announced pieces on a channel that is not open");
        }
        line.have.send_if_modified(|have| match have {
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
        });
        Ok(())
    }

    fn end(&mut self, channel: u32, piece: PieceIndex, error: SourceError) -> Result<(), &'static str> {
        let pending = self.forget(channel, piece).ok_or("refused a piece that it was not asked for")?;
        if let Some(done) = pending.done {
            let _ = done.send(Err(error));
        }
        Ok(())
    }

    fn forget(&mut self, channel: u32, piece: PieceIndex) -> Option<Pending> {
        let pending = self.pending.remove(&(channel, piece))?;
        self.in_flight -= u64::from(pending.length);
        Some(pending)
    }
}

fn delay(after_ms: u32) -> Duration {
    Duration::from_millis(after_ms.into()).min(LONGEST_DELAY)
}

//! Decides what a download does next: the engine's pure core, with the piece selector.
//!
//! A [`DownloadCore`] has no clock, randomness, socket or disk. The driver reports events with [`DownloadCore::handle`] and
//! carries out the commands of [`DownloadCore::poll_command`]. Every decision about sources and pieces is made here: which
//! piece from which source, how much to have in flight, which source to wait for, drop or ban, and when to request a piece
//! twice.

mod chosen;
mod events;
mod schedule;
pub mod selector;
mod source;
mod state;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use fastrand::Rng;
use shoal_common::{Bitfield, Layout, PieceIndex};

pub use crate::events::{Command, DropReason, Event, RequestId, SourceStatus};
use crate::selector::{ItemSet, Selector};
pub use crate::source::{Have, Limits, PieceRun, Run, SourceError, SourceId};
use crate::state::{Piece, Request, Source};
use crate::window::RequestWindow;

/// All piece buffers of a process together, at most and by default, in bytes.
pub const POOL_BYTES: usize = 32 * 1024 * 1024;

/// The state of one download; see the module.
#[derive(Debug)]
pub struct DownloadCore {
    layout: Layout,
    rng: Rng,
    pieces: Vec<Piece>,
    /// The pieces that are to be fetched; `None`: all.
    chosen: Option<ItemSet>,
    /// Of those, how many are not written.
    left: u32,
    /// Wants exactly the missing pieces that are chosen; counts the holders among incomplete sources (complete ones hold every piece).
    selector: Selector,
    sources: BTreeMap<SourceId, Source>,
    banned: BTreeSet<SourceId>,
    requests: BTreeMap<RequestId, Request>,
    next_request: u64,
    commands: VecDeque<Command>,
    /// Bytes asked for and not received, all sources together.
    in_flight: u64,
    /// Of those, one piece per source that has requests. They do not count against the budget; otherwise slow sources
    /// would take it from the fast ones.
    exempt: u64,
    budget: u64,
    rate_limit: Option<u64>,
    others: bool,
    /// Sources that hold some of the file and not all of it. One that holds nothing may only be slow to connect.
    partial: usize,
    /// Changes whenever a piece becomes missing.
    generation: u64,
    /// Whether all sources are to be asked for more after this event.
    refill: bool,
}

/// How long a source with requests may send nothing before they go to others. A peer answers each request within 2 s,
/// with a refusal if need be, and TCP has then repeated a lost segment four times (0.2 + 0.4 + 0.8 + 1.6 s: RFC 6298's
/// doubling from Linux's least time-out).
pub(crate) const SILENCE: Duration = Duration::from_secs(5);
/// Bytes of other downloads that may wait for the rate limit on the same connection: one block each of a few downloads.
const SHARED_QUEUE: u64 = 256 * 1024;
/// First pause of a source that was silent; doubled each time in a row, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(2);
/// Longest pause that a source gets, whatever it asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Shortest pause that a source gets, so that a refusal is never answered in a busy loop.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
/// Refused pieces remembered per source. A source that refuses more at once is left alone until the first of them is due.
const MAX_NOT_NOW: usize = 8;

/// The pause before the next try after `failures` earlier ones in a row: `first` after none, doubled with each, up to
/// `longest`.
#[must_use]
pub fn back_off(failures: u32, first: Duration, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(failures)).min(longest)
}

impl DownloadCore {
    /// A download of which `written` is already in the partial file.
    pub fn new(layout: Layout, written: &Bitfield, budget: u64, rng: Rng) -> Self {
        let mut selector = Selector::new(layout.pieces());
        let mut pieces = vec![Piece::Missing; layout.pieces() as usize];
        for piece in written.iter(&layout) {
            selector.unwant(piece.get());
            pieces[piece.as_usize()] = Piece::Written;
        }
        let left = layout.pieces() - written.count();
        Self {
            layout,
            rng,
            pieces,
            chosen: None,
            left,
            selector,
            sources: BTreeMap::new(),
            banned: BTreeSet::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            commands: VecDeque::new(),
            in_flight: 0,
            exempt: 0,
            budget,
            rate_limit: None,
            others: false,
            partial: 0,
            generation: 0,
            refill: false,
        }
    }

    /// Handles an event.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::SourceAdded { source, limits, have } => self.add_source(source, limits, &have, now),
            Event::SourceRemoved { source } => self.drop_source(source, DropReason::Removed),
            Event::HaveChanged { source, have } => self.change_have(source, &have, now),
            Event::OthersDownloading(others) => self.others = others,
            Event::Budget(bytes) => self.budget = bytes,
            Event::RateLimit(rate) => self.rate_limit = rate,
            Event::Progress { request, received, first_byte, held_up } => {
                if let Some(source) = self.account(request, received, first_byte, held_up, now) {
                    self.fill(source, now);
                }
            }
            Event::Arrived { request, piece, first_byte } => self.arrived(request, piece, first_byte, now),
            Event::Finished { request, result } => self.finished(request, result, now),
            Event::Verified(piece) => {
                if let Piece::Received { .. } = self.pieces[piece.as_usize()] {
                    self.pieces[piece.as_usize()] = Piece::Verified;
                }
            }
            Event::Rejected(piece) => self.rejected(piece),
            Event::Written(piece) => {
                if self.pieces[piece.as_usize()] == Piece::Verified {
                    self.pieces[piece.as_usize()] = Piece::Written;
                    self.left -= u32::from(self.is_chosen(piece));
                }
            }
            Event::Lost(piece) => {
                if self.pieces[piece.as_usize()] == Piece::Written {
                    self.left += u32::from(self.is_chosen(piece));
                    self.miss(piece);
                }
            }
            Event::Chosen(pieces) => self.choose(&pieces),
            Event::Tick => self.tick(now),
        }
        if std::mem::take(&mut self.refill) {
            self.fill_all(now);
        }
    }

    /// What to do, in order; `None` until something else happens.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// Whether every piece that is to be fetched is written.
    pub fn is_complete(&self) -> bool {
        self.left == 0
    }

    /// Whether a tick is needed soon.
    pub fn is_busy(&self) -> bool {
        !self.requests.is_empty()
            || self.sources.values().any(|source| source.paused_until.is_some() || !source.not_now.is_empty())
    }

    /// Requests in flight.
    pub fn requests(&self) -> usize {
        self.requests.len()
    }

    /// Sources that are not dropped.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }

    /// Pieces that are missing, to be fetched, and that no source holds.
    pub fn unheld(&self) -> u32 {
        let has_whole = self.sources.values().any(|source| source.have.is_none());
        if has_whole { 0 } else { self.selector.unheld() }
    }

    /// What a source is doing; `None` for one that was dropped.
    pub fn source(&self, source: SourceId) -> Option<SourceStatus> {
        let source = self.sources.get(&source)?;
        Some(SourceStatus {
            requests: source.requests.len(),
            holds: source.have.as_ref().map_or(self.layout.pieces(), ItemSet::count),
            silent: source.silences > 0,
            backing_off: source.paused_until.is_some() || !source.not_now.is_empty(),
        })
    }

    /// Whether this request alone brings the piece: only then may its bytes go to the piece's place before they are
    /// checked.
    pub fn is_sole(&self, piece: PieceIndex, request: RequestId) -> bool {
        self.pieces[piece.as_usize()] == Piece::Requested { by: request, second: None }
    }

    fn add_source(&mut self, id: SourceId, limits: Limits, have: &Have, now: Instant) {
        if self.sources.contains_key(&id) {
            self.release_source(id);
        }
        if self.banned.contains(&id) {
            let reason = DropReason::Banned("was banned before".into());
            self.commands.push_back(Command::Drop { source: id, reason });
            return;
        }
        let source = Source {
            window: RequestWindow::new(limits),
            have: Some(ItemSet::none(self.layout.pieces())),
            requests: BTreeSet::new(),
            active: now,
            paused_until: None,
            silences: 0,
            not_now: Vec::new(),
            prefers: None,
            exhausted: None,
            endgame_after: None,
            straggler_after: None,
        };
        self.sources.insert(id, source);
        self.change_have(id, have, now);
    }

    fn change_have(&mut self, id: SourceId, have: &Have, now: Instant) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let new = match have {
            Have::Bits(bits) if bits.len() != self.layout.pieces() => {
                let reason = format!("claims pieces of a file of {} pieces", bits.len());
                return self.drop_source(id, DropReason::Banned(reason));
            }
            Have::Bits(bits) if !bits.is_all() => Some(ItemSet::from(&**bits)),
            Have::Bits(_) | Have::All => None,
        };
        let none = ItemSet::none(0);
        let before = source.have.as_ref().unwrap_or(&none);
        let after = new.as_ref().unwrap_or(&none);
        after.minus(before).for_each(|piece| self.selector.gain(piece));
        before.minus(after).for_each(|piece| self.selector.lose(piece));
        self.partial -= usize::from(source.is_partial());
        source.have = new;
        self.partial += usize::from(source.is_partial());
        source.exhausted = None;
        // No other source can be asked for more than before.
        self.fill(id, now);
    }

    /// Accounts for received bytes; gives their source.
    fn account(
        &mut self,
        id: RequestId,
        received: u64,
        first_byte: Option<Instant>,
        held_up: bool,
        now: Instant,
    ) -> Option<SourceId> {
        let request = self.requests.get_mut(&id)?;
        let source = self.sources.get_mut(&request.source)?;
        let more = received.min(request.run.length()).saturating_sub(request.received);
        request.received += more;
        self.in_flight -= more;
        let before = source.window.exempt(self.layout.piece_length());
        source.window.delivered(more, now);
        self.exempt = self.exempt - before + source.window.exempt(self.layout.piece_length());
        if let Some(first) = first_byte {
            source.window.answered(first.saturating_duration_since(request.issued));
        }
        if more > 0 || held_up {
            source.active = now;
        }
        if more > 0 {
            source.silences = 0;
        }
        Some(request.source)
    }

    fn arrived(&mut self, id: RequestId, piece: PieceIndex, first_byte: Option<Instant>, now: Instant) {
        let Some(request) = self.requests.get(&id) else { return };
        if request.run.at(request.arrived) != Some(piece) {
            return;
        }
        let end = self.layout.offset(piece) + u64::from(self.layout.length(piece)) - request.run.offset();
        let Some(source_id) = self.account(id, end, first_byte, false, now) else { return };
        let Some(request) = self.requests.get_mut(&id) else { return };
        request.arrived += 1;
        let over = request.arrived == request.run.count();
        if let Some(source) = self.sources.get_mut(&source_id) {
            let took = now.saturating_duration_since(request.issued);
            source.window.measured(request.delivered_before, took);
        }
        if let Piece::Requested { by, second } = self.pieces[piece.as_usize()] {
            self.pieces[piece.as_usize()] = Piece::Received { from: source_id };
            self.commands.push_back(Command::Check { piece });
            let twin = if by == id { second } else { Some(by) };
            if let Some(twin) = twin {
                self.give_up_if_useless(twin);
            }
        }
        if over {
            self.forget(id);
        }
        self.fill(source_id, now);
    }

    fn finished(&mut self, id: RequestId, result: Result<(), SourceError>, now: Instant) {
        let Some(request) = self.requests.get(&id) else { return };
        let (source_id, run, remaining) = (request.source, request.run.clone(), request.remaining());
        self.release(id);
        if let Some(source) = self.sources.get_mut(&source_id) {
            source.active = now;
        }
        match result {
            Ok(()) => {
                let reason = format!("sent {remaining} bytes too few");
                self.drop_source(source_id, DropReason::Banned(reason));
            }
            Err(SourceError::Invalid(reason)) => self.drop_source(source_id, DropReason::Banned(reason)),
            Err(SourceError::Gone(reason)) => self.drop_source(source_id, DropReason::Gone(reason)),
            Err(SourceError::Busy(after)) => {
                self.pause(source_id, now + after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE));
            }
            Err(SourceError::NotNow { piece, .. }) if !run.pieces().any(|asked| asked == piece) => {
                let reason = "refused a piece that it was not asked for".into();
                self.drop_source(source_id, DropReason::Banned(reason));
            }
            Err(SourceError::NotNow { piece, after, instead }) => {
                self.refused(source_id, piece, now + after.clamp(SHORTEST_PAUSE, LONGEST_PAUSE), instead);
            }
        }
    }

    fn refused(&mut self, id: SourceId, piece: PieceIndex, until: Instant, instead: Option<PieceIndex>) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        source.not_now.retain(|&(other, _)| other != piece);
        source.not_now.push((piece, until));
        source.prefers = instead;
        if source.not_now.len() >= MAX_NOT_NOW {
            let first = source.not_now.iter().map(|&(_, until)| until).min();
            source.paused_until = source.paused_until.max(first);
        }
    }

    fn pause(&mut self, id: SourceId, until: Instant) {
        if let Some(source) = self.sources.get_mut(&id) {
            source.paused_until = source.paused_until.max(Some(until));
        }
    }

    fn rejected(&mut self, piece: PieceIndex) {
        if let Piece::Received { from } = self.pieces[piece.as_usize()] {
            self.miss(piece);
            let reason = format!("sent wrong bytes for piece {}", piece.get());
            self.drop_source(from, DropReason::Banned(reason));
        }
    }

    fn tick(&mut self, now: Instant) {
        let patience = self.patience();
        let silent: Vec<SourceId> = self
            .sources
            .iter()
            .filter(|(_, source)| {
                !source.requests.is_empty() && now.saturating_duration_since(source.active) > patience
            })
            .map(|(&id, _)| id)
            .collect();
        for id in silent {
            self.silenced(id, now);
        }
        for source in self.sources.values_mut() {
            if source.paused_until.is_some_and(|until| until <= now) {
                source.paused_until = None;
            }
            let before = source.not_now.len();
            source.not_now.retain(|&(_, until)| until > now);
            if source.not_now.len() < before {
                source.exhausted = None;
            }
        }
        self.refill = true;
    }

    /// How long a source may be silent: longer under a rate limit, where another download's bytes on the same connection
    /// may have to be paid for first.
    fn patience(&self) -> Duration {
        let behind = self.rate_limit.map_or(Duration::ZERO, |rate| window::time_for(SHARED_QUEUE, rate));
        SILENCE + behind.min(LONGEST_PAUSE)
    }

    /// Takes a silent source's requests away from it and leaves it alone for a while.
    fn silenced(&mut self, id: SourceId, now: Instant) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let pause = back_off(source.silences, FIRST_PAUSE, LONGEST_PAUSE);
        source.silences += 1;
        source.window.forget();
        self.pause(id, now + pause);
        self.release_requests(id);
    }

    fn drop_source(&mut self, id: SourceId, reason: DropReason) {
        if matches!(reason, DropReason::Banned(_)) {
            self.banned.insert(id);
        }
        if self.sources.contains_key(&id) {
            self.release_source(id);
            self.commands.push_back(Command::Drop { source: id, reason });
        }
    }

    fn release_source(&mut self, id: SourceId) {
        self.release_requests(id);
        let Some(source) = self.sources.remove(&id) else { return };
        self.partial -= usize::from(source.is_partial());
        if let Some(have) = source.have {
            have.iter().for_each(|piece| self.selector.lose(piece));
        }
    }

    fn release_requests(&mut self, id: SourceId) {
        let Some(source) = self.sources.get(&id) else { return };
        for request in source.requests.clone() {
            self.commands.push_back(Command::Cancel { request });
            self.release(request);
        }
    }

    /// Cancels a request if every piece that it still waits for has come from elsewhere.
    fn give_up_if_useless(&mut self, id: RequestId) {
        let Some(request) = self.requests.get(&id) else { return };
        let useful = request.pending().any(|piece| self.waits_for(piece, id));
        if !useful {
            self.commands.push_back(Command::Cancel { request: id });
            self.forget(id);
            self.refill = true;
        }
    }

    fn waits_for(&self, piece: PieceIndex, request: RequestId) -> bool {
        matches!(self.pieces[piece.as_usize()], Piece::Requested { by, second } if by == request || second == Some(request))
    }

    /// Ends a request; what it did not bring is missing again, unless it was asked of another too.
    fn release(&mut self, id: RequestId) {
        let Some(request) = self.forget(id) else { return };
        for piece in request.pending() {
            let Piece::Requested { by, second } = self.pieces[piece.as_usize()] else { continue };
            match (by == id, second) {
                (true, None) => self.miss(piece),
                (true, Some(other)) => {
                    self.pieces[piece.as_usize()] = Piece::Requested { by: other, second: None }
                }
                (false, Some(other)) if other == id => {
                    self.pieces[piece.as_usize()] = Piece::Requested { by, second: None };
                }
                (false, _) => {}
            }
        }
        self.refill = true;
    }

    fn forget(&mut self, id: RequestId) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.in_flight -= request.remaining();
        if let Some(source) = self.sources.get_mut(&request.source) {
            source.requests.remove(&id);
            let before = source.window.exempt(self.layout.piece_length());
            source.window.ended(request.remaining());
            self.exempt = self.exempt - before + source.window.exempt(self.layout.piece_length());
        }
        Some(request)
    }

    fn miss(&mut self, piece: PieceIndex) {
        self.pieces[piece.as_usize()] = Piece::Missing;
        if self.is_chosen(piece) {
            self.selector.want(piece.get());
        }
        self.generation += 1;
        self.refill = true;
    }
}

//! Which source is asked for what: fills each source's pipeline from the missing pieces, and asks a second source for
//! what is overdue once nothing is missing any more.

use std::time::{Duration, Instant};

use shoal_common::PieceIndex;

use crate::source::{PieceRun, SourceId};
use crate::state::{Piece, Request};
use crate::window::{Demand, bytes_in, time_for};
use crate::{Command, DownloadCore, RequestId};

/// How long a request may take before a second copy is asked for, where nothing is known of its source.
const UNKNOWN_DELIVERY: Duration = Duration::from_millis(500);
/// No second copy before this: a copy that saves less is not worth its bytes.
const LEAST_OVERDUE: Duration = Duration::from_millis(100);
/// How often an idle source is considered for a second copy.
const ENDGAME_EVERY: Duration = Duration::from_millis(50);
/// How far a straggler lies before the first unrequested piece: more than is usually in flight.
const STRAGGLING: u64 = 32 * 1024 * 1024;
/// Time whose worth of bytes is in flight under a rate limit: enough to keep it used, little enough that other traffic
/// on the same connections is not stuck behind it.
const LIMITED_FOR: Duration = Duration::from_secs(1);

impl DownloadCore {
    pub(super) fn fill_all(&mut self, now: Instant) {
        // The fastest first: where pieces are few, they are asked of the source that delivers them soonest.
        let mut ids: Vec<(std::cmp::Reverse<u64>, SourceId)> = self
            .sources
            .iter()
            .filter(|(_, source)| source.exhausted != Some(self.generation) || source.requests.is_empty())
            .map(|(&id, source)| (std::cmp::Reverse(source.window.rate().unwrap_or(0)), id))
            .collect();
        ids.sort_unstable();
        for (_, id) in ids {
            self.fill(id, now);
        }
    }

    /// Asks a source for as much as it should have in flight.
    pub(super) fn fill(&mut self, id: SourceId, now: Instant) {
        if let Some(run) = self.straggler(id, now) {
            self.issue(id, run, now);
        }
        while let Some(run) = self.next_run(id, now) {
            self.issue(id, run, now);
        }
        if let Some(run) = self.endgame(id, now) {
            self.issue(id, run, now);
        }
    }

    fn next_run(&mut self, id: SourceId, now: Instant) -> Option<PieceRun> {
        let source = self.sources.get(&id)?;
        let demand = Demand {
            complete: source.have.is_none(),
            shared: self.others || self.partial > 0,
            limit: self.rate_limit,
        };
        let length = self.layout.usual_length();
        let idle = source.requests.is_empty();
        if source.paused_until.is_some_and(|until| until > now)
            || source.exhausted == Some(self.generation)
            || !source.window.may_ask(source.requests.len(), length, demand)
            || !self.has_room(length, idle)
        {
            return None;
        }
        let source = self.sources.get_mut(&id)?;
        let preferred = source
            .prefers
            .take()
            .filter(|piece| self.selector.wants(piece.get()) && source.would_serve(*piece));
        let picked = match preferred {
            Some(piece) => Some(piece),
            None => self.pick(id),
        };
        let Some(first) = picked else {
            if let Some(source) = self.sources.get_mut(&id) {
                source.exhausted = Some(self.generation);
            }
            return None;
        };
        let length = u64::from(self.layout.length(first));
        (length <= self.layout.usual_length() || self.has_room(length, idle))
            .then(|| PieceRun::new(self.layout.clone(), first, self.extent(id, first)))
    }

    fn pick(&mut self, id: SourceId) -> Option<PieceIndex> {
        let source = self.sources.get(&id)?;
        let layout = &self.layout;
        let accept = |item: u32| layout.piece(item).is_some_and(|piece| source.would_serve(piece));
        let item = if self.others || self.partial > 0 {
            self.selector.rarest(source.have.as_ref(), accept, &mut self.rng)
        } else {
            self.selector.first(source.have.as_ref(), accept)
        };
        item.and_then(|item| layout.piece(item))
    }

    /// How many pieces from `first` on go into one request: missing ones that the source has, no more than come in about
    /// a second, nor than its share of what is missing. Rarest first, it ends where pieces are less rare.
    fn extent(&self, id: SourceId, first: PieceIndex) -> u32 {
        let Some(source) = self.sources.get(&id).filter(|source| source.window.takes_runs()) else {
            return 1;
        };
        let streams: usize = self.sources.values().map(|source| source.window.streams()).sum();
        let rest = usize::try_from(self.selector.wanted()).unwrap_or(usize::MAX).div_ceil(streams.max(1));
        let fair = u32::try_from(rest).unwrap_or(u32::MAX);
        // Its share too: a run as long as the whole room would leave the others a piece at a time.
        let share = self.budget / streams.max(1) as u64;
        let room = self.spare_room().min(self.limited_room()).min(share);
        let (bytes, most) = source.window.run(room);
        let most = most.min(fair);
        let rarest_first = self.others || self.partial > 0;
        let rare =
            |piece: PieceIndex| self.selector.holders(piece.get()) <= self.selector.holders(first.get());
        let fits = |piece: PieceIndex| {
            self.selector.wants(piece.get()) && source.would_serve(piece) && (!rarest_first || rare(piece))
        };
        let mut length = u64::from(self.layout.length(first));
        let more = (1..most).take_while(|&ahead| {
            let piece = first.get().checked_add(ahead).and_then(|index| self.layout.piece(index));
            piece.is_some_and(|piece| {
                length += u64::from(self.layout.length(piece));
                length <= bytes && fits(piece)
            })
        });
        1 + u32::try_from(more.count()).unwrap_or(0)
    }

    fn issue(&mut self, id: SourceId, run: PieceRun, now: Instant) {
        let Some(source) = self.sources.get_mut(&id) else { return };
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let expected = source.window.expected(run.length()).unwrap_or(UNKNOWN_DELIVERY);
        if source.requests.is_empty() {
            source.active = now;
        }
        source.requests.insert(request);
        let before = source.window.exempt(self.layout.piece_length());
        source.window.asked(run.length());
        self.exempt = self.exempt - before + source.window.exempt(self.layout.piece_length());
        self.in_flight += run.length();
        for piece in run.pieces() {
            let state = &mut self.pieces[piece.as_usize()];
            *state = match *state {
                Piece::Requested { by, second: None } => Piece::Requested { by, second: Some(request) },
                _ => Piece::Requested { by: request, second: None },
            };
            self.selector.unwant(piece.get());
        }
        let delivered_before = source.window.total();
        self.requests.insert(
            request,
            Request {
                source: id,
                run: run.clone(),
                arrived: 0,
                received: 0,
                issued: now,
                delivered_before,
                expected,
            },
        );
        self.commands.push_back(Command::Fetch { request, source: id, run });
    }

    /// While pieces come in file order, the whole file's digest waits for the first missing one. A piece that a slow source
    /// holds up for long is asked of a source that delivers it much sooner. Otherwise the whole file would be left to
    /// digest at the end.
    fn straggler(&mut self, id: SourceId, now: Instant) -> Option<PieceRun> {
        if self.others || self.partial > 0 || self.requests.len() < 2 {
            return None;
        }
        let frontier = self.selector.first(None, |_| true).and_then(|item| self.layout.piece(item))?;
        let length = u64::from(self.layout.piece_length());
        let source = self.sources.get(&id)?;
        if source.paused_until.is_some_and(|until| until > now)
            || source.straggler_after.is_some_and(|after| after > now)
            || !self.has_room(length, false)
        {
            return None;
        }
        self.sources.get_mut(&id)?.straggler_after = Some(now + ENDGAME_EVERY);
        let source = self.sources.get(&id)?;
        let ours = source.window.expected(length)?;
        let piece = self.requests.values().find_map(|request| {
            let piece = request.pending().next()?;
            let age = now.saturating_duration_since(request.issued);
            let sole = matches!(self.pieces[piece.as_usize()], Piece::Requested { second: None, .. })
                && self.is_chosen(piece);
            let behind = self.layout.offset(frontier).saturating_sub(self.layout.offset(piece));
            (request.source != id
                && sole
                && behind >= STRAGGLING
                && age >= LEAST_OVERDUE
                && source.would_serve(piece)
                && self.time_left(request, age).is_none_or(|theirs| ours * 4 < theirs))
            .then_some(piece)
        })?;
        Some(PieceRun::new(self.layout.clone(), piece, 1))
    }

    /// The endgame: a piece that an idle source is asked for although another source was asked already. It is the oldest
    /// piece that is overdue, or one that this source would deliver in half the time that the other still needs. A piece is
    /// asked of two sources at most. If both crawl, the slower one is cancelled.
    fn endgame(&mut self, id: SourceId, now: Instant) -> Option<PieceRun> {
        let length = u64::from(self.layout.piece_length());
        let source = self.sources.get(&id)?;
        if self.selector.wanted() > 0
            || !source.requests.is_empty()
            || source.paused_until.is_some_and(|until| until > now)
            || source.endgame_after.is_some_and(|after| after > now)
        {
            return None;
        }
        let ours = source.window.expected(length);
        let found = if self.has_room(length, true) {
            let slow_pair = || self.slow_pair(id, ours?, now).map(|(piece, slower)| (piece, Some(slower)));
            self.overdue(id, ours, now).map(|piece| (piece, None)).or_else(slow_pair)
        } else {
            None
        };
        let Some((piece, slower)) = found else {
            // Looking at all requests costs too much for every event.
            self.sources.get_mut(&id)?.endgame_after = Some(now + ENDGAME_EVERY);
            return None;
        };
        if let Some(request) = slower {
            self.commands.push_back(Command::Cancel { request });
            self.release(request);
        }
        Some(PieceRun::new(self.layout.clone(), piece, 1))
    }

    /// A piece that one other source was asked for and is late with.
    fn overdue(&self, id: SourceId, ours: Option<Duration>, now: Instant) -> Option<PieceIndex> {
        let source = self.sources.get(&id)?;
        let overdue = self.requests.iter().filter(|(_, request)| {
            let age = now.saturating_duration_since(request.issued);
            request.source != id
                && age >= LEAST_OVERDUE
                && (age >= request.expected * 2
                    || ours.zip(self.time_left(request, age)).is_some_and(|(ours, theirs)| ours * 2 < theirs))
        });
        // Of a run the last piece: the first is already on its way.
        overdue.flat_map(|(_, request)| request.pending().rev()).find(|&piece| {
            matches!(self.pieces[piece.as_usize()], Piece::Requested { second: None, .. })
                && self.is_chosen(piece)
                && source.would_serve(piece)
        })
    }

    /// A piece that was asked of two others, which both need more than twice as long as this source would, and the request
    /// of the slower one.
    fn slow_pair(&self, id: SourceId, ours: Duration, now: Instant) -> Option<(PieceIndex, RequestId)> {
        let source = self.sources.get(&id)?;
        let needs = |id: RequestId, request: &Request| {
            let age = now.saturating_duration_since(request.issued);
            // A source that has not begun is not assumed to be quick.
            let least = if request.received == 0 { age } else { Duration::ZERO };
            let only = request.pending().count() == 1;
            (only && age >= LEAST_OVERDUE)
                .then(|| (self.time_left(request, age).unwrap_or(age).max(least), id))
        };
        self.requests.iter().find_map(|(&by, request)| {
            let piece = request.pending().next()?;
            let Piece::Requested { second: Some(second), .. } = self.pieces[piece.as_usize()] else {
                return None;
            };
            let other = self.requests.get(&second).filter(|_| second != by)?;
            if request.source == id || other.source == id || !source.would_serve(piece) {
                return None;
            }
            let (one, other) = (needs(by, request)?, needs(second, other)?);
            (ours * 2 < one.0.min(other.0)).then_some((piece, one.max(other).1))
        })
    }

    /// How long a request will still take, judged by its own progress and by its source's rate, the worse of both.
    fn time_left(&self, request: &Request, age: Duration) -> Option<Duration> {
        let source = self.sources.get(&request.source)?;
        let own =
            (request.received > 0).then(|| age.mul_f64(fraction(request.remaining(), request.received)));
        let known = source.window.rate().map(|rate| time_for(request.remaining(), rate));
        own.max(known)
    }

    /// Whether `more` bytes may be added to those in flight. An idle source always gets a piece, except under a rate
    /// limit, where it does if those that were asked would leave half of the limit unused.
    fn has_room(&self, more: u64, idle: bool) -> bool {
        (self.in_flight == 0 || more <= self.limited_room() || self.leaves_half())
            && (idle || more <= self.spare_room())
    }

    /// How many bytes may be added to those in flight beyond one piece per source.
    fn spare_room(&self) -> u64 {
        self.budget.saturating_sub(self.in_flight - self.exempt)
    }

    /// How many bytes may be added under the rate limit. For a slow source only the bytes that will come soon count, so that
    /// the fast ones can use the rest.
    fn limited_room(&self) -> u64 {
        let Some(rate) = self.rate_limit else { return u64::MAX };
        bytes_in(rate, LIMITED_FOR).saturating_sub(self.soon())
    }

    fn leaves_half(&self) -> bool {
        self.rate_limit.is_some_and(|rate| self.soon().saturating_mul(2) <= bytes_in(rate, LIMITED_FOR))
    }

    fn soon(&self) -> u64 {
        self.sources.values().map(|source| source.window.soon(LIMITED_FOR)).sum()
    }
}

/// `part` over `whole`, for scaling durations; a day's worth of a second at most.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn fraction(part: u64, whole: u64) -> f64 {
    (part as f64 / whole as f64).min(86_400.0)
}

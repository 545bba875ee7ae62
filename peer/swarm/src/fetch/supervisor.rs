//! Supervises a source's channel: connects, shows the ticket and its successors, announces what we hold, and reports
//! when it is over. It never tries again by itself: `transfers::choice` alone decides which peer is tried when.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures::future::select_all;
use shoal_common::Bitfield;
use shoal_common::peer_wire::{CopyTrouble, Refused, ToServer};
use shoal_engine::Have;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::channels::{ChannelState, Fault};
use super::parallel::Parallel;
use super::peers::{CONNECTIONS, PeerConnections};
use super::target::{Liveness, OpenChannel, Target};
use super::trouble::Trouble;
use crate::KEEP_ALIVE;
use crate::have_log::{HaveCursor, HaveLog};
use crate::uploads::{GATHER, Uploads};
use shoal_session::tickets::TicketBook;

/// How long a server may take to open a channel: it may have to ask its tracker for a key first, which takes 3 s at most.
const OPENING: Duration = Duration::from_secs(4);
/// How long a source whose ticket was refused waits for a newer one, or for the server to learn the key by which it was
/// signed.
const NEWER_TICKET: Duration = Duration::from_secs(2);
/// Piece numbers in one message.
const MAX_PIECES: usize = 4_096;

/// How a session with the server ended. Reasons read on behind the peer's name.
enum Parted {
    /// The connection ended, could not be had, or the server does not serve us the file.
    Gone(String, Trouble),
    /// Not with this ticket.
    Ticket,
    /// It broke the protocol.
    Invalid(String),
}

/// Runs until the source is dropped (`stop`) or is over.
pub(super) async fn run(
    target: Arc<Target>,
    connections: Arc<PeerConnections>,
    tickets: TicketBook,
    uploads: Uploads,
    stop: CancellationToken,
) {
    let log = uploads.log(target.key);
    let supervisor = Supervisor { target, connections, tickets, log };
    let ended = stop.run_until_cancelled(supervisor.run()).await;
    let dropped = || gone("is not used any more", Trouble::Lost).into();
    // First how it stands, then what it holds: one who sees that it holds nothing can ask why.
    supervisor.part(ended.unwrap_or_else(dropped));
    supervisor.connections.release();
}

struct Supervisor {
    target: Arc<Target>,
    connections: Arc<PeerConnections>,
    tickets: TicketBook,
    log: Arc<HaveLog>,
}

/// A channel and how it stands.
struct Watched {
    /// The number of its connection.
    which: usize,
    channel: OpenChannel,
    state: watch::Receiver<ChannelState>,
}

/// A channel that is being opened.
type Opening<'a> = Pin<Box<dyn Future<Output = Result<Watched, Parted>> + Send + 'a>>;

impl Supervisor {
    async fn run(&self) -> Liveness {
        let mut changed = self.tickets.changed();
        loop {
            changed.mark_unchanged();
            let Some(ticket) = self.tickets.own_ticket(self.target.key.group) else {
                // The book's other half is this process's session: it lives as long as we do.
                let _ = changed.changed().await;
                continue;
            };
            match self.session(ticket.clone()).await {
                Parted::Ticket => {}
                parted => return parted.into(),
            }
            self.part(Liveness::Connecting);
            let newer = timeout(NEWER_TICKET, changed.changed()).await.is_ok();
            if !newer && self.tickets.own_ticket(self.target.key.group) == Some(ticket) {
                return Parted::Ticket.into();
            }
        }
    }

    /// Opens the channel and keeps it until it ends.
    async fn session(&self, ticket: Vec<u8>) -> Parted {
        let mut first = match self.open(0, &ticket).await {
            Ok(first) => first,
            Err(parted) => return parted,
        };
        self.target.liveness.send_replace(Liveness::Open);
        tracing::debug!(peer = %self.connections.peer(), "a peer serves the file");
        let mut others: Vec<Watched> = Vec::new();
        // Beside all else: what comes meanwhile on the first connection is heard.
        let mut opening: Option<Opening<'_>> = None;
        let mut parallel = Parallel::new(Instant::now());
        let mut cursor = HaveCursor::default();
        let mut version = self.log.version();
        version.mark_changed();
        let mut shown = ticket;
        let mut changed = self.tickets.changed();
        let mut keep_alive = pin!(sleep(KEEP_ALIVE));
        loop {
            tokio::select! {
                parted = self.ended(&mut first) => return parted,
                (at, parted) = self.one_ended(&mut others) => {
                    tracing::debug!(peer = %self.connections.peer(), reason = parted.reason(), "one of several connections ended");
                    self.target.channels()[others.swap_remove(at).which] = None;
                    parallel.failed(Instant::now());
                }
                () = self.target.wanted.notified(), if others.is_empty() && opening.is_none() && parallel.may_have_second(Instant::now()) => {
                    opening = Some(self.another(&others, &shown));
                }
                () = sleep_until(parallel.due()), if opening.is_none() => {
                    let (delivered, idle) = (self.target.delivered(), self.target.is_idle());
                    let round_trip = first.channel.connection.round_trip;
                    if parallel.wants_another(others.len() + 1, delivered, idle, round_trip, Instant::now()) {
                        opening = Some(self.another(&others, &shown));
                    }
                }
                opened = opened_if(&mut opening) => {
                    opening = None;
                    match opened {
                        Ok(another) => others.push(another),
                        // The others serve.
                        Err(_) => parallel.failed(Instant::now()),
                    }
                }
                _ = changed.changed() => {
                    if let Some(ticket) = self.tickets.own_ticket(self.target.key.group) && ticket != shown {
                        self.target.say_on_all(|channel| ToServer::Ticket { channel, ticket: ticket.clone() });
                        shown = ticket;
                    }
                }
                _ = version.changed() => {
                    let pieces = self.log.since(&mut cursor);
                    for some in pieces.chunks(MAX_PIECES) {
                        let pieces = some.iter().map(|piece| piece.get()).collect();
                        first.channel.say(|channel| ToServer::Have { channel, pieces });
                    }
                    sleep(GATHER).await;
                }
                () = &mut keep_alive => {
                    self.target.say_on_all(|channel| ToServer::Have { channel, pieces: Vec::new() });
                    keep_alive.set(sleep(KEEP_ALIVE));
                }
            }
        }
    }

    /// Opens the file on one of the peer's connections.
    async fn open(&self, which: usize, ticket: &[u8]) -> Result<Watched, Parted> {
        let connection = self.connections.connection(which, self.target.key).await;
        let connection = connection.map_err(|failure| Parted::Gone(failure.reason, failure.trouble))?;
        let opened = connection.channels.open(self.target.layout.clone(), self.target.have.clone());
        let (number, mut state) = opened.map_err(parted)?;
        let (group, file) = (self.target.key.group, self.target.key.file);
        let channel = OpenChannel { connection, number };
        channel.say(|channel| ToServer::Open { channel, group, file, ticket: ticket.to_vec() });
        // Whether it opens or not, from here on the channel is closed by `part`.
        self.target.channels()[which] = Some(channel.clone());
        let answer = timeout(OPENING, state.wait_for(|state| *state != ChannelState::Opening)).await;
        let answer = answer.map(|state| state.map(|state| state.clone()));
        let refused = match answer {
            Ok(Ok(ChannelState::Open)) => return Ok(Watched { which, channel, state }),
            Ok(Ok(ChannelState::Refused(reason, copy))) => Self::refused(reason, copy),
            Ok(Ok(ChannelState::Lost(fault))) => parted(fault),
            Ok(Ok(ChannelState::Opening)) | Ok(Err(_)) | Err(_) => {
                // A connection that is dead must not be found again by the next that tries.
                channel.connection.end_if_silent(OPENING / 2);
                gone("does not answer", Trouble::Silent)
            }
        };
        self.close(which);
        Err(refused)
    }

    /// Closes what is open. Until it is open again the peer counts as one that holds nothing.
    fn part(&self, now: Liveness) {
        self.target.liveness.send_replace(now);
        self.target.have.send_replace(Have::Bits(Bitfield::none(&self.target.layout).into()));
        (0..CONNECTIONS).for_each(|number| self.close(number));
    }

    /// Waits until an open channel is no longer. Cancel-safe.
    async fn ended(&self, watched: &mut Watched) -> Parted {
        match watched.state.wait_for(|state| *state != ChannelState::Open).await.map(|state| state.clone()) {
            Ok(ChannelState::Refused(reason, copy)) => Self::refused(reason, copy),
            Ok(ChannelState::Lost(fault)) => parted(fault),
            Ok(ChannelState::Open | ChannelState::Opening) | Err(_) => {
                gone("is not used any more", Trouble::Lost)
            }
        }
    }

    /// Waits until one of several open channels is no longer; gives its place among them. Cancel-safe.
    async fn one_ended(&self, several: &mut [Watched]) -> (usize, Parted) {
        if several.is_empty() {
            return std::future::pending().await;
        }
        let (parted, at, _) = select_all(several.iter_mut().map(|one| Box::pin(self.ended(one)))).await;
        (at, parted)
    }

    /// Opens the file on a connection that has no number of these.
    fn another<'a>(&'a self, others: &[Watched], ticket: &[u8]) -> Opening<'a> {
        let free = (1..CONNECTIONS).find(|&which| others.iter().all(|other| other.which != which));
        let (which, ticket) = (free.unwrap_or(1), ticket.to_vec());
        Box::pin(async move { self.open(which, &ticket).await })
    }

    /// The peer does not serve us the file.
    fn refused(reason: Refused, copy: Option<CopyTrouble>) -> Parted {
        let (reason, trouble) = match (reason, copy) {
            (Refused::Ticket | Refused::Expired, _) => return Parted::Ticket,
            (_, Some(copy)) => (of_copy(copy), Trouble::Copy(copy)),
            (Refused::Limit, None) => ("has too much to do", Trouble::Busy),
            (Refused::NotShared, None) => ("does not share the file any more", Trouble::NotShared),
            (Refused::Changed, None) => (of_copy(CopyTrouble::Changed), Trouble::Copy(CopyTrouble::Changed)),
            (Refused::Malformed, None) => ("does not understand this client", Trouble::Version),
        };
        gone(reason, trouble)
    }

    fn close(&self, number: usize) {
        let closed = self.target.channels()[number].take();
        if let Some(closed) = closed {
            closed.connection.channels.close(closed.number);
            closed.say(|channel| ToServer::Close { channel });
        }
    }
}

impl Parted {
    fn reason(&self) -> &str {
        match self {
            Self::Gone(reason, _) | Self::Invalid(reason) => reason,
            Self::Ticket => "does not accept this client's ticket",
        }
    }
}

async fn opened_if<F: Future + Unpin>(opening: &mut Option<F>) -> F::Output {
    match opening {
        Some(opening) => opening.await,
        None => std::future::pending().await,
    }
}

impl From<Parted> for Liveness {
    fn from(parted: Parted) -> Self {
        match parted {
            Parted::Gone(reason, trouble) => Self::Gone { reason, trouble },
            Parted::Invalid(reason) => Self::Invalid(reason),
            Parted::Ticket => Self::Gone { reason: parted.reason().to_owned(), trouble: Trouble::Ticket },
        }
    }
}

fn gone(reason: impl Into<String>, trouble: Trouble) -> Parted {
    Parted::Gone(reason.into(), trouble)
}

fn parted(fault: Fault) -> Parted {
    match fault {
        Fault::Gone(reason) => gone(format!("is lost ({reason})"), Trouble::Lost),
        Fault::Invalid(reason) => Parted::Invalid(reason),
    }
}

/// What a peer says that does not serve its copy, to be read behind its name.
fn of_copy(copy: CopyTrouble) -> &'static str {
    match copy {
        CopyTrouble::Checked => "is checking its copy of the file",
        CopyTrouble::Missing => "has no copy of the file there now",
        CopyTrouble::Unreadable => "cannot read its copy of the file",
        CopyTrouble::Changed => "has a copy of the file that changed",
        CopyTrouble::Unknown => "does not serve the file now",
    }
}

//! The baseline for the rules: a server without memory. It serves a few requests at a time, first come, first served.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use shoal_common::PieceIndex;
use shoal_policy::{Action, ChannelId, Event, Policy};

/// Most peers served at a time, as in a client by default.
const SLOTS: usize = 16;
/// Channels that are served at a time without rules.
const AT_A_TIME: usize = 4;

/// How a peer serves.
pub(crate) enum Server {
    /// As a client does.
    Rules(Box<Policy>),
    /// See the module.
    Plain(Plain),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Plain {
    waiting: VecDeque<(ChannelId, PieceIndex)>,
    active: BTreeSet<(ChannelId, PieceIndex)>,
    answers: VecDeque<Action>,
}

impl Server {
    pub(crate) fn new(naive: bool, rng: fastrand::Rng) -> Self {
        if naive { Self::Plain(Plain::default()) } else { Self::Rules(Box::new(Policy::new(SLOTS, rng))) }
    }

    pub(crate) fn handle(&mut self, event: Event, now: Instant) {
        match self {
            Self::Rules(policy) => policy.handle(event, now),
            Self::Plain(plain) => plain.handle(event),
        }
    }

    pub(crate) fn next(&mut self, now: Instant) -> Option<Action> {
        match self {
            Self::Rules(policy) => policy.next(now),
            Self::Plain(plain) => plain.next(),
        }
    }
}

impl Plain {
    fn handle(&mut self, event: Event) {
        match event {
            Event::Request { channel, piece } => self.waiting.push_back((channel, piece)),
            Event::Cancel { channel, piece } if self.active.contains(&(channel, piece)) => {
                self.answers.push_back(Action::Stop { channel, piece });
            }
            Event::Cancel { channel, piece } => {
                let before = self.waiting.len();
                self.waiting.retain(|&waiting| waiting != (channel, piece));
                if self.waiting.len() < before {
                    let after = Duration::ZERO;
                    self.answers.push_back(Action::NotNow { channel, piece, after, instead: None });
                }
            }
            Event::Sent { channel, piece } | Event::Aborted { channel, piece } => {
                self.active.remove(&(channel, piece));
            }
            Event::Closed { channel } => {
                self.waiting.retain(|&(waiting, _)| waiting != channel);
                self.active.retain(|&(active, _)| active != channel);
                self.answers.retain(|answer| answer.channel() != channel);
            }
            Event::Opened { .. } | Event::Completed { .. } | Event::Have { .. } | Event::Tick => {}
        }
    }

    fn next(&mut self) -> Option<Action> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if self.active.len() >= AT_A_TIME {
            return None;
        }
        let (channel, piece) = self.waiting.pop_front()?;
        self.active.insert((channel, piece));
        Some(Action::Serve { channel, piece })
    }
}

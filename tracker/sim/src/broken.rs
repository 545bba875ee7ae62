//! Rules that are broken on purpose, from outside: nothing in the replica can be switched off.

use std::fmt;

use shoal_replica::memory::Memory;
use shoal_replica::{Bounds, Config, Event, Frame, Origin, Output, Replica, TrackerNo};

use crate::disk::Disk;
use crate::world::{CLUSTER, World};

/// A rule that is broken, to see that it is missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// None.
    Nothing,
    /// The vector moves before END: every frame of rows is taken for the END of its round.
    End,
    /// A tracker has the same origin at every start.
    Origin,
    /// Nobody votes on names: a name is its earliest claim's, and definite once a majority has acknowledged it.
    Votes,
    /// A tracker votes at once after its start, as if it had heard out everybody.
    Abstention,
    /// No fresh round is ever taken, as the floor of dropped tombstones is not told.
    FreshRound,
    /// Whatever a lying tracker would remove is removed, as operators allow it without looking.
    Removal,
    /// A lying tracker may bring as many writer ids as it likes.
    Writers,
}

impl Broken {
    /// All rules that can be broken.
    pub const RULES: [Self; 7] = [
        Self::End,
        Self::Origin,
        Self::Votes,
        Self::Abstention,
        Self::FreshRound,
        Self::Removal,
        Self::Writers,
    ];

    /// Whether only a lying tracker profits from it.
    pub(crate) fn needs_a_liar(self) -> bool {
        matches!(self, Self::Removal | Self::Writers)
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing",
            Self::End => "end",
            Self::Origin => "origin",
            Self::Votes => "votes",
            Self::Abstention => "abstention",
            Self::FreshRound => "fresh-round",
            Self::Removal => "removal",
            Self::Writers => "writers",
        })
    }
}

impl std::str::FromStr for Broken {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let rules = Self::RULES.into_iter().chain([Self::Nothing]);
        rules.into_iter().find(|rule| rule.to_string() == name).ok_or_else(|| {
            let names: Vec<String> = Self::RULES.iter().map(ToString::to_string).collect();
            format!("there is no such rule; there are {}", names.join(", "))
        })
    }
}

/// Gives a tracker the END of an empty round from everybody, whom it cannot tell from the real ones.
pub(crate) fn pretend_all_were_heard<D: Disk>(world: &mut World<D>, node: usize) {
    let now = world.now(node);
    let peers = world.configured();
    let me = world.nodes[node].no;
    for peer in peers.iter().copied().filter(|&peer| peer != me) {
        let origin = Origin(world.rng.u128(..).to_le_bytes());
        let it = &mut world.nodes[node];
        let Some(replica) = &mut it.replica else { return };
        let mut liar = Memory::new();
        let bounds = Bounds::default();
        let config = Config { me: peer, configured: peers.clone(), origin, cluster: CLUSTER, bounds };
        let mut fake = Replica::open(&mut liar, config, now).unwrap();
        it.store.begin();
        replica.handle(&mut it.store, Event::LinkUp { peer }, now).unwrap();
        fake.handle(&mut liar, Event::LinkUp { peer: me }, now).unwrap();
        loop {
            let (to_fake, to_node) = (sends(replica), sends(&mut fake));
            if to_fake.is_empty() && to_node.is_empty() {
                break;
            }
            // The liar must not find out that it lacks anything.
            let harmless = |frame: &Frame| !matches!(frame, Frame::Vector(_) | Frame::Floor { .. });
            for frame in to_fake.into_iter().filter(harmless) {
                fake.handle(&mut liar, Event::Frame { peer: me, frame }, now).unwrap();
            }
            for frame in to_node {
                replica.handle(&mut it.store, Event::Frame { peer, frame }, now).unwrap();
            }
        }
        replica.handle(&mut it.store, Event::LinkDown { peer }, now).unwrap();
        it.store.commit();
    }
}

fn sends(replica: &mut Replica) -> Vec<Frame> {
    let outputs = std::iter::from_fn(|| replica.poll_output());
    outputs
        .filter_map(|output| match output {
            Output::Send { frame, .. } => Some(frame),
            _ => None,
        })
        .collect()
}

/// The numbers of the first `count` trackers.
pub(crate) fn numbers(count: usize) -> Vec<TrackerNo> {
    (1..).take(count).map(TrackerNo).collect()
}

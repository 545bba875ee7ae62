//! Breaks the abstention rule from outside: makes a tracker believe that it has synced with every other one.

use shoal_replica::memory::Memory;
use shoal_replica::{Bounds, Config, Event, Frame, Output, Replica, WriterId};

use super::{CLUSTER, World};
use crate::disk::Disk;

/// Gives a tracker the END of an empty sync from every other one, as if it came from the real ones.
pub(crate) fn pretend_all_synced<D: Disk>(world: &mut World<D>, node: usize) {
    let now = world.now(node);
    let peers = world.configured();
    let me = world.nodes[node].no;
    for peer in peers.iter().copied().filter(|&peer| peer != me) {
        let writer = WriterId(world.rng.u128(..).to_le_bytes());
        let it = &mut world.nodes[node];
        let Some(replica) = &mut it.replica else { return };
        let mut liar = Memory::new();
        let bounds = Bounds::default();
        let config = Config { me: peer, configured: peers.clone(), writer, cluster: CLUSTER, bounds };
        let mut fake = Replica::open(&mut liar, config, now).unwrap();
        it.store.begin();
        replica.handle(&mut it.store, Event::LinkUp { peer }, now).unwrap();
        fake.handle(&mut liar, Event::LinkUp { peer: me }, now).unwrap();
        loop {
            let (to_fake, to_node) = (sends(replica), sends(&mut fake));
            if to_fake.is_empty() && to_node.is_empty() {
                break;
            }
            // The fake must not find out that it lacks anything.
            let harmless = |frame: &Frame| !matches!(frame, Frame::Vector(_) | Frame::GcWatermark { .. });
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

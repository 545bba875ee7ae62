//! The state that a healed cluster must reach.

use shoal_replica::Row;

use super::SimRun;
use crate::disk::Disk;
use crate::world::trace::trace_rows;

impl<D: Disk> SimRun<'_, D> {
    /// Whether every tracker reports that it is in sync and has nothing left to do.
    pub(crate) fn is_in_sync(&self) -> bool {
        let world = &self.world;
        let quiet = world.nodes.iter().enumerate().all(|(index, node)| {
            node.replica.as_ref().is_some_and(|replica| {
                let status = replica.status(world.now(index));
                node.pending.is_empty() && replica.may_vote() && status.iter().all(|peer| peer.in_sync)
            })
        });
        let Some((first, others)) = world.nodes.split_first() else { return quiet };
        quiet && {
            let rows = live_rows(&first.store);
            others.iter().all(|node| live_rows(&node.store) == rows)
        }
    }

    /// Same vector, same digest, same rows, nothing missing, and everything that was acknowledged.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let world = &mut self.world;
        for node in &world.nodes {
            world.history.check(&node.store)?;
            let vector = node.replica.as_ref().unwrap().vector();
            world.history.check_vector(&node.store, vector)?;
        }
        let (first, others) = world.nodes.split_first().unwrap();
        let vector = first.replica.as_ref().unwrap().vector();
        let (rows, sums) = (live_rows(&first.store), first.store.bucket_sums().unwrap());
        for node in others {
            if node.replica.as_ref().unwrap().vector() != vector {
                return Err("invariant 1: the vectors differ".to_owned());
            }
            if node.store.bucket_sums().unwrap() != sums || live_rows(&node.store) != rows {
                return Err("invariant 1: the rows differ".to_owned());
            }
            if !node.store.missing_blobs(1).unwrap().is_empty() {
                return Err("invariant 1: blobs are missing".to_owned());
            }
        }
        for (space, name, uid) in world.history.names() {
            for node in 0..world.nodes.len() {
                let holder = world.holder(node, space, name);
                let broken = world.broken == crate::broken::Broken::Votes;
                if holder.as_ref().is_none_or(|holder| holder.uid != uid || !(holder.definite || broken)) {
                    return Err(format!(
                        "invariant 3: {name:?} was given to {uid:?} and is held by {holder:?}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A description of all trackers, for finding the cause of a failure.
    pub(crate) fn describe(&self) -> String {
        let nodes = self.world.nodes.iter().enumerate().map(|(index, node)| {
            let replica = node.replica.as_ref();
            let status = replica.map(|replica| (replica.may_vote(), replica.status(self.world.now(index))));
            let vector = replica.map(|replica| replica.vector().iter().collect::<Vec<_>>());
            let first = &self.world.nodes[0].store;
            let differs = |row: &Row| first.get(row.kind, &row.key).unwrap().as_ref() != Some(row);
            let rows: Vec<_> = node.store.all().into_iter().filter(differs).collect();
            let missing = node.store.missing_blobs(9).unwrap();
            format!(
                "\n{} {status:?} {vector:?} pending {:?} missing {missing:?} {}",
                node.no,
                node.pending.keys(),
                trace_rows(&rows)
            )
        });
        nodes.collect()
    }
}

fn live_rows<D: Disk>(store: &D) -> Vec<Row> {
    let mut rows = store.all();
    rows.retain(|row| !row.tombstone);
    rows
}

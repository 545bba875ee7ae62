//! Storage nodes that an operator took out of the cluster: the join secret does not bring them back, an operator does.
//!
//! A record of its own, because a deleted record is forgotten in time, and because one that gave way to another for lack of
//! room is not expelled.

use shoal_common::PeerId;
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_replica::{Rows, Write};

use super::Storage;
use crate::clock::wall_ms;
use crate::core::{Fault, Tx, refuse};
use crate::record::{EXPELLED, Expulsion, encode};

/// Expelled nodes that are remembered at most: far more than operators type.
const MAX_EXPELLED: usize = 1_000;

impl Storage {
    /// Whether an operator took that node out, and none let it in again.
    ///
    /// # Errors
    /// When the core cannot answer.
    pub(super) async fn is_expelled(&self, peer: PeerId) -> Result<bool, Refusal> {
        self.core()
            .run(move |tx| Ok(tx.store().get(EXPELLED, &peer.0)?.is_some_and(|row| !row.tombstone)))
            .await
    }
}

/// What remembers that a node was expelled.
///
/// # Errors
/// When too many are remembered.
pub(super) fn expel(tx: &mut Tx<'_>, peer: PeerId) -> Result<Write, Fault> {
    let rows = tx.store().scan(EXPELLED, &[], None, 2 * MAX_EXPELLED)?;
    if rows.iter().filter(|row| !row.tombstone).count() >= MAX_EXPELLED {
        let text = format!("{MAX_EXPELLED} nodes are expelled, which is the most; change the join secret");
        return Err(refuse(RefusalKind::Limit, text));
    }
    let value = encode(&Expulsion { at_ms: wall_ms() });
    Ok(Write { kind: EXPELLED, key: peer.0.to_vec(), value, ..Write::default() })
}

/// What forgets that a node was expelled; nothing if it was not.
///
/// # Errors
/// When the database fails.
pub(super) fn let_in_again(tx: &mut Tx<'_>, peer: PeerId) -> Result<Option<Write>, Fault> {
    let expelled = tx.store().get(EXPELLED, &peer.0)?.is_some_and(|row| !row.tombstone);
    let write = || Write { kind: EXPELLED, key: peer.0.to_vec(), tombstone: true, ..Write::default() };
    Ok(expelled.then(write))
}

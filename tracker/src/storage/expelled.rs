//! Storage nodes that an operator took out of the cluster. Only an operator brings them back, not the join secret.
//!
//! It is a record of its own, because a deleted record is forgotten in time, and because a node that gave way for lack of room
//! is not expelled.

use shoal_common::PeerId;
use shoal_common::tracker_api::{Refusal, RefusalKind};
use shoal_replica::{Rows, Write};

use super::Storage;
use crate::clock::wall_ms;
use crate::database::{Fault, Tx, refuse};
use crate::record::{EXPELLED, Expulsion, delete, put};

/// Expelled nodes that are remembered at most: far more than operators expel.
const MAX_EXPELLED: usize = 1_000;

impl Storage {
    /// Whether an operator took that node out and none admitted it again.
    ///
    /// # Errors
    /// When the database thread cannot answer.
    pub(super) async fn is_expelled(&self, peer: PeerId) -> Result<bool, Refusal> {
        self.database().run(move |tx| Ok(tx.store().is_live(EXPELLED, &peer.0)?)).await
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
    Ok(put(EXPELLED, peer.0.to_vec(), &Expulsion { at_ms: wall_ms() }))
}

/// What forgets that a node was expelled; nothing if it was not.
///
/// # Errors
/// When the database fails.
pub(super) fn let_in_again(tx: &mut Tx<'_>, peer: PeerId) -> Result<Option<Write>, Fault> {
    Ok(tx.store().is_live(EXPELLED, &peer.0)?.then(|| delete(EXPELLED, peer.0.to_vec())))
}

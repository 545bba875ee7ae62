//! Source discovery: where the sources of a running download come from. Each kind of place (peers that the trackers name,
//! storage nodes, HTTP servers) implements [`Discovery`]; [`feed`] does the rest for all kinds alike.

use std::convert::Infallible;

pub use futures::future::BoxFuture;
use futures::future::select_all;
use tokio::sync::mpsc;

use crate::engine::Download;
use crate::progress::Progress;
use crate::source::SourceChange;

/// Changes to a download's sources that may wait for it: more than one round of any discovery makes.
pub const MAX_CHANGES: usize = 128;

/// Finds sources of one kind for one running download. The ids of its sources are its own: no other discovery of the same
/// download may use them.
pub trait Discovery: Send {
    /// Completes when [`Discovery::changes`] has something to say before the download's next snapshot. Dropping the future
    /// must lose nothing.
    fn changed(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// The sources to add and to remove now. `now` is the download's last snapshot: it may be from before the changes of the
    /// last call.
    fn changes(&mut self, now: &Progress) -> Vec<SourceChange>;

    /// Whether it will never find another source.
    fn is_over(&self) -> bool {
        false
    }

    /// What it waits for, in one sentence; `None` if it knows of nothing that could become a source.
    fn waits_for(&self) -> Option<String> {
        None
    }
}

/// Gives a download the sources that are found, until the download ends. Once all discoveries are over the download fails
/// when its last source is gone. Meanwhile [`Download::waits_for`] says what a download without a source waits for.
///
/// Never completes. Dropping it closes `changes`, unless there is a clone.
///
/// # Panics
/// Without any discovery.
pub async fn feed<const N: usize>(
    download: &Download,
    changes: mpsc::Sender<SourceChange>,
    mut discoveries: [&mut dyn Discovery; N],
) -> Infallible {
    let (mut progress, mut changes) = (download.progress(), Some(changes));
    loop {
        let now = progress.borrow_and_update().clone();
        for discovery in &mut discoveries {
            for change in discovery.changes(&now) {
                if let Some(changes) = &changes {
                    // A download that does not listen any more is about to end.
                    let _ = changes.send(change).await;
                }
            }
        }
        changes = changes.filter(|_| !discoveries.iter().all(|discovery| discovery.is_over()));
        let waits_for = discoveries.iter().find_map(|discovery| discovery.waits_for());
        download.waits_for.send_replace(waits_for.filter(|_| now.sources == 0));
        tokio::select! {
            _ = select_all(discoveries.iter_mut().map(|discovery| discovery.changed())) => {}
            Ok(()) = progress.changed() => {}
        }
    }
}

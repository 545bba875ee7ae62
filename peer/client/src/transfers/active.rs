//! How many downloads work at the same time: as many as the limit of open files allows. The others wait in order. A download
//! that has nothing to fetch gives its place to one that waits.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// See the module.
pub(super) struct Active {
    all: usize,
    room: Arc<Semaphore>,
    waiting: watch::Sender<usize>,
}

/// Counts one that waits, until it is dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

impl Active {
    /// This many may work at the same time.
    pub(super) fn new(all: usize) -> Self {
        let all = all.clamp(1, Semaphore::MAX_PERMITS);
        Self { all, room: Arc::new(Semaphore::new(all)), waiting: watch::Sender::new(0) }
    }

    /// How many may work at the same time.
    pub(super) fn all(&self) -> usize {
        self.all
    }

    /// A place, if one is free and no download waits for it.
    pub(super) fn try_enter(&self) -> Option<OwnedSemaphorePermit> {
        self.room.clone().try_acquire_owned().ok()
    }

    /// A place, in the order in which they were asked for. Safe to drop.
    pub(super) async fn enter(&self) -> OwnedSemaphorePermit {
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _waiting = Waiting(&self.waiting);
        match self.room.clone().acquire_owned().await {
            Ok(place) => place,
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }

    /// Completes when a download waits for a place. Safe to drop.
    pub(super) async fn wanted(&self) {
        // The sender lives as long as `self`.
        let _ = self.waiting.subscribe().wait_for(|waiting| *waiting > 0).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_go_round_in_order() {
        let active = Active::new(1);
        let first = active.try_enter().unwrap();
        assert!(active.try_enter().is_none());
        let mut second = std::pin::pin!(active.enter());
        let mut third = std::pin::pin!(active.enter());
        tokio::select! {
            biased;
            _ = &mut second => unreachable!("there is one place"),
            _ = &mut third => unreachable!("there is one place"),
            () = active.wanted() => {}
        }
        drop(first);
        let second = second.await;
        assert!(active.try_enter().is_none());
        drop(second);
        drop(third.await);
        assert!(active.try_enter().is_some());
    }
}

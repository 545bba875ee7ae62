//! Carries the decisions of the [`Queue`] to the downloads: each holds a [`Place`], by which it learns when to run and when
//! to end. A run also holds one of as many permits as files may be open, until its files are closed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::queue::{Changes, Queue};
use crate::priority::Rank;

/// See the module.
pub(super) struct Places {
    most: usize,
    files: Arc<Semaphore>,
    inner: Mutex<Inner>,
}

struct Inner {
    queue: Queue<u64>,
    runs: HashMap<u64, watch::Sender<bool>>,
}

/// A run's place in the queue; it is given up by dropping it.
pub(super) struct Place {
    number: u64,
    places: Arc<Places>,
    runs: watch::Receiver<bool>,
}

impl Places {
    /// This many may have files open at the same time.
    pub(super) fn new(most: usize) -> Arc<Self> {
        let most = most.clamp(1, Semaphore::MAX_PERMITS);
        let inner = Inner { queue: Queue::new(most, None), runs: HashMap::new() };
        Arc::new(Self { most, files: Arc::new(Semaphore::new(most)), inner: Mutex::new(inner) })
    }

    /// Lets runs take part; all at once, so that their order means nothing.
    pub(super) fn enter(self: &Arc<Self>, entering: &[(u64, Rank)]) -> Vec<Place> {
        let mut inner = self.inner();
        let place = |&(number, _): &(u64, Rank)| {
            let (sender, runs) = watch::channel(false);
            inner.runs.insert(number, sender);
            Place { number, places: self.clone(), runs }
        };
        let entered = entering.iter().map(place).collect();
        let changes = inner.queue.enter(entering.iter().copied(), Instant::now());
        inner.tell(changes);
        entered
    }

    /// Lets one run take part.
    pub(super) fn enter_one(self: &Arc<Self>, number: u64, rank: Rank) -> Place {
        let (sender, runs) = watch::channel(false);
        let mut inner = self.inner();
        inner.runs.insert(number, sender);
        let changes = inner.queue.enter([(number, rank)], Instant::now());
        inner.tell(changes);
        drop(inner);
        Place { number, places: self.clone(), runs }
    }

    /// Its user gave a run's download another rank.
    pub(super) fn set_rank(&self, number: u64, rank: Rank) {
        self.change(|queue, now| queue.set_rank(number, rank, now));
    }

    /// The user set another bound.
    pub(super) fn set_bound(&self, bound: Option<usize>) {
        self.change(|queue, now| queue.set_bound(bound, now));
    }

    /// The numbers of the runs that wait, the next one first.
    pub(super) fn waiting(&self) -> Vec<u64> {
        self.inner().queue.waiting().collect()
    }

    /// How many may run, if it is the limit of open files that keeps others waiting.
    pub(super) fn bound_by_files(&self) -> Option<usize> {
        self.inner().queue.is_bound_by_files().then_some(self.most)
    }

    fn change(&self, change: impl FnOnce(&mut Queue<u64>, Instant) -> Changes<u64>) {
        let mut inner = self.inner();
        let changes = change(&mut inner.queue, Instant::now());
        inner.tell(changes);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&self, changes: Changes<u64>) {
        for (number, runs) in changes {
            if let Some(sender) = self.runs.get(&number) {
                sender.send_replace(runs);
            }
        }
    }
}

impl Place {
    /// Whether it is this run's turn.
    pub(super) fn is_granted(&self) -> bool {
        *self.runs.borrow()
    }

    /// Completes when it is this run's turn, with what lets it open files. Safe to drop.
    pub(super) async fn granted(&self) -> OwnedSemaphorePermit {
        loop {
            // The sender lives as long as the place.
            let _ = self.runs.clone().wait_for(|runs| *runs).await.is_ok();
            tokio::select! {
                permit = self.places.files.clone().acquire_owned() => match permit {
                    Ok(permit) => return permit,
                    // It is never closed.
                    Err(_) => std::future::pending().await,
                },
                () = self.revoked() => {}
            }
        }
    }

    /// Completes when this run has to end. Safe to drop.
    pub(super) async fn revoked(&self) {
        let _ = self.runs.clone().wait_for(|runs| !*runs).await.is_ok();
    }

    /// The download has had nothing to fetch from for this long.
    pub(super) fn idles(&self, idle: Duration) {
        self.places.change(|queue, now| queue.idles(self.number, idle, now));
    }

    /// The download can fetch.
    pub(super) fn moves(&self) {
        self.places.change(|queue, now| queue.moves(self.number, now));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.change(|queue, now| queue.leave(self.number, now));
        self.places.inner().runs.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rank(position: i64) -> Rank {
        Rank { position, ..Rank::default() }
    }

    #[tokio::test]
    async fn places_go_round_in_order_and_files_are_closed_before_others_are_opened() {
        let places = Places::new(1);
        let mut entered = places.enter(&[(1, rank(3)), (2, rank(1)), (3, rank(2))]).into_iter();
        let (last, first, second) =
            (entered.next().unwrap(), entered.next().unwrap(), entered.next().unwrap());
        assert_eq!(places.waiting(), [3, 1]);
        let files = first.granted().await;
        first.idles(Duration::from_secs(5));
        first.revoked().await;
        assert!(second.is_granted() && !last.is_granted());
        let mut waits = Box::pin(second.granted());
        tokio::select! {
            biased;
            _ = &mut waits => unreachable!("the first one's files are open"),
            () = std::future::ready(()) => {}
        }
        drop(files);
        let files = waits.await;
        places.set_rank(1, rank(0));
        assert_eq!(places.waiting(), [1, 2], "the first one was tried in vain");
        drop((files, second));
        drop(last.granted().await);
        assert_eq!(places.bound_by_files(), Some(1));
    }
}

//! The core's orders on their way to the tasks that own the links.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shoal_replica::TrackerNo;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::FRAME;
use crate::core::LinkOrder;

/// Frames queued for one link; the replica's own windows keep far below.
const MAX_QUEUED: usize = 16 * 1024;

/// How long a link that is to be closed has to send what was queued before.
const CLOSE_WAIT: Duration = Duration::from_secs(1);

/// What a link's task is to do.
pub(super) enum Order {
    Send(Vec<u8>),
    Close(String),
}

/// A queue of orders for one link.
pub(super) fn queue() -> (Queue, Orders) {
    let (sender, receiver) = mpsc::channel(MAX_QUEUED);
    let overrun = Arc::<AtomicBool>::default();
    let (shun, shunned) = watch::channel(Instant::now());
    let (pause, paused) = watch::channel(Instant::now());
    let (close, closed) = watch::channel(String::new());
    let queue = Queue { sender, overrun: overrun.clone(), shun, pause, close };
    (queue, Orders { receiver, overrun, shunned, paused, closed })
}

/// The end into which orders are put.
pub(super) struct Queue {
    sender: mpsc::Sender<Order>,
    /// Whether a frame was lost because there was no room. A stream with a hole must not go on: behind the hole may come an
    /// END that counts what was lost. Set before anything is queued behind the hole.
    overrun: Arc<AtomicBool>,
    /// Until when no link is raised with this tracker.
    shun: watch::Sender<Instant>,
    /// Until when nothing is read from it.
    pause: watch::Sender<Instant>,
    /// Why the link is closed, for a task that is stuck in sending.
    close: watch::Sender<String>,
}

/// The end from which a link's task takes them.
pub(super) struct Orders {
    receiver: mpsc::Receiver<Order>,
    overrun: Arc<AtomicBool>,
    shunned: watch::Receiver<Instant>,
    paused: watch::Receiver<Instant>,
    closed: watch::Receiver<String>,
}

impl Queue {
    /// Closes the link. What is queued before that is still sent, if the other end takes it.
    async fn close(&self, reason: String) {
        self.close.send_replace(reason.clone());
        let _ = self.sender.send(Order::Close(reason)).await;
    }
}

impl Orders {
    /// Until when no link is raised.
    pub(super) fn shunned_until(&self) -> Instant {
        *self.shunned.borrow()
    }

    /// Says until when nothing is read.
    pub(super) fn paused(&self) -> watch::Receiver<Instant> {
        self.paused.clone()
    }

    /// Waits until the link is to be closed and had some time to send what was queued before; says why.
    pub(super) fn closed(&self) -> impl Future<Output = String> + use<> {
        let mut closed = self.closed.clone();
        async move {
            if closed.changed().await.is_err() {
                // The tracker closes, and says so itself.
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(CLOSE_WAIT).await;
            let reason = closed.borrow();
            reason.clone()
        }
    }

    /// The next order. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Order {
        let order = self.receiver.recv().await;
        self.unless_overrun(order.unwrap_or_else(|| Order::Close("this tracker closes".to_owned())))
    }

    /// The next order, if one is there.
    pub(super) fn try_next(&mut self) -> Option<Order> {
        let order = self.receiver.try_recv().ok()?;
        Some(self.unless_overrun(order))
    }

    /// Forgets the orders for an earlier link.
    pub(super) fn forget(&mut self) {
        while self.receiver.try_recv().is_ok() {
            // Nobody is there to take it.
        }
        self.overrun.store(false, Ordering::Release);
        self.closed.mark_unchanged();
    }

    fn unless_overrun(&self, order: Order) -> Order {
        if self.overrun.load(Ordering::Acquire) {
            Order::Close("the other side takes frames too slowly".to_owned())
        } else {
            order
        }
    }
}

/// Hands the core's orders to the queues of the right links until the tracker closes.
pub(super) async fn carry(
    mut orders: mpsc::UnboundedReceiver<LinkOrder>,
    queues: HashMap<TrackerNo, Queue>,
    rest_until: watch::Sender<Instant>,
    closing: CancellationToken,
) {
    loop {
        let order = tokio::select! {
            () = closing.cancelled() => return,
            order = orders.recv() => order,
        };
        match order {
            None => return,
            Some(LinkOrder::Send(to, frame)) => {
                let mut message = vec![FRAME];
                message.extend(frame.encode());
                if let Some(queue) = queues.get(&to)
                    && queue.sender.try_send(Order::Send(message)).is_err()
                {
                    queue.overrun.store(true, Ordering::Release);
                }
            }
            Some(LinkOrder::Close(to, reason)) => {
                if let Some(queue) = queues.get(&to) {
                    queue.close(reason).await;
                }
            }
            Some(LinkOrder::Shun(to, rest)) => {
                if let Some(queue) = queues.get(&to) {
                    queue.shun.send_replace(Instant::now() + rest);
                }
            }
            Some(LinkOrder::Pause(to, rest)) => {
                if let Some(queue) = queues.get(&to) {
                    queue.pause.send_replace(Instant::now() + rest);
                }
            }
            Some(LinkOrder::Rest(rest)) => drop(rest_until.send_replace(Instant::now() + rest)),
            Some(LinkOrder::CloseAll(reason)) => {
                for queue in queues.values() {
                    queue.close(reason.to_owned()).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_sent_behind_a_frame_that_found_no_room() {
        let (queue, mut orders) = queue();
        let (sender, core) = mpsc::unbounded_channel();
        let (rest, _) = watch::channel(Instant::now());
        let to = TrackerNo(2);
        for _ in 0..=MAX_QUEUED {
            sender.send(LinkOrder::Send(to, shoal_replica::Frame::Ping)).unwrap();
        }
        drop(sender);
        carry(core, HashMap::from([(to, queue)]), rest, CancellationToken::new()).await;
        assert!(matches!(orders.next().await, Order::Close(_)));
        assert!(matches!(orders.try_next(), Some(Order::Close(_))));
        orders.forget();
        assert!(orders.try_next().is_none());
    }
}

//! What the database thread orders of the links, on its way to the tasks that own them.
//!
//! Giving an order never waits, so another tracker that reads slowly, or not at all, cannot hold up the database. Frames go
//! into one bounded queue per link. A full queue closes its link, and the next link makes up for the lost frames: it begins
//! with a comparison of what both hold. All other orders are values that the link's task reads when it can; none gets lost.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shoal_replica::{Frame, TrackerNo};
use tokio::sync::{mpsc, watch};

/// Frames that may wait for one link. The replica's own windows keep far below.
const MAX_QUEUED: usize = 16 * 1024;
/// How long a link that is to be closed has to send what was queued before.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// Why a link with a full queue is closed.
const TOO_SLOW: &str = "the other side takes frames too slowly";

/// The database thread's end.
pub(crate) struct LinkOrders {
    links: HashMap<TrackerNo, Sender>,
    rest: watch::Sender<Instant>,
}

/// The database thread's end of one link.
struct Sender {
    frames: mpsc::Sender<Frame>,
    close: watch::Sender<Option<String>>,
    shun: watch::Sender<Instant>,
    pause: watch::Sender<Instant>,
}

/// The end of the task that owns a link.
pub(crate) struct LinkQueue {
    frames: mpsc::Receiver<Frame>,
    /// Why the link is to be closed. Until the next link begins no frame is queued behind that.
    close: watch::Sender<Option<String>>,
    shunned: watch::Receiver<Instant>,
    resting: watch::Receiver<Instant>,
    paused: watch::Receiver<Instant>,
}

/// Queues for the links with these trackers.
pub(crate) fn queues(
    others: impl IntoIterator<Item = TrackerNo>,
) -> (LinkOrders, HashMap<TrackerNo, LinkQueue>) {
    let (rest, resting) = watch::channel(Instant::now());
    let (mut links, mut queues) = (HashMap::new(), HashMap::new());
    for number in others {
        let (sender, frames) = mpsc::channel(MAX_QUEUED);
        let close = watch::Sender::new(None);
        let (shun, shunned) = watch::channel(Instant::now());
        let (pause, paused) = watch::channel(Instant::now());
        links.insert(number, Sender { frames: sender, close: close.clone(), shun, pause });
        queues.insert(number, LinkQueue { frames, close, shunned, resting: resting.clone(), paused });
    }
    (LinkOrders { links, rest }, queues)
}

impl LinkOrders {
    /// Sends a frame, unless the link is to be closed.
    pub(crate) fn send(&self, to: TrackerNo, frame: Frame) {
        if let Some(link) = self.links.get(&to)
            && link.close.borrow().is_none()
            && link.frames.try_send(frame).is_err()
        {
            link.close(TOO_SLOW);
        }
    }

    /// Closes a link. What is queued is still sent, if the other end takes it within [`CLOSE_WAIT`].
    pub(crate) fn close(&self, with: TrackerNo, reason: &str) {
        if let Some(link) = self.links.get(&with) {
            link.close(reason);
        }
    }

    /// Closes all links.
    pub(crate) fn close_all(&self, reason: &str) {
        self.links.values().for_each(|link| link.close(reason));
    }

    /// Raises no link for so long.
    pub(crate) fn rest(&self, pause: Duration) {
        self.rest.send_replace(Instant::now() + pause);
    }

    /// Raises no link with that tracker for so long.
    pub(crate) fn shun(&self, tracker: TrackerNo, pause: Duration) {
        if let Some(link) = self.links.get(&tracker) {
            link.shun.send_replace(Instant::now() + pause);
        }
    }

    /// Reads nothing from that tracker for so long.
    pub(crate) fn pause(&self, tracker: TrackerNo, pause: Duration) {
        if let Some(link) = self.links.get(&tracker) {
            link.pause.send_replace(Instant::now() + pause);
        }
    }
}

impl Sender {
    fn close(&self, reason: &str) {
        self.close.send_if_modified(|close| {
            let first = close.is_none();
            close.get_or_insert_with(|| reason.to_owned());
            first
        });
    }
}

impl LinkQueue {
    /// Until when no link is raised.
    pub(crate) fn shunned_until(&self) -> Instant {
        (*self.shunned.borrow()).max(*self.resting.borrow())
    }

    /// Says until when nothing is read.
    pub(crate) fn paused(&self) -> watch::Receiver<Instant> {
        self.paused.clone()
    }

    /// A link begins: forgets what was meant for an earlier one.
    pub(crate) fn begin(&mut self) {
        self.close.send_replace(None);
        while self.frames.try_recv().is_ok() {}
    }

    /// The next frame, or why the link is to be closed, once all that was queued before is taken. Dropping the future loses
    /// nothing.
    pub(crate) async fn next(&mut self) -> Result<Frame, String> {
        let mut close = self.close.subscribe();
        tokio::select! {
            biased;
            frame = self.frames.recv() => frame.ok_or_else(|| "this tracker closes".to_owned()),
            reason = reason(&mut close) => Err(reason),
        }
    }

    /// The next frame, if there is one.
    pub(crate) fn try_next(&mut self) -> Option<Frame> {
        self.frames.try_recv().ok()
    }

    /// Waits until the link is to be closed and had time to send what was queued before; says why. For a task that may be
    /// stuck in sending. Safe to drop.
    pub(crate) fn closed(&self) -> impl Future<Output = String> + use<> {
        let mut close = self.close.subscribe();
        async move {
            let reason = reason(&mut close).await;
            tokio::time::sleep(CLOSE_WAIT).await;
            reason
        }
    }
}

/// Waits for the reason why a link is to be closed.
async fn reason(close: &mut watch::Receiver<Option<String>>) -> String {
    let given = close.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match given {
        Some(reason) => reason,
        // The tracker closes, and says so itself.
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: TrackerNo = TrackerNo(2);
    const OTHER: TrackerNo = TrackerNo(3);

    fn full() -> (LinkOrders, HashMap<TrackerNo, LinkQueue>) {
        let (orders, queues) = queues([SLOW, OTHER]);
        (0..=MAX_QUEUED).for_each(|_| orders.send(SLOW, Frame::Ping));
        (orders, queues)
    }

    #[tokio::test]
    async fn a_full_queue_closes_its_link_and_no_other_and_nothing_is_sent_behind_the_lost_frame() {
        let (orders, mut queues) = full();
        orders.send(OTHER, Frame::Ping);
        assert_eq!(queues.get_mut(&OTHER).unwrap().next().await, Ok(Frame::Ping));
        let slow = queues.get_mut(&SLOW).unwrap();
        assert!(slow.try_next().is_some());
        orders.send(SLOW, Frame::Ping);
        let mut sent = 1;
        let why = loop {
            match slow.next().await {
                Ok(_) => sent += 1,
                Err(why) => break why,
            }
        };
        assert_eq!((sent, why.as_str()), (MAX_QUEUED, TOO_SLOW));
        slow.begin();
        orders.send(SLOW, Frame::Ping);
        assert_eq!(slow.next().await, Ok(Frame::Ping), "the next link is a new one");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_stuck_in_sending_hears_that_its_link_is_to_be_closed() {
        let (orders, queues) = full();
        assert_eq!(queues[&SLOW].closed().await, TOO_SLOW, "its queue is full");
        orders.close_all("the disk is full");
        assert_eq!(queues[&OTHER].closed().await, "the disk is full");
        orders.close(OTHER, "another reason");
        assert_eq!(queues[&OTHER].closed().await, "the disk is full", "the first reason counts");
    }

    #[tokio::test]
    async fn what_was_meant_for_an_earlier_link_is_forgotten() {
        let (orders, mut queues) = full();
        let slow = queues.get_mut(&SLOW).unwrap();
        slow.begin();
        assert!(slow.try_next().is_none());
        let until = Instant::now() + Duration::from_secs(60);
        orders.rest(Duration::from_secs(120));
        orders.shun(OTHER, Duration::from_secs(240));
        assert!(slow.shunned_until() > until, "pauses stay");
        assert!(queues[&OTHER].shunned_until() > until + Duration::from_secs(120));
    }
}

//! What goes over a link while it stands: both directions at once, so that two trackers that both have much to send never wait
//! for each other to read.

use std::time::{Duration, Instant};

use shoal_common::PeerId;
use shoal_net::{ChannelReceiver, ChannelSender};
use shoal_replica::{Event, Frame, TrackerNo};
use tokio::sync::{mpsc, watch};

use super::orders::{Order, Orders};
use super::{Arrived, FRAME, Inbox, Shared};
use crate::presence::Delta;

/// How often others are told of changes of presence at most.
const PRESENCE_PAUSE: Duration = Duration::from_millis(100);
/// First byte of a message that carries a [`Delta`].
const PRESENCE: u8 = 1;
/// Carries both ways until the link ends; says why. If a later stream takes its place, that is the inbox's newest.
pub(super) async fn carry(
    shared: &Shared,
    number: TrackerNo,
    peer: PeerId,
    sender: ChannelSender,
    receiver: ChannelReceiver,
    inbox: &mut Inbox,
) -> String {
    shared.core.event(Event::LinkUp { peer: number }).await;
    shared.presence.link_up(number.0);
    let Inbox { arrived, newest, orders, .. } = inbox;
    let (closed, paused) = (orders.closed(), orders.paused());
    let ended = tokio::select! {
        () = shared.closing.cancelled() => "this tracker closes".to_owned(),
        why = read(shared, number, receiver, paused) => why,
        later = replacement(arrived, peer) => {
            *newest = later;
            "the other side began anew".to_owned()
        }
        why = write(shared, number, sender, orders) => why,
        // The other end may take nothing any more: then a message is half sent for as long as it likes.
        why = closed => why,
    };
    shared.presence.link_down(number.0);
    shared.core.event(Event::LinkDown { peer: number }).await;
    ended
}

/// Waits for another stream of the same tracker. The old key still answers at times: a stranger, or a tracker whose key changed
/// and whose time will come.
async fn replacement(arrived: &mut mpsc::Receiver<Arrived>, peer: PeerId) -> Option<Arrived> {
    loop {
        match arrived.recv().await {
            Some(later) if later.peer == peer => return Some(later),
            Some(_) => {}
            // The tracker closes.
            None => std::future::pending().await,
        }
    }
}

/// Sends what is ordered, and changes of presence, until the link ends; says why it did.
async fn write(shared: &Shared, number: TrackerNo, mut sender: ChannelSender, orders: &mut Orders) -> String {
    let (mut changed, mut untold) = (shared.presence.changed(), false);
    let mut presence_due = tokio::time::interval(PRESENCE_PAUSE);
    presence_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            order = orders.next() => match order {
                Order::Send(message) => send_queued(&mut sender, message, orders).await,
                Order::Close(reason) => Err(reason),
            },
            Ok(()) = changed.changed(), if !untold => {
                untold = true;
                continue;
            }
            _ = presence_due.tick(), if untold => {
                untold = false;
                tell_presence(shared, number, &mut sender).await
            }
        };
        if let Err(why) = sent {
            return why;
        }
    }
}

/// Sends a message and whatever else is queued behind it, then flushes once.
async fn send_queued(sender: &mut ChannelSender, first: Vec<u8>, orders: &mut Orders) -> Result<(), String> {
    let mut next = Some(first);
    while let Some(message) = next.take() {
        sender.feed(&message).await.map_err(|error| error.to_string())?;
        match orders.try_next() {
            Some(Order::Send(message)) => next = Some(message),
            Some(Order::Close(reason)) => return Err(reason),
            None => {}
        }
    }
    sender.flush().await.map_err(|error| error.to_string())
}

async fn tell_presence(shared: &Shared, number: TrackerNo, sender: &mut ChannelSender) -> Result<(), String> {
    for delta in shared.presence.take_untold(number.0) {
        let mut message = vec![PRESENCE];
        message.extend(crate::record::encode(&delta));
        sender.feed(&message).await.map_err(|error| error.to_string())?;
    }
    sender.flush().await.map_err(|error| error.to_string())
}

/// Hands in what arrives until the stream ends; says why it did.
async fn read(
    shared: &Shared,
    number: TrackerNo,
    mut receiver: ChannelReceiver,
    paused: watch::Receiver<Instant>,
) -> String {
    loop {
        let until = *paused.borrow();
        tokio::time::sleep_until(until.into()).await;
        let message = match receiver.recv().await {
            Ok(Some(message)) => message,
            Ok(None) => return "the other side closed it".to_owned(),
            Err(error) => return error.to_string(),
        };
        match message.split_first() {
            Some((&FRAME, bytes)) => match Frame::decode(bytes) {
                Ok(frame) => shared.core.event(Event::Frame { peer: number, frame }).await,
                Err(error) => return format!("it sent a frame that cannot be read: {error}"),
            },
            Some((&PRESENCE, bytes)) => match minicbor::decode::<Delta>(bytes) {
                Ok(delta) => shared.presence.told(number.0, delta),
                Err(error) => return format!("it sent a message that cannot be read: {error}"),
            },
            // A later version's.
            _ => {}
        }
    }
}

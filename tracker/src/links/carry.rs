//! Carries both directions of a link at once, so that two trackers that both have much to send never wait for each other to
//! read.

use std::time::{Duration, Instant};

use shoal_common::PeerId;
use shoal_net::{ChannelReceiver, ChannelSender};
use shoal_replica::{Event, Frame, TrackerNo};
use tokio::sync::{mpsc, watch};

use super::{Arrived, FRAME, Inbox, LinkContext};
use crate::link_orders::LinkQueue;
use crate::presence::Delta;
use crate::ways::Between;

/// How often changes of presence are sent at most.
const PRESENCE_PAUSE: Duration = Duration::from_millis(100);
/// First byte of a message that carries a [`Delta`].
const PRESENCE: u8 = 1;
/// First byte of a message that carries a [`Between`]. Earlier versions ignore it.
const WAYS: u8 = 3;

/// Carries both ways until the link ends; says why. If a later stream takes its place, that is the inbox's newest.
pub(super) async fn carry(
    context: &LinkContext,
    number: TrackerNo,
    peer: PeerId,
    sender: ChannelSender,
    receiver: ChannelReceiver,
    inbox: &mut Inbox,
) -> String {
    context.database.event(Event::LinkUp { peer: number }).await;
    context.presence.link_up(number.0);
    let mut between = context.ways.link_up(number.0);
    let Inbox { arrived, newest, orders, .. } = inbox;
    let (closed, paused) = (orders.closed(), orders.paused());
    let ended = tokio::select! {
        () = context.closing.cancelled() => "this tracker closes".to_owned(),
        why = read(context, number, receiver, paused) => why,
        later = replacement(arrived, peer) => {
            *newest = later;
            "the other side opened another one".to_owned()
        }
        why = write(context, number, sender, orders, &mut between) => why,
        // `write` may be stuck in a message that the other end does not take.
        why = closed => why,
    };
    context.presence.link_down(number.0);
    context.ways.link_down(number.0);
    context.database.event(Event::LinkDown { peer: number }).await;
    ended
}

/// Waits for another stream of the same tracker. One with another key is not it: that is a stranger, or a tracker whose key
/// changed and which will be dialled with the new key.
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
async fn write(
    context: &LinkContext,
    number: TrackerNo,
    mut sender: ChannelSender,
    orders: &mut LinkQueue,
    (notes, between): &mut (Vec<Between>, mpsc::Receiver<Between>),
) -> String {
    if let Err(why) = send_between(&mut sender, notes).await {
        return why;
    }
    let (mut changed, mut unsent) = (context.presence.changed(), false);
    let mut presence_due = tokio::time::interval(PRESENCE_PAUSE);
    presence_due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let sent = tokio::select! {
            frame = orders.next() => match frame {
                Ok(frame) => send_queued(&mut sender, frame, orders).await,
                Err(reason) => Err(reason),
            },
            Some(next) = between.recv() => send_between(&mut sender, &[next]).await,
            Ok(()) = changed.changed(), if !unsent => {
                unsent = true;
                continue;
            }
            _ = presence_due.tick(), if unsent => {
                unsent = false;
                send_presence(context, number, &mut sender).await
            }
        };
        if let Err(why) = sent {
            return why;
        }
    }
}

/// Sends a frame and those that are queued behind it, then flushes once.
async fn send_queued(sender: &mut ChannelSender, first: Frame, orders: &mut LinkQueue) -> Result<(), String> {
    let mut next = Some(first);
    while let Some(frame) = next {
        let mut message = vec![FRAME];
        message.extend(frame.encode());
        sender.feed(&message).await.map_err(|error| error.to_string())?;
        next = orders.try_next();
    }
    sender.flush().await.map_err(|error| error.to_string())
}

async fn send_presence(
    context: &LinkContext,
    number: TrackerNo,
    sender: &mut ChannelSender,
) -> Result<(), String> {
    for delta in context.presence.take_unsent(number.0) {
        let mut message = vec![PRESENCE];
        message.extend(crate::record::encode(&delta));
        sender.feed(&message).await.map_err(|error| error.to_string())?;
    }
    sender.flush().await.map_err(|error| error.to_string())
}

async fn send_between(sender: &mut ChannelSender, all: &[Between]) -> Result<(), String> {
    for between in all {
        let mut message = vec![WAYS];
        message.extend(crate::record::encode(between));
        sender.feed(&message).await.map_err(|error| error.to_string())?;
    }
    sender.flush().await.map_err(|error| error.to_string())
}

/// Passes on what arrives until the stream ends; says why it did.
async fn read(
    context: &LinkContext,
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
                Ok(frame) => context.database.event(Event::Frame { peer: number, frame }).await,
                Err(error) => return format!("it sent a frame that cannot be read: {error}"),
            },
            Some((&PRESENCE, bytes)) => match minicbor::decode::<Delta>(bytes) {
                Ok(delta) => context.presence.apply(number.0, delta),
                Err(error) => return format!("it sent a message that cannot be read: {error}"),
            },
            Some((&WAYS, bytes)) => {
                // One that cannot be read is of a later version.
                if let Ok(between) = minicbor::decode::<Between>(bytes) {
                    context.ways.apply(number.0, between);
                }
            }
            // From a later version.
            _ => {}
        }
    }
}

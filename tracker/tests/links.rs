//! How two trackers find to each other whatever became of earlier attempts, seen from a tracker made by hand.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

mod common;

use common::{PATIENCE, free_ports, start};
use minicbor::{Decode, Encode};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Incoming, Protocol};
use tokio::time::timeout;

const LINK: Protocol = Protocol("/shoal/tracker/1");
/// First byte of a message that carries a replica's frame.
const FRAME: u8 = 0;
/// First byte of a message that says who is online.
const PRESENCE: u8 = 1;
/// First byte of a message that says which attempt's stream its sender has taken.
const TAKEN: u8 = 2;

#[derive(Encode, Decode)]
#[cbor(map)]
struct Introduction {
    #[n(0)]
    number: u8,
    #[n(2)]
    attempt: u64,
}

fn taken(attempt: u64) -> Vec<u8> {
    [&[TAKEN][..], &attempt.to_le_bytes()].concat()
}

/// The tracker's next stream, and what names its attempt.
async fn its_stream(incoming: &mut Incoming) -> (Channel, u64) {
    let mut stream = timeout(PATIENCE, incoming.next()).await.unwrap().unwrap().channel;
    let first = timeout(PATIENCE, stream.recv()).await.unwrap().unwrap().unwrap();
    let introduction: Introduction = minicbor::decode(&first).unwrap();
    assert_eq!(introduction.number, 1);
    (stream, introduction.attempt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_arrived_outlives_an_attempt_that_came_to_nothing() {
    let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(2));
    let one = start(dir.path(), &ports, 1).await;
    let config = ControlConfig {
        identity: Identity::generate(),
        listen: Some(([127, 0, 0, 1], ports[1]).into()),
        protocols: vec![LINK],
        limits: ControlLimits::default(),
    };
    let (control, mut incoming) = Control::start(config).await.unwrap();
    let peer = control.dial("127.0.0.1", ports[0], None).await.unwrap();
    let mut ours = control.open(peer, LINK).await.unwrap();
    let introduction = Introduction { number: 2, attempt: 77 };
    ours.send(&minicbor::to_vec(introduction).unwrap()).await.unwrap();
    // It takes our stream, and we give up its own: as if ours had come while an earlier attempt of its was ending here.
    let (mut its, _) = its_stream(&mut incoming).await;
    assert_eq!(timeout(PATIENCE, its.recv()).await.unwrap().unwrap(), Some(taken(77)));
    drop(its);
    // Would it give up ours for that, both could go on for ever giving up what the other has just opened.
    let (mut its, attempt) = its_stream(&mut incoming).await;
    assert_eq!(timeout(PATIENCE, its.recv()).await.unwrap().unwrap(), Some(taken(77)));
    ours.send(&taken(attempt)).await.unwrap();
    // The link stands: it carries frames, and in between who is online.
    let frame = timeout(PATIENCE, async {
        loop {
            match its.recv().await.unwrap().unwrap().first() {
                Some(&PRESENCE) => {}
                other => break other.copied(),
            }
        }
    });
    assert_eq!(frame.await.unwrap(), Some(FRAME));
    control.shutdown().await;
    one.shutdown().await;
}

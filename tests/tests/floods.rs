//! Peers that open a thousand connections to a client: what they can take is bounded, and others are served meanwhile.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use shoal_common::peer_wire::ToServer;
use shoal_net::Identity;
use shoal_tests::{Target, World, descriptors, download, peak_memory, same_content, until};

const CONNECTIONS: usize = 1_000;
const MIB: usize = 1 << 20;
/// What a client lets strangers and members have together: 128 handshakes, and 256 connections behind them.
const MOST: usize = 128 + 256;

/// Opens the connections under one key, several at a time, and keeps them for as long as it may. With a ticket each opens the
/// file. Ends when all were opened; gives how many came about.
fn flood(target: Target, identity: Identity, ticket: Option<Vec<u8>>) -> JoinHandle<usize> {
    let flood = async move {
        let mut tasks = tokio::task::JoinSet::new();
        let came = Arc::new(AtomicUsize::new(0));
        let next = Arc::new(AtomicUsize::new(0));
        for _ in 0..16 {
            let (identity, ticket, came, next) =
                (identity.clone(), ticket.clone(), came.clone(), next.clone());
            tasks.spawn(async move {
                let mut held = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < CONNECTIONS {
                    let connected = shoal_net::bulk::connect(target.address, target.peer, &identity).await;
                    let Ok(stream) = connected else { continue };
                    came.fetch_add(1, Ordering::Relaxed);
                    let (reader, writer) = stream.into_split();
                    let mut writer = shoal_net::bulk::frame::FrameWriter::new(writer);
                    if let Some(ticket) = ticket.clone() {
                        let (group, file) = target.file;
                        let open = ToServer::Open { channel: 1, group, file, ticket };
                        let open = minicbor::to_vec(open).unwrap();
                        // It may be shown the door already.
                        let _ = writer.control(shoal_common::peer_wire::TO_SERVER, &open).await;
                        let _ = writer.flush().await;
                    }
                    held.push((reader, writer));
                }
                held
            });
        }
        let _held = tasks.join_all().await;
        came.load(Ordering::Relaxed)
    };
    std::thread::spawn(move || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap()
            .block_on(flood)
    })
}

#[test]
fn a_thousand_connections_take_no_more_than_their_share_and_others_are_served() {
    let mut world = World::new();
    let (path, _) = world.ann.share("g", "a.bin", 8 * MIB);
    world.ann.ok("limit up 4M");
    let mut mallory = world.by_hand("mallory");
    let target = world.target(&mut mallory, "a.bin");
    let (_, ticket) = mallory.ticket("g");
    let before = descriptors(world.ann.pid());

    // Connections that say nothing at all, under a key that is no member's, and under a member's.
    let silent: Vec<TcpStream> =
        (0..CONNECTIONS).map_while(|_| TcpStream::connect(target.address).ok()).collect();
    assert_eq!(silent.len(), CONNECTIONS);
    let floods =
        [flood(target, Identity::generate(), None), flood(target, mallory.identity().clone(), Some(ticket))];
    let mut bob = world.member("bob");
    let copy = world.path("copy.bin");
    download(&mut bob, "a.bin", &copy);
    let mut most = 0;
    until("bob has it", || {
        most = most.max(descriptors(world.ann.pid()));
        bob.download("a.bin")["state"] == "C"
    });
    assert!(same_content(&path, &copy));
    let came: Vec<usize> = floods.into_iter().map(|flood| flood.join().unwrap()).collect();
    most = most.max(descriptors(world.ann.pid()));
    let peak = peak_memory(world.ann.pid()) / MIB as u64;
    eprintln!("{came:?} came about; {before} descriptors before, {most} at most; {peak} MiB");
    assert!(most <= before + MOST, "{most} descriptors, {before} before");
    assert!(peak < 300, "{peak} MiB");
    drop(silent);
    until("all is given back", || descriptors(world.ann.pid()) <= before + 16);
}

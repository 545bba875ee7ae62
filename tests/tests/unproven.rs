//! A member who says that they are where they are not: others' clients do not go there for long.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use shoal_common::tracker_api::{Answer, Call, Completeness, Holding, REVISION};
use shoal_common::{Fid, Gid, RequestId};
use shoal_tests::{Member, Network, World, download, in_own_network, until};

const MIB: usize = 1 << 20;
/// Of documentation (RFC 5737): no machine is there.
const NOWHERE: &str = "192.0.2.1:25";

/// Where the holders of a file are said to be, and whether that is unproven.
fn named(member: &mut Member, (group, file): (Gid, Fid)) -> Vec<(String, bool)> {
    let Answer::Holders { holders, .. } = member.done(Call::Holders { group, file }) else {
        panic!("no holders")
    };
    holders.iter().map(|holder| (holder.address.clone(), holder.is_unproven())).collect()
}

#[test]
fn an_address_where_nobody_answers_is_left_out_once_three_users_clients_tried_it() {
    // Nothing leaves this machine: the network of this test has no way out.
    if !in_own_network("an_address_where_nobody_answers_is_left_out_once_three_users_clients_tried_it") {
        return;
    }
    let _network = Network::new(0);
    let mut world = World::new();
    world.ann.share("g", "a.bin", MIB);
    let mut mallory = Member::connect(world.trackers.port(1));
    mallory.done(Call::Hello { listen: NOWHERE.into(), revision: Some(REVISION) });
    mallory.enter("mallory");
    mallory.join("g");
    world.ann.ok("accept_request g mallory");
    let (group, file, _) = mallory.find("g", "a.bin");
    mallory.done(Call::ShareKnown { request: RequestId::random(), group, file });
    let holdings = vec![Holding { group, file, completeness: Completeness::Complete }];
    mallory.done(Call::Announce { reset: true, holdings });
    world.ann.ok("stop_share g a.bin");
    let mut finder = world.by_hand("finder");
    let lie = [(NOWHERE.to_owned(), true)];
    until("she alone is named", || named(&mut finder, (group, file)) == lie);

    let mut clients = Vec::new();
    for name in ["bob", "carl", "dora"] {
        assert_eq!(named(&mut finder, (group, file)), lie, "before {name} tried it");
        let mut client = world.member(name);
        download(&mut client, "a.bin", &world.path(name));
        until("it was tried", || client.activity("a.bin").contains("mallory"));
        clients.push(client);
    }
    until("she is left out", || named(&mut finder, (group, file)).is_empty());
}

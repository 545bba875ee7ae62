//! The table of all pairs, and a short form of it.

use std::fmt::Write;
use std::path::Path;

use shoal_tests::{long_or_skip, until};

use crate::stage::{DELAY_MS, Stage, Went};

/// Kinds of places, as `docs/reach.md` names them, with the routers that make them (`nat.c`). `{r}` is the router's name, `{n}` the
/// last number of its address.
const PLACES: &[(&str, &str)] = &[
    ("open", ""),
    ("port forwarded", "{r}=fwd:-:203.0.113.{n}"),
    ("full cone", "{r}=full:-:203.0.113.{n}"),
    ("address-restricted", "{r}=addr:-:203.0.113.{n}"),
    ("port-restricted", "{r}=port:-:203.0.113.{n}"),
    ("symmetric", "{r}=sym:-:203.0.113.{n}"),
    ("carrier-grade", "{r}o=port:-:203.0.113.{n} {r}=port:{r}o:100.64.0.{n}"),
    ("UDP blocked", "{r}=port+noudp:-:203.0.113.{n}"),
];
/// Places at which strangers' connections arrive.
const REACHED: usize = 2;
/// Bytes of a file of the table.
const SIZE: usize = 4 << 20;

/// Which way a pair is expected to take: the sharer's place, the requester's.
fn expected(sharer: usize, requester: usize) -> &'static str {
    match (sharer < REACHED, requester < REACHED) {
        (true, _) => "direct",
        (false, true) => "reversed",
        (false, false) => "relayed",
    }
}

/// The nodes of a host at a place; its own address; the address that it gives out.
fn host_at(name: &str, place: usize, number: usize) -> (Vec<String>, String) {
    let router = format!("r{name}");
    let spec = PLACES[place].1.replace("{r}", &router).replace("{n}", &number.to_string());
    let mut nodes: Vec<String> = spec.split_whitespace().map(str::to_owned).collect();
    let (behind, own) = if nodes.is_empty() {
        ("-".to_owned(), format!("198.51.100.{number}"))
    } else {
        (router, format!("192.168.{number}.2"))
    };
    nodes.push(format!("{name}:{behind}:{own}"));
    // Whoever forwards a port gives the router's address out.
    (nodes, if place == 1 { format!("203.0.113.{number}") } else { own })
}

fn assert_way(from: &str, to: &str, expected: &str, went: &Went) {
    assert_eq!(went.way, expected, "from {from} to {to}: {went:?}");
}

#[test]
fn open_hosts_are_reached_and_the_way_is_the_routers_word() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["founder:-:198.51.100.2", "n1=port:-:203.0.113.1", "home:n1:192.168.1.2"];
    let Some(mut stage) = Stage::or_skip("open_hosts_are_reached", folder.path(), &nodes, &[]) else {
        return;
    };
    stage.client("founder", "198.51.100.2");
    stage.client("home", "192.168.1.2");
    stage.share("founder", 1 << 20);
    assert_way("founder", "home", "direct", &stage.download("founder", "home"));
}

#[test]
fn a_sharer_behind_a_router_dials_who_asks() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["founder:-:198.51.100.2", "n1=sym:-:203.0.113.1", "home:n1:192.168.1.2"];
    let Some(mut stage) = Stage::or_skip("a_sharer_dials_who_asks", folder.path(), &nodes, &[]) else {
        return;
    };
    stage.client("founder", "198.51.100.2");
    stage.client("home", "192.168.1.2");
    stage.share("home", 1 << 20);
    assert_way("home", "founder", "reversed", &stage.download("home", "founder"));
    until("both know who reaches them", || {
        stage.of("founder").ok("whoami")["reached"] == true
            && stage.of("home").ok("whoami")["reached"] == false
    });
    assert_eq!(stage.of("home").ok("whoami")["given_out"], "203.0.113.1:7001");
    assert!(stage.of("home").log().contains("forward TCP port 7001"), "its user is told what to do");
}

#[test]
fn two_behind_routers_meet_at_the_tracker_where_its_operator_allows_it() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [
        "founder:-:198.51.100.2",
        "n1=sym:-:203.0.113.1",
        "home:n1:192.168.1.2",
        "n2=port:-:203.0.113.2",
        "far:n2:192.168.2.2",
    ];
    let relay = ["--relay", "2M", "--relay-peer", "1M"];
    let stage = Stage::or_skip("two_behind_routers_meet_at_the_tracker", folder.path(), &nodes, &relay);
    let Some(mut stage) = stage else { return };
    for (host, address) in [("founder", "198.51.100.2"), ("home", "192.168.1.2"), ("far", "192.168.2.2")] {
        stage.client(host, address);
    }
    stage.share("home", 3 << 20);
    let went = stage.download("home", "far");
    assert_way("home", "far", "relayed", &went);
    assert!(went.whole.as_secs_f64() > 2.0, "a client gets a mebibyte per second: {went:?}");
    stage.share("far", 1 << 20);
    assert_way("far", "home", "relayed", &stage.download("far", "home"));
}

#[test]
fn two_on_one_lan_exchange_over_it_alone() {
    let folder = tempfile::tempdir().unwrap();
    for hairpin in ["", "+hairpin"] {
        let router = format!("n1=port{hairpin}:-:203.0.113.1");
        let nodes = ["founder:-:198.51.100.2", &router, "home:n1:192.168.1.2", "desk:n1:192.168.1.3"];
        let dir = folder.path().join(format!("lan{hairpin}"));
        std::fs::create_dir(&dir).unwrap();
        let stage = Stage::or_skip("two_on_one_lan_exchange_over_it_alone", &dir, &nodes, &[]);
        let Some(mut stage) = stage else { return };
        stage.client("founder", "198.51.100.2");
        stage.client("home", "192.168.1.2");
        stage.client("desk", "192.168.1.3");
        stage.share("home", 1 << 20);
        assert_way("home", "desk", "lan", &stage.download("home", "desk"));
        let through = stage.net.flows().get(&("home".to_owned(), "desk".to_owned(), false)).copied();
        assert_eq!(through, None, "nothing leaves the LAN");
    }
}

#[test]
fn a_machine_that_comes_to_another_address_goes_on_sharing() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["founder:-:198.51.100.2", "n1=port:-:203.0.113.1", "home:n1:192.168.1.2"];
    let test = "a_machine_that_comes_to_another_address_goes_on_sharing";
    let Some(mut stage) = Stage::or_skip(test, folder.path(), &nodes, &[]) else { return };
    stage.client("founder", "198.51.100.2");
    stage.client("home", "0.0.0.0");
    stage.share("home", 1 << 20);
    assert_way("home", "founder", "reversed", &stage.download("home", "founder"));
    stage.net.renumber("home", "192.168.1.2/24", "192.168.1.77/24");
    assert_way("home", "founder", "reversed", &stage.download("home", "founder"));
}

/// Writes `docs/reach.md` where `SHOAL_RENEW` is set.
#[test]
fn every_pair_takes_the_expected_way() {
    if !long_or_skip("every_pair_takes_the_expected_way") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut nodes = vec!["founder:-:198.51.100.2".to_owned()];
    let mut hosts = Vec::new();
    for place in 0..PLACES.len() {
        for (role, first) in [("s", 10), ("r", 40)] {
            let name = format!("{role}{place}");
            let (of_host, address) = host_at(&name, place, first + place);
            nodes.extend(of_host);
            hosts.push((name, address));
        }
    }
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let relay = ["--relay", "200M", "--relay-peer", "200M"];
    let stage = Stage::or_skip("every_pair_takes_the_expected_way", folder.path(), &nodes, &relay);
    let Some(mut stage) = stage else { return };
    stage.client("founder", "198.51.100.2");
    for (name, address) in &hosts {
        stage.client(name, address);
    }
    let (mut rows, mut wrong) = (Vec::new(), Vec::new());
    for (sharer, (shares, _)) in PLACES.iter().enumerate() {
        let from = format!("s{sharer}");
        stage.share(&from, SIZE);
        for (requester, (asks, _)) in PLACES.iter().enumerate() {
            let went = stage.download(&from, &format!("r{requester}"));
            if went.way != expected(sharer, requester) {
                wrong.push(format!("{shares} to {asks}: {went:?}"));
            }
            rows.push((sharer, requester, went));
        }
    }
    if std::env::var_os("SHOAL_RENEW").is_some() {
        let page = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reach.md"));
        let (begin, end) = ("<!-- begin -->\n", "<!-- end -->\n");
        let text = std::fs::read_to_string(page).unwrap();
        let (before, rest) = text.split_once(begin).unwrap();
        let (_, after) = rest.split_once(end).unwrap();
        std::fs::write(page, format!("{before}{begin}{}{end}{after}", table(&rows))).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Ways, time to the first data, and rate.
fn table(rows: &[(usize, usize, Went)]) -> String {
    let mut text = format!(
        "| from \\ to |{}\n|---|",
        PLACES.iter().map(|(name, _)| format!(" {name} |")).collect::<String>()
    );
    text += &"---|".repeat(PLACES.len());
    for (place, (name, _)) in PLACES.iter().enumerate() {
        write!(text, "\n| **{name}** |").unwrap();
        for (_, _, went) in rows.iter().filter(|row| row.0 == place) {
            let rate = SIZE as f64 / went.whole.as_secs_f64().max(0.001) / 1e6;
            write!(text, " {}, {:.1} s, {rate:.0} MB/s |", went.way, went.first.as_secs_f64()).unwrap();
        }
    }
    write!(text, "\n\n{} MiB each; a packet takes {DELAY_MS} ms through the Internet.\n", SIZE >> 20)
        .unwrap();
    text
}

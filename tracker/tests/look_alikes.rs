//! Claims with skeletons by tables that this version does not know, on the tracker's own database.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use shoal_common::names::{Skeleton, TABLES};
use shoal_common::{Gid, Nonce, Uid};
use shoal_replica::{
    Bounds, Config, Holder, Kind, NameSpace, Now, Replica, TrackerNo, Write, WriterId, claim_key,
};
use shoal_tracker::record::{Founding, encode};
use shoal_tracker::store::Store;

const NOW: Now = Now { wall_ms: 1_800_000_000_000, mono_ms: 0 };
const FOUNDER: Uid = Uid([1; 16]);

/// A skeleton as it is written, by any tables.
fn stated(tables: u64, key: &[u8]) -> Skeleton {
    let mut bytes = vec![0xa2, 0];
    bytes.extend(encode(&tables));
    bytes.push(1);
    bytes.extend(encode(&minicbor::bytes::ByteVec::from(key.to_vec())));
    minicbor::decode(&bytes).unwrap()
}

struct Alone {
    store: Store,
    replica: Replica,
    _dir: tempfile::TempDir,
}

impl Alone {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let (writer, bounds) = (WriterId([7; 16]), Bounds::default());
        let (me, cluster) = (TrackerNo(1), *b"shoal tracker  1");
        let config = Config { me, configured: [me].into(), writer, cluster, bounds };
        let replica = Replica::open(&mut store, config, NOW).unwrap();
        Self { store, replica, _dir: dir }
    }

    /// Claims a group's name; gives the group.
    fn claim(&mut self, name: &str, skeleton: Option<Skeleton>) -> [u8; 16] {
        let nonce = Nonce::random();
        let id = Gid::derive(nonce, FOUNDER, name).0;
        let value = encode(&Founding { founder: FOUNDER, nonce: Some(nonce), skeleton });
        let key = claim_key(name.as_bytes(), shoal_replica::Uid(id));
        let write = Write { kind: Kind::GROUP_CLAIM, key, value, ..Write::default() };
        self.replica.write(&mut self.store, vec![write], NOW).unwrap();
        id
    }

    fn holder(&self, name: &str) -> Holder {
        self.replica.holder(&self.store, NameSpace::Group, name.as_bytes()).unwrap().unwrap()
    }
}

#[test]
fn a_claim_by_unknown_tables_is_kept_but_gets_no_vote_and_holds_nothing_up() {
    let mut tracker = Alone::new();
    // A lying tracker says that later tables tell these apart.
    let liar = tracker.claim("f\u{456}lms", Some(stated(TABLES + 1, b"zzz")));
    let holder = tracker.holder("f\u{456}lms");
    assert_eq!((holder.uid.0, holder.definite), (liar, false));
    let honest = tracker.claim("films", Some(Skeleton::of("films")));
    for name in ["films", "f\u{456}lms"] {
        let holder = tracker.holder(name);
        assert_eq!((holder.uid.0, holder.definite), (honest, true), "{name}");
    }
    // Where both tables agree, a claim by later ones is as good as any.
    let later = tracker.claim("songs", Some(stated(TABLES + 1, Skeleton::of("songs").key())));
    assert_eq!((tracker.holder("songs").uid.0, tracker.holder("songs").definite), (later, true));
}

#[test]
fn a_claim_of_an_earlier_version_is_judged_by_the_computed_skeleton() {
    let mut tracker = Alone::new();
    let first = tracker.claim("films", None);
    tracker.claim("f\u{456}lms", None);
    for name in ["films", "f\u{456}lms", "fi\u{217c}ms"] {
        let holder = tracker.holder(name);
        assert_eq!((holder.uid.0, holder.definite), (first, true), "{name}");
    }
}

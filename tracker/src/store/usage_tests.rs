//! The counters equal a recount of the rows, in whatever order these came.

use std::collections::{BTreeMap, HashSet};

use shoal_common::storage::{ChunkId, ChunkRef, PointerKey, StoreManifest};
use shoal_common::{Blake3, Fid, FileDigest, FileName, Gid, Layout, Manifest, PeerId, RequestId, Sha1, Uid};
use shoal_replica::{BlobHash, Kind, Row, Rows, Stamp, WriterId};

use super::{Store, file_cost, pointer_cost, share_cost};
use crate::record::{
    FILE, POINTER, Pointer, SHARE, Share, StoredSize, encode, file_key, part, pointer_key, share_key,
};

/// Users' and groups' figures by id.
type Figures = (BTreeMap<[u8; 16], [u64; 3]>, BTreeMap<[u8; 16], [u64; 3]>);

fn manifest(file: u8, pieces: u32) -> Manifest {
    let layout = Layout::new(u64::from(pieces) * 65_536, 65_536).unwrap();
    let digest = FileDigest { sha1: Sha1([file; 20]), blake3: Blake3([file; 32]) };
    let name = FileName::create(&format!("f{file}")).unwrap();
    Manifest::new(name, layout, &vec![Sha1([1; 20]); pieces as usize], digest, vec![]).0
}

/// A stored file's manifest with so many chunks.
fn stored(chunks: u8, copies: u8) -> StoreManifest {
    let chunk = |number| ChunkRef { id: ChunkId([number; 32]), sealed: u32::from(number) * 3_000 + 1 };
    let servers = (0..copies).map(|server| PeerId([server; 32])).collect();
    StoreManifest { copies, servers, shift: 0, chunks: (0..chunks).map(chunk).collect() }
}

fn row(kind: Kind, key: Vec<u8>, value: Option<Vec<u8>>, seq: u64) -> Row {
    Row {
        kind,
        key,
        stamp: Stamp::at_ms(seq),
        writer: WriterId([1; 16]),
        seq,
        born: Stamp::at_ms(seq),
        tombstone: value.is_none(),
        value: value.unwrap_or_default(),
        blobs: Vec::new(),
    }
}

/// A change of one of few files, shares and stored files, as this version or the one before writes it.
fn change(store: &mut Store, rng: &mut fastrand::Rng, seq: u64) {
    let (group, file) = (Gid([rng.u8(0..3); 16]), Fid([rng.u8(0..5); 16]));
    let (user, peer) = (Uid([rng.u8(0..4); 16]), PeerId([rng.u8(0..2); 32]));
    let (request, earlier) = (RequestId([7; 16]), rng.u8(0..4) == 0);
    let (kind, key, value) = match rng.u8(0..3) {
        0 => (FILE, file_key(group, file), encode(&manifest(file.0[0], rng.u32(0..50)))),
        1 => {
            let mirrors = (rng.bool()).then(|| vec!["http://a.example/".to_owned(); rng.usize(1..4)]);
            let share = Share { request, mirrors, file_bytes: (!earlier).then(|| rng.u64(0..9_000)) };
            (SHARE, share_key(group, file, user, peer), encode(&share))
        }
        _ => {
            let manifest = stored(rng.u8(0..5), rng.u8(1..3));
            let encoded = manifest.encode();
            let version = Blake3::of(&encoded);
            store.put_blob(BlobHash(version.0), &encoded).unwrap();
            let size = (!earlier).then(|| StoredSize::of(&manifest, &encoded));
            let pointer =
                Pointer { version, sealed: vec![1; rng.usize(0..100)], stored_ms: 1, request, size };
            (POINTER, pointer_key(user, PointerKey([rng.u8(0..4); 32])), encode(&pointer))
        }
    };
    match rng.u8(0..6) {
        0 => store.remove(kind, &key).unwrap(),
        1 | 2 => store.put(&row(kind, key, None, seq)).unwrap(),
        _ => store.put(&row(kind, key, Some(value), seq)).unwrap(),
    }
}

/// Counts the rows, one after the other.
fn recount(store: &Store) -> Figures {
    let (mut users, mut groups) = Figures::default();
    let rows = |kind| store.scan(kind, &[], None, 10_000).unwrap().into_iter().filter(|row| !row.tombstone);
    let mut add = |user: Option<[u8; 16]>, more: [u64; 3]| {
        let figures = users.entry(user.unwrap()).or_default();
        (0..3).for_each(|at| figures[at] += more[at]);
    };
    let mut shared = HashSet::new();
    for row in rows(SHARE) {
        shared.insert(row.key[..32].to_vec());
        add(part(&row.key, 32), [1, share_cost(&minicbor::decode(&row.value).unwrap()), 0]);
    }
    for row in rows(POINTER) {
        let pointer: Pointer = minicbor::decode(&row.value).unwrap();
        let blob = store.read_blob(BlobHash(pointer.version.0), 0, 100_000).unwrap().unwrap();
        let size = StoredSize::of(&StoreManifest::read(&blob).unwrap(), &blob);
        add(part(&row.key, 0), [1, pointer_cost(pointer.sealed.len(), size), size.stored]);
    }
    for row in rows(FILE) {
        let cost = file_cost(&minicbor::decode(&row.value).unwrap(), row.value.len());
        let figures = groups.entry(part(&row.key, 0).unwrap()).or_default();
        let more = if shared.contains(&row.key) { [1, cost, 0] } else { [0, 0, cost] };
        (0..3).for_each(|at| figures[at] += more[at]);
    }
    (users, groups)
}

/// The counters, those at nothing left out.
fn counted(store: &Store) -> Figures {
    let read = |sql: &str| {
        let mut query = store.db.prepare(sql).unwrap();
        let rows = query.query_map([], |row| {
            Ok((row.get::<_, [u8; 16]>(0)?, [row.get::<_, u64>(1)?, row.get(2)?, row.get(3)?]))
        });
        let rows = rows.unwrap().map(Result::unwrap).filter(|(_, figures)| *figures != [0; 3]);
        rows.collect::<BTreeMap<_, _>>()
    };
    (
        read("SELECT uid, files, bytes, stored FROM user_usage"),
        read("SELECT gid, files, bytes, idle FROM group_usage"),
    )
}

#[test]
fn counters_equal_a_recount_also_rebuilt_and_after_the_version_before() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(dir.path()).unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        store.begin().unwrap();
        for seq in 1..600 {
            change(&mut store, &mut rng, seq);
            if seq % 20 == 0 {
                assert_eq!(counted(&store), recount(&store), "seed {seed}, after {seq}");
            }
        }
        store.commit().unwrap();
        let figures = counted(&store);
        assert!(figures.0.len() == 4 && figures.1.len() == 3, "{figures:?}");
        // A database of the version before: its projections have no costs and no counters.
        store
            .db
            .execute_batch(
                "DROP TABLE user_usage; DROP TABLE group_usage; DROP TABLE stored; DROP TABLE file; DROP TABLE share;
                 CREATE TABLE file (gid BLOB, fid BLOB, name TEXT, born INTEGER, size INTEGER, sha1 BLOB,
                     PRIMARY KEY (gid, fid)) WITHOUT ROWID;
                 CREATE TABLE share (gid BLOB, fid BLOB, uid BLOB, peer BLOB, PRIMARY KEY (gid, fid, uid, peer))
                     WITHOUT ROWID;
                 UPDATE setting SET value = 3 WHERE name = 'projections'",
            )
            .unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(counted(&store), figures, "seed {seed}");
    }
}

#[test]
fn what_a_lying_tracker_says_of_sizes_is_bounded_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let (request, user) = (RequestId([7; 16]), Uid([1; 16]));
    let size = Some(StoredSize { stored: u64::MAX, manifest: u64::MAX });
    for number in 0..100 {
        let share = Share { request, mirrors: None, file_bytes: Some(u64::MAX) };
        let key = share_key(Gid([1; 16]), Fid([number; 16]), user, PeerId([1; 32]));
        store.put(&row(SHARE, key, Some(encode(&share)), 1)).unwrap();
        let pointer = Pointer { version: Blake3([1; 32]), sealed: vec![], stored_ms: 1, request, size };
        let key = pointer_key(user, PointerKey([number; 32]));
        if number == 99 {
            let sql = "UPDATE user_usage SET bytes = ?1, stored = ?1";
            store.db.execute(sql, [i64::MAX]).unwrap();
        }
        store.put(&row(POINTER, key, Some(encode(&pointer)), 1)).unwrap();
        let usage = store.usage(user).unwrap();
        assert_eq!(usage.files, 2 * (u64::from(number) + 1));
        assert!(usage.bytes < 1 << 40 && usage.stored < 1 << 50 || number == 99, "{usage:?}");
    }
    assert_eq!(store.usage(user).unwrap().stored, i64::MAX.unsigned_abs());
}

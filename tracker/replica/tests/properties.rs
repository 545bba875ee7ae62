//! Properties over arbitrary rows and arbitrary bytes.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use shoal_replica::{
    BlobHash, Chunk, Entry, Frame, Hello, Kind, Live, Pull, Row, Stamp, TrackerNo, WriterId, wins,
};

/// Rows under one key, so alike that ties are common.
fn rivals(kind: u8) -> impl Strategy<Value = Row> {
    (0..3_u64, 0..3_u8, 1..4_u64, any::<bool>(), 0..3_u8).prop_map(
        move |(stamp, writer, seq, tombstone, value)| Row {
            kind: Kind(kind),
            key: b"key".to_vec(),
            stamp: Stamp::from_u64(stamp),
            writer: WriterId([writer; 16]),
            seq,
            born: Stamp::from_u64(0),
            tombstone: tombstone && kind >= 64,
            value: vec![value],
            blobs: Vec::new(),
        },
    )
}

fn merge(a: &Row, b: &Row) -> Row {
    if wins(b, a) { b.clone() } else { a.clone() }
}

fn any_row() -> impl Strategy<Value = Row> {
    let blobs = vec(any::<[u8; 32]>().prop_map(BlobHash), 0..3);
    (
        vec(any::<u8>(), 0..40),
        any::<u32>(),
        any::<[u8; 16]>(),
        1..1_u64 << 40,
        vec(any::<u8>(), 0..300),
        blobs,
    )
        .prop_map(|(key, stamp, writer, seq, value, blobs)| Row {
            kind: Kind::LAST_WINS,
            key,
            stamp: Stamp::at_ms(stamp.into()),
            writer: WriterId(writer),
            seq,
            born: Stamp::at_ms(0),
            tombstone: false,
            value,
            blobs,
        })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let entry = (any::<[u8; 16]>(), 0..1_u64 << 60);
    let entry = entry.prop_map(|(writer, seq)| Entry { writer: WriterId(writer), seq });
    let hello = (any::<u16>(), any::<[u8; 16]>(), any::<u64>()).prop_map(|(version, bytes, wall_ms)| {
        let writer = WriterId(bytes);
        Frame::Hello(Hello { version, min_version: 1, cluster: bytes, no: TrackerNo(3), writer, wall_ms })
    });
    let pull = (any::<u64>(), any::<bool>(), any::<bool>()).prop_map(|(sync_id, full, repair)| {
        Frame::Pull(Pull { sync_id, credit: 8, full, sums: repair.then(|| vec![7; 65_536]) })
    });
    prop_oneof![
        hello,
        vec(entry.clone(), 0..20).prop_map(Frame::Vector),
        (vec(entry, 0..20), 0..1_u64 << 60)
            .prop_map(|(entries, dropped)| Frame::GcWatermark { entries, dropped: Stamp::from_u64(dropped) }),
        Just(Frame::Ready),
        Just(Frame::Ping),
        pull,
        (any::<u64>(), vec(any_row(), 0..5)).prop_map(|(sync_id, rows)| Frame::Rows { sync_id, rows }),
        (any::<u64>(), 0..64_u32).prop_map(|(sync_id, frames)| Frame::More { sync_id, frames }),
        any::<u64>().prop_map(|sync_id| Frame::End { sync_id }),
        any::<u64>().prop_map(|sync_id| Frame::Busy { sync_id }),
        (any::<u64>(), 0..9_u64, vec(any_row(), 0..5)).prop_map(|(id, from, rows)| Frame::Live(Live {
            id,
            from,
            to: from + 5,
            rows
        })),
        (vec(any::<u64>(), 0..9), 0..9_u64).prop_map(|(ids, held)| Frame::Ack { ids, held }),
        any::<[u8; 16]>().prop_map(|root| Frame::Digest { root }),
        (any::<[u8; 32]>(), any::<u64>())
            .prop_map(|(hash, offset)| Frame::Want { hash: BlobHash(hash), offset }),
        (any::<[u8; 32]>(), 0..9_u64, vec(any::<u8>(), 0..99)).prop_map(|(hash, offset, data)| {
            Frame::Chunk(Chunk { hash: BlobHash(hash), offset, total: 1_000, data })
        }),
        any::<[u8; 32]>().prop_map(|hash| Frame::Gone { hash: BlobHash(hash) }),
    ]
}

proptest! {
    #[test]
    fn merging_is_commutative_associative_and_idempotent(
        (a, b, c) in prop_oneof![Just(Kind::LAST_WINS), Just(Kind::FIRST_STAYS), Just(Kind::USER_VOTE)]
            .prop_flat_map(|kind| (rivals(kind.0), rivals(kind.0), rivals(kind.0)))
    ) {
        prop_assert_eq!(merge(&a, &b), merge(&b, &a));
        prop_assert_eq!(merge(&merge(&a, &b), &c), merge(&a, &merge(&b, &c)));
        prop_assert_eq!(merge(&a, &a), a);
    }

    #[test]
    fn frames_come_back_as_they_went(frame in any_frame()) {
        let bytes = frame.encode();
        prop_assert!(bytes.len() <= frame.weight());
        prop_assert_eq!(Frame::decode(&bytes).unwrap(), frame);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..400)) {
        let _ = Frame::decode(&bytes);
    }

    #[test]
    fn damaged_frames_never_panic(frame in any_frame(), place in any::<usize>(), byte in any::<u8>(), cut in any::<usize>()) {
        let mut bytes = frame.encode();
        let length = bytes.len();
        bytes[place % length] = byte;
        bytes.truncate(cut % (length + 1));
        let _ = Frame::decode(&bytes);
    }
}

#[test]
fn frames_and_fields_of_later_versions_are_skipped() {
    // [99, ["a later frame"]]
    assert_eq!(Frame::decode(&[0x82, 0x18, 99, 0x81, 0x61, b'a']).unwrap(), Frame::Unknown);
    // [7, [5, "a later field"]]
    assert_eq!(Frame::decode(&[0x82, 7, 0x82, 5, 0x61, b'a']).unwrap(), Frame::End { sync_id: 5 });
}

#[test]
fn frames_look_on_the_wire_as_they_always_did() {
    assert_eq!(Frame::Ping.encode(), [0x82, 11, 0x80]);
    assert_eq!(Frame::End { sync_id: 5 }.encode(), [0x82, 7, 0x81, 5]);
    let entry = Entry { writer: WriterId([1; 16]), seq: 3 };
    let bytes = [&[0x82, 1, 0x81, 0x81, 0x82, 0x50][..], &[1; 16], &[3]].concat();
    assert_eq!(Frame::Vector(vec![entry]).encode(), bytes);
}

#[test]
fn what_no_correct_tracker_sends_is_refused() {
    let row = Row {
        kind: Kind::LAST_WINS,
        key: b"k".to_vec(),
        stamp: Stamp::at_ms(1),
        writer: WriterId([1; 16]),
        seq: 1,
        born: Stamp::at_ms(1),
        tombstone: false,
        value: Vec::new(),
        blobs: Vec::new(),
    };
    let carry = |row: Row| Frame::decode(&Frame::Rows { sync_id: 1, rows: vec![row] }.encode());
    assert!(carry(row.clone()).is_ok());
    for bad in [
        Row { key: vec![0; 513], ..row.clone() },
        Row { value: vec![0; 65_537], ..row.clone() },
        Row { blobs: vec![BlobHash([0; 32]); 17], ..row.clone() },
        Row { seq: 0, ..row.clone() },
        Row { seq: u64::MAX, ..row.clone() },
        Row { stamp: Stamp::from_u64(u64::MAX), ..row.clone() },
        Row { tombstone: true, value: vec![1], ..row.clone() },
        Row { kind: Kind::FIRST_STAYS, tombstone: true, ..row.clone() },
        Row { kind: Kind::USER_CLAIM, ..row.clone() },
        Row { kind: Kind::USER_VOTE, key: vec![1, b'a', 1], value: vec![0; 15], ..row.clone() },
    ] {
        assert!(carry(bad.clone()).is_err(), "{bad:?}");
    }
    assert!(
        Frame::decode(
            &Frame::Pull(Pull { sync_id: 1, credit: 8, full: false, sums: Some(vec![0; 5]) }).encode()
        )
        .is_err()
    );
    assert!(Frame::decode(&vec![0; 262_145]).is_err());
}

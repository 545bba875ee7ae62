use std::sync::{Mutex, PoisonError};

use shoal_common::credentials::change_message;
use shoal_common::names::Skeleton;
use shoal_common::{Nonce, PeerId};
use shoal_net::Identity;
use shoal_replica::{Stamp, WriterId, claim_key, limits::MAX_VALUE_BYTES};

use super::*;
use crate::record::{ACCOUNT, Birth, encode};

fn row(kind: Kind, key: Vec<u8>, value: Vec<u8>) -> Row {
    let (stamp, writer) = (Stamp::at_ms(1), WriterId([1; 16]));
    Row { kind, key, stamp, writer, seq: 1, born: stamp, tombstone: false, value, blobs: Vec::new() }
}

fn user_claim(name: &str, user: Uid, value: Vec<u8>) -> Row {
    row(Kind::USER_CLAIM, claim_key(name.as_bytes(), shoal_replica::Uid(user.0)), value)
}

/// A login key and an account under it, without the cost of a password.
struct Ann {
    user: Uid,
    birth: Birth,
    record: AccountRecord,
}

fn account(number: u16) -> Account {
    let mut salt = [0; 16];
    salt[..2].copy_from_slice(&number.to_le_bytes());
    Account { salt, login_key: key(number).peer_id(), sealed_account_key: [3; 72] }
}

/// The login key of that number, the same each time.
fn key(number: u16) -> Identity {
    static KEYS: Mutex<Vec<Identity>> = Mutex::new(Vec::new());
    let mut keys = KEYS.lock().unwrap_or_else(PoisonError::into_inner);
    while keys.len() <= usize::from(number) {
        keys.push(Identity::generate());
    }
    keys[usize::from(number)].clone()
}

fn sign(number: u16, user: Uid, new: &AccountDigest) -> ChangeSignature {
    let key = key(number);
    ChangeSignature(key.sign(&change_message(user, key.peer_id(), new)))
}

fn ann() -> Ann {
    let (first, birth) = (account(0), Birth { nonce: Nonce([5; 16]), name: "ann".into() });
    let user = Uid::derive(birth.nonce, &first.digest(), "ann");
    let history = History { first: first.digest(), birth: Some(birth.clone()), changes: Vec::new() };
    Ann { user, birth, record: AccountRecord::new(first, Some(history)) }
}

fn changed(user: Uid, record: AccountRecord, from: u16, to: u16) -> Result<AccountRecord, NotChanged> {
    let new = account(to);
    let signature = sign(from, user, &new.digest());
    change(user, record, new, signature)
}

#[test]
fn a_claim_proves_its_id_or_is_none() {
    let Ann { user, birth, record } = ann();
    let naming = Naming { nonce: birth.nonce, account: record.account().digest(), skeleton: None };
    let claim = user_claim("ann", user, encode(&naming));
    assert_eq!(
        read_claim(&claim),
        Some(Claim { name: "ann", id: user.0, proven: true, founder: None, skeleton: Skeleton::of("ann") })
    );
    assert!(!read_claim(&user_claim("ann", user, Vec::new())).unwrap().proven);
    let other = Naming { nonce: Nonce([6; 16]), ..naming.clone() };
    for forged in [
        user_claim("eve", user, encode(&naming)),
        user_claim("ann", Uid([9; 16]), encode(&naming)),
        user_claim("ann", user, encode(&other)),
        user_claim("ann", user, b"nonsense".to_vec()),
        Row { blobs: vec![shoal_replica::BlobHash([1; 32])], ..claim.clone() },
    ] {
        assert_eq!(read_claim(&forged), None, "{forged:?}");
    }

    let nonce = Nonce([5; 16]);
    let group = Gid::derive(nonce, user, "g");
    let founding = |founder, nonce| encode(&Founding { founder, nonce, skeleton: None });
    let claim = |name: &str, value| {
        row(Kind::GROUP_CLAIM, claim_key(name.as_bytes(), shoal_replica::Uid(group.0)), value)
    };
    assert!(read_claim(&claim("g", founding(user, Some(nonce)))).unwrap().proven);
    assert!(!read_claim(&claim("g", founding(user, None))).unwrap().proven);
    assert_eq!(read_claim(&claim("a", founding(user, Some(nonce)))), None);
    assert_eq!(read_claim(&claim("g", founding(Uid([9; 16]), Some(nonce)))), None);
    assert_eq!(read_claim(&claim("g", Vec::new())), None);
}

#[test]
fn an_account_is_what_its_history_says_and_nothing_else() {
    let Ann { user, birth, record } = ann();
    assert!(is_rightful(user, &record, None) && is_derived(user, &record));
    let later = changed(user, record.clone(), 0, 1).unwrap();
    let later = changed(user, later, 1, 2).unwrap();
    assert!(is_rightful(user, &later, None));
    assert!(Rank::of(user, &later) > Rank::of(user, &record));
    // One that an earlier version wrote claims nothing, and ranks below.
    let earlier = AccountRecord::new(account(7), None);
    assert!(is_rightful(user, &earlier, None) && !is_derived(user, &earlier));
    assert!(Rank::of(user, &record) > Rank::of(user, &earlier));

    let with = |history: History| AccountRecord { history: Some(history), ..later.clone() };
    let history = later.history.clone().unwrap();
    let mut unsigned = history.clone();
    unsigned.changes[1].signature.0[3] ^= 1;
    let mut cut = history.clone();
    cut.changes.remove(0);
    let eves = Change { to: later.account().digest(), signature: sign(9, user, &later.account().digest()) };
    let forged = History { changes: vec![eves], ..history.clone() };
    let other_birth = Birth { nonce: Nonce([6; 16]), ..birth };
    for (what, forged) in [
        ("another salt", AccountRecord { salt: [9; 16], ..later.clone() }),
        ("another sealed key", AccountRecord { sealed_account_key: [9; 72], ..later.clone() }),
        ("another login key", AccountRecord { login_key: PeerId([9; 32]), ..later.clone() }),
        ("no changes", with(History { changes: Vec::new(), ..history.clone() })),
        ("a change unsigned", with(unsigned)),
        ("a change left out", with(cut)),
        ("signed by another", with(forged)),
        ("another beginning", with(History { first: account(8).digest(), ..history.clone() })),
        ("another birth", with(History { birth: Some(other_birth), ..history.clone() })),
    ] {
        assert!(!is_rightful(user, &forged, None), "{what}");
    }
    assert!(!is_rightful(Uid([9; 16]), &later, None), "somebody else's");
    // What was checked before is not checked again, and nothing else is spared.
    let once_more = changed(user, later, 2, 3).unwrap();
    assert!(is_rightful(user, &once_more, Some(&history)));
    let mut forged = once_more.clone();
    forged.history.as_mut().unwrap().changes[2].signature.0[0] ^= 1;
    assert!(!is_rightful(user, &forged, Some(&history)));
}

#[test]
fn no_key_comes_twice_in_a_history() {
    let Ann { user, record, .. } = ann();
    let there = changed(user, record, 0, 1).unwrap();
    assert_eq!(changed(user, there.clone(), 1, 0).map(|_| ()), Err(NotChanged::KeyAgain));
    let mut circle = there.clone();
    let back = Change { to: account(0).digest(), signature: sign(1, user, &account(0).digest()) };
    circle.history.as_mut().unwrap().changes.push(back);
    let circle = AccountRecord::new(account(0), circle.history);
    assert!(!is_rightful(user, &circle, None));
    assert_eq!(changed(user, there, 0, 2).map(|_| ()), Err(NotChanged::Signature));
}

#[test]
fn the_longest_history_fits_a_row_and_no_longer_one_is_made() {
    let Ann { user, mut record, mut birth } = ann();
    birth.name = "n".repeat(255);
    let user_of_long_name = Uid::derive(birth.nonce, &record.account().digest(), &birth.name);
    assert_ne!(user_of_long_name, user);
    record.history.as_mut().unwrap().birth = Some(birth);
    for number in 0..u16::try_from(MAX_CHANGES).unwrap() {
        record = changed(user_of_long_name, record, number, number + 1).unwrap();
    }
    assert!(is_rightful(user_of_long_name, &record, None));
    let bytes = encode(&record).len();
    assert!(bytes <= MAX_VALUE_BYTES, "{bytes}");
    let last = u16::try_from(MAX_CHANGES).unwrap();
    let over = changed(user_of_long_name, record, last, last + 1);
    assert_eq!(over.map(|_| ()), Err(NotChanged::TooOften));
}

#[test]
fn the_secrets_of_an_account_are_read_by_whoever_knows_nothing_of_its_history() {
    let Ann { record, user, .. } = ann();
    assert_eq!(minicbor::decode::<Account>(&encode(&record)).unwrap(), record.account());
    let earlier = AccountRecord::new(account(3), None);
    assert_eq!(minicbor::decode::<AccountRecord>(&encode(&account(3))).unwrap(), earlier);
    let held = row(ACCOUNT, user.0.to_vec(), encode(&record));
    assert_eq!(read_account(&held), Some((user, record)));
    assert_eq!(read_account(&Row { tombstone: true, ..held.clone() }), None);
    assert_eq!(read_account(&Row { key: vec![1], ..held }), None);
}

#[test]
fn a_claim_cannot_state_a_skeleton_that_is_not_its_names() {
    /// As a [`Skeleton`] is written, with what an attacker likes in it.
    fn stated(tables: u64, key: &[u8]) -> Skeleton {
        let mut bytes = vec![0xa2, 0];
        bytes.extend(encode(&tables));
        bytes.push(1);
        bytes.extend(encode(&minicbor::bytes::ByteVec::from(key.to_vec())));
        minicbor::decode(&bytes).unwrap()
    }
    let account = account(0).digest();
    let nonce = Nonce([5; 16]);
    let user = Uid::derive(nonce, &account, "\u{430}nn");
    let founder = Uid([1; 16]);
    let group = Gid::derive(nonce, founder, "\u{430}nn");
    let read = |skeleton: Option<Skeleton>| {
        let naming = encode(&Naming { nonce, account, skeleton: skeleton.clone() });
        let founding = encode(&Founding { founder, nonce: Some(nonce), skeleton });
        let of_user = user_claim("\u{430}nn", user, naming);
        let key = claim_key("\u{430}nn".as_bytes(), shoal_replica::Uid(group.0));
        let of_group = row(Kind::GROUP_CLAIM, key, founding);
        let keys = [of_user, of_group].map(|row| read_claim(&row).map(|claim| claim.skeleton.key().to_vec()));
        assert_eq!(keys[0], keys[1]);
        keys[0].clone()
    };
    let tables = shoal_common::names::TABLES;
    assert_eq!(read(None).unwrap(), b"ann", "an earlier version states none");
    assert_eq!(read(Some(stated(tables, b"ann"))).unwrap(), b"ann");
    assert_eq!(read(Some(stated(tables, b"zzz"))), None);
    assert_eq!(read(Some(stated(tables - 1, b"zzz"))), None, "no version had these tables");
    assert_eq!(read(Some(stated(tables + 1, b""))), None);
    assert_eq!(read(Some(stated(tables + 1, &[b'x'; 256]))), None);
    assert_eq!(read(Some(stated(tables + 1, b"zzz"))).unwrap(), b"zzz", "it is kept, and gets no vote");
}

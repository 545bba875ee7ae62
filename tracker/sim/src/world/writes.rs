//! Writes as clients make them.

use shoal_replica::{Kind, NameSpace, Uid, Write, claim_key};

/// A claim to a name.
pub(crate) fn claim(space: NameSpace, name: &[u8], uid: Uid) -> Write {
    Write {
        kind: space.claim_kind(),
        key: claim_key(name, uid),
        value: b"claim".to_vec(),
        ..Write::default()
    }
}

/// A write of a row whose last version wins.
pub(crate) fn put(key: &[u8], value: &[u8]) -> Write {
    Write { kind: Kind::LAST_WINS, key: key.to_vec(), value: value.to_vec(), ..Write::default() }
}

/// A deletion of such a row.
pub(crate) fn delete(key: &[u8]) -> Write {
    Write { kind: Kind::LAST_WINS, key: key.to_vec(), tombstone: true, ..Write::default() }
}

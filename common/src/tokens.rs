//! Statements that a tracker signs and others check offline, such as the session token, which any tracker accepts, and the
//! ticket, which peers show each other.

use ed25519_dalek::{Signature, VerifyingKey};
use minicbor::{Decode, Encode};

use crate::ids::{Gid, Uid};
use crate::names::UserName;
use crate::peer_id::PeerId;
use crate::storage::ChunkId;

/// How long a session token is valid, in milliseconds. A client that was away for longer logs in again.
pub const SESSION_LIFE_MS: u64 = 30 * 24 * 3_600_000;
/// How long a ticket is valid, in milliseconds; it is renewed at half its life. For this long a member that left may still be
/// served.
pub const TICKET_LIFE_MS: u64 = 10 * 60_000;
/// How much the clocks of two verifiers of a ticket may differ, in milliseconds.
pub const CLOCK_TOLERANCE_MS: u64 = 2 * 60_000;
/// The longest time that a ticket may still be valid, in milliseconds. A longer one was made with a stolen key, to outlive it.
/// It leaves room for a tracker whose clock is minutes ahead.
pub const LONGEST_TICKET_MS: u64 = 2 * TICKET_LIFE_MS;
/// Longest signed statement on the wire, in bytes, unless its type says otherwise.
pub const MAX_TOKEN_BYTES: usize = 1_024;

/// "This peer logged in as this user."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SessionToken {
    /// Who logged in.
    #[n(0)]
    pub user: Uid,
    /// On which client; no other can use the token.
    #[n(1)]
    pub peer: PeerId,
    /// The public login key at that time; a changed password ends all sessions under the old one.
    #[n(2)]
    pub login_key: PeerId,
    /// End of validity, milliseconds since 1970 by the trackers' clock.
    #[n(3)]
    pub expires_ms: u64,
    /// When the user logged in; renewals do not change it. Trackers of version 0.1 leave it out.
    #[n(4)]
    pub since_ms: Option<u64>,
}

impl SessionToken {
    /// When the user logged in, milliseconds since 1970; if the token does not say, the latest possible time.
    #[must_use]
    pub fn since_ms(&self) -> u64 {
        self.since_ms.unwrap_or(self.expires_ms.saturating_sub(SESSION_LIFE_MS))
    }
}

/// "This user's peer is a member of this group."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Ticket {
    /// The member.
    #[n(0)]
    pub user: Uid,
    /// What the member is called, for display.
    #[n(1)]
    pub name: UserName,
    /// The only client that can use it.
    #[n(2)]
    pub peer: PeerId,
    /// The group whose files may be served to it.
    #[n(3)]
    pub group: Gid,
    /// End of validity, milliseconds since 1970 by the trackers' clock.
    #[n(4)]
    pub expires_ms: u64,
}

/// "This peer is this user's": storage nodes check it before they store, serve or delete the user's chunks.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StorageTicket {
    /// Whose chunks may be stored, read and deleted.
    #[n(0)]
    pub user: Uid,
    /// The only client that can use it.
    #[n(1)]
    pub peer: PeerId,
    /// End of validity, milliseconds since 1970 by the trackers' clock.
    #[n(2)]
    pub expires_ms: u64,
    /// Bytes of the user's that one node may hold; `None` is no limit.
    #[n(3)]
    pub allowance: Option<u64>,
}

/// "This node is to copy this chunk from that node."
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct CopyOrder {
    /// Whose chunk.
    #[n(0)]
    pub owner: Uid,
    /// Which.
    #[n(1)]
    pub chunk: ChunkId,
    /// The node that serves it.
    #[n(2)]
    pub from: PeerId,
    /// The only node that may fetch it.
    #[n(3)]
    pub to: PeerId,
    /// End of validity, milliseconds since 1970 by the trackers' clock.
    #[n(4)]
    pub expires_ms: u64,
}

/// "I am this peer, and ask that peer to connect to me": a requester signs it, not a tracker, so no tracker can send a sharer anywhere.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Knock {
    /// Who asks, and signs.
    #[n(0)]
    pub from: PeerId,
    /// Who is asked.
    #[n(1)]
    pub to: PeerId,
    /// The group whose files are wanted.
    #[n(2)]
    pub group: Gid,
    /// `ip:port` where the one who asks is reached; `None` where both meet elsewhere.
    #[n(3)]
    pub address: Option<String>,
    /// When it was asked, milliseconds since 1970 by the trackers' clock.
    #[n(4)]
    pub at_ms: u64,
    /// The signed [`Ticket`] for the group.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub ticket: Vec<u8>,
}

impl Statement for Knock {
    const DOMAIN: &'static [u8] = b"shoal knock 1\0";
    const MAX_BYTES: usize = 2 * MAX_TOKEN_BYTES;
}

/// Reads a knock that its own sender signed. The caller judges its time and its ticket.
///
/// # Errors
/// [`TokenError`].
pub fn open_knock(token: &[u8]) -> Result<Knock, TokenError> {
    let mut signer = None;
    let knock: Knock = open(token, |key| {
        signer = Some(*key);
        true
    })?;
    if signer == Some(knock.from) { Ok(knock) } else { Err(TokenError::Forged) }
}

/// A kind of statement; the domain keeps a signature on one kind from passing for another.
pub trait Statement: Encode<()> + for<'b> Decode<'b, ()> {
    /// What precedes the bytes that are signed.
    const DOMAIN: &'static [u8];
    /// Longest such statement with its signature, in bytes.
    const MAX_BYTES: usize = MAX_TOKEN_BYTES;
}

impl Statement for SessionToken {
    const DOMAIN: &'static [u8] = b"shoal session token 1\0";
}

impl Statement for Ticket {
    const DOMAIN: &'static [u8] = b"shoal ticket 1\0";
}

impl Statement for StorageTicket {
    const DOMAIN: &'static [u8] = b"shoal storage ticket 1\0";
}

impl Statement for CopyOrder {
    const DOMAIN: &'static [u8] = b"shoal copy order 1\0";
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Signed {
    #[cbor(n(0), with = "minicbor::bytes")]
    body: Vec<u8>,
    #[n(1)]
    signer: PeerId,
    #[cbor(n(2), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Why a signed statement is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a signed statement of this kind.
    #[error("malformed")]
    Malformed,
    /// Signed by a key that is not known as a tracker's.
    #[error("signed by an unknown key")]
    UnknownKey(PeerId),
    /// The signature is wrong.
    #[error("forged")]
    Forged,
}

/// Signs a statement. `sign` signs with the key whose public half is `signer`.
#[must_use]
pub fn seal<S: Statement>(statement: &S, signer: PeerId, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Vec<u8> {
    let body = encode(statement);
    let signature = sign(&[S::DOMAIN, &body].concat());
    encode(&Signed { body, signer, signature })
}

/// Checks a signed statement and reads it. The caller checks its time, and whom it is bound to.
///
/// # Errors
/// [`TokenError`]; `UnknownKey` before the signature is checked.
pub fn open<S: Statement>(token: &[u8], is_tracker: impl FnOnce(&PeerId) -> bool) -> Result<S, TokenError> {
    if token.len() > S::MAX_BYTES {
        return Err(TokenError::Malformed);
    }
    let signed: Signed = minicbor::decode(token).map_err(|_| TokenError::Malformed)?;
    if !is_tracker(&signed.signer) {
        return Err(TokenError::UnknownKey(signed.signer));
    }
    if !verify(signed.signer, &[S::DOMAIN, &signed.body].concat(), &signed.signature) {
        return Err(TokenError::Forged);
    }
    minicbor::decode(&signed.body).map_err(|_| TokenError::Malformed)
}

/// Whether `signature` is that of `key` on `message` (strictly by RFC 8032, without weak keys).
#[must_use]
pub fn verify(key: PeerId, message: &[u8], signature: &[u8; 64]) -> bool {
    VerifyingKey::from_bytes(&key.0)
        .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
}

/// Encodes into a fresh vector, which cannot fail.
fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("a vector takes every write")
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};
    use proptest::prelude::*;

    fn ticket() -> Ticket {
        let name = UserName::create("bob").unwrap();
        Ticket { user: Uid([1; 16]), name, peer: PeerId([2; 32]), group: Gid([3; 16]), expires_ms: 4 }
    }

    fn key() -> (SigningKey, PeerId) {
        let key = SigningKey::from_bytes(&[9; 32]);
        let id = PeerId(key.verifying_key().to_bytes());
        (key, id)
    }

    #[test]
    fn what_was_sealed_opens() {
        let (key, id) = key();
        let token = seal(&ticket(), id, |m| key.sign(m).to_bytes());
        assert_eq!(open::<Ticket>(&token, |k| *k == id), Ok(ticket()));
        assert_eq!(open::<Ticket>(&token, |_| false), Err(TokenError::UnknownKey(id)));
        assert!(token.len() < MAX_TOKEN_BYTES);
    }

    #[test]
    fn one_kind_does_not_pass_for_another() {
        let (key, id) = key();
        let token = seal(&ticket(), id, |m| key.sign(m).to_bytes());
        assert_eq!(open::<SessionToken>(&token, |_| true), Err(TokenError::Forged));
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_noticed(at in 0usize..200, to in any::<u8>()) {
            let (key, id) = key();
            let mut token = seal(&ticket(), id, |m| key.sign(m).to_bytes());
            let at = at % token.len();
            prop_assume!(token[at] != to);
            token[at] = to;
            prop_assert_ne!(open::<Ticket>(&token, |k| *k == id), Ok(ticket()));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = open::<Ticket>(&bytes, |_| true);
        }
    }
}

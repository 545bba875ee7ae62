//! The messages between a client and its tracker, on one stream of framed messages: numbered calls, each answered once, in any
//! order.
//!
//! Every call that writes carries the id of its request. A client whose tracker died repeats the call with the same id at the
//! next one. A request that took effect already is answered as it was then.

mod answer;
mod call;
mod earlier;
pub mod storage;
pub mod ways;

use std::time::Duration;

use minicbor::{Decode, Encode};

pub use answer::{
    Answer, ClientShares, Completeness, FileEntry, GroupEntry, GroupTicket, Holder, Holding, Level,
    QuotaAnswer, Session, SessionEntry, UserEntry,
};
pub use call::Call;
pub use earlier::{LATER_NAMES, has_later_name};

/// The protocol's name on libp2p.
pub const CLIENT_PROTOCOL: &str = "/shoal/client/1";

/// This version's revision of the protocol, which trackers and clients exchange first. From 1 on ids of users and groups are
/// derived, and a change of password is signed and kept with its signature. From 2 on clients know
/// [`RefusalKind::SignedOut`], and there are quotas. From 3 on trackers say which addresses are unproven, and learn which do not
/// answer; names may hold joiners, and file names 255 bytes ([`LATER_NAMES`]). From 4 on there are folders, trackers speak
/// without being asked, and clients that cannot simply connect are brought together ([`ways`]).
pub const REVISION: u32 = 4;

/// A call and its number, which the answer repeats. Numbers need only differ among the calls under way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ToTracker {
    /// The call's number.
    #[n(0)]
    pub call: u32,
    /// The call.
    #[n(1)]
    pub body: Call,
}

/// The answer to the call of that number.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FromTracker {
    /// The call's number.
    #[n(0)]
    pub call: u32,
    /// The result.
    #[n(1)]
    pub body: Reply,
}

/// The result of a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// The call was done.
    #[n(0)]
    Done(#[n(0)] Answer),
    /// The call was not done.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
#[error("{text}")]
#[cbor(map)]
pub struct Refusal {
    /// What the client's code can do about it.
    #[n(0)]
    pub kind: RefusalKind,
    /// What the user reads: what happened, to what, and what to do.
    #[n(1)]
    pub text: String,
    /// After how many milliseconds it is worth trying again, if waiting helps.
    #[n(2)]
    pub retry_after_ms: Option<u32>,
}

impl Refusal {
    /// A refusal that does not say when to try again.
    #[must_use]
    pub fn new(kind: RefusalKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), retry_after_ms: None }
    }

    /// The same, which says when it is worth trying again.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after_ms: u32::try_from(wait.as_millis()).ok(), ..self }
    }
}

/// Refusals by what can be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalKind {
    /// The call cannot be understood: only another version helps.
    #[n(0)]
    Malformed,
    /// Log in first, or again: the session's token is no longer valid.
    #[n(1)]
    NotLoggedIn,
    /// Name or password are wrong; it does not say which.
    #[n(2)]
    WrongPassword,
    /// Not this claim's password, but the name has another claim: ask for the next candidate's challenge.
    #[n(3)]
    TryNext,
    /// There is no such user, group, request or file.
    #[n(4)]
    NotFound,
    /// The caller is not a member, or not the owner.
    #[n(5)]
    NotAllowed,
    /// It exists already, or the name is taken.
    #[n(6)]
    Exists,
    /// Too many tries: wait.
    #[n(7)]
    Wait,
    /// This tracker cannot do it now (a full disk, say); another may.
    #[n(8)]
    Unavailable,
    /// A limit is reached.
    #[n(9)]
    Limit,
    /// The account's owner ended this client's session from another one: only the password begins a new one. Clients of a
    /// revision before 2 cannot read it and get [`NotAllowed`](Self::NotAllowed).
    #[n(10)]
    SignedOut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Account;
    use crate::{Fid, FileName, Gid, GroupName, Manifest, PeerId, RequestId, Sha1, Uid, UserName};
    use proptest::prelude::*;

    #[test]
    fn calls_and_answers_read_back() {
        let account = Account { salt: [1; 16], login_key: PeerId([2; 32]), sealed_account_key: [3; 72] };
        let name = UserName::create("bob").unwrap();
        let calls = [
            Call::Hello { listen: "127.0.0.1:1".into(), revision: Some(REVISION) },
            Call::create_user(name.clone(), account).1,
            Call::create_group(Uid([4; 16]), GroupName::create("g").unwrap()).1,
            Call::Login { name: name.clone(), candidate: 1, signature: [5; 64] },
            Call::ListMembers { group: GroupName::create("g").unwrap(), after: Some(name) },
            Call::Renew,
            Call::Quota { group: None },
            Call::Unreached { group: Gid([1; 16]), file: Fid([2; 16]), peers: vec![PeerId([3; 32])] },
            Call::Way(ways::WayCall::Here { lan: vec!["192.168.1.2:7001".into()] }),
            Call::Node(storage::NodeCall::Report(Box::default())),
            Call::Store(storage::StoreCall::Lease { id: RequestId([9; 16]), end: true }),
        ];
        for body in calls {
            let message = ToTracker { call: 7, body };
            assert_eq!(minicbor::decode::<ToTracker>(&minicbor::to_vec(&message).unwrap()).unwrap(), message);
        }
        let refusal = Refusal::new(RefusalKind::Wait, "wait").retry_after(Duration::from_millis(1));
        let message = FromTracker { call: 7, body: Reply::Refused(refusal) };
        assert_eq!(minicbor::decode::<FromTracker>(&minicbor::to_vec(&message).unwrap()).unwrap(), message);
    }

    /// Calls as the version before sent them: ids at random, without what proves them.
    #[derive(Encode)]
    enum EarlierCall {
        #[n(0)]
        Hello {
            #[n(0)]
            listen: String,
        },
        #[n(1)]
        CreateUser {
            #[n(0)]
            id: Uid,
            #[n(1)]
            name: UserName,
            #[n(2)]
            account: Account,
        },
        #[n(7)]
        ChangePassword {
            #[n(0)]
            request: RequestId,
            #[cbor(n(1), with = "minicbor::bytes")]
            signature: [u8; 64],
            #[n(2)]
            account: Account,
        },
        #[n(8)]
        CreateGroup {
            #[n(0)]
            id: Uid,
            #[n(1)]
            name: GroupName,
        },
    }

    #[test]
    fn calls_of_the_version_before_are_read_as_such() {
        let account = Account { salt: [1; 16], login_key: PeerId([2; 32]), sealed_account_key: [3; 72] };
        let (id, name) = (Uid([4; 16]), UserName::create("bob").unwrap());
        let group = GroupName::create("g").unwrap();
        let (request, signature) = (RequestId([5; 16]), [6; 64]);
        let read = |call: EarlierCall| minicbor::decode::<Call>(&minicbor::to_vec(call).unwrap()).unwrap();
        assert_eq!(
            read(EarlierCall::Hello { listen: "127.0.0.1:1".into() }),
            Call::Hello { listen: "127.0.0.1:1".into(), revision: None }
        );
        assert_eq!(
            read(EarlierCall::CreateUser { id, name: name.clone(), account: account.clone() }),
            Call::CreateUser { id, name, account: account.clone(), nonce: None, invitation: None }
        );
        assert_eq!(
            read(EarlierCall::ChangePassword { request, signature, account: account.clone() }),
            Call::ChangePassword { request, signature, account, change: None }
        );
        assert_eq!(
            read(EarlierCall::CreateGroup { id, name: group.clone() }),
            Call::CreateGroup { id: crate::Gid(id.0), name: group, nonce: None }
        );
    }

    #[test]
    fn calls_have_names_without_what_they_carry() {
        let lease = storage::StoreCall::Lease { id: RequestId([9; 16]), end: true };
        let name = UserName::create("bob").unwrap();
        let calls = [Call::Renew, Call::Challenge { name, candidate: 0 }, Call::Store(lease)];
        assert_eq!(calls.map(|call| call.name()), ["Renew", "Challenge", "Lease"]);
    }

    #[test]
    fn invalid_names_do_not_decode() {
        let group = GroupName::create("good").unwrap();
        let mut bytes =
            minicbor::to_vec(ToTracker { call: 1, body: Call::ListFiles { group, after: None } }).unwrap();
        let at = bytes.windows(4).position(|w| w == b"good").unwrap();
        bytes[at] = b'\n';
        assert!(minicbor::decode::<ToTracker>(&bytes).is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = minicbor::decode::<ToTracker>(&bytes);
            let _ = minicbor::decode::<FromTracker>(&bytes);
        }

        #[test]
        fn damaged_messages_never_panic(at in 0usize..500, to in any::<u8>(), cut in 0usize..500) {
            let manifest = Manifest {
                name: FileName::create("f").unwrap(), size: 1, piece_length: 65_536, sha1: Sha1([1; 20]),
                blake3: crate::Blake3([2; 32]), piece_list: crate::Blake3([3; 32]), mirrors: vec!["http://a/".into()], folder: None,
            };
            let body = Call::Share {
                request: RequestId([1; 16]), group: GroupName::create("g").unwrap(), manifest, piece_list: vec![0; 20],
            };
            let mut bytes = minicbor::to_vec(ToTracker { call: 1, body }).unwrap();
            let (at, cut) = (at % bytes.len(), cut % bytes.len());
            bytes[at] = to;
            let _ = minicbor::decode::<ToTracker>(&bytes);
            let _ = minicbor::decode::<ToTracker>(&bytes[..cut]);
        }
    }
}

//! What a client and its tracker say to each other, on one stream of framed messages: calls with a number, each
//! answered once, in any order.
//!
//! Every call that writes carries the id of its request. A client whose tracker died repeats the call, id and all, at
//! the next one; a request that took effect already is answered as it was then.

use minicbor::{Decode, Encode};

use crate::credentials::{Account, CHALLENGE_BYTES, SALT_BYTES};
use crate::digest::Sha1;
use crate::ids::{Fid, Gid, RequestId, Uid};
use crate::manifest::Manifest;
use crate::names::{FileName, GroupName, UserName};
use crate::peer_id::PeerId;

/// The protocol's name on libp2p.
pub const CLIENT_PROTOCOL: &str = "/shoal/client/1";

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
    /// What came of it.
    #[n(1)]
    pub body: Reply,
}

/// What comes of a call.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Reply {
    /// It was done.
    #[n(0)]
    Done(#[n(0)] Answer),
    /// It was not.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// Everything that a client can ask of a tracker. [`Answer`] names the variant that answers each.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Call {
    /// First on every connection. → [`Answer::Welcome`]
    #[n(0)]
    Hello {
        /// `ip:port` at which other peers reach this client's bulk lane; an unspecified ip stands for the one that the
        /// tracker sees.
        #[n(0)]
        listen: String,
    },
    /// Creates an account. → [`Answer::Created`]
    #[n(1)]
    CreateUser {
        /// The new user's id, and this request's.
        #[n(0)]
        id: Uid,
        /// The name wanted.
        #[n(1)]
        name: UserName,
        /// Salt, public login key, sealed account key.
        #[n(2)]
        account: Account,
    },
    /// Asks for salt and challenge before [`Call::Login`] or [`Call::ChangePassword`]. → [`Answer::Challenge`]
    #[n(2)]
    Challenge {
        /// Whose account.
        #[n(0)]
        name: UserName,
        /// 0 for the name's holder, 1 and on for the claims that lost it, as [`RefusalKind::TryNext`] asks.
        #[n(1)]
        candidate: u8,
    },
    /// Answers the last challenge on this connection. → [`Answer::LoggedIn`]
    #[n(3)]
    Login {
        /// As in the challenge.
        #[n(0)]
        name: UserName,
        /// As in the challenge.
        #[n(1)]
        candidate: u8,
        /// [`crate::credentials::Secrets::answer`].
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// Goes on with a session that another tracker, or an earlier connection, began. → [`Answer::LoggedIn`]
    #[n(4)]
    Resume {
        /// The session's token.
        #[cbor(n(0), with = "minicbor::bytes")]
        token: Vec<u8>,
    },
    /// Asks for a new token, tickets and keys; at half a ticket's life at the latest. → [`Answer::LoggedIn`]
    #[n(5)]
    Renew,
    /// Ends the session and everything announced in it. → [`Answer::Ok`]
    #[n(6)]
    Logout,
    /// Replaces the account's secrets; all other sessions of the user end. → [`Answer::LoggedIn`]
    #[n(7)]
    ChangePassword {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// The old login key's answer to the last challenge on this connection.
        #[cbor(n(1), with = "minicbor::bytes")]
        signature: [u8; 64],
        /// The new secrets.
        #[n(2)]
        account: Account,
    },
    /// Creates a group, owned by the caller. → [`Answer::Created`]
    #[n(8)]
    CreateGroup {
        /// The new group's id, and this request's.
        #[n(0)]
        id: Gid,
        /// The name wanted.
        #[n(1)]
        name: GroupName,
    },
    /// Files a join request. → [`Answer::Ok`]
    #[n(9)]
    JoinGroup {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Which group.
        #[n(1)]
        group: GroupName,
    },
    /// Ends the caller's membership. → [`Answer::Ok`]
    #[n(10)]
    LeaveGroup {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Which group.
        #[n(1)]
        group: GroupName,
    },
    /// Pending join requests; for the owner. → [`Answer::Users`]
    #[n(11)]
    ListRequests {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Goes on behind this name.
        #[n(1)]
        after: Option<UserName>,
    },
    /// Accepts or rejects a join request; for the owner. → [`Answer::Ok`]
    #[n(12)]
    Decide {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Which group.
        #[n(1)]
        group: GroupName,
        /// Whose request.
        #[n(2)]
        user: UserName,
        /// Whether to let them in.
        #[n(3)]
        accept: bool,
    },
    /// Every group that has a member. → [`Answer::Groups`]
    #[n(13)]
    ListGroups {
        /// Goes on behind this name.
        #[n(0)]
        after: Option<GroupName>,
    },
    /// A group's files; for members. → [`Answer::Files`]
    #[n(14)]
    ListFiles {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Goes on behind this name.
        #[n(1)]
        after: Option<FileName>,
    },
    /// A group's members; for members. → [`Answer::Users`]
    #[n(15)]
    ListMembers {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Goes on behind this name.
        #[n(1)]
        after: Option<UserName>,
    },
    /// Records that this client shares a file. → [`Answer::Shared`]
    #[n(16)]
    Share {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// In which group.
        #[n(1)]
        group: GroupName,
        /// The file.
        #[n(2)]
        manifest: Manifest,
        /// Its piece list; see [`Manifest::piece_list`].
        #[cbor(n(3), with = "minicbor::bytes")]
        piece_list: Vec<u8>,
    },
    /// Records that this client shares a file that the trackers know: one that it finished downloading.
    /// → [`Answer::Ok`]
    #[n(17)]
    ShareKnown {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// In which group.
        #[n(1)]
        group: Gid,
        /// Which file.
        #[n(2)]
        file: Fid,
    },
    /// Takes back this client's share of a file. → [`Answer::Ok`]
    #[n(18)]
    StopShare {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// In which group.
        #[n(1)]
        group: Gid,
        /// Which file.
        #[n(2)]
        file: Fid,
    },
    /// Looks a file up by name; for members. → [`Answer::Found`]
    #[n(19)]
    Find {
        /// In which group.
        #[n(0)]
        group: GroupName,
        /// Which file.
        #[n(1)]
        file: FileName,
    },
    /// A file's piece list; for members. → [`Answer::PieceList`]
    #[n(20)]
    PieceList {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
    },
    /// Who holds a file, in part or whole, and is online; for members. → [`Answer::Holders`]
    #[n(21)]
    Holders {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
    },
    /// Says what this client holds and serves now. → [`Answer::Announced`]
    #[n(22)]
    Announce {
        /// Whether everything announced before on this connection is void.
        #[n(0)]
        anew: bool,
        /// What changed, at most [`crate::limits::MAX_LIST`]; the rest goes into further calls.
        #[n(1)]
        holdings: Vec<Holding>,
    },
    /// The keys with which trackers sign tickets. → [`Answer::TicketKeys`]
    #[n(23)]
    TicketKeys,
}

/// What answers a [`Call`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    /// Nothing more to say.
    #[n(0)]
    Ok,
    /// To [`Call::Hello`].
    #[n(1)]
    Welcome {
        /// The tracker's number.
        #[n(0)]
        number: u8,
        /// Milliseconds since 1970 by the trackers' clock.
        #[n(1)]
        now_ms: u64,
    },
    /// To calls that create a name.
    #[n(2)]
    Created {
        /// Whether another tracker, out of reach now, may yet hold an earlier claim to the name.
        #[n(0)]
        provisional: bool,
    },
    /// To [`Call::Challenge`].
    #[n(3)]
    Challenge {
        /// The account's salt; a made-up one for a name that does not exist.
        #[cbor(n(0), with = "minicbor::bytes")]
        salt: [u8; SALT_BYTES],
        /// What to sign; good for one answer on this connection.
        #[cbor(n(1), with = "minicbor::bytes")]
        challenge: [u8; CHALLENGE_BYTES],
    },
    /// To every call that begins or prolongs a session.
    #[n(4)]
    LoggedIn(#[n(0)] Box<Session>),
    /// To [`Call::ListRequests`] and [`Call::ListMembers`], by name.
    #[n(5)]
    Users {
        /// The users.
        #[n(0)]
        users: Vec<UserEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::ListGroups`], by name.
    #[n(6)]
    Groups {
        /// The groups.
        #[n(0)]
        groups: Vec<GroupEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::ListFiles`], by name.
    #[n(7)]
    Files {
        /// The files.
        #[n(0)]
        files: Vec<FileEntry>,
        /// Whether there are more behind the last.
        #[n(1)]
        more: bool,
    },
    /// To [`Call::Share`].
    #[n(8)]
    Shared {
        /// The group's id.
        #[n(0)]
        group: Gid,
        /// The file's id.
        #[n(1)]
        file: Fid,
    },
    /// To [`Call::Find`].
    #[n(9)]
    Found {
        /// The group's id.
        #[n(0)]
        group: Gid,
        /// The file's id.
        #[n(1)]
        file: Fid,
        /// The file; its name is the one it goes by now.
        #[n(2)]
        manifest: Box<Manifest>,
    },
    /// To [`Call::PieceList`].
    #[n(10)]
    PieceList(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// To [`Call::Holders`].
    #[n(11)]
    Holders {
        /// The holders but the caller; a random choice where there are more than [`crate::limits::MAX_LIST`].
        #[n(0)]
        holders: Vec<Holder>,
        /// After how many milliseconds it is worth asking again.
        #[n(1)]
        again_ms: u32,
    },
    /// To [`Call::Announce`].
    #[n(12)]
    Announced {
        /// Announced files that the trackers know no share of: to be shared anew, or, where the caller is no member any
        /// more, forgotten.
        #[n(0)]
        unknown: Vec<Holding>,
    },
    /// To [`Call::TicketKeys`].
    #[n(13)]
    TicketKeys(#[n(0)] Vec<PeerId>),
}

/// A session as of now.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Session {
    /// Who is logged in.
    #[n(0)]
    pub user: Uid,
    /// What they are called now; not what they typed if the name was lost to another.
    #[n(1)]
    pub name: UserName,
    /// Whether the name may yet be lost.
    #[n(2)]
    pub provisional: bool,
    /// For [`Call::Resume`] here or at any other tracker.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub token: Vec<u8>,
    /// Milliseconds since 1970 by the trackers' clock.
    #[n(4)]
    pub now_ms: u64,
    /// One for each group that the user is a member of.
    #[n(5)]
    pub tickets: Vec<GroupTicket>,
    /// The keys with which trackers sign tickets.
    #[n(6)]
    pub ticket_keys: Vec<PeerId>,
    /// The account, for opening its key.
    #[n(7)]
    pub account: Account,
}

/// A ticket for one group.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupTicket {
    /// The group's id.
    #[n(0)]
    pub group: Gid,
    /// What the group is called now.
    #[n(1)]
    pub name: GroupName,
    /// A signed [`crate::tokens::Ticket`].
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ticket: Vec<u8>,
}

/// A user in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct UserEntry {
    /// The user's name.
    #[n(0)]
    pub name: UserName,
    /// Whether the name may yet be lost.
    #[n(1)]
    pub provisional: bool,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct GroupEntry {
    /// The group's name.
    #[n(0)]
    pub name: GroupName,
    /// Whether the name may yet be lost.
    #[n(1)]
    pub provisional: bool,
    /// Who owns it.
    #[n(2)]
    pub owner: UserName,
    /// Whether the caller is a member; false for a stranger.
    #[n(3)]
    pub member: bool,
}

/// A file in a list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct FileEntry {
    /// The file's name.
    #[n(0)]
    pub name: FileName,
    /// Size in bytes.
    #[n(1)]
    pub size: u64,
    /// SHA-1 of the whole file.
    #[n(2)]
    pub sha1: Sha1,
    /// Clients that share it whole now.
    #[n(3)]
    pub sharers: u32,
}

/// How much of a file somebody holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Extent {
    /// Nothing any more.
    #[n(0)]
    None,
    /// Some pieces: it is being downloaded, and pieces are served.
    #[n(1)]
    Some,
    /// All of it.
    #[n(2)]
    Complete,
}

/// What a client holds of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Holding {
    /// In which group.
    #[n(0)]
    pub group: Gid,
    /// Which file.
    #[n(1)]
    pub file: Fid,
    /// How much.
    #[n(2)]
    pub extent: Extent,
}

/// Somebody who holds a file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Holder {
    /// The client's key, proven on the bulk lane.
    #[n(0)]
    pub peer: PeerId,
    /// `ip:port` of its bulk lane.
    #[n(1)]
    pub address: String,
    /// Who is logged in there.
    #[n(2)]
    pub user: UserName,
    /// How much it holds.
    #[n(3)]
    pub extent: Extent,
}

/// Why a call was not done.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Refusal {
    /// What the client's code can do about it.
    #[n(0)]
    pub kind: RefusalKind,
    /// What the user reads: what happened, to what, and what to do.
    #[n(1)]
    pub text: String,
    /// When it is worth trying again, in milliseconds, where waiting helps.
    #[n(2)]
    pub again_ms: Option<u32>,
}

/// Refusals by what can be done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum RefusalKind {
    /// The call makes no sense: nothing but another version helps.
    #[n(0)]
    Malformed,
    /// Log in first; a session's token does not hold any more.
    #[n(1)]
    NotLoggedIn,
    /// Name or password are wrong; which, is not said.
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn calls_and_answers_read_back() {
        let account = Account { salt: [1; 16], login_key: PeerId([2; 32]), sealed_account_key: [3; 72] };
        let name = UserName::create("bob").unwrap();
        let calls = [
            Call::Hello { listen: "127.0.0.1:1".into() },
            Call::CreateUser { id: Uid([4; 16]), name: name.clone(), account },
            Call::Login { name: name.clone(), candidate: 1, signature: [5; 64] },
            Call::ListMembers { group: GroupName::create("g").unwrap(), after: Some(name) },
            Call::Renew,
        ];
        for body in calls {
            let message = ToTracker { call: 7, body };
            assert_eq!(minicbor::decode::<ToTracker>(&minicbor::to_vec(&message).unwrap()).unwrap(), message);
        }
        let refusal = Refusal { kind: RefusalKind::Wait, text: "wait".into(), again_ms: Some(1) };
        let message = FromTracker { call: 7, body: Reply::Refused(refusal) };
        assert_eq!(minicbor::decode::<FromTracker>(&minicbor::to_vec(&message).unwrap()).unwrap(), message);
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
                blake3: crate::Blake3([2; 32]), piece_list: crate::Blake3([3; 32]), mirrors: vec!["http://a/".into()],
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

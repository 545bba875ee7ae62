//! Everything that a client can ask of a tracker.

use std::fmt::{self, Debug, Write};

use minicbor::{Decode, Encode};

use super::Holding;
use super::storage::{NodeCall, StoreCall};
use super::ways::{WAYS, WayCall};
use crate::credentials::{Account, ChangeSignature};
use crate::ids::{Fid, Gid, Nonce, RequestId, Uid};
use crate::manifest::Manifest;
use crate::names::{FileName, GroupName, UserName};
use crate::peer_id::PeerId;

/// Everything that a client can ask of a tracker. [`Answer`](super::Answer) names the variant that answers each.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Call {
    /// First on every connection, and again to get changes of the trackers' keys. → [`Answer::Welcome`](super::Answer::Welcome)
    #[n(0)]
    Hello {
        /// `ip:port` at which this client accepts bulk connections of other peers. An unspecified ip stands for the one that
        /// the tracker sees.
        #[n(0)]
        listen: String,
        /// The client's [`REVISION`](super::REVISION); `None` from an earlier version.
        #[n(1)]
        revision: Option<u32>,
    },
    /// Creates an account. → [`Answer::Created`](super::Answer::Created)
    #[n(1)]
    CreateUser {
        /// The new user's id, and this request's: [`Uid::derive`] of the other fields.
        #[n(0)]
        id: Uid,
        /// The name wanted.
        #[n(1)]
        name: UserName,
        /// Salt, public login key, sealed account key.
        #[n(2)]
        account: Account,
        /// What the id was derived with; `None` from a client of an earlier version, which chose ids at random.
        #[n(3)]
        nonce: Option<Nonce>,
        /// The code of an invitation, if trackers require one.
        #[n(4)]
        invitation: Option<String>,
    },
    /// Asks for salt and challenge before [`Call::Login`] or [`Call::ChangePassword`]. → [`Answer::Challenge`](super::Answer::Challenge)
    #[n(2)]
    Challenge {
        /// Whose account.
        #[n(0)]
        name: UserName,
        /// 0 for the name's holder, 1 and on for the claims that lost it, as [`RefusalKind::TryNext`](super::RefusalKind::TryNext) asks.
        #[n(1)]
        candidate: u8,
    },
    /// Answers the last challenge on this connection. → [`Answer::LoggedIn`](super::Answer::LoggedIn)
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
    /// Continues a session that began at another tracker or on an earlier connection. → [`Answer::LoggedIn`](super::Answer::LoggedIn)
    #[n(4)]
    Resume {
        /// The session's token.
        #[cbor(n(0), with = "minicbor::bytes")]
        token: Vec<u8>,
    },
    /// Asks for a new token, tickets and keys; at half a ticket's life at the latest. → [`Answer::LoggedIn`](super::Answer::LoggedIn)
    #[n(5)]
    Renew,
    /// Ends the session and everything announced in it. → [`Answer::Ok`](super::Answer::Ok)
    #[n(6)]
    Logout,
    /// Replaces the account's secrets; all other sessions of the user end. → [`Answer::LoggedIn`](super::Answer::LoggedIn)
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
        /// The old login key's signature on the new secrets; `None` from a client of an earlier version.
        #[n(3)]
        change: Option<ChangeSignature>,
    },
    /// Creates a group, owned by the caller. → [`Answer::Created`](super::Answer::Created)
    #[n(8)]
    CreateGroup {
        /// The new group's id, and this request's: [`Gid::derive`] of nonce, caller and name.
        #[n(0)]
        id: Gid,
        /// The name wanted.
        #[n(1)]
        name: GroupName,
        /// What the id was derived with; `None` from a client of an earlier version, which chose ids at random.
        #[n(2)]
        nonce: Option<Nonce>,
    },
    /// Files a join request. → [`Answer::Ok`](super::Answer::Ok)
    #[n(9)]
    JoinGroup {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Which group.
        #[n(1)]
        group: GroupName,
    },
    /// Ends the caller's membership. → [`Answer::Ok`](super::Answer::Ok)
    #[n(10)]
    LeaveGroup {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// Which group.
        #[n(1)]
        group: GroupName,
    },
    /// Pending join requests; for the owner. → [`Answer::Users`](super::Answer::Users)
    #[n(11)]
    ListRequests {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Begins behind this name.
        #[n(1)]
        after: Option<UserName>,
    },
    /// Accepts or rejects a join request; for the owner. → [`Answer::Ok`](super::Answer::Ok)
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
    /// Every group that has a member. → [`Answer::Groups`](super::Answer::Groups)
    #[n(13)]
    ListGroups {
        /// Begins behind this name.
        #[n(0)]
        after: Option<GroupName>,
    },
    /// A group's files; for members. → [`Answer::Files`](super::Answer::Files)
    #[n(14)]
    ListFiles {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Begins behind this name.
        #[n(1)]
        after: Option<FileName>,
    },
    /// A group's members; for members. → [`Answer::Users`](super::Answer::Users)
    #[n(15)]
    ListMembers {
        /// Which group.
        #[n(0)]
        group: GroupName,
        /// Begins behind this name.
        #[n(1)]
        after: Option<UserName>,
    },
    /// Records that this client shares a file. → [`Answer::Shared`](super::Answer::Shared)
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
    /// → [`Answer::Ok`](super::Answer::Ok)
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
    /// Takes back this client's share of a file. → [`Answer::Ok`](super::Answer::Ok)
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
    /// Looks a file up by name; for members. → [`Answer::Found`](super::Answer::Found)
    #[n(19)]
    Find {
        /// In which group.
        #[n(0)]
        group: GroupName,
        /// Which file.
        #[n(1)]
        file: FileName,
    },
    /// A file's piece list; for members. → [`Answer::PieceList`](super::Answer::PieceList)
    #[n(20)]
    PieceList {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
    },
    /// Who holds a file, in part or whole, and is online; for members. → [`Answer::Holders`](super::Answer::Holders)
    #[n(21)]
    Holders {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
    },
    /// Announces what this client holds and serves now. → [`Answer::Announced`](super::Answer::Announced)
    #[n(22)]
    Announce {
        /// Whether everything announced before on this connection is void.
        #[n(0)]
        reset: bool,
        /// What changed, at most [`crate::limits::MAX_LIST`]; the rest goes into further calls.
        #[n(1)]
        holdings: Vec<Holding>,
    },
    /// The keys with which trackers sign tickets. → [`Answer::TicketKeys`](super::Answer::TicketKeys)
    #[n(23)]
    TicketKeys,
    /// From a storage node. → [`Answer::Node`](super::Answer::Node)
    #[n(24)]
    Node(#[n(0)] NodeCall),
    /// About the user's stored files. → [`Answer::Store`](super::Answer::Store)
    #[n(25)]
    Store(#[n(0)] StoreCall),
    /// The clients on which the caller's account is logged in. → [`Answer::Sessions`](super::Answer::Sessions)
    #[n(26)]
    Sessions,
    /// Ends the account's session on a client, wherever it is connected, and voids its token. → [`Answer::Ok`](super::Answer::Ok)
    #[n(27)]
    SignOut {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// The client's key.
        #[n(1)]
        peer: PeerId,
    },
    /// The caller's quota, or a group's for its members. → [`Answer::Quota`](super::Answer::Quota)
    #[n(28)]
    Quota {
        /// Which group, instead of the caller.
        #[n(0)]
        group: Option<GroupName>,
    },
    /// Takes back some of the shares that the caller's account recorded on a client that is lost; to be repeated while there
    /// are more. → [`Answer::Forgotten`](super::Answer::Forgotten)
    #[n(29)]
    ForgetClient {
        /// This request's id.
        #[n(0)]
        request: RequestId,
        /// The client's key.
        #[n(1)]
        peer: PeerId,
    },
    /// Holders of a file that did not answer at their addresses, which nothing shows to be theirs; from members. An address is
    /// no longer named when several users said so. → [`Answer::Ok`](super::Answer::Ok)
    #[n(30)]
    Unreached {
        /// In which group.
        #[n(0)]
        group: Gid,
        /// Which file.
        #[n(1)]
        file: Fid,
        /// Their keys, at most [`crate::limits::MAX_LIST`].
        #[n(2)]
        peers: Vec<PeerId>,
    },
    /// About ways between clients. → [`Answer::Way`](super::Answer::Way)
    #[n(31)]
    Way(#[n(0)] WayCall),
}

impl Call {
    /// The [`REVISION`](super::REVISION) from which on trackers know the call.
    #[must_use]
    pub fn revision(&self) -> u32 {
        match self {
            Self::Share { manifest, .. } if manifest.folder.is_some() => 4,
            Self::Way(_) => WAYS,
            Self::Unreached { .. } => 3,
            Self::Quota { .. } | Self::ForgetClient { .. } => 2,
            _ => 0,
        }
    }

    /// The call's name, for logs, without what it carries.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Node(call) => variant(call),
            Self::Store(call) => variant(call),
            Self::Way(call) => variant(call),
            call => variant(call),
        }
    }

    /// Creates an account: the call, and the user's id, which every repetition of the call has.
    #[must_use]
    pub fn create_user(name: UserName, account: Account) -> (Uid, Self) {
        Self::create_user_by(None, name, account)
    }

    /// Like [`Call::create_user`], with an invitation's code if one is given.
    #[must_use]
    pub fn create_user_by(invitation: Option<String>, name: UserName, account: Account) -> (Uid, Self) {
        let nonce = Nonce::random();
        let id = Uid::derive(nonce, &account.digest(), name.as_str());
        (id, Self::CreateUser { id, name, account, nonce: Some(nonce), invitation })
    }

    /// Creates a group owned by `founder`, who is logged in: the call, and the group's id, which every repetition of the
    /// call has.
    #[must_use]
    pub fn create_group(founder: Uid, name: GroupName) -> (Gid, Self) {
        let nonce = Nonce::random();
        let id = Gid::derive(nonce, founder, name.as_str());
        (id, Self::CreateGroup { id, name, nonce: Some(nonce) })
    }
}

/// The name of an enum's variant.
fn variant(value: &impl Debug) -> String {
    /// Takes the first piece, which is the name, and refuses what follows.
    struct First(String);
    impl Write for First {
        fn write_str(&mut self, piece: &str) -> fmt::Result {
            if !self.0.is_empty() {
                return Err(fmt::Error);
            }
            self.0.push_str(piece);
            Ok(())
        }
    }
    let mut name = First(String::new());
    // It fails behind the name of a variant that carries something.
    let _ = write!(name, "{value:?}");
    name.0
}

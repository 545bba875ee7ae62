//! The fake trackers' groups, files and presence, in memory and without any rule that a client does not rely on.

use std::collections::{BTreeMap, BTreeSet};

use shoal_common::tokens::{TICKET_LIFE_MS, Ticket, seal};
use shoal_common::tracker_api::{
    Answer, Call, Completeness, FileEntry, GroupEntry, GroupTicket, Holder, Holding, RefusalKind, Reply,
    UserEntry,
};
use shoal_common::{Fid, FileName, Gid, GroupName, Manifest, PeerId, Uid, UserName};
use shoal_net::Identity;

use super::{Caller, refuse};

/// Groups, files and who holds them.
#[derive(Default)]
pub(crate) struct Library {
    signer: Option<Identity>,
    groups: BTreeMap<GroupName, Group>,
    files: BTreeMap<(Gid, Fid), (Manifest, Vec<u8>)>,
    /// Who shares what, as recorded: by file, client and user.
    pub(crate) shares: BTreeSet<(Fid, PeerId, Uid)>,
    holdings: BTreeMap<(PeerId, Fid), (Completeness, String, UserName)>,
}

struct Group {
    id: Gid,
    owner: UserName,
    members: BTreeMap<Uid, UserName>,
}

impl Library {
    pub(crate) fn ticket_keys(&self) -> Vec<PeerId> {
        self.signer.iter().map(Identity::peer_id).collect()
    }

    pub(crate) fn tickets(&mut self, caller: &Caller, now_ms: u64) -> Vec<GroupTicket> {
        let signer = self.signer.get_or_insert_with(Identity::generate);
        let (user, name) = caller.user.clone().unwrap();
        let mine = self.groups.iter().filter(|(_, group)| group.members.contains_key(&user));
        mine.map(|(group_name, group)| {
            let expires_ms = now_ms + TICKET_LIFE_MS;
            let ticket = Ticket { user, name: name.clone(), peer: caller.peer, group: group.id, expires_ms };
            let ticket = seal(&ticket, signer.peer_id(), |message| signer.sign(message));
            GroupTicket { group: group.id, name: group_name.clone(), ticket }
        })
        .collect()
    }

    /// Makes somebody a member without asking anybody.
    pub(crate) fn add_member(&mut self, group: &str, user: Uid, name: &str) {
        let group = self.groups.get_mut(&GroupName::create(group).unwrap()).unwrap();
        group.members.insert(user, UserName::create(name).unwrap());
    }

    /// Forgets who shares what, as trackers that lost everything would.
    pub(crate) fn forget_shares(&mut self) {
        self.shares.clear();
    }

    /// Forgets a file, as trackers that lost everything would.
    pub(crate) fn forget_file(&mut self, name: &str) -> Fid {
        let found = self.files.iter().find(|(_, (manifest, _))| manifest.name.as_str() == name);
        let key = *found.unwrap().0;
        self.files.remove(&key);
        self.holdings.retain(|(_, file), _| *file != key.1);
        key.1
    }

    /// Takes what it knows, as trackers do; the rest is gone.
    pub(crate) fn announce(&mut self, caller: &Caller, holdings: &[Holding]) {
        let unknown = self.unknown(caller, holdings);
        let Some((_, user)) = &caller.user else { return };
        for holding in holdings.iter().filter(|holding| !unknown.contains(holding)) {
            let held = (holding.completeness, caller.address.clone(), user.clone());
            self.holdings.insert((caller.peer, holding.file), held);
        }
    }

    pub(crate) fn unknown(&self, caller: &Caller, holdings: &[Holding]) -> Vec<Holding> {
        let Some((user, _)) = &caller.user else { return vec![] };
        let is_known = |holding: &&Holding| match holding.completeness {
            Completeness::None => true,
            Completeness::Some => self.files.contains_key(&(holding.group, holding.file)),
            Completeness::Complete => self.shares.contains(&(holding.file, caller.peer, *user)),
        };
        holdings.iter().filter(|holding| !is_known(holding)).copied().collect()
    }

    /// Who holds a part of a file now.
    pub(crate) fn holds_a_part(&self, file: Fid) -> bool {
        self.holdings
            .iter()
            .any(|((_, held), (completeness, ..))| *held == file && *completeness == Completeness::Some)
    }

    pub(crate) fn leave(&mut self, peer: PeerId) {
        self.holdings.retain(|(holder, _), _| *holder != peer);
    }

    /// Who holds a file whole now.
    pub(crate) fn sharers(&self, file: Fid) -> usize {
        self.holdings
            .iter()
            .filter(|((_, held), (completeness, ..))| {
                *held == file && *completeness == Completeness::Complete
            })
            .count()
    }

    /// As [`Library::sharers`], by name.
    pub(crate) fn sharers_of(&self, name: &str) -> usize {
        let files = self.files.iter().filter(|(_, (manifest, _))| manifest.name.as_str() == name);
        files.map(|((_, file), _)| self.sharers(*file)).sum()
    }

    pub(crate) fn answer(&mut self, call: &Call, caller: &Caller) -> Reply {
        let Some((user, name)) = caller.user.clone() else {
            return match call {
                Call::ListGroups { .. } => Reply::Done(Answer::Groups { groups: vec![], more: false }),
                _ => Reply::Done(Answer::Ok),
            };
        };
        if let Call::CreateGroup { id, name: group, .. } = call {
            let members = BTreeMap::from([(user, name.clone())]);
            self.groups.insert(group.clone(), Group { id: *id, owner: name, members });
            return Reply::Done(Answer::Created { provisional: false });
        }
        if let Call::ListGroups { .. } = call {
            let entry = |(name, group): (&GroupName, &Group)| GroupEntry {
                name: name.clone(),
                provisional: false,
                owner: group.owner.clone(),
                member: group.members.contains_key(&user),
            };
            return Reply::Done(Answer::Groups {
                groups: self.groups.iter().map(entry).collect(),
                more: false,
            });
        }
        let id = match call {
            Call::ListFiles { group, .. }
            | Call::ListMembers { group, .. }
            | Call::LeaveGroup { group, .. }
            | Call::Share { group, .. }
            | Call::Find { group, .. } => self.groups.get(group).map(|group| group.id),
            Call::ShareKnown { group, .. }
            | Call::StopShare { group, .. }
            | Call::PieceList { group, .. }
            | Call::Holders { group, .. } => Some(*group),
            _ => return Reply::Done(Answer::Ok),
        };
        let member = |group: &&mut Group| Some(group.id) == id && group.members.contains_key(&user);
        let Some(group) = self.groups.values_mut().find(member) else {
            return refuse(RefusalKind::NotAllowed, "you are not a member of the group");
        };
        if let Call::LeaveGroup { .. } = call {
            group.members.remove(&user);
            return Reply::Done(Answer::Ok);
        }
        let id = group.id;
        if let Call::ListMembers { .. } = call {
            let entry = |name: &UserName| UserEntry { name: name.clone(), provisional: false };
            return Reply::Done(Answer::Users {
                users: group.members.values().map(entry).collect(),
                more: false,
            });
        }
        self.file(call, id, caller, user)
    }

    fn file(&mut self, call: &Call, group: Gid, caller: &Caller, user: Uid) -> Reply {
        let named = |library: &Self, name: &FileName| {
            let mut files = library.files.iter();
            files
                .find(|((gid, _), (manifest, _))| *gid == group && manifest.name == *name)
                .map(|((_, fid), _)| *fid)
        };
        match call {
            Call::Share { manifest, piece_list, .. } => {
                let file = manifest.fid(group);
                self.files.insert((group, file), (manifest.clone(), piece_list.clone()));
                self.shares.insert((file, caller.peer, user));
                Reply::Done(Answer::Shared { group, file })
            }
            Call::ShareKnown { file, .. } => {
                self.shares.insert((*file, caller.peer, user));
                Reply::Done(Answer::Ok)
            }
            Call::StopShare { file, .. } => {
                self.shares.remove(&(*file, caller.peer, user));
                Reply::Done(Answer::Ok)
            }
            Call::Find { file, .. } => match named(self, file) {
                Some(file) => {
                    let manifest = Box::new(self.files[&(group, file)].0.clone());
                    Reply::Done(Answer::Found { group, file, manifest })
                }
                None => refuse(RefusalKind::NotFound, "there is no such file"),
            },
            Call::PieceList { file, .. } => {
                Reply::Done(Answer::PieceList(self.files[&(group, *file)].1.clone()))
            }
            Call::Holders { file, .. } => {
                let others =
                    self.holdings.iter().filter(|((peer, held), _)| held == file && *peer != caller.peer);
                let holder = |((peer, _), (completeness, address, user)): (
                    &(PeerId, Fid),
                    &(Completeness, String, UserName),
                )| {
                    Holder {
                        peer: *peer,
                        address: address.clone(),
                        user: user.clone(),
                        completeness: *completeness,
                        unproven: None,
                        lan: None,
                        reached: None,
                    }
                };
                Reply::Done(Answer::Holders {
                    holders: others.map(holder).collect(),
                    retry_after_ms: 300,
                    mirrors: None,
                })
            }
            _ => {
                let mine = self.files.iter().filter(|((gid, _), _)| *gid == group);
                let entry = |((_, fid), (manifest, _)): (&(Gid, Fid), &(Manifest, Vec<u8>))| FileEntry {
                    name: manifest.name.clone(),
                    size: manifest.size,
                    sha1: manifest.sha1,
                    sharers: u32::try_from(self.sharers(*fid)).unwrap(),
                };
                Reply::Done(Answer::Files { files: mine.map(entry).collect(), more: false })
            }
        }
    }
}

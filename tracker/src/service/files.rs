//! Files: sharing them, finding them, and who holds them now.

use std::collections::HashSet;
use std::net::SocketAddr;

use shoal_common::limits::MAX_LIST;
use shoal_common::mirrors;
use shoal_common::tracker_api::ways::WAYS;
use shoal_common::tracker_api::{Answer, Completeness, FileEntry, Holder, Holding, RefusalKind};
use shoal_common::{Fid, FileName, Gid, GroupName, Manifest, PeerId, RequestId, Sha1, Uid};
use shoal_replica::{BlobHash, Rows, Write};

use super::groups;
use crate::database::{Fault, Tx, refuse};
use crate::names;
use crate::presence::{Listening, Presence};
use crate::quota::{self, Quotas};
use crate::record::{FILE, SHARE, Share, delete, encode, file_key, put, share_key};
use crate::store::{FileRow, file_cost};
use crate::ways::Ways;

/// After how long a client asks again for a file's holders while there are few, in milliseconds.
const FEW_HOLDERS_RETRY_MS: u32 = 1_000;
/// After how long when there are many, in milliseconds.
const MANY_HOLDERS_RETRY_MS: u32 = 5_000;
/// Shares of a lost client that are taken back at a time: what one write takes.
const MAX_FORGOTTEN: usize = 50;
/// From this number of holders on there are many.
const MANY_HOLDERS: usize = 50;

/// A file to be shared: what a client sends.
pub(super) struct NewShare<'a> {
    /// The request.
    pub(super) request: RequestId,
    /// In which group.
    pub(super) group: &'a GroupName,
    /// The file.
    pub(super) manifest: Manifest,
    /// Its piece list.
    pub(super) piece_list: Vec<u8>,
}

/// Records a share, and the file if it is new.
pub(super) fn share(
    tx: &mut Tx<'_>,
    quotas: &Quotas,
    (caller, peer): (Uid, PeerId),
    new: NewShare<'_>,
) -> Result<(Gid, Fid), Fault> {
    let group = groups::joined(tx, caller, new.group)?;
    let mut manifest = new.manifest;
    check_manifest(&manifest, &new.piece_list)?;
    let mut named = tx.store().files_named(group, &manifest.name)?;
    named.retain(|other| other.name == manifest.name);
    for other in &named {
        // The same content under the name in another normal form is the same file, and keeps the form that it has.
        let same = Manifest { name: other.name.clone(), ..manifest.clone() };
        if same.fid(group) == other.fid {
            manifest = same;
        }
    }
    let file = manifest.fid(group);
    let mut writes = Vec::new();
    for other in named {
        if other.fid == file {
            continue;
        }
        if tx.store().is_shared(group, other.fid)? {
            let (name, group) = (&manifest.name, new.group);
            let text = format!(
                "{group} has another file named {name}, which is still shared; rename yours, or wait until nobody shares that one"
            );
            return Err(refuse(RefusalKind::Exists, text));
        }
        // The old content is no longer shared, so the name is free again.
        writes.push(delete(FILE, file_key(group, other.fid)));
    }
    // Only partitions make several files under one name, and few of them.
    writes.truncate(16);
    let mirrors = std::mem::take(&mut manifest.mirrors);
    let known = known_manifest(tx, group, file)?;
    if let Some(known) = known.as_ref().filter(|known| !known.mirrors.is_empty())
        && tx.store().is_shared(group, file)?
    {
        // An earlier version kept mirrors with the file; a sharer who names one again takes it over.
        manifest.mirrors = known.mirrors.iter().filter(|url| !mirrors.contains(url)).cloned().collect();
    }
    let value = encode(&manifest);
    let (is_new, file_bytes) = (known.as_ref() != Some(&manifest), file_cost(&manifest, value.len()));
    if is_new {
        let blobs = if new.piece_list.is_empty() {
            Vec::new()
        } else {
            vec![(BlobHash(manifest.piece_list.0), new.piece_list)]
        };
        let key = file_key(group, file);
        writes.push(Write { kind: FILE, key, value, blobs, ..Write::default() });
    }
    let mirrors = Some(mirrors).filter(|mirrors| !mirrors.is_empty());
    let present: Option<Share> = tx.store().live(SHARE, &share_key(group, file, caller, peer))?;
    let share = Share { request: new.request, mirrors, file_bytes: Some(file_bytes) };
    let share = Some(share).filter(|share| present.is_none_or(|present| present.mirrors != share.mirrors));
    if is_new || share.is_some() {
        let file_bytes = is_new.then_some(file_bytes);
        let adds = quota::NewShare { of: (group, file, peer), share: share.as_ref(), file: file_bytes };
        let drops = quotas.admit_share(tx, caller, &adds)?;
        let known: HashSet<Vec<u8>> = writes.iter().map(|write| write.key.clone()).collect();
        writes.extend(drops.into_iter().filter(|drop| !known.contains(&drop.key)));
        // Before the file, so that this is counted once, as a shared file.
        writes.splice(0..0, share.map(|share| share_row((group, file), caller, peer, &share)));
        tx.write(writes)?;
    }
    Ok((group, file))
}

/// Records a share of a file that is known.
pub(super) fn share_known(
    tx: &mut Tx<'_>,
    quotas: &Quotas,
    (caller, peer): (Uid, PeerId),
    request: RequestId,
    (group, file): (Gid, Fid),
) -> Result<(), Fault> {
    groups::check_member(tx, caller, group)?;
    let Some((file_bytes, _)) = tx.store().file_usage(group, file)? else { return Err(no_such_file()) };
    if tx.store().has_share(group, file, caller, peer)? {
        return Ok(());
    }
    let share = Share { request, mirrors: None, file_bytes: Some(file_bytes) };
    let adds = quota::NewShare { of: (group, file, peer), share: Some(&share), file: None };
    let mut writes = quotas.admit_share(tx, caller, &adds)?;
    writes.push(share_row((group, file), caller, peer, &share));
    tx.write(writes)
}

/// Takes a share back. One that does not exist is taken back already.
pub(super) fn stop_share(
    tx: &mut Tx<'_>,
    caller: Uid,
    peer: PeerId,
    (group, file): (Gid, Fid),
) -> Result<(), Fault> {
    if !tx.store().has_share(group, file, caller, peer)? {
        return Ok(());
    }
    tx.write(vec![delete(SHARE, share_key(group, file, caller, peer))])
}

/// Takes back some of the shares that a user recorded on a client that is lost.
pub(super) fn forget_client(
    tx: &mut Tx<'_>,
    presence: &Presence,
    caller: Uid,
    lost: PeerId,
) -> Result<Answer, Fault> {
    if presence.clients_of(caller).iter().any(|(peer, _)| *peer == lost) {
        let text = "that client is online; stop sharing there with: stop_share";
        return Err(refuse(RefusalKind::NotAllowed, text));
    }
    let shares = tx.store().shares_on(caller, lost, MAX_FORGOTTEN + 1)?;
    let more = shares.len() > MAX_FORGOTTEN;
    let forgotten = shares.iter().take(MAX_FORGOTTEN);
    let forgotten: Vec<Write> =
        forgotten.map(|&(group, file)| delete(SHARE, share_key(group, file, caller, lost))).collect();
    let shares = u32::try_from(forgotten.len()).unwrap_or(u32::MAX);
    if shares > 0 {
        tx.write(forgotten)?;
    }
    Ok(Answer::Forgotten { shares, more })
}

/// A group's files, for members.
pub(super) fn list(
    tx: &Tx<'_>,
    presence: &Presence,
    caller: Uid,
    group: &GroupName,
    after: Option<&FileName>,
) -> Result<Answer, Fault> {
    let gid = groups::joined(tx, caller, group)?;
    let after = after.map_or(String::new(), |name| name.lookup_key());
    let mut rows = tx.store().files(gid, &after, MAX_LIST + 1)?;
    let more = rows.len() > MAX_LIST;
    if more {
        groups::cut_at_last_name(&mut rows, |row| row.name.lookup_key());
    }
    let mut files = Vec::with_capacity(rows.len());
    let mut last: Option<FileName> = None;
    for row in rows {
        let name =
            if last.as_ref() == Some(&row.name) { row.name.renamed(&row.fid.0) } else { row.name.clone() };
        let mut sharers: u32 = 0;
        for holder in presence.holders(gid, row.fid) {
            // Members can get nothing from a user who left.
            if holder.completeness == Completeness::Complete && tx.store().is_member(gid, holder.user)? {
                sharers = sharers.saturating_add(1);
            }
        }
        files.push(FileEntry { name, size: row.size, sha1: Sha1(row.sha1), sharers });
        last = Some(row.name);
    }
    Ok(Answer::Files { files, more })
}

/// Looks a file up by name.
pub(super) fn find(tx: &Tx<'_>, caller: Uid, group: &GroupName, name: &FileName) -> Result<Answer, Fault> {
    let gid = groups::joined(tx, caller, group)?;
    let none =
        || refuse(RefusalKind::NotFound, format!("{group} has no file {name}; see: list_files {group}"));
    let row = file_called(tx, gid, name)?.ok_or_else(none)?;
    let mut manifest = known_manifest(tx, gid, row.fid)?.ok_or_else(none)?;
    // As it was shared, whichever normal form was typed.
    if name.is_renamed() {
        manifest.name = row.name.renamed(&row.fid.0);
    }
    manifest.mirrors = mirrors_of(tx, gid, row.fid)?;
    Ok(Answer::Found { group: gid, file: row.fid, manifest: Box::new(manifest) })
}

/// A file's piece list.
pub(super) fn piece_list(tx: &Tx<'_>, caller: Uid, group: Gid, file: Fid) -> Result<Answer, Fault> {
    groups::check_member(tx, caller, group)?;
    let manifest = known_manifest(tx, group, file)?.ok_or_else(no_such_file)?;
    if manifest.size == 0 {
        return Ok(Answer::PieceList(Vec::new()));
    }
    let list =
        tx.store().read_blob(BlobHash(manifest.piece_list.0), 0, shoal_common::limits::MAX_CLIENT_MESSAGE)?;
    let missing = || {
        let text =
            "this tracker is still fetching the file's piece list from the others; try again in a moment";
        refuse(RefusalKind::Unavailable, text)
    };
    list.map(Answer::PieceList).ok_or_else(missing)
}

/// The holders of a file now, without the caller.
pub(super) fn holders(
    tx: &Tx<'_>,
    (presence, ways): (&Presence, &Ways),
    (caller, peer): (Uid, PeerId),
    (group, file): (Gid, Fid),
) -> Result<Answer, Fault> {
    groups::check_member(tx, caller, group)?;
    let mut found = presence.holders(group, file);
    found.retain(|holder| holder.peer != peer);
    let retry_after_ms =
        if found.len() < MANY_HOLDERS { FEW_HOLDERS_RETRY_MS } else { MANY_HOLDERS_RETRY_MS };
    if found.len() > MAX_LIST {
        fastrand::shuffle(&mut found);
        found.truncate(MAX_LIST);
    }
    let mut holders = Vec::with_capacity(found.len());
    // Where nothing is shown to be the client's is tried last.
    found.sort_by_key(|holder| !holder.address.proven);
    for holder in found {
        if !tx.store().is_member(group, holder.user)? {
            continue;
        }
        let user = names::user_name(tx, holder.user)?;
        let address = holder.address.address.to_string();
        let unproven = (!holder.address.proven).then_some(true);
        let near = ways.near(holder.peer, peer).iter().map(ToString::to_string).collect::<Vec<_>>();
        holders.push(Holder {
            peer: holder.peer,
            lan: Some(near).filter(|near| !near.is_empty()),
            reached: ways.reached(holder.peer),
            address,
            user,
            completeness: holder.completeness,
            unproven,
        });
    }
    let mirrors = Some(mirrors_of(tx, group, file)?);
    Ok(Answer::Holders { holders, retry_after_ms, mirrors })
}

/// Takes a member's word that nothing answers at the unproven addresses of these holders of a file.
pub(super) fn unreached(
    tx: &Tx<'_>,
    presence: &Presence,
    caller: Uid,
    (group, file): (Gid, Fid),
    peers: &[PeerId],
) -> Result<Answer, Fault> {
    groups::check_member(tx, caller, group)?;
    if peers.len() > MAX_LIST {
        return Err(refuse(RefusalKind::Malformed, format!("more than {MAX_LIST} holders in one report")));
    }
    presence.unreached(caller, (group, file), peers);
    Ok(Answer::Ok)
}

/// Takes a client's announcement: what it may hold goes into presence, the rest is returned as unknown.
pub(super) fn announce(
    tx: &Tx<'_>,
    presence: &Presence,
    (caller, peer): (Uid, PeerId),
    reset: bool,
    holdings: Vec<Holding>,
) -> Result<Answer, Fault> {
    if holdings.len() > MAX_LIST {
        return Err(refuse(
            RefusalKind::Malformed,
            format!("more than {MAX_LIST} holdings in one announcement"),
        ));
    }
    let (mut known, mut unknown) = (Vec::with_capacity(holdings.len()), Vec::new());
    for holding in holdings {
        let allowed = match holding.completeness {
            Completeness::None => true,
            Completeness::Some => {
                tx.store().is_member(holding.group, caller)?
                    && tx.store().has_file(holding.group, holding.file)?
            }
            Completeness::Complete => {
                tx.store().is_member(holding.group, caller)?
                    && tx.store().has_share(holding.group, holding.file, caller, peer)?
            }
        };
        if allowed { known.push(holding) } else { unknown.push(holding) }
    }
    presence.holds(peer, reset, &known);
    Ok(Answer::Announced { unknown })
}

/// Where a client of that revision is reached that says it listens at `listen`.
pub(super) fn listen_address(listen: &str, seen: SocketAddr, revision: u32) -> Result<Listening, Fault> {
    let own = crate::presence::reachable_address(listen, seen.ip());
    // One that says where it is on its own networks is there for those who are near, and behind its router for all others.
    own.map(|own| if revision >= WAYS { crate::presence::behind_router(own, seen.ip()) } else { own })
        .map_err(|problem| refuse(RefusalKind::Malformed, format!("the client's address: {problem}")))
}

fn check_manifest(manifest: &Manifest, piece_list: &[u8]) -> Result<(), Fault> {
    let broken = |error: &dyn std::fmt::Display| refuse(RefusalKind::Malformed, format!("the file: {error}"));
    if manifest.name.is_renamed() {
        return Err(broken(&"its name must not end with ~ and six hex digits"));
    }
    manifest.validate_new().map_err(|error| broken(&error))?;
    manifest.read_piece_list(piece_list).map_err(|error| broken(&error))?;
    Ok(())
}

/// The file that a name means: the oldest that is shared, or, for a name that was renamed on conflict, the younger one with
/// those digits.
fn file_called(tx: &Tx<'_>, group: Gid, name: &FileName) -> Result<Option<FileRow>, Fault> {
    let mut shared = Vec::new();
    for row in tx.store().files_named(group, name)? {
        if tx.store().is_shared(group, row.fid)? {
            shared.push(row);
        }
    }
    let at = if name.is_renamed() {
        let lost = |at: usize| shared[..at].iter().any(|earlier| earlier.name == shared[at].name);
        (0..shared.len()).find(|&at| shared[at].name.renamed(&shared[at].fid.0) == *name && lost(at))
    } else {
        shared.iter().position(|row| row.name == *name)
    };
    Ok(at.map(|at| shared.swap_remove(at)))
}

fn known_manifest(tx: &Tx<'_>, group: Gid, file: Fid) -> Result<Option<Manifest>, Fault> {
    Ok(tx.store().live(FILE, &file_key(group, file))?)
}

/// A file's mirrors, of all members who share it in turn.
fn mirrors_of(tx: &Tx<'_>, group: Gid, file: Fid) -> Result<Vec<String>, Fault> {
    let mut sharers = tx.store().mirrors(group, file)?;
    for urls in &mut sharers {
        // An earlier version took some that contain a password.
        urls.retain(|url| mirrors::check_one(url).is_ok());
    }
    Ok(mirrors::by_turns(sharers))
}

fn share_row((group, file): (Gid, Fid), user: Uid, peer: PeerId, share: &Share) -> Write {
    put(SHARE, share_key(group, file, user, peer), share)
}

fn no_such_file() -> Fault {
    refuse(RefusalKind::NotFound, "the trackers do not know that file, or no longer; see: list_files")
}

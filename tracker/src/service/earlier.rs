//! Answers to clients of earlier revisions: entries that they cannot read are left out, and where nothing else is left the
//! answer is a refusal that says which program to update. An answer that they cannot read would end their connection, and they
//! would find no tracker that they can talk to.

use shoal_common::names::is_later;
use shoal_common::tracker_api::ways::WAYS;
use shoal_common::tracker_api::{Answer, LATER_NAMES, Refusal, RefusalKind, has_later_name};

/// The answer as a client of that revision can read it.
pub(super) fn fit(mut answer: Answer, revision: u32) -> Result<Answer, Refusal> {
    if let (true, Answer::Holders { holders, .. }) = (revision < WAYS, &mut answer) {
        // It knows one address of each: near ones are of use to it where the router does not lead back in.
        for holder in holders.iter_mut() {
            if let Some(near) = holder.lan.take().and_then(|lan| lan.into_iter().next()) {
                (holder.address, holder.unproven) = (near, Some(true));
            }
        }
    }
    if revision >= LATER_NAMES {
        return Ok(answer);
    }
    let hides_all = match &mut answer {
        Answer::Users { users, more } => {
            users.retain(|user| !is_later(user.name.as_str()));
            users.is_empty() && *more
        }
        Answer::Groups { groups, more } => {
            groups.retain(|group| !is_later(group.name.as_str()) && !is_later(group.owner.as_str()));
            groups.is_empty() && *more
        }
        Answer::Files { files, more } => {
            files.retain(|file| !is_later(file.name.as_str()));
            files.is_empty() && *more
        }
        Answer::Holders { holders, .. } => {
            holders.retain(|holder| !is_later(holder.user.as_str()));
            false
        }
        Answer::LoggedIn(session) => {
            session.tickets.retain(|ticket| !is_later(ticket.name.as_str()));
            false
        }
        _ => false,
    };
    let encoded = minicbor::to_vec(&answer).expect("a vector takes every write");
    if hides_all || has_later_name(&encoded) {
        let text =
            "this client is of an earlier version, which cannot read a name in the answer; update the client";
        return Err(Refusal::new(RefusalKind::Malformed, text));
    }
    Ok(answer)
}

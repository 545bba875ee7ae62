//! Results and events as JSON, one object a line, in the form that scripts rely on.

use serde_json::{Map, Value, json};
use shoal_common::GroupName;
use shoal_common::tracker_api::{ClientShares, FileEntry, Level, QuotaAnswer, SessionEntry};

use crate::app::{Output, PeerRow};
use crate::command::{Direction, FileRef};
use crate::events::Event;
use crate::render;
use crate::transfers::{DownloadRow, RowState};

/// What came of a command.
#[must_use]
pub fn result(command: &str, result: &Result<Output, String>) -> String {
    let mut object = match result {
        Ok(output) => fields(output),
        Err(error) => fields_of(json!({ "error": error })),
    };
    object.insert("command".to_owned(), command.into());
    object.insert("ok".to_owned(), result.is_ok().into());
    Value::Object(object).to_string()
}

/// An event.
#[must_use]
pub fn event(event: &Event) -> String {
    let (name, fields) = match event {
        Event::TrackerLost { tracker, reason, next } => {
            ("tracker_lost", json!({ "tracker": tracker, "reason": reason, "next": next }))
        }
        Event::NoTracker => ("no_tracker", json!({})),
        Event::TrackerFound { tracker } => ("tracker_found", json!({ "tracker": tracker })),
        Event::TrackerKnown { tracker, key, vouched } => {
            ("tracker_known", json!({ "tracker": tracker, "key": key, "vouched": vouched }))
        }
        Event::SessionEnded { user, reason } => {
            ("session_ended", json!({ "user": user.as_str(), "reason": reason }))
        }
        Event::Renamed { from, to } => ("renamed", json!({ "from": from.as_str(), "to": to.as_str() })),
        Event::ShareLost { group, file, path, problem } => (
            "share_lost",
            json!({ "group": group.as_str(), "file": file.as_str(), "path": path.to_string_lossy(), "reason": problem }),
        ),
        Event::ShareChecking { group, file, path, percent } => (
            "share_checking",
            json!({ "group": group.as_str(), "file": file.as_str(), "path": path.to_string_lossy(), "percent": percent }),
        ),
        Event::ShareBack { group, file, path } => (
            "share_back",
            json!({ "group": group.as_str(), "file": file.as_str(), "path": path.to_string_lossy() }),
        ),
        Event::Waiting { group, file } => {
            ("waiting", json!({ "group": group.as_str(), "file": file.as_str() }))
        }
        Event::Short { group, file, reason } => {
            ("short", json!({ "group": group.as_str(), "file": file.as_str(), "reason": reason }))
        }
        Event::Complete { group, file, path, size } => (
            "complete",
            json!({ "group": group.as_str(), "file": file.as_str(), "path": path.to_string_lossy(), "size": size }),
        ),
        Event::Failed { group, file, error } => {
            ("failed", json!({ "group": group.as_str(), "file": file.as_str(), "error": error }))
        }
        Event::SourceBanned { group, file, source, reason } => (
            "source_banned",
            json!({ "group": group.as_str(), "file": file.as_str(), "source": source, "reason": reason }),
        ),
        Event::MirrorRefused { group, file, mirror, reason } => (
            "mirror_refused",
            json!({ "group": group.as_str(), "file": file.as_str(), "mirror": mirror, "reason": reason }),
        ),
        Event::LastSharer { group, file } => {
            ("last_sharer", json!({ "group": group.as_str(), "file": file.as_str() }))
        }
        Event::Patience { reason } => ("patience", json!({ "reason": reason })),
    };
    named(name, fields)
}

/// The progress of all downloads, as an event.
#[must_use]
pub fn progress(rows: &[DownloadRow]) -> String {
    named("progress", json!({ "downloads": rows.iter().map(download).collect::<Value>() }))
}

/// Events that were dropped because nobody read them in time.
#[must_use]
pub fn missed(count: u64) -> String {
    named("missed", json!({ "count": count }))
}

fn named(event: &str, fields: Value) -> String {
    let mut object = fields_of(fields);
    object.insert("event".to_owned(), event.into());
    Value::Object(object).to_string()
}

fn fields_of(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn session(entry: &SessionEntry) -> Value {
    json!({ "peer": entry.peer.to_string(), "address": entry.address, "self": entry.own })
}

fn file(entry: &FileEntry) -> Value {
    json!({
        "name": entry.name.as_str(),
        "size": entry.size,
        "sha1": entry.sha1.to_string(),
        "sharers": entry.sharers,
    })
}

fn quotas(group: Option<&GroupName>, quota: &QuotaAnswer) -> Value {
    let level = |level: Level| json!({ "used": level.used, "limit": level.most });
    let mut fields = json!({ "files": level(quota.files), "bytes": level(quota.bytes) });
    for (name, figure) in [("groups", quota.groups), ("stored", quota.stored)] {
        if let Some(figure) = figure {
            fields[name] = level(figure);
        }
    }
    if let Some(clients) = &quota.clients {
        let client =
            |one: &ClientShares| json!({ "peer": one.peer.to_string(), "files": one.files, "self": one.own });
        fields["clients"] = clients.iter().map(client).collect();
    }
    if let Some(group) = group {
        fields["group"] = group.as_str().into();
    }
    fields
}

fn fields(output: &Output) -> Map<String, Value> {
    fields_of(match output {
        Output::UserCreated { user, provisional } => mark(json!({ "user": user.as_str() }), *provisional),
        Output::LoggedIn { user, provisional, shares, downloads, .. } => mark(
            json!({ "user": user.as_str(), "shares": shares, "downloads_resumed": downloads }),
            *provisional,
        ),
        Output::LoggedOut { user } => json!({ "user": user.as_str() }),
        Output::Sessions(sessions) => {
            json!({ "sessions": sessions.iter().map(session).collect::<Value>() })
        }
        Output::Quota { group, quota } => quotas(group.as_ref(), quota),
        Output::ClientForgotten { peer, files } => json!({ "peer": peer.to_string(), "files": files }),
        Output::SignedOut { user, peer } => json!({ "user": user.as_str(), "peer": peer.to_string() }),
        Output::WhoAmI(who) => mark(
            json!({
                "user": who.user.as_ref().map(|user| user.as_str()),
                "peer": who.peer.to_string(),
                "address": who.address,
                "tracker": who.tracker,
                "data_dir": who.data_dir.to_string_lossy(),
            }),
            who.provisional,
        ),
        Output::GroupCreated { group, provisional } => mark(json!({ "group": group.as_str() }), *provisional),
        Output::JoinRequested(group) | Output::Left(group) => json!({ "group": group.as_str() }),
        Output::Groups(groups) => {
            let group = |entry: &shoal_common::tracker_api::GroupEntry| {
                let fields = json!({
                    "group": entry.name.as_str(), "owner": entry.owner.as_str(), "member": entry.member,
                });
                mark(fields, entry.provisional)
            };
            json!({ "groups": groups.iter().map(group).collect::<Value>() })
        }
        Output::Members { group, users } => {
            json!({ "group": group.as_str(), "members": users.iter().map(|u| u.name.as_str()).collect::<Value>() })
        }
        Output::Requests { group, users } => {
            json!({ "group": group.as_str(), "requests": users.iter().map(|u| u.name.as_str()).collect::<Value>() })
        }
        Output::Decided { group, user, accepted } => {
            json!({ "group": group.as_str(), "user": user.as_str(), "accepted": accepted })
        }
        Output::Shared { group, file, size, sha1 } => json!({
            "group": group.as_str(), "file": file.as_str(), "size": size, "sha1": sha1.to_string(),
        }),
        Output::Files { group, files } => {
            json!({ "group": group.as_str(), "files": files.iter().map(file).collect::<Value>() })
        }
        Output::Peers { file, peers } => {
            let mut fields = file_fields(file);
            fields["peers"] = peers.iter().map(peer).collect();
            fields
        }
        Output::Download { file, path, sharers, complete, waits } => {
            let mut fields = waiting(file_fields(file), waits.as_deref());
            fields["path"] = path.to_string_lossy().into();
            fields["sharers"] = (*sharers).into();
            fields["complete"] = (*complete).into();
            fields
        }
        Output::Downloads { rows, verbose } => {
            json!({ "downloads": rows.iter().map(|row| download_of(row, *verbose)).collect::<Value>() })
        }
        Output::ShareStopped(file)
        | Output::DownloadPaused(file)
        | Output::DownloadCancelled { file, .. } => file_fields(file),
        Output::DownloadResumed { file, anew, waits } => resumed(file, *anew, waits.as_deref()),
        Output::LimitSet { direction, rate } => json!({
            "direction": match direction { Direction::Up => "up", Direction::Down => "down" },
            "rate": rate.unwrap_or(0),
        }),
        Output::Waited { took } => json!({ "seconds": took.as_secs_f64() }),
        Output::Help(_) => json!({ "text": render::output(output) }),
        Output::PasswordChanged | Output::Quitting => json!({}),
    })
}

/// Says so beside a name that is not definite, and nothing otherwise.
fn mark(mut fields: Value, provisional: bool) -> Value {
    if provisional {
        fields["provisional"] = true.into();
    }
    fields
}

fn resumed(file: &FileRef, anew: bool, waits: Option<&str>) -> Value {
    let mut fields = waiting(file_fields(file), waits);
    fields["anew"] = anew.into();
    fields
}

/// Says what a download waits for that cannot begin or go on yet, and nothing otherwise.
fn waiting(mut fields: Value, waits: Option<&str>) -> Value {
    if let Some(waits) = waits {
        fields["activity"] = waits.into();
    }
    fields
}

fn file_fields(file: &FileRef) -> Value {
    json!({ "group": file.group.as_str(), "file": file.file.as_str() })
}

fn peer(row: &PeerRow) -> Value {
    json!({
        "user": row.user.as_str(), "peer": row.peer.to_string(), "address": row.address, "percent": row.percent,
    })
}

/// With what it waits for or is limited by, if that is asked for.
fn download_of(row: &DownloadRow, verbose: bool) -> Value {
    let mut fields = download(row);
    if verbose && let Some(activity) = render::activity(row) {
        fields["activity"] = Value::from(activity);
    }
    fields
}

fn download(row: &DownloadRow) -> Value {
    let mut fields = json!({
        "state": render::letter(&row.state).to_string(),
        "group": row.group.as_str(),
        "file": row.file.as_str(),
        "percent": row.percent(),
        "rate": row.rate,
        "sources": row.sources,
        "path": row.path.to_string_lossy(),
    });
    if let RowState::Failed(error) = &row.state {
        fields["error"] = error.as_str().into();
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_common::tracker_api::{FileEntry, GroupEntry, UserEntry};
    use shoal_common::{FileName, GroupName, PeerId, Sha1, UserName};

    fn parsed(command: &str, output: Output) -> Value {
        let line = result(command, &Ok(output));
        assert!(!line.contains('\n'));
        serde_json::from_str(&line).unwrap()
    }

    fn group() -> GroupName {
        GroupName::create("g").unwrap()
    }

    fn user(name: &str) -> UserName {
        UserName::create(name).unwrap()
    }

    #[test]
    fn results_stand_where_scripts_look_for_them() {
        let entry = |provisional| GroupEntry { name: group(), provisional, owner: user("ann"), member: true };
        assert_eq!(
            parsed("list_groups", Output::Groups(vec![entry(false), entry(true)])),
            json!({ "command": "list_groups", "ok": true, "groups": [
                { "group": "g", "owner": "ann", "member": true },
                { "group": "g", "owner": "ann", "member": true, "provisional": true },
            ] })
        );
        let users = vec![UserEntry { name: user("ann"), provisional: false }];
        assert_eq!(
            parsed("list_members", Output::Members { group: group(), users: users.clone() })["members"],
            json!(["ann"])
        );
        assert_eq!(
            parsed("list_requests", Output::Requests { group: group(), users })["requests"],
            json!(["ann"])
        );
        let file =
            FileEntry { name: FileName::create("f").unwrap(), size: 5, sha1: Sha1([0xab; 20]), sharers: 2 };
        assert_eq!(
            parsed("list_files", Output::Files { group: group(), files: vec![file] })["files"],
            json!([{ "name": "f", "size": 5, "sha1": "ab".repeat(20), "sharers": 2 }])
        );
    }

    #[test]
    fn peers_and_downloads() {
        let file = FileRef { group: group(), file: FileName::create("f").unwrap() };
        let row = |percent| PeerRow {
            user: user("bob"),
            peer: PeerId([1; 32]),
            address: "127.0.0.1:1".into(),
            percent,
        };
        let peers = parsed(
            "show_peers",
            Output::Peers { file: file.clone(), peers: vec![row(Some(100)), row(None)] },
        );
        assert_eq!(peers["peers"][0]["percent"], json!(100));
        assert_eq!(peers["peers"][1]["percent"], Value::Null);
        assert_eq!(peers["peers"][1]["user"], json!("bob"));

        let row = DownloadRow {
            state: RowState::Failed("no space".into()),
            group: file.group,
            file: file.file,
            path: "/tmp/f".into(),
            size: 10,
            verified: 5,
            rate: 7,
            sources: 1,
            eta: None,
            activity: None,
            needs_ticket: false,
            waits_for: None,
            waits: None,
            trouble: None,
        };
        let listed = parsed("show_downloads", Output::Downloads { rows: vec![row], verbose: false });
        assert_eq!(
            listed["downloads"],
            json!([{
                "state": "F", "group": "g", "file": "f", "percent": 50, "rate": 7, "sources": 1, "path": "/tmp/f",
                "error": "no space",
            }])
        );
    }

    #[test]
    fn errors_and_nobody() {
        let line = result("login", &Err("wrong \"password\"".into()));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value, json!({ "command": "login", "ok": false, "error": "wrong \"password\"" }));
        let who = crate::app::WhoAmI {
            user: None,
            provisional: false,
            peer: PeerId([1; 32]),
            address: "127.0.0.1:1".into(),
            tracker: None,
            data_dir: "/d".into(),
        };
        assert_eq!(parsed("whoami", Output::WhoAmI(Box::new(who)))["user"], Value::Null);
        assert_eq!(
            parsed("create_user", Output::UserCreated { user: user("a"), provisional: true })["provisional"],
            json!(true)
        );
        let event: Value = serde_json::from_str(&event(&Event::NoTracker)).unwrap();
        assert_eq!(event, json!({ "event": "no_tracker" }));
    }
}

//! Quotas at a tracker's prompt: shows who has used most of theirs, shows one, and sets one for all trackers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use shoal_common::tracker_api::RefusalKind;
use shoal_common::{Gid, GroupName, Uid, UserName, size_text};

use super::{GROUPS, Limits, NEAR_PERCENT, USERS, number, quota};
use crate::database::{Database, Fault, Tx, refuse};
use crate::names;
use crate::record::{QUOTA, Quota, QuotaOf, delete, put};
use crate::store::{self, GroupUsage, StoreError, Usages, UserUsage};

/// Users, and groups, in the list of those that have used most of their quotas.
const SHOWN: usize = 10;

/// Whose quota, as an operator types it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whose {
    /// Each user's.
    Users,
    /// Each group's.
    Groups,
    /// The user's of that name.
    User(String),
    /// The group's of that name.
    Group(String),
}

/// An operator's command about quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Show the quotas of all, and who has used most.
    Overview,
    /// Show one.
    Show(Whose),
    /// Set the figures of one; `None` takes a figure back.
    Set(Whose, Vec<(Figure, Option<u64>)>),
}

/// One figure of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Figure {
    /// How many files.
    Files,
    /// Bytes of metadata.
    Bytes,
    /// How many groups.
    Groups,
    /// Bytes on the storage nodes.
    Stored,
}

impl Figure {
    fn named(word: &str, whose: &Whose) -> Option<Self> {
        let group = matches!(whose, Whose::Groups | Whose::Group(_));
        match word.to_ascii_lowercase().as_str() {
            "files" => Some(Self::Files),
            "bytes" => Some(Self::Bytes),
            "groups" if !group => Some(Self::Groups),
            "stored" if !group => Some(Self::Stored),
            _ => None,
        }
    }

    fn of(self, quota: &mut Quota) -> &mut Option<u64> {
        match self {
            Self::Files => &mut quota.files,
            Self::Bytes => &mut quota.bytes,
            Self::Groups => &mut quota.groups,
            Self::Stored => &mut quota.stored,
        }
    }
}

/// Reads what stands behind `quota` at the prompt.
///
/// # Errors
/// What to type instead.
pub fn parse(rest: &str) -> Result<Command, String> {
    let words =
        shlex::split(rest).ok_or("a quote is not closed; put names with spaces between two quotes")?;
    let mut words = words.iter().map(String::as_str);
    let usage = "type quota users, quota groups, quota user NAME or quota group NAME; to set it, add files N, bytes SIZE, \
                 groups N or stored SIZE; none is no limit, default takes it back";
    let Some(first) = words.next() else { return Ok(Command::Overview) };
    let whose = match first.to_ascii_lowercase().as_str() {
        "users" => Whose::Users,
        "groups" => Whose::Groups,
        "user" => Whose::User(words.next().ok_or(usage)?.to_owned()),
        "group" => Whose::Group(words.next().ok_or(usage)?.to_owned()),
        _ => return Err(usage.to_owned()),
    };
    let mut figures = Vec::new();
    while let Some(word) = words.next() {
        if word.eq_ignore_ascii_case("default") && figures.is_empty() && words.len() == 0 {
            figures = [Figure::Files, Figure::Bytes, Figure::Groups, Figure::Stored]
                .map(|figure| (figure, None))
                .into();
            break;
        }
        let figure = Figure::named(word, &whose).ok_or(usage)?;
        let value = words.next().ok_or(usage)?;
        let value = match value.to_ascii_lowercase().as_str() {
            "default" => None,
            "none" => Some(u64::MAX),
            _ => Some(shoal_console::size(value).ok_or_else(|| {
                let shown: String = value.chars().filter(|c| !c.is_control()).take(40).collect();
                format!("{shown:?} is not a number; type for example 500, 20K, 100M, 2T, none or default")
            })?),
        };
        figures.push((figure, value));
    }
    Ok(if figures.is_empty() { Command::Show(whose) } else { Command::Set(whose, figures) })
}

/// How many users and groups have used most, or all, of a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct AtQuota {
    /// Near one or at it.
    pub(crate) near: u64,
    /// At one or over it.
    pub(crate) full: u64,
}

/// How much of their quotas users and groups have used.
struct Standings {
    users: Vec<(Uid, UserUsage, u64, Limits)>,
    groups: Vec<(Gid, GroupUsage, Limits)>,
    all: [Limits; 2],
}

impl Standings {
    fn of(usages: Usages) -> Self {
        let Usages { users, groups, mut founded, quotas } = usages;
        let quotas: HashMap<QuotaOf, Quota> = quotas.into_iter().collect();
        let said = |of| quotas.get(&of).copied().unwrap_or_default();
        let all = [USERS.with(said(QuotaOf::Users)), GROUPS.with(said(QuotaOf::Groups))];
        let mut standings: Vec<_> = users
            .into_iter()
            .map(|(user, usage)| (user, usage, founded.remove(&user).unwrap_or(0)))
            .collect();
        standings.extend(founded.into_iter().map(|(user, groups)| (user, UserUsage::default(), groups)));
        let users = standings
            .into_iter()
            .map(|(user, usage, groups)| (user, usage, groups, all[0].with(said(QuotaOf::User(user)))));
        let groups =
            groups.into_iter().map(|(group, usage)| (group, usage, all[1].with(said(QuotaOf::Group(group)))));
        Self { users: users.collect(), groups: groups.collect(), all }
    }
}

/// How much of a quota is used, in percent, by the figure that is used most.
fn percent(figures: &[(u64, u64)]) -> u64 {
    let of = |&(used, most): &(u64, u64)| match most {
        u64::MAX => 0,
        0 => u64::from(used > 0) * 100,
        most => u64::try_from(u128::from(used) * 100 / u128::from(most)).unwrap_or(u64::MAX),
    };
    figures.iter().map(of).max().unwrap_or(0)
}

fn of_user(usage: &UserUsage, groups: u64, limits: &Limits) -> u64 {
    percent(&[
        (usage.files, limits.files),
        (usage.bytes, limits.bytes),
        (groups, limits.groups),
        (usage.stored, limits.stored),
    ])
}

fn of_group(usage: &GroupUsage, limits: &Limits) -> u64 {
    percent(&[(usage.files, limits.files), (usage.bytes, limits.bytes)])
}

/// How many users, and how many groups, are near a quota or at it, by the database of that data directory.
pub(crate) fn at_quota(dir: &Path) -> Result<[AtQuota; 2], StoreError> {
    let standings = Standings::of(store::usages(dir)?);
    let count = |percents: Vec<u64>| AtQuota {
        near: percents.iter().filter(|&&percent| percent >= NEAR_PERCENT).count() as u64,
        full: percents.iter().filter(|&&percent| percent >= 100).count() as u64,
    };
    let users = standings.users.iter().map(|(_, usage, groups, limits)| of_user(usage, *groups, limits));
    let groups = standings.groups.iter().map(|(_, usage, limits)| of_group(usage, limits));
    Ok([count(users.collect()), count(groups.collect())])
}

/// Carries out an operator's command about quotas; returns what to show.
///
/// # Errors
/// In words: there is no user or group of that name, or the database cannot take it.
pub(crate) async fn run(database: &Database, dir: PathBuf, command: Command) -> anyhow::Result<String> {
    let done = match command {
        Command::Overview => {
            let usages = tokio::task::spawn_blocking(move || store::usages(&dir)).await;
            let standings = Standings::of(usages??);
            database.read(move |tx| overview(tx, standings)).await
        }
        Command::Show(whose) => database.read(move |tx| show(tx, &whose)).await,
        Command::Set(whose, figures) => {
            let written = whose.clone();
            let set = database.run(move |tx| set(tx, &written, &figures)).await;
            match set {
                Ok(()) => database.read(move |tx| show(tx, &whose)).await,
                Err(refusal) => Err(refusal),
            }
        }
    };
    Ok(done?)
}

fn overview(tx: &Tx<'_>, standings: Standings) -> Result<String, Fault> {
    let [users, groups] = standings.all;
    // Writing to a string cannot fail.
    let mut text =
        format!("each user   {}\neach group  {}", limits_text(&users, true), limits_text(&groups, false));
    let mut users = standings.users;
    users.sort_by_key(|(_, usage, groups, limits)| std::cmp::Reverse(of_user(usage, *groups, limits)));
    for (user, usage, groups, limits) in users.iter().take(SHOWN) {
        let (name, percent) = (names::user_called(tx, *user)?.name, of_user(usage, *groups, limits));
        let _ = write!(text, "\n{percent:>3} %  user {name}: {}", user_text(usage, *groups));
    }
    let mut groups = standings.groups;
    groups.sort_by_key(|(_, usage, limits)| std::cmp::Reverse(of_group(usage, limits)));
    for (group, usage, limits) in groups.iter().take(SHOWN) {
        let (name, percent) = (names::group_called(tx, *group)?.name, of_group(usage, limits));
        let _ = write!(text, "\n{percent:>3} %  group {name}: {}", group_text(usage));
    }
    Ok(text)
}

/// The user or group that is meant.
fn resolve(tx: &Tx<'_>, whose: &Whose) -> Result<QuotaOf, Fault> {
    let none = |what: &str, name: &str| {
        let shown: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
        refuse(RefusalKind::NotFound, format!("there is no {what} {shown}"))
    };
    match whose {
        Whose::Users => Ok(QuotaOf::Users),
        Whose::Groups => Ok(QuotaOf::Groups),
        Whose::User(name) => {
            let user = UserName::refer(name).ok().map(|name| names::user_named(tx, &name)).transpose()?;
            user.flatten().map(QuotaOf::User).ok_or_else(|| none("user", name))
        }
        Whose::Group(name) => {
            let group = GroupName::refer(name).ok().map(|name| names::group_named(tx, &name)).transpose()?;
            group.flatten().map(QuotaOf::Group).ok_or_else(|| none("group", name))
        }
    }
}

fn show(tx: &Tx<'_>, whose: &Whose) -> Result<String, Fault> {
    let of = resolve(tx, whose)?;
    Ok(match of {
        QuotaOf::Users => format!("each user: {}", limits_text(&USERS.with(quota(tx, of)?), true)),
        QuotaOf::Groups => format!("each group: {}", limits_text(&GROUPS.with(quota(tx, of)?), false)),
        QuotaOf::User(user) => {
            let (usage, founded) = (tx.store().usage(user)?, tx.store().founded(user)?);
            let limits = super::user_limits(tx, user)?;
            let name = names::user_called(tx, user)?.name;
            format!(
                "user {name} has {}\nof {}{}",
                user_text(&usage, founded),
                limits_text(&limits, true),
                own(tx, of)?
            )
        }
        QuotaOf::Group(group) => {
            let (usage, limits) = (tx.store().group_usage(group)?, super::group_limits(tx, group)?);
            let name = names::group_called(tx, group)?.name;
            format!(
                "group {name} has {}\nof {}{}",
                group_text(&usage),
                limits_text(&limits, false),
                own(tx, of)?
            )
        }
    })
}

/// A note on a quota that is not the one of all.
fn own(tx: &Tx<'_>, of: QuotaOf) -> Result<&'static str, Fault> {
    Ok(if quota(tx, of)? == Quota::default() { "" } else { " (set apart; default takes it back)" })
}

fn set(tx: &mut Tx<'_>, whose: &Whose, figures: &[(Figure, Option<u64>)]) -> Result<(), Fault> {
    let of = resolve(tx, whose)?;
    let before = quota(tx, of)?;
    let mut after = before;
    for (figure, value) in figures {
        *figure.of(&mut after) = *value;
    }
    if before == after {
        return Ok(());
    }
    let write =
        if after == Quota::default() { delete(QUOTA, of.key()) } else { put(QUOTA, of.key(), &after) };
    tx.write(vec![write])
}

fn user_text(usage: &UserUsage, groups: u64) -> String {
    let UserUsage { files, bytes, stored } = *usage;
    figures_text(number(files), size_text(bytes), Some((number(groups), size_text(stored))))
}

fn group_text(usage: &GroupUsage) -> String {
    figures_text(number(usage.files), size_text(usage.bytes), None)
}

fn limits_text(limits: &Limits, user: bool) -> String {
    let count = |most| if most == u64::MAX { "any number of".to_owned() } else { number(most) };
    let size = |most| if most == u64::MAX { "any size".to_owned() } else { size_text(most) };
    let of_user = user.then(|| (count(limits.groups), size(limits.stored)));
    figures_text(count(limits.files), size(limits.bytes), of_user)
}

fn figures_text(files: String, bytes: String, of_user: Option<(String, String)>) -> String {
    let mut text = format!("{files} files, {bytes} of metadata");
    if let Some((groups, stored)) = of_user {
        // Writing to a string cannot fail.
        let _ = write!(text, ", {groups} groups founded, {stored} stored");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_read_as_they_are_typed() {
        assert_eq!(parse(""), Ok(Command::Overview));
        assert_eq!(parse("users"), Ok(Command::Show(Whose::Users)));
        assert_eq!(parse("USER 'ann b'"), Ok(Command::Show(Whose::User("ann b".into()))));
        let figures = vec![(Figure::Files, Some(500)), (Figure::Stored, Some(2 << 40))];
        assert_eq!(
            parse("user ann files 500 stored 2T"),
            Ok(Command::Set(Whose::User("ann".into()), figures))
        );
        let figures = vec![(Figure::Bytes, Some(u64::MAX)), (Figure::Files, None)];
        assert_eq!(
            parse("group g bytes none files default"),
            Ok(Command::Set(Whose::Group("g".into()), figures))
        );
        assert!(matches!(parse("groups default"), Ok(Command::Set(Whose::Groups, all)) if all.len() == 4));
        for wrong in
            ["ann", "user", "user ann files", "user ann files x", "group g stored 1G", "groups groups 3"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert!(parse("user 'ann").unwrap_err().contains("quote"));
    }

    #[test]
    fn the_fullest_figure_counts() {
        assert_eq!(percent(&[(1, 100), (50, 100), (u64::MAX, u64::MAX)]), 50);
        assert_eq!(percent(&[(0, 0)]), 0);
        assert_eq!(percent(&[(1, 0)]), 100);
        assert_eq!(percent(&[(u64::MAX, 1)]), u64::MAX);
    }
}

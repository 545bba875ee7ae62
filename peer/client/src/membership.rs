//! Notices who asks to join the user's groups, and that a group which the user asked to join let them in. The trackers report
//! neither by themselves, so they are asked at intervals.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use shoal_common::tracker_api::{Answer, Call, RefusalKind};
use shoal_common::{GroupName, Uid, UserName};
use shoal_session::Who;
use shoal_session::events::Event;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Client;

/// Between two looks: soon enough for two people who talk to each other meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// For how long after a request its answer is looked for at each look. Trackers do not say that a request was rejected; a
/// later answer is seen when the session renews its tickets, every few minutes.
const EXPECTED_WITHIN: Duration = Duration::from_secs(600);
/// When a group of another owner is looked at again: it passes on only when an owner leaves.
const OWNER_EVERY: Duration = Duration::from_secs(300);
/// Groups that are looked at, and joins that are waited for, at most.
const MAX_GROUPS: usize = 32;
/// Requests of one group that are reported at a time, at most; `list_requests` shows all.
const MAX_REPORTED: usize = 10;

/// Groups that a user asked to join on this client, and when.
#[derive(Debug, Default)]
pub(crate) struct Asked(Mutex<BTreeMap<(Uid, GroupName), Instant>>);

impl Asked {
    /// The user asked to join a group.
    pub(crate) fn add(&self, user: Uid, group: GroupName) {
        let mut asked = self.asked();
        if asked.len() < MAX_GROUPS {
            asked.insert((user, group), Instant::now());
        }
    }

    /// Takes out those of which the user is a member now, and those of other users.
    fn take_joined(&self, who: &Who) -> Vec<GroupName> {
        let mut asked = self.asked();
        asked.retain(|(user, _), _| *user == who.user);
        let joined = asked.extract_if(.., |(_, group), _| who.groups.iter().any(|(_, name)| name == group));
        joined.map(|((_, group), _)| group).collect()
    }

    /// Whether an answer may come soon.
    fn is_expecting(&self) -> bool {
        self.asked().values().any(|since| since.elapsed() < EXPECTED_WITHIN)
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<(Uid, GroupName), Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks until the client leaves.
pub(crate) async fn run(client: Client) {
    let mut who = client.0.session.watch_who();
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut user, mut requests) = (None, Requests::default());
    let stop = client.0.stop.clone();
    let looks = async {
        loop {
            let due = tokio::select! {
                _ = ticks.tick() => true,
                changed = who.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
            };
            let now = who.borrow_and_update().clone();
            let is_new = user != now.as_ref().map(|who| who.user);
            if is_new {
                user = now.as_ref().map(|who| who.user);
                requests = Requests::default();
            }
            let Some(now) = now else { continue };
            for group in client.0.asked.take_joined(&now) {
                client.0.events.emit(Event::Joined { group });
            }
            if is_new || due {
                requests.look(&client, &now).await;
            }
            if due && client.0.asked.is_expecting() {
                // With the ticket of a group that let the user in. What it brings is seen as a change, as is what the
                // session's own renewals bring.
                let _ = client.0.session.renew().await;
            }
        }
    };
    stop.run_until_cancelled(looks).await;
}

/// Who asks to join the user's groups, as far as that was reported.
#[derive(Debug, Default)]
struct Requests {
    reported: HashMap<GroupName, BTreeSet<UserName>>,
    /// Groups of other owners, and when to look again.
    others: HashMap<GroupName, Instant>,
}

impl Requests {
    async fn look(&mut self, client: &Client, who: &Who) {
        self.others.retain(|_, again| Instant::now() < *again);
        for (_, group) in who.groups.iter().take(MAX_GROUPS) {
            if self.others.contains_key(group) {
                continue;
            }
            let call = Call::ListRequests { group: group.clone(), after: None };
            match client.0.session.call(call).await {
                Ok(Answer::Users { users, .. }) => {
                    let asking: BTreeSet<UserName> = users.into_iter().map(|user| user.name).collect();
                    let before = self.reported.insert(group.clone(), asking.clone()).unwrap_or_default();
                    for user in asking.difference(&before).take(MAX_REPORTED).cloned() {
                        client.0.events.emit(Event::JoinRequest { group: group.clone(), user });
                    }
                }
                Err(error) if error.refusal() == Some(RefusalKind::NotAllowed) => {
                    self.others.insert(group.clone(), Instant::now() + OWNER_EVERY);
                }
                // No tracker answers now, or the group is gone.
                Ok(_) | Err(_) => {}
            }
        }
    }
}

//! The tracker session against fake trackers on real channels: which tracker is used, what is carried to the next, and
//! how a login outlives trackers, tokens and changes of password.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helper fails its test")]

mod support;

use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use shoal_common::Password;
use shoal_common::tracker_api::{Answer, Call, Completeness, Holding, RefusalKind};
use shoal_common::{Fid, Gid, GroupName, PeerId, RequestId, Uid, UserName};
use shoal_net::Identity;
use shoal_policy::FileKey;
use shoal_session::events::Event;
use shoal_session::{CallError, LoginError};
use support::waiting::PATIENCE;
use support::{Client, Mode, Shared, Tracker, until, within};

fn name(text: &str) -> UserName {
    UserName::create(text).unwrap()
}

fn password(text: &str) -> Password {
    Password::new(text.into())
}

/// Puts on record that the client shares a file.
fn record_share(cluster: &Shared, client: &Client, file: Fid) {
    let mut cluster = cluster.lock().unwrap();
    let user = cluster.accounts[&name("bob")][0].0;
    cluster.library.shares.insert((file, client.tickets.own(), user));
}

fn join() -> Call {
    Call::JoinGroup { request: RequestId::random(), group: GroupName::create("g").unwrap() }
}

/// An address where nothing listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn logged_in(client: &Client) {
    client.session.create_user(name("bob"), password("secret"), None).await.unwrap();
    client.session.login(name("bob"), password("secret")).await.unwrap();
}

#[tokio::test]
async fn the_first_in_the_file_that_answers_is_used() {
    let cluster = Shared::default();
    let (second, third) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let gone = nowhere();
    let mut client = Client::start(&[gone, second.address, third.address]).await;
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok));
    assert_eq!(client.session.tracker(), Some(second.address.to_string()));
    let event = client.event(|event| matches!(event, Event::TrackerLost { .. })).await;
    let Event::TrackerLost { tracker, next, reason } = event else { panic!("{event:?}") };
    assert_eq!((tracker, next), (gone.to_string(), second.address.to_string()));
    assert!(reason.starts_with("refuses connections"), "{reason}");
    assert_eq!(third.count(|_| true), 0);
    client.end().await;
}

#[tokio::test]
async fn a_command_under_way_takes_effect_once_at_the_next_tracker() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let client = Client::start(&[first.address, second.address]).await;
    assert!(client.session.reached(PATIENCE).await);
    first.set(Mode::Mute);
    let request = RequestId::random();
    let call = Call::JoinGroup { request, group: GroupName::create("g").unwrap() };
    let begun = Instant::now();
    assert_eq!(client.session.call(call.clone()).await, Ok(Answer::Ok));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!((first.count(|seen| *seen == call), second.count(|seen| *seen == call)), (1, 1));
    let effects = cluster.lock().unwrap().effects[request.0.as_slice()];
    assert_eq!(effects, 2, "both saw the same request id, by which real trackers tell repetitions");
    client.end().await;
}

#[tokio::test]
async fn a_session_is_resumed_and_everything_announced_anew() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    let key = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
    client.holdings.set(key, Completeness::Complete);
    let holding = Holding { group: key.group, file: key.file, completeness: Completeness::Complete };
    let told = |tracker: &Tracker, reset: bool| {
        let wanted = Call::Announce { reset, holdings: vec![holding] };
        tracker.count(|call| *call == wanted) > 0
    };
    until("it is announced", || told(&first, false) || told(&first, true)).await;
    first.control.shutdown().await;
    until("all is announced anew", || told(&second, true)).await;
    assert_eq!(second.count(|call| matches!(call, Call::Resume { .. })), 1);
    assert_eq!(second.count(|call| matches!(call, Call::Login { .. })), 0, "the token was enough");
    assert_eq!(client.session.who().unwrap().name, name("bob"));
    client.end().await;
}

#[tokio::test]
async fn a_refused_token_leads_to_a_silent_login() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    cluster.lock().unwrap().tokens.clear();
    first.control.shutdown().await;
    until("it logs in again", || second.count(|call| matches!(call, Call::Login { .. })) == 1).await;
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok));
    assert!(client.session.who().is_some());
    client.end().await;
}

#[tokio::test]
async fn a_password_changed_elsewhere_ends_the_session() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let mut client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    let (_, _, account) = shoal_common::credentials::Secrets::create("other").unwrap();
    {
        let mut cluster = cluster.lock().unwrap();
        cluster.tokens.clear();
        cluster.accounts.get_mut(&name("bob")).unwrap()[0].1 = account;
    }
    first.control.shutdown().await;
    let event = client.event(|event| matches!(event, Event::SessionEnded { .. })).await;
    let Event::SessionEnded { reason, .. } = event else { panic!("{event:?}") };
    assert!(reason.contains("changed elsewhere"), "{reason}");
    assert_eq!(client.session.who(), None);
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok), "the connection is there all the same");
    client.end().await;
}

#[tokio::test]
async fn without_any_tracker_a_call_fails_after_15_seconds_and_says_what_was_tried() {
    let gone = [nowhere(), nowhere()];
    let mut client = Client::start(&gone).await;
    let begun = Instant::now();
    let error = client.session.call(join()).await.unwrap_err();
    let took = begun.elapsed();
    assert!((14..20).contains(&took.as_secs()), "{took:?}");
    let text = error.to_string();
    assert!(text.starts_with("no tracker answers: tried "), "{text}");
    assert!(gone.iter().all(|address| text.contains(&address.to_string())), "{text}");
    client.event(|event| *event == Event::NoTracker).await;
    client.end().await;
}

#[tokio::test]
async fn a_name_that_an_earlier_tracker_cannot_read_is_refused_here_and_the_connection_stays() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    logged_in(&client).await;
    let group = GroupName::create("می\u{200c}خواهم").unwrap();
    let call = Call::JoinGroup { request: RequestId::random(), group };
    let text = client.session.call(call).await.unwrap_err().to_string();
    assert!(
        text.contains(&tracker.address.to_string()) && text.contains("ask its operator to update it"),
        "{text}"
    );
    let login = client.session.login(name("👩\u{200d}🚀"), password("secret")).await.unwrap_err().to_string();
    assert!(login.contains("ask its operator to update it"), "{login}");
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok));
    assert_eq!(tracker.count(|call| matches!(call, Call::JoinGroup { .. })), 1);
    assert_eq!(
        tracker.count(|call| matches!(call, Call::Hello { .. })),
        1,
        "the connection is still the first"
    );
    client.end().await;
}

#[tokio::test]
async fn a_tracker_that_comes_back_is_found() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let mut client = Client::start(&[tracker.address]).await;
    logged_in(&client).await;
    tracker.control.shutdown().await;
    client.event(|event| matches!(event, Event::TrackerLost { .. })).await;
    let again = tracker.again(&cluster).await;
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok));
    client.event(|event| matches!(event, Event::TrackerFound { .. })).await;
    assert_eq!(again.count(|call| matches!(call, Call::Resume { .. })), 1);
    client.end().await;
}

#[tokio::test]
async fn a_full_or_babbling_tracker_is_left_for_another() {
    for mode in [Mode::Full, Mode::Babble] {
        let cluster = Shared::default();
        let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
        let client = Client::start(&[first.address, second.address]).await;
        assert!(client.session.reached(PATIENCE).await);
        first.set(mode);
        assert_eq!(client.session.call(join()).await, Ok(Answer::Ok), "{mode:?}");
        assert_eq!(client.session.tracker(), Some(second.address.to_string()), "{mode:?}");
        client.end().await;
    }
}

#[tokio::test]
async fn one_full_tracker_alone_tells_so() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    assert!(client.session.reached(PATIENCE).await);
    tracker.set(Mode::Full);
    let error = client.session.call(join()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalKind::Unavailable));
    assert_eq!(error.to_string(), "the disk is full");
    client.end().await;
}

#[tokio::test]
async fn wrong_passwords_and_lost_names() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    for text in ["first", "second"] {
        client.session.create_user(name("bob"), password(text), None).await.unwrap();
    }
    for wrong in [(name("bob"), "third"), (name("nobody"), "first")] {
        let error = client.session.login(wrong.0, password(wrong.1)).await.unwrap_err();
        let LoginError::Call(CallError::Refused { kind, .. }) = error else { panic!("{error:?}") };
        assert_eq!(kind, RefusalKind::WrongPassword);
    }
    let parked = name("bob").renamed(&[0xab; 16]);
    cluster.lock().unwrap().renamed = Some(parked.clone());
    let who = client.session.login(name("bob"), password("second")).await.unwrap();
    assert_eq!(who.name, parked, "the second claim's password opens the second claim");
    client.end().await;
}

#[tokio::test]
async fn a_change_of_password_survives_the_tracker_that_made_it() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    let wrong = client.session.change_password(Some(password("wrong")), password("new")).await;
    assert!(matches!(wrong, Err(LoginError::OldPassword)), "{wrong:?}");
    let same = client.session.change_password(None, password("secret")).await;
    assert!(matches!(same, Err(LoginError::SamePassword)), "{same:?}");

    // The challenge is answered, the change made, and its answer lost.
    let calls = first.calls.clone();
    let mode = first.mode.clone();
    let muted = tokio::spawn(async move {
        until("a challenge", || {
            calls.lock().unwrap().iter().filter(|call| matches!(call, Call::Challenge { .. })).count() == 2
        })
        .await;
        *mode.lock().unwrap() = Mode::Mute;
    });
    let changed = client.session.change_password(Some(password("secret")), password("new")).await;
    muted.await.unwrap();
    changed.unwrap();
    assert!(client.session.who().is_some());
    client.session.logout().await;
    let again = client.session.login(name("bob"), password("new")).await;
    assert!(again.is_ok(), "{again:?}");
    client.end().await;
}

#[tokio::test]
async fn what_the_trackers_do_not_know_is_reported() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let mut client = Client::start(&[tracker.address]).await;
    logged_in(&client).await;
    let key = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
    let holding = Holding { group: key.group, file: key.file, completeness: Completeness::Complete };
    client.holdings.set(key, Completeness::Complete);
    let unknown = within("what it does not know", client.unknown.recv()).await;
    assert_eq!(unknown, Some(vec![holding]));
    client.end().await;
}

#[tokio::test]
async fn more_than_one_announcement_takes_is_announced_in_several() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    let count = shoal_common::limits::MAX_LIST + 1;
    let fid = |n: usize| Fid((n as u128).to_be_bytes());
    for n in 0..count {
        record_share(&cluster, &client, fid(n));
        client.holdings.set(FileKey { group: Gid([1; 16]), file: fid(n) }, Completeness::Complete);
    }
    let held = || {
        let cluster = cluster.lock().unwrap();
        (0..count).filter(|&n| cluster.library.sharers(fid(n)) == 1).count()
    };
    until("all is announced", || held() == count).await;
    first.control.shutdown().await;
    until("all is announced anew", || second.count(|call| matches!(call, Call::Announce { .. })) > 1).await;
    until("all is announced anew", || held() == count).await;
    client.end().await;
}

#[tokio::test]
async fn what_a_tracker_does_not_take_is_announced_again() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    logged_in(&client).await;
    tracker.set(Mode::Full);
    let key = FileKey { group: Gid([1; 16]), file: Fid([2; 16]) };
    record_share(&cluster, &client, key.file);
    client.holdings.set(key, Completeness::Complete);
    until("it is refused", || tracker.count(|call| matches!(call, Call::Announce { .. })) > 1).await;
    tracker.set(Mode::Answer);
    until("it is announced", || cluster.lock().unwrap().library.sharers(key.file) == 1).await;
    client.end().await;
}

#[tokio::test]
async fn a_ticket_under_an_unknown_key_makes_it_ask_for_the_keys() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    logged_in(&client).await;
    let signer = shoal_net::Identity::generate();
    cluster.lock().unwrap().ticket_keys = vec![signer.peer_id()];
    let presenter = PeerId([9; 32]);
    let ticket = shoal_common::tokens::Ticket {
        user: Uid([1; 16]),
        name: name("ann"),
        peer: presenter,
        group: Gid([1; 16]),
        expires_ms: support::now_ms() + 60_000,
    };
    let token = shoal_common::tokens::seal(&ticket, signer.peer_id(), |message| signer.sign(message));
    let judged = client.tickets.judge_asking(&token, presenter, ticket.group).await;
    assert_eq!(judged.unwrap(), ticket);
    client.end().await;
}

#[tokio::test]
async fn an_impostor_at_a_trackers_address_hears_nothing_and_the_next_tracker_is_used() {
    let cluster = Shared::default();
    let (first, second) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let mut client = Client::start(&[first.address, second.address]).await;
    logged_in(&client).await;
    first.control.shutdown().await;
    client.event(|event| matches!(event, Event::TrackerFound { .. })).await;
    let impostor = Tracker::start_at(first.address, Identity::generate(), &cluster).await;
    second.control.shutdown().await;
    let refused = |event: &Event| matches!(event, Event::TrackerLost { reason, .. } if reason.starts_with("shows another key than before"));
    client.event(refused).await;
    let again = second.again(&cluster).await;
    assert_eq!(client.session.call(join()).await, Ok(Answer::Ok));
    assert_eq!((impostor.count(|_| true), again.count(|call| matches!(call, Call::Resume { .. }))), (0, 1));
    client.end().await;
}

#[tokio::test]
async fn a_tracker_that_the_others_removed_is_left_though_it_does_not_say_so() {
    use shoal_common::tokens::seal;
    use shoal_common::vouching::{ListedTracker, SignedList, TrackerList};
    let cluster = Shared::default();
    let (stolen, good) = (Tracker::start(&cluster).await, Tracker::start(&cluster).await);
    let mut client = Client::start(&[stolen.address, good.address]).await;
    logged_in(&client).await;
    let listed =
        ListedTracker { number: 2, address: good.address.to_string(), key: Some(good.identity.peer_id()) };
    let list = TrackerList { made_ms: support::now_ms(), trackers: vec![listed] };
    let sealed = seal(&list, good.identity.peer_id(), |message| good.identity.sign(message));
    cluster.lock().unwrap().lists.insert(good.identity.peer_id(), vec![SignedList(sealed)]);
    client.event(|event| matches!(event, Event::TrackerFound { .. })).await;
    assert_eq!(client.session.tracker(), Some(good.address.to_string()));
    assert!(client.session.who().is_some());
    client.end().await;
}

#[tokio::test]
async fn the_second_claim_to_a_name_is_tried_first_the_next_time() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let client = Client::start(&[tracker.address]).await;
    for text in ["first", "second"] {
        client.session.create_user(name("bob"), password(text), None).await.unwrap();
    }
    client.session.login(name("bob"), password("second")).await.unwrap();
    client.session.logout().await;
    let logins = || tracker.count(|call| matches!(call, Call::Login { .. }));
    let before = logins();
    client.session.login(name("bob"), password("second")).await.unwrap();
    assert_eq!(logins(), before + 1);
    client.session.logout().await;
    client.session.login(name("bob"), password("first")).await.unwrap();
    client.end().await;
}

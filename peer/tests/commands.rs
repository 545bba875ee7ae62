//! The client without a terminal: typed commands against fake trackers, two clients in one process, real sockets and real
//! files between them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helper fails its test")]

#[path = "../session/tests/support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use shoal_client::wake::{self, Clock, Reading};
use shoal_client::{Client as Shoal, ClientConfig, RowState};
use shoal_common::TrackerInfo;
use shoal_console::data_dir::DataDir;
use shoal_peer::command::{Context, Failure, parse};
use shoal_peer::reply::Reply;
use shoal_peer::screen::{Form, Screen};
use shoal_session::events::Event;
use support::{Shared, Tracker, until, within};
use tempfile::TempDir;
use tokio::sync::broadcast;

/// A client with its folder, and its events since its start.
struct Client {
    app: Shoal,
    events: broadcast::Receiver<Event>,
}

impl Client {
    async fn start(data_dir: &Path, trackers: &[SocketAddr]) -> Self {
        Self::start_with(data_dir, trackers, wake::system_clock()).await
    }

    async fn start_with(data_dir: &Path, trackers: &[SocketAddr], clock: Clock) -> Self {
        let text: Vec<String> = trackers.iter().map(ToString::to_string).collect();
        let config = ClientConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            everywhere: false,
            trackers: TrackerInfo::parse(&text.join("\n")).unwrap(),
            data_dir: DataDir::open(data_dir).unwrap(),
            upload_slots: 4,
            clock,
            mirrors: shoal_http::mirror::Reach::Global,
        };
        let app = Shoal::start(config).await.unwrap();
        Self { events: app.events(), app }
    }

    async fn try_run(&self, line: &str) -> Result<Reply, Failure> {
        let command = parse(line).unwrap().command.unwrap();
        let screen = Screen::new(Form::Json);
        let context = Context { client: self.app.clone(), screen, attended: false, caller: None };
        within("the command", command.run(&context)).await
    }

    async fn run(&self, line: &str) -> String {
        match self.try_run(line).await {
            Ok(output) => output.text,
            Err(error) => panic!("{line}: {error}"),
        }
    }

    async fn fail(&self, line: &str) -> String {
        match self.try_run(line).await {
            Ok(output) => panic!("{line}: {}", output.text),
            Err(error) => error.to_string(),
        }
    }

    async fn event(&mut self, wanted: impl Fn(&Event) -> bool) -> Event {
        support::heard(&mut self.events, wanted).await
    }

    async fn end(self) {
        assert!(self.app.shutdown().await, "all tasks end in time");
    }
}

/// One fake tracker, ann with a group and a file in it, and bob as another member.
struct World {
    cluster: Shared,
    tracker: Tracker,
    folder: TempDir,
    ann: Client,
    bob: Client,
    content: Vec<u8>,
}

impl World {
    async fn new(size: usize) -> Self {
        let cluster = Shared::default();
        let tracker = Tracker::start(&cluster).await;
        let folder = tempfile::tempdir().unwrap();
        let ann = Client::start(&folder.path().join("ann"), &[tracker.address]).await;
        let bob = Client::start(&folder.path().join("bob"), &[tracker.address]).await;
        for (client, name) in [(&ann, "ann"), (&bob, "bob")] {
            client.run(&format!("create_user {name} pw")).await;
            client.run(&format!("login {name} pw")).await;
        }
        ann.run("create_group g").await;
        let mut content = vec![0; size];
        fastrand::Rng::with_seed(size as u64).fill(&mut content);
        std::fs::write(folder.path().join("a file.bin"), &content).unwrap();
        std::fs::create_dir(folder.path().join("in")).unwrap();
        let world = Self { cluster, tracker, folder, ann, bob, content };
        world.let_in("bob");
        world
    }

    fn let_in(&self, name: &str) {
        let mut cluster = self.cluster.lock().unwrap();
        let user = cluster.accounts[&shoal_common::UserName::create(name).unwrap()][0].0;
        cluster.library.add_member("g", user, name);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn upload(&self) -> String {
        self.ann.run(&format!("upload_file '{}' g", self.path("a file.bin").display())).await
    }

    fn download(&self, to: &str) -> String {
        format!("download_file g 'a file.bin' '{}'", self.path(to).display())
    }

    async fn end(self) {
        self.ann.end().await;
        self.bob.end().await;
        self.tracker.control.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_goes_from_one_to_the_other_and_is_shared_by_both() {
    let world = World::new(3_000_000).await;
    let uploaded = world.upload().await;
    assert!(uploaded.starts_with("sharing a file.bin in g (2.8 MiB, SHA-1 "), "{uploaded}");
    assert!(world.bob.run("list_files g").await.ends_with("  1 sharer"));
    world.bob.run(&world.download("in")).await;
    world.bob.run("wait 20").await;
    assert_eq!(std::fs::read(world.path("in/a file.bin")).unwrap(), world.content);
    assert_eq!(world.bob.run("show_downloads").await, "[C] [g] a file.bin");
    assert!(world.bob.run("list_files g").await.ends_with("  2 sharers"));
    let peers = world.ann.run("show_peers g 'a file.bin'").await;
    let (own, others) = peers.split_once('\n').unwrap();
    assert!(own.starts_with("ann  127.0.0.1:") && own.ends_with("  (this client)"), "{peers}");
    assert!(others.starts_with("bob  127.0.0.1:") && others.contains("all of it"), "{peers}");

    world.bob.run("stop_share g 'a file.bin'").await;
    assert!(world.ann.run("list_files g").await.ends_with("  1 sharer"));
    assert!(world.bob.fail("stop_share g 'a file.bin'").await.contains("you do not share"));
    world.bob.run("cancel_download g 'a file.bin'").await;
    assert_eq!(world.bob.run("show_downloads").await, "there are no downloads");
    assert!(world.path("in/a file.bin").exists(), "a finished file stays");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn destinations_are_looked_at_before_anything_begins() {
    let world = World::new(100_000).await;
    world.upload().await;
    std::fs::write(world.path("other"), b"something else").unwrap();
    let error = world.bob.fail(&world.download("other")).await;
    assert!(error.contains("is a different file") && error.contains("--overwrite"), "{error}");
    let error = world.bob.fail(&world.download("no/such/folder")).await;
    assert!(error.contains("is not a folder"), "{error}");
    assert!(world.bob.fail("download_file g missing /tmp").await.contains("no such file"));
    assert_eq!(world.bob.run("show_downloads").await, "there are no downloads");

    std::fs::write(world.path("same"), &world.content).unwrap();
    assert!(world.bob.run(&world.download("same")).await.contains("is there already"));
    assert_eq!(world.bob.run("show_downloads").await, "[C] [g] a file.bin");
    assert!(world.ann.run("list_files g").await.ends_with("  2 sharers"));

    // One place is what is shared of it.
    let again = world.bob.run(&world.download("elsewhere")).await;
    assert!(again.ends_with(&format!("is there already, at {}", world.path("same").display())), "{again}");
    assert!(!world.path("elsewhere").exists());
    world.bob.run("stop_share g 'a file.bin'").await;
    world.bob.run(&format!("{} --overwrite", world.download("other"))).await;
    world.bob.run("wait 20").await;
    assert_eq!(std::fs::read(world.path("other")).unwrap(), world.content);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_without_a_sharer_waits_and_goes_on_over_pause_logout_and_restart() {
    let mut world = World::new(2_000_000).await;
    world.upload().await;
    world.ann.run("logout").await;
    let begun = world.bob.run(&world.download("in")).await;
    assert!(begun.contains("nobody shares it at present; waiting for a sharer"), "{begun}");
    assert_eq!(world.bob.run("show_downloads").await, "[D] [g] a file.bin");
    assert!(world.bob.fail(&world.download("in")).await.contains("being downloaded already"));
    assert!(world.bob.fail("wait 0.1").await.starts_with("1 download still running"));
    assert!(world.bob.fail("resume_download g 'a file.bin'").await.contains("is running"));
    world.bob.run("pause_download g 'a file.bin'").await;
    assert_eq!(world.bob.run("show_downloads").await, "[P] [g] a file.bin");
    assert!(world.bob.fail("pause_download g 'a file.bin'").await.contains("paused already"));

    // A pause lasts over sessions; a download that ran goes on.
    world.bob.run("logout").await;
    world.bob.run("login bob pw").await;
    assert_eq!(world.bob.run("show_downloads").await, "[P] [g] a file.bin");
    world.bob.run("resume_download g 'a file.bin'").await;
    let folder = world.path("bob");
    world.bob.end().await;
    world.bob = Client::start(&folder, &[world.tracker.address]).await;
    assert!(world.bob.run("login bob pw").await.ends_with("going on with 1 download"));
    world.bob.event(|event| matches!(event, Event::Waiting { .. })).await;
    assert!(world.ann.run("login ann pw").await.ends_with("sharing 1 file"));
    world.bob.event(|event| matches!(event, Event::Complete { .. })).await;
    assert_eq!(std::fs::read(world.path("in/a file.bin")).unwrap(), world.content);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_nothing_and_stop_share_during_a_download_holds() {
    let world = World::new(2_000_000).await;
    world.upload().await;
    world.bob.run("limit down 100K").await;
    world.bob.run(&world.download("in")).await;
    world.bob.run("cancel_download g 'a file.bin'").await;
    assert_eq!(std::fs::read_dir(world.path("in")).unwrap().count(), 0);
    assert_eq!(world.bob.run("show_downloads").await, "there are no downloads");

    world.bob.run(&world.download("in")).await;
    world.bob.run("stop_share g 'a file.bin'").await;
    world.bob.run("limit down 0").await;
    world.bob.run("wait 20").await;
    assert_eq!(world.bob.run("show_downloads").await, "[C] [g] a file.bin");
    assert!(
        world.ann.run("list_files g").await.ends_with("  1 sharer"),
        "completion does not share it again"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_gone_or_changed_are_not_shared_again() {
    let mut world = World::new(100_000).await;
    world.upload().await;
    world.ann.run("logout").await;
    // Touched, and the same all the same.
    std::fs::write(world.path("a file.bin"), &world.content).unwrap();
    world.ann.run("login ann pw").await;
    until("it is shared again", || world.cluster.lock().unwrap().library.sharers_of("a file.bin") == 1).await;
    world.ann.run("logout").await;
    // Another content of the same size.
    std::fs::write(world.path("a file.bin"), vec![1; 100_000]).unwrap();
    world.ann.run("login ann pw").await;
    world.ann.event(|event| matches!(event, Event::ShareLost { .. })).await;
    world.ann.run("logout").await;
    std::fs::write(world.path("a file.bin"), b"changed").unwrap();
    assert_eq!(world.ann.run("login ann pw").await, "logged in as ann");
    let event = world.ann.event(|event| matches!(event, Event::ShareLost { .. })).await;
    assert!(event.to_string().contains("changed since it was shared"), "{event:?}");
    assert!(world.bob.run("list_files g").await.ends_with("nobody shares it at present"));
    world.ann.run("logout").await;
    std::fs::remove_file(world.path("a file.bin")).unwrap();
    world.ann.run("login ann pw").await;
    let event = world.ann.event(|event| matches!(event, Event::ShareLost { .. })).await;
    assert!(event.to_string().contains("it is not there any more"), "{event:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_trackers_forgot_is_shared_again_and_members_that_left_forget() {
    let mut world = World::new(100_000).await;
    world.upload().await;
    world.cluster.lock().unwrap().library.forget_shares();
    world.tracker.control.shutdown().await;
    world.tracker = world.tracker.again(&world.cluster).await;
    until("it is listed again", || world.cluster.lock().unwrap().library.sharers_of("a file.bin") == 1).await;

    world.ann.event(|event| matches!(event, Event::TrackerFound { .. })).await;
    assert_eq!(world.ann.run("leave_group g").await, "left g");
    assert!(world.ann.fail("list_files g").await.contains("not a member"));
    until("her share is withdrawn", || world.cluster.lock().unwrap().library.sharers_of("a file.bin") == 0)
        .await;
    let begun = world.bob.run(&world.download("in")).await;
    assert!(begun.contains("nobody shares it"), "{begun}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_share_is_not_downloaded_again_and_no_download_of_it_ends_it() {
    let mut world = World::new(1_000_000).await;
    world.upload().await;
    let there = world.path("a file.bin");
    let again = world.ann.run(&world.download("in")).await;
    assert!(again.ends_with(&format!("is there already, at {}", there.display())), "{again}");
    assert_eq!(world.ann.run("show_downloads").await, "[C] [g] a file.bin");
    world.ann.run("cancel_download g 'a file.bin'").await;
    let sharers = || world.cluster.lock().unwrap().library.sharers_of("a file.bin");
    assert_eq!(sharers(), 1);

    // Its drive is out: she downloads it again, and the drive is back before anybody delivers.
    let aside = world.path("aside");
    std::fs::rename(&there, &aside).unwrap();
    world.ann.event(|event| matches!(event, Event::ShareLost { .. })).await;
    world.ann.run(&world.download("in")).await;
    std::fs::rename(&aside, &there).unwrap();
    until("it is shared again", || sharers() == 1).await;
    world.ann.run("cancel_download g 'a file.bin'").await;
    assert_eq!(sharers(), 1);
    world.bob.run(&world.download("bobs")).await;
    world.bob.run("wait 20").await;
    assert_eq!(std::fs::read(world.path("bobs")).unwrap(), world.content);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_waits_is_resumed_though_the_store_takes_nothing() {
    let mut world = World::new(1_000_000).await;
    world.upload().await;
    world.ann.run("logout").await;
    world.bob.run(&world.download("in")).await;
    world.bob.run("pause_download g 'a file.bin'").await;
    std::fs::rename(world.path("in"), world.path("away")).unwrap();
    let resumed = world.bob.run("resume_download g 'a file.bin'").await;
    assert!(resumed.contains("is not there; mount its drive"), "{resumed}");
    let store = rusqlite::Connection::open(world.path("bob/client.db")).unwrap();
    store.execute_batch("begin immediate").unwrap();
    let resumed = world.bob.run("resume_download g 'a file.bin'").await;
    assert!(resumed.contains("is not there; mount its drive"), "{resumed}");
    store.execute_batch("rollback").unwrap();
    std::fs::rename(world.path("away"), world.path("in")).unwrap();
    world.ann.run("login ann pw").await;
    world.bob.event(|event| matches!(event, Event::Complete { .. })).await;
    assert_eq!(std::fs::read(world.path("in/a file.bin")).unwrap(), world.content);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_the_trackers_do_not_know_is_announced_once_they_do() {
    let mut world = World::new(2_000_000).await;
    world.upload().await;
    world.bob.run("limit down 300K").await;
    world.bob.run(&world.download("in")).await;
    let some = |file| world.cluster.lock().unwrap().library.holds_a_part(file);
    until("a part is there", || world.bob.app.downloads()[0].verified > 0).await;
    // The trackers lose the file before ann, who has it, shares it again.
    let file = {
        let mut cluster = world.cluster.lock().unwrap();
        cluster.library.forget_shares();
        cluster.library.forget_file("a file.bin")
    };
    world.bob.run("limit down 1K").await;
    world.tracker.control.shutdown().await;
    world.tracker = world.tracker.again(&world.cluster).await;
    until("the part is listed again", || some(file)).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_who_loses_membership_loses_the_download() {
    let mut world = World::new(100_000).await;
    world.upload().await;
    world.ann.run("logout").await;
    world.bob.run(&world.download("in")).await;
    world.bob.run("leave_group g").await;
    let event = world.bob.event(|event| matches!(event, Event::Failed { .. })).await;
    assert!(event.to_string().contains("not a member"), "{event:?}");
    let rows = world.bob.app.downloads();
    assert!(matches!(rows[0].state, RowState::Failed(_)), "{rows:?}");
    let error = world.bob.fail("wait").await;
    assert!(error.starts_with("failed: a file.bin of g"), "{error}");
    world.bob.run("wait").await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_session_few_commands_work() {
    let world = World::new(1).await;
    assert!(world.ann.fail("login bob pw").await.contains("ann is logged in; log out first"));
    world.ann.run("logout").await;
    for line in [
        "list_files g",
        "show_downloads",
        "logout",
        "upload_file x g",
        "wait",
        "limit up 1",
        "list_members g",
    ] {
        assert!(world.ann.fail(line).await.starts_with("log in first"), "{line}");
    }
    for line in ["help", "whoami", "list_groups"] {
        world.ann.run(line).await;
    }
    assert!(world.ann.fail("login ann").await.contains("SHOAL_PASSWORD"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_sharer_learns_it_and_what_cannot_be_shared_is_refused() {
    let mut world = World::new(0).await;
    world.upload().await;
    for (line, expected) in [
        (format!("upload_file '{}' g", world.folder.path().display()), "of an earlier version"),
        (format!("upload_file '{}' g", world.path("missing").display()), "cannot read"),
        (format!("upload_file '{}' h", world.path("a file.bin").display()), "not a member"),
        (
            format!("upload_file '{}' g --mirror ftp://x/", world.path("a file.bin").display()),
            "mirrors must be",
        ),
    ] {
        let error = world.ann.fail(&line).await;
        assert!(error.contains(expected), "{line}: {error}");
    }
    world.ann.run("logout").await;
    let event = world.ann.event(|event| matches!(event, Event::LastSharer { .. })).await;
    assert!(event.to_string().contains("you are the only one who shares a file.bin"));
    assert!(tokio::time::timeout(Duration::from_secs(5), world.ann.app.idle()).await.is_ok());
    world.end().await;
}

#[tokio::test]
async fn after_a_sleep_of_the_machine_the_tracker_is_reconnected() {
    let cluster = Shared::default();
    let tracker = Tracker::start(&cluster).await;
    let folder = tempfile::tempdir().unwrap();
    let asleep = Arc::new(AtomicU64::new(0));
    let slept = asleep.clone();
    let clock: Clock = Arc::new(move || {
        // Nothing but the sleep is to be noticed, however busy the machine that tests.
        Reading { monotonic: Duration::ZERO, boot: Duration::from_secs(slept.load(Ordering::Relaxed)) }
    });
    let mut ann = Client::start_with(&folder.path().join("ann"), &[tracker.address], clock).await;
    ann.run("create_user ann pw").await;
    ann.run("login ann pw").await;
    asleep.store(45, Ordering::Relaxed);
    let lost = ann.event(|event| matches!(event, Event::TrackerLost { .. })).await;
    assert!(matches!(&lost, Event::TrackerLost { reason, .. } if reason.contains("asleep")), "{lost:?}");
    ann.event(|event| matches!(event, Event::TrackerFound { .. })).await;
    assert!(ann.run("whoami").await.contains("ann"), "the session goes on");
    ann.end().await;
}

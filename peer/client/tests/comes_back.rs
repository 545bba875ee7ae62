//! Holders that are killed, hang, stop sharing, move and come back, over real sockets: while they are named and answer,
//! they are in use, and pieces come.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected has failed")]

#[path = "../../swarm/tests/swarm/support.rs"]
#[allow(dead_code, reason = "its other half serves the tests of the swarm")]
mod support;
#[path = "../../session/tests/support/waiting.rs"]
mod waiting;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shoal_client::Sources;
use shoal_common::tracker_api::{Completeness, Holder};
use shoal_common::{Layout, TrackerInfo, UserName};
use shoal_engine::Content;
use shoal_session::ways::Ways;
use shoal_swarm::{Liveness, Swarm, SwarmConfig, Trouble};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use support::{Fetching, KEY, Member, file, until, within};

/// Replays one world: `SHOAL_SEED=n cargo test -p shoal-client --test comes_back random_holders`.
const SEED: &str = "SHOAL_SEED";
/// Worlds at once; each takes about half a minute.
const WORLDS: u64 = 4;
/// What happens in each.
const EVENTS: usize = 5;
/// The rule's 5 s, and what a busy machine needs.
const WITHIN: Duration = Duration::from_secs(10);

/// Lets connections through to a holder, or holds them up without a word, as one that hangs does.
struct Passage {
    address: SocketAddr,
    open: watch::Sender<bool>,
    task: AbortHandle,
}

impl Passage {
    async fn to(holder: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let open = watch::Sender::new(true);
        let gate = open.subscribe();
        let task = tokio::spawn(async move {
            let mut passing = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                let mut gate = gate.clone();
                passing.spawn(async move {
                    let _ = gate.wait_for(|open| *open).await;
                    let Ok(far) = TcpStream::connect(holder).await else { return };
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::select! {
                        () = pass(near_in, far_out, gate.clone()) => {}
                        () = pass(far_in, near_out, gate) => {}
                    }
                });
            }
        });
        Self { address, open, task: task.abort_handle() }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut gate: watch::Receiver<bool>,
) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count) = from.read(&mut buffer).await {
        let _ = gate.wait_for(|open| *open).await;
        if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// A holder of a file, which can be away in every way.
struct Ann {
    member: Member,
    passage: Passage,
    layout: Layout,
}

impl Ann {
    async fn new(bytes: &[u8], content: &Content) -> Self {
        let member = Member::new().await;
        let layout = content.layout().clone();
        member.share(bytes, layout.clone());
        member.swarm.set_upload_limit(Some(300 << 10));
        let passage = Passage::to(member.address()).await;
        Self { member, passage, layout }
    }

    fn holder(&self) -> Holder {
        let user = UserName::create("ann").unwrap();
        let address = self.passage.address.to_string();
        Holder {
            peer: self.member.id(),
            address,
            user,
            completeness: Completeness::Complete,
            unproven: None,
            lan: None,
            reached: None,
        }
    }

    async fn kill(&mut self) {
        self.member.swarm.shutdown().await;
    }

    /// Back with the same key, behind the same address or another.
    async fn start(&mut self, elsewhere: bool) {
        let listen = if elsewhere { "127.0.0.1:0".parse().unwrap() } else { self.member.address() };
        let config = SwarmConfig { identity: self.member.identity.clone(), listen, upload_slots: 4 };
        self.member.swarm = Swarm::start(config, self.member.book.clone()).await.unwrap();
        self.member.swarm.set_upload_limit(Some(300 << 10));
        if elsewhere {
            self.passage = Passage::to(self.member.address()).await;
        }
        self.share();
    }

    fn share(&self) {
        self.member.share_at(&self.member.folder.path().join("shared"), self.layout.clone());
    }
}

/// What the trackers answer to downloaders.
type Named = Arc<Mutex<Vec<Holder>>>;

/// Feeds a download with what is named, as a client does, until it is dropped.
fn feed(
    leecher: &Member,
    layout: Layout,
    fetching: &Fetching,
    named: Named,
) -> (JoinSet<()>, watch::Receiver<Option<String>>) {
    let ways = Ways::new(leecher.id(), TrackerInfo::parse("127.0.0.1:1\n").unwrap());
    let mut sources = Sources::new(leecher.swarm.clone(), ways, KEY, layout);
    let changes = fetching.sources.clone();
    let mut progress = fetching.download.progress();
    let (published, waits_for) = watch::channel(None);
    let mut feeding = JoinSet::new();
    feeding.spawn(async move {
        let mut next = Instant::now();
        loop {
            if next <= Instant::now() {
                next = Instant::now() + Duration::from_secs(1);
                sources.offered(named.lock().unwrap().clone());
            }
            let now = progress.borrow_and_update().clone();
            for change in sources.choose(&now) {
                // A download that does not listen any more has ended.
                let _ = changes.send(change).await;
            }
            published.send_replace(sources.waits_for());
            tokio::select! {
                seen = sources.changed() => assert_eq!(sources.take(seen), None, "nobody lies"),
                changed = progress.changed() => if changed.is_err() { return },
            }
        }
    });
    (feeding, waits_for)
}

/// A download of which pieces come whenever its holder is there.
struct World {
    ann: Ann,
    leecher: Member,
    fetching: Fetching,
    named: Named,
    log: Vec<String>,
    _feeding: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let (bytes, content) = file(24 << 20);
        let (ann, leecher) = (Ann::new(&bytes, &content).await, Member::new().await);
        let fetching = leecher.download(&content, &[]).await;
        let named: Named = Arc::new(Mutex::new(vec![ann.holder()]));
        let (feeding, _) = feed(&leecher, content.layout().clone(), &fetching, named.clone());
        Self { ann, leecher, fetching, named, log: Vec::new(), _feeding: feeding }
    }

    fn name(&self, named: bool) {
        *self.named.lock().unwrap() = if named { vec![self.ann.holder()] } else { vec![] };
    }

    /// One event, from which the holder is back at the end.
    async fn happen(&mut self, rng: &mut fastrand::Rng) {
        let away = [100, 3_000, 12_000][rng.usize(..3)];
        let (named, elsewhere) = (rng.bool(), rng.bool());
        let what = ["killed", "not sharing", "hanging", "not named", "asleep"][rng.usize(..5)];
        self.log.push(format!("{what} for {away} ms, named: {named}, elsewhere: {elsewhere}"));
        self.name(named);
        match what {
            "killed" => {
                self.ann.kill().await;
                pass_time(away).await;
                self.ann.start(elsewhere).await;
            }
            "not sharing" => {
                self.ann.member.swarm.stop(KEY);
                pass_time(away).await;
                self.ann.share();
            }
            "hanging" => {
                self.ann.passage.open.send_replace(false);
                pass_time(away).await;
                self.ann.passage.open.send_replace(true);
            }
            "not named" => pass_time(away).await,
            _ => self.leecher.swarm.redial(),
        }
        self.name(true);
    }

    /// Pieces come within the rule's time.
    async fn must_go_on(&self) {
        let mut progress = self.fetching.download.progress();
        let before = progress.borrow().verified_bytes;
        let moved = progress.wait_for(|progress| progress.verified_bytes > before + 200_000);
        let waited = tokio::time::timeout(WITHIN, moved).await;
        assert!(waited.is_ok(), "nothing came for {WITHIN:?} after: {}", self.log.join("; "));
    }
}

/// Being away takes time: that is what is tested.
async fn pass_time(milliseconds: u64) {
    tokio::time::sleep(Duration::from_millis(milliseconds)).await;
}

/// Says how to replay a world that failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "replay: {SEED}={} cargo test -p shoal-client --test comes_back random_holders",
                self.0
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_holders_that_come_back_are_used_again() {
    let replayed = std::env::var(SEED).ok().and_then(|seed| seed.parse().ok());
    let seeds = replayed.map_or(0..WORLDS, |seed: u64| seed..seed + 1);
    let mut worlds = JoinSet::new();
    for seed in seeds {
        worlds.spawn(async move {
            let _replay = Replay(seed);
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut world = World::new().await;
            world.must_go_on().await;
            for _ in 0..EVENTS {
                world.happen(&mut rng).await;
                world.must_go_on().await;
            }
        });
    }
    while let Some(world) = worlds.join_next().await {
        world.unwrap();
    }
}

#[tokio::test]
async fn a_seeder_that_comes_back_is_used_again() {
    let mut world = World::new().await;
    world.must_go_on().await;
    world.ann.kill().await;
    world.ann.start(false).await;
    world.must_go_on().await;
}

#[tokio::test]
async fn how_a_source_stands_can_be_watched_and_whoever_waits_says_for_what() {
    let (bytes, content) = file(24 << 20);
    let (mut ann, leecher) = (Ann::new(&bytes, &content).await, Member::new().await);
    let mut liveness = leecher.source(&ann.member, ann.layout.clone()).liveness();
    // Dropped at once: that is the end of it.
    let gone = |now: &Liveness| matches!(now, Liveness::Gone { .. });
    within("the end of a dropped source", liveness.wait_for(gone)).await.unwrap();

    let source = leecher.source(&ann.member, ann.layout.clone());
    let mut liveness = source.liveness();
    within("the opening", liveness.wait_for(|now| *now == Liveness::Open)).await.unwrap();
    ann.member.swarm.stop(KEY);
    // Nobody asks it for a piece.
    let end = within("the end", liveness.wait_for(gone)).await.unwrap().clone();
    let reason = "does not share the file any more".into();
    assert_eq!(end, Liveness::Gone { reason, trouble: Trouble::NotShared });
    drop(source);

    let fetching = leecher.download(&content, &[]).await;
    let named = Arc::new(Mutex::new(vec![ann.holder()]));
    let (_feeding, waits_for) = feed(&leecher, ann.layout.clone(), &fetching, named);
    let says = |what: &str| waits_for.borrow().as_deref().is_some_and(|words| words.starts_with(what));
    until("what is waited for", || says("ann does not share the file any more; tried again in ")).await;
    ann.kill().await;
    until("what is waited for", || says("ann is lost (") || says("ann cannot be reached at ")).await;
    ann.start(false).await;
    until("pieces", || fetching.download.progress().borrow().fetched_bytes > 0).await;
    assert_eq!(waits_for.borrow().clone(), None);
}

#[tokio::test]
async fn a_holder_that_moved_is_found_at_its_new_address_at_once() {
    let mut world = World::new().await;
    world.must_go_on().await;
    // The old address goes on taking connections, and leads nowhere.
    let deaf = std::mem::replace(&mut world.ann.passage, Passage::to("127.0.0.1:1".parse().unwrap()).await);
    deaf.open.send_replace(false);
    world.ann.kill().await;
    world.ann.start(true).await;
    world.name(true);
    world.must_go_on().await;
}

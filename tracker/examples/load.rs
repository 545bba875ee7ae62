//! Loads real `tracker` processes on loopback and prints what they bear: `scripts/bench tracker`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that goes wrong stops"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_common::credentials::{Account, Secrets};
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, Completeness, FromTracker, Holding, Reply, ToTracker,
};
use shoal_common::{
    Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Manifest, PeerId, RequestId, Sha1, Uid,
    UserName,
};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Protocol};
use shoal_replica::{Bounds, Config, Now, Replica, TrackerNo, Write, WriterId};
use shoal_tracker::record::{self, Membership, Share, Standing, encode};
use shoal_tracker::status::Report;
use shoal_tracker::store::Store;
use shoal_tracker::{clock, reporter};

/// Connections that press at once.
const CONNECTIONS: usize = 64;
/// Kernel ticks per second of `/proc/PID/stat`, on every Linux of today.
const TICKS: f64 = 100.0;

/// A tracker's process, ended with its handle.
struct Tracker {
    child: Child,
    port: u16,
}

impl Drop for Tracker {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tracker {
    fn start(binary: &Path, dir: &Path, ports: &[u16], number: usize) -> Self {
        let info = dir.join("tracker_info.txt");
        let lines: Vec<String> = ports.iter().map(|port| format!("127.0.0.1 {port}\n")).collect();
        std::fs::write(&info, lines.concat()).unwrap();
        let child = Command::new(binary)
            .arg(info)
            .arg(number.to_string())
            .arg("--data-dir")
            .arg(dir.join(number.to_string()))
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(dir.join(format!("log-{number}"))).unwrap())
            .spawn()
            .unwrap();
        Self { child, port: ports[number - 1] }
    }

    fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
    }

    fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    async fn report(&self) -> Option<Report> {
        reporter::ask(&format!("127.0.0.1:{}", self.port)).await.ok()
    }

    async fn when(&self, condition: impl Fn(&Report) -> bool) -> Duration {
        let began = Instant::now();
        loop {
            if self.report().await.is_some_and(|report| condition(&report)) {
                return began.elapsed();
            }
            // A report of a million records costs a tracker time itself.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// One connection that is logged in.
struct Client {
    identity: Identity,
    channel: Channel,
    tracker: shoal_common::PeerId,
    user: Uid,
    name: UserName,
    secrets: Arc<(Secrets, shoal_common::credentials::Account)>,
    calls: u32,
    _control: Control,
}

impl Client {
    async fn enter(
        port: u16,
        name: String,
        secrets: Arc<(Secrets, shoal_common::credentials::Account)>,
    ) -> Self {
        let identity = Identity::generate();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: None,
            protocols: vec![],
            limits: ControlLimits::default(),
        };
        let (control, _) = Control::start(config).await.unwrap();
        let tracker = control.dial("127.0.0.1", port, None).await.unwrap();
        let mut channel = control.open(tracker, Protocol(CLIENT_PROTOCOL)).await.unwrap();
        channel.set_limit(MAX_CLIENT_MESSAGE);
        let name = UserName::create(&name).unwrap();
        let user = Uid([0; 16]);
        let mut client =
            Self { identity, channel, tracker, user, name, secrets, calls: 0, _control: control };
        client.call(Call::Hello { listen: "127.0.0.1:7777".into(), revision: None }).await;
        let (user, call) = Call::create_user(client.name.clone(), client.secrets.1.clone());
        client.user = user;
        client.call(call).await;
        client.login().await;
        client
    }

    async fn login(&mut self) {
        let name = self.name.clone();
        let answer = self.call(Call::Challenge { name: name.clone(), candidate: 0 }).await;
        let Answer::Challenge { challenge, .. } = answer else { panic!("{answer:?}") };
        let signature = self.secrets.0.answer(&challenge, self.identity.peer_id(), self.tracker);
        self.call(Call::Login { name, candidate: 0, signature }).await;
    }

    async fn call(&mut self, body: Call) -> Answer {
        self.calls += 1;
        let message = minicbor::to_vec(ToTracker { call: self.calls, body }).unwrap();
        self.channel.send(&message).await.unwrap();
        let answer = self.channel.recv().await.unwrap().unwrap();
        match minicbor::decode::<FromTracker>(&answer).unwrap().body {
            Reply::Done(answer) => answer,
            Reply::Refused(refusal) => panic!("refused: {}", refusal.text),
        }
    }

    /// Founds a group: a claim, a membership, and a vote of each tracker.
    async fn found(&mut self) {
        let name = GroupName::create(&Gid::random().to_string()).unwrap();
        self.call(Call::create_group(self.user, name).1).await;
    }
}

/// What all connections do over and over.
#[derive(Clone, Copy)]
enum Job {
    /// One record a call.
    Share(Gid, Fid),
    Found,
    Login,
    Announce(Gid, Fid),
    Holders(Gid, Fid),
}

/// Calls per second, from all connections for `time`.
async fn press(clients: Vec<Client>, job: Job, time: Duration) -> (f64, Vec<Client>) {
    let (done, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + time);
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let mut completeness = Completeness::Some;
                while Instant::now() < end {
                    match job {
                        Job::Found => client.found().await,
                        Job::Share(group, file) => {
                            let request = RequestId::random();
                            completeness = if completeness == Completeness::Some {
                                Completeness::None
                            } else {
                                Completeness::Some
                            };
                            client
                                .call(match completeness {
                                    Completeness::None => Call::ShareKnown { request, group, file },
                                    _ => Call::StopShare { request, group, file },
                                })
                                .await;
                        }
                        Job::Login => {
                            client.call(Call::Logout).await;
                            client.login().await;
                        }
                        Job::Announce(group, file) => {
                            completeness = if completeness == Completeness::Some {
                                Completeness::None
                            } else {
                                Completeness::Some
                            };
                            let holdings = vec![Holding { group, file, completeness }];
                            client.call(Call::Announce { reset: false, holdings }).await;
                        }
                        Job::Holders(group, file) => drop(client.call(Call::Holders { group, file }).await),
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                client
            })
        })
        .collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await.unwrap());
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
    let rate = done.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    (rate, clients)
}

/// A group of which all are members, and a file in it.
async fn common_file(clients: &mut [Client]) -> (Gid, Fid) {
    let name = GroupName::create("bench").unwrap();
    let (owner, others) = clients.split_first_mut().unwrap();
    owner.call(Call::create_group(owner.user, name.clone()).1).await;
    for other in others {
        let request = RequestId::random();
        other.call(Call::JoinGroup { request, group: name.clone() }).await;
        let (request, user) = (RequestId::random(), other.name.clone());
        owner.call(Call::Decide { request, group: name.clone(), user, accept: true }).await;
    }
    let digest = FileDigest { sha1: Sha1([1; 20]), blake3: Blake3([1; 32]) };
    let file = FileName::create("file").unwrap();
    let layout = Layout::for_size(100_000).unwrap();
    let (manifest, piece_list) = Manifest::new(file, layout, &[Sha1([1; 20]); 2], digest, vec![]);
    let call = Call::Share { request: RequestId::random(), group: name, manifest, piece_list };
    let Answer::Shared { group, file } = owner.call(call).await else { panic!("not shared") };
    (group, file)
}

async fn connections(port: u16) -> Vec<Client> {
    let (secrets, _, account) = Secrets::create("secret").unwrap();
    let secrets = Arc::new((secrets, account));
    let mut clients = Vec::new();
    for number in 0..CONNECTIONS {
        clients.push(Client::enter(port, format!("user{number}"), Arc::clone(&secrets)).await);
    }
    clients
}

/// What is measured, and how.
struct Plan {
    binary: PathBuf,
    time: Duration,
    /// The only part that is wanted, if not all are.
    only: Option<String>,
    records: usize,
}

impl Plan {
    fn wants(&self, part: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == part)
    }
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().expect("the tracker's binary"));
    let seconds = arguments.next().map_or(5, |seconds| seconds.parse().expect("seconds a measurement"));
    let only = arguments.next();
    let records =
        arguments.next().map_or(1_000_000, |records| records.parse().expect("records to catch up with"));
    let plan = Plan { binary, time: Duration::from_secs(seconds), only, records };
    println!("{CONNECTIONS} connections, {seconds} s each; the load generator runs on the same cores");
    if ["logins", "presence", "look-ups"].into_iter().any(|part| plan.wants(part)) {
        alone(&plan).await;
    }
    if plan.wants("writes") {
        for count in 1..=3 {
            writes(&plan, count).await;
        }
    }
    if plan.wants("records") {
        many_records(&plan).await;
    }
}

/// Trackers of a cluster of their own, in step.
async fn cluster(plan: &Plan, dir: &Path, count: usize) -> Vec<Tracker> {
    let ports = shoal_tests::free_ports(count);
    let trackers: Vec<Tracker> =
        (1..=count).map(|number| Tracker::start(&plan.binary, dir, &ports, number)).collect();
    trackers[0].when(|report| report.members.iter().filter(|m| m.in_sync).count() == count).await;
    trackers
}

/// Calls of all connections, and how much of the trackers' CPU time they took.
async fn measure(
    plan: &Plan,
    trackers: &[Tracker],
    clients: Vec<Client>,
    (what, job): (&str, Job),
) -> Vec<Client> {
    let cpu = || trackers.iter().map(Tracker::cpu_seconds).sum::<f64>();
    let before = cpu();
    let (rate, clients) = press(clients, job, plan.time).await;
    let per_cpu = rate * plan.time.as_secs_f64() / (cpu() - before);
    println!("  {rate:.0} {what} per second, {per_cpu:.0} per CPU second");
    clients
}

/// What costs no write, on one tracker.
async fn alone(plan: &Plan) {
    let dir = tempfile::tempdir().unwrap();
    let trackers = cluster(plan, dir.path(), 1).await;
    let mut clients = connections(trackers[0].port).await;
    let (group, file) = common_file(&mut clients).await;
    println!("one tracker:");
    let jobs = [
        ("logins", Job::Login),
        ("presence updates (aim: 30,000 per CPU second)", Job::Announce(group, file)),
        ("look-ups of up to 64 holders", Job::Holders(group, file)),
    ];
    for (what, job) in jobs {
        if plan.wants(what.split(' ').next().unwrap()) {
            clients = measure(plan, &trackers, clients, (what, job)).await;
        }
    }
}

/// Small durable writes through the first of so many trackers.
async fn writes(plan: &Plan, count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let trackers = cluster(plan, dir.path(), count).await;
    let mut clients = connections(trackers[0].port).await;
    let (group, file) = common_file(&mut clients).await;
    println!("{count} trackers:");
    let jobs = [
        (
            "durable acknowledged writes of one record (aim: 3,000 per second with two)",
            Job::Share(group, file),
        ),
        ("groups founded, definite", Job::Found),
    ];
    for job in jobs {
        clients = measure(plan, &trackers, clients, job).await;
    }
}

/// A start with many records, and a blank tracker that catches up with them.
async fn many_records(plan: &Plan) {
    let (dir, ports) = (tempfile::tempdir().unwrap(), shoal_tests::free_ports(2));
    fill(&dir.path().join("1"), plan.records);
    let began = Instant::now();
    let first = Tracker::start(&plan.binary, dir.path(), &ports, 1);
    while std::net::TcpStream::connect(("127.0.0.1", ports[0])).is_err() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    println!("{} records:", plan.records);
    println!("  a start took {:.2} s (aim: 2)", began.elapsed().as_secs_f64());
    let second = Tracker::start(&plan.binary, dir.path(), &ports, 2);
    let took = second.when(|report| report.members.iter().all(|member| member.in_sync)).await;
    let cpu = (first.cpu_seconds(), second.cpu_seconds());
    println!(
        "  a blank tracker caught up in {:.1} s (aim: 60 for a million), with {:.1} CPU seconds here and {:.1} there",
        took.as_secs_f64(),
        cpu.1,
        cpu.0
    );
    for tracker in [&first, &second] {
        let kib = tracker.memory_kib();
        #[expect(clippy::cast_precision_loss, reason = "a figure to print")]
        let each = kib as f64 * 1024.0 / plan.records as f64;
        println!("  memory {} MiB, {each:.0} bytes a record (aim: 1,024)", kib / 1024);
    }
}

/// Writes records of a tracker that worked for long into its folder.
fn fill(dir: &Path, records: usize) {
    std::fs::create_dir(dir).unwrap();
    let mut store = Store::open(dir).unwrap();
    let now = Now { wall_ms: clock::wall_ms(), mono_ms: 0 };
    let configured = vec![TrackerNo(1), TrackerNo(2)];
    let (writer, bounds) = (WriterId([7; 16]), Bounds::default());
    let config = Config { me: TrackerNo(1), configured, writer, cluster: [0; 16], bounds };
    store.begin().unwrap();
    let mut replica = Replica::open(&mut store, config, now).unwrap();
    store.commit().unwrap();
    let (group, mut written) = (Gid::random(), 0);
    while written < records {
        store.begin().unwrap();
        for _ in 0..100 {
            let part = 64.min(records - written);
            if part == 0 {
                break;
            }
            let writes = (0..part).map(|_| record_of(group)).collect();
            replica.write(&mut store, writes, now).unwrap();
            while replica.poll_output().is_some() {
                // There is no link.
            }
            written += part;
        }
        store.commit().unwrap();
    }
}

/// A user's membership, account or share.
fn record_of(group: Gid) -> Write {
    let (user, request) = (Uid::random(), RequestId::random());
    let (kind, key, value) = match fastrand::u8(..3) {
        0 => {
            let membership = Membership { standing: Standing::Member, since_ms: 1, request, term: None };
            (record::MEMBERSHIP, record::membership_key(group, user), encode(&membership))
        }
        1 => {
            let account = Account { salt: [7; 16], login_key: PeerId([7; 32]), sealed_account_key: [7; 72] };
            (record::ACCOUNT, record::account_key(user), encode(&record::AccountRecord::new(account, None)))
        }
        _ => {
            let (file, peer) = (Fid(fastrand::u128(..).to_be_bytes()), Identity::generate().peer_id());
            (
                record::SHARE,
                record::share_key(group, file, user, peer),
                encode(&Share { request, mirrors: None, file_bytes: None }),
            )
        }
    };
    Write { kind, key, value, ..Write::default() }
}

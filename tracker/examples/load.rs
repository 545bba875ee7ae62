//! Loads real `tracker` processes on loopback and prints what they bear: `scripts/bench tracker`.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a measurement that goes wrong stops"
)]

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use shoal_common::credentials::Secrets;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, Extent, FromTracker, Holding, Reply, ToTracker,
};
use shoal_common::{
    Blake3, Fid, FileDigest, FileName, Gid, GroupName, Layout, Manifest, RequestId, Sha1, Uid, UserName,
};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Protocol};
use shoal_tracker::reporter;
use shoal_tracker::status::Report;

/// Connections that press at once.
const CONNECTIONS: usize = 64;
/// Kernel ticks a second of `/proc/PID/stat`, on every Linux of today.
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
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// One connection that is logged in.
struct Client {
    identity: Identity,
    channel: Channel,
    tracker: shoal_common::PeerId,
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
        let mut client = Self { identity, channel, tracker, name, secrets, calls: 0, _control: control };
        client.call(Call::Hello { listen: "127.0.0.1:7777".into() }).await;
        let (id, account) = (Uid::random(), client.secrets.1.clone());
        client.call(Call::CreateUser { id, name: client.name.clone(), account }).await;
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

    /// One small durable write.
    async fn write(&mut self) {
        let id = Gid::random();
        self.call(Call::CreateGroup { id, name: GroupName::create(&id.to_string()).unwrap() }).await;
    }
}

/// What all connections do over and over.
#[derive(Clone, Copy)]
enum Job {
    Write,
    Login,
    Announce(Gid, Fid),
    Holders(Gid, Fid),
}

/// Calls a second, from all connections for `time`.
async fn press(clients: Vec<Client>, job: Job, time: Duration) -> (f64, Vec<Client>) {
    let (done, end) = (Arc::new(AtomicU64::new(0)), Instant::now() + time);
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            let done = Arc::clone(&done);
            tokio::spawn(async move {
                let mut extent = Extent::Some;
                while Instant::now() < end {
                    match job {
                        Job::Write => client.write().await,
                        Job::Login => {
                            client.call(Call::Logout).await;
                            client.login().await;
                        }
                        Job::Announce(group, file) => {
                            extent = if extent == Extent::Some { Extent::None } else { Extent::Some };
                            let holdings = vec![Holding { group, file, extent }];
                            client.call(Call::Announce { anew: false, holdings }).await;
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
    let (group, name) = (Gid::random(), GroupName::create("bench").unwrap());
    let (owner, others) = clients.split_first_mut().unwrap();
    owner.call(Call::CreateGroup { id: group, name: name.clone() }).await;
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

fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
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

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let binary = PathBuf::from(arguments.next().expect("the tracker's binary"));
    let seconds = arguments.next().map_or(5, |seconds| seconds.parse().expect("seconds a measurement"));
    let time = Duration::from_secs(seconds);
    println!("{CONNECTIONS} connections, {seconds} s each; the load generator runs on the same cores");
    for count in 1..=3 {
        let (dir, ports) = (tempfile::tempdir().unwrap(), free_ports(count + 1));
        let ports = if count == 1 { &ports[..1] } else { &ports[..] };
        let mut trackers: Vec<Tracker> =
            (1..=count).map(|number| Tracker::start(&binary, dir.path(), ports, number)).collect();
        trackers[0].when(|report| report.members.iter().filter(|m| m.in_sync).count() == count).await;
        let clients = connections(ports[0]).await;
        let (rate, clients) = press(clients, Job::Write, time).await;
        println!("{count} trackers: {rate:.0} durable acknowledged writes a second (aim: 3,000 with two)");
        if count == 1 {
            alone(&trackers[0], clients, time).await;
            continue;
        }
        // The last of the listed trackers was never started: it is blank, and catches up now.
        drop(clients);
        let records = trackers[0].report().await.unwrap().records;
        trackers.push(Tracker::start(&binary, dir.path(), ports, count + 1));
        let took = trackers[count].when(|report| report.records >= records).await;
        println!("  a blank tracker caught up with {records} records in {:.1} s", took.as_secs_f64());
        let last = trackers.remove(0);
        drop(last);
        let began = Instant::now();
        let again = Tracker::start(&binary, dir.path(), ports, 1);
        again.when(|_| true).await;
        println!(
            "  a start with them took {:.2} s, memory {} MiB",
            began.elapsed().as_secs_f64(),
            again.memory_kib() / 1024
        );
    }
}

/// What costs no write, on one tracker: by its CPU time.
async fn alone(tracker: &Tracker, mut clients: Vec<Client>, time: Duration) {
    let (group, file) = common_file(&mut clients).await;
    let jobs = [
        ("logins", Job::Login),
        ("presence updates (aim: 30,000)", Job::Announce(group, file)),
        ("look-ups of holders", Job::Holders(group, file)),
    ];
    for (what, job) in jobs {
        let before = tracker.cpu_seconds();
        let (rate, back) = press(clients, job, time).await;
        clients = back;
        let cpu = tracker.cpu_seconds() - before;
        println!("  {rate:.0} {what} a second, {:.0} per CPU second", rate * time.as_secs_f64() / cpu);
    }
}

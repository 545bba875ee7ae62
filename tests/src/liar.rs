//! A tracker that lies to storage nodes: it has a line in their file and a key of its own, and orders what it likes.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_common::PeerId;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tokens::{self, Statement};
use shoal_common::tracker_api::storage::{MAX_ORDERS, NodeAnswer, NodeCall, NodeReport, Order, OwnedChunk};
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, FromTracker, Refusal, RefusalKind, Reply, ToTracker,
};
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Inbound, Protocol};
use tokio::runtime::Runtime;

/// What is ordered of a node that holds these chunks.
type Lie = Box<dyn Fn(PeerId, &HashSet<OwnedChunk>) -> Vec<Order> + Send>;

/// What a node reported, and what it was ordered.
#[derive(Default)]
struct Victim {
    address: String,
    held: HashSet<OwnedChunk>,
    /// Chunks that it reported gone, each as often as it did.
    gone: Vec<OwnedChunk>,
    ordered: HashMap<OwnedChunk, usize>,
    answers: usize,
}

#[derive(Default)]
struct Victims {
    victims: HashMap<PeerId, Victim>,
    lie: Option<Lie>,
}

/// See the module.
pub struct Liar {
    identity: Identity,
    state: Arc<Mutex<Victims>>,
    // Before what it runs on.
    _control: Control,
    _runtime: Runtime,
}

impl Liar {
    /// Listens at a tracker's address; it tells no lie yet.
    #[must_use]
    pub fn start(at: SocketAddr) -> Self {
        let (identity, runtime) = (Identity::generate(), Runtime::new().unwrap());
        let state = Arc::<Mutex<Victims>>::default();
        let config = ControlConfig {
            identity: identity.clone(),
            listen: Some(at),
            protocols: vec![Protocol(CLIENT_PROTOCOL)],
            limits: ControlLimits::default(),
        };
        let (control, mut incoming) = runtime.block_on(Control::start(config)).unwrap();
        let (own, shared) = (identity.peer_id(), state.clone());
        runtime.spawn(async move {
            while let Some(inbound) = incoming.next().await {
                tokio::spawn(serve(inbound, own, shared.clone()));
            }
        });
        Self { identity, state, _control: control, _runtime: runtime }
    }

    /// What it orders from now on of a node that holds these chunks, a part at a time.
    pub fn lie(&self, lie: impl Fn(PeerId, &HashSet<OwnedChunk>) -> Vec<Order> + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        state.victims.values_mut().for_each(|victim| victim.ordered.clear());
        state.lie = Some(Box::new(lie));
    }

    /// Orders every node to delete everything, however young.
    pub fn have_all_deleted(&self) {
        self.lie(|_, held| held.iter().map(|&chunk| Order::Delete { chunk, min_age_ms: 0 }).collect());
    }

    /// The nodes with their addresses and what each reports to hold.
    #[must_use]
    pub fn nodes(&self) -> Vec<(PeerId, String, HashSet<OwnedChunk>)> {
        let state = self.state.lock().unwrap();
        let each = |(peer, victim): (&PeerId, &Victim)| (*peer, victim.address.clone(), victim.held.clone());
        state.victims.iter().map(each).collect()
    }

    /// Chunks that all nodes together report to hold.
    #[must_use]
    pub fn held(&self) -> usize {
        self.state.lock().unwrap().victims.values().map(|victim| victim.held.len()).sum()
    }

    /// How many chunks each node reported gone, counted each time.
    #[must_use]
    pub fn gone(&self) -> Vec<usize> {
        self.state.lock().unwrap().victims.values().map(|victim| victim.gone.len()).collect()
    }

    /// Whether each node was given the lie this often about each chunk that it holds.
    #[must_use]
    pub fn insisted(&self, times: usize) -> bool {
        let state = self.state.lock().unwrap();
        let insisted =
            |victim: &Victim, chunk| victim.ordered.get(chunk).is_some_and(|&count| count >= times);
        state.victims.values().all(|victim| victim.held.iter().all(|chunk| insisted(victim, chunk)))
    }

    /// Signs a statement as a tracker does.
    #[must_use]
    pub fn sign<S: Statement>(&self, statement: &S) -> Vec<u8> {
        tokens::seal(statement, self.identity.peer_id(), |message| self.identity.sign(message))
    }
}

async fn serve(inbound: Inbound, own: PeerId, state: Arc<Mutex<Victims>>) {
    let node = inbound.peer;
    let mut channel: Channel = inbound.channel;
    channel.set_limit(MAX_CLIENT_MESSAGE);
    while let Ok(Some(message)) = channel.recv().await {
        let Ok(ToTracker { call, body }) = minicbor::decode(&message) else { return };
        let body = answer(node, own, body, &mut state.lock().unwrap());
        if channel.send(&minicbor::to_vec(FromTracker { call, body }).unwrap()).await.is_err() {
            return;
        }
    }
}

fn answer(node: PeerId, own: PeerId, call: Call, state: &mut Victims) -> Reply {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now_ms = u64::try_from(now_ms).unwrap();
    let victim = state.victims.entry(node).or_default();
    Reply::Done(match call {
        Call::Hello { listen, .. } => {
            victim.address = listen;
            Answer::Welcome { number: 9, now_ms, revision: None, lists: None }
        }
        Call::Node(NodeCall::Register { .. }) => {
            Answer::Node(NodeAnswer::Registered { address: victim.address.clone() })
        }
        Call::Node(NodeCall::Report(report)) => {
            victim.hear(*report);
            let lies = state.lie.as_ref().map(|lie| lie(node, &victim.held)).unwrap_or_default();
            let parts = lies.len().div_ceil(MAX_ORDERS).max(1);
            let orders = lies.into_iter().skip(victim.answers % parts * MAX_ORDERS).take(MAX_ORDERS);
            let orders: Vec<Order> = orders.collect();
            victim.answers += 1;
            for order in &orders {
                let (Order::Copy { chunk, .. } | Order::Delete { chunk, .. }) = order;
                *victim.ordered.entry(*chunk).or_default() += 1;
            }
            Answer::Node(NodeAnswer::Orders { orders, ticket_keys: vec![own], now_ms, retry_after_ms: 50 })
        }
        _ => {
            let text = "a liar knows storage nodes only".to_owned();
            return Reply::Refused(Refusal { kind: RefusalKind::Unavailable, text, retry_after_ms: None });
        }
    })
}

impl Victim {
    fn hear(&mut self, report: NodeReport) {
        if report.reset {
            self.held.clear();
        }
        self.held.extend(report.held);
        for chunk in report.gone {
            self.held.remove(&chunk);
            self.gone.push(chunk);
        }
    }
}

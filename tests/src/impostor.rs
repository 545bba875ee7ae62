//! An impostor that answers in a tracker's place, and notes what clients send.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use shoal_common::PeerId;
use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::storage::{NodeAnswer, NodeCall, Order};
use shoal_common::tracker_api::{
    Answer, CLIENT_PROTOCOL, Call, FromTracker, Refusal, RefusalKind, Reply, ToTracker,
};
use shoal_net::{Control, ControlConfig, ControlLimits, Identity, Inbound, Protocol};
use tokio::runtime::Runtime;

/// What trackers speak with each other.
const LINK_PROTOCOL: &str = "/shoal/tracker/1";

/// Listens as a tracker would, and gives itself out for one.
pub struct Impostor {
    shared: Arc<ImpostorState>,
    // Before what it runs on.
    _control: Control,
    _runtime: Runtime,
}

struct ImpostorState {
    key: PeerId,
    heard: Mutex<Vec<String>>,
    orders: Vec<Order>,
}

impl Impostor {
    /// Listens at that address under that key, and gives these orders to storage nodes.
    #[must_use]
    pub fn start(at: SocketAddr, key: Identity, orders: Vec<Order>) -> Self {
        let runtime = Runtime::new().unwrap();
        let shared = Arc::new(ImpostorState { key: key.peer_id(), heard: Mutex::default(), orders });
        let config = ControlConfig {
            identity: key,
            listen: Some(at),
            protocols: vec![Protocol(CLIENT_PROTOCOL), Protocol(LINK_PROTOCOL)],
            limits: ControlLimits::default(),
        };
        let (control, mut incoming) = runtime.block_on(Control::start(config)).unwrap();
        let answering = shared.clone();
        runtime.spawn(async move {
            while let Some(inbound) = incoming.next().await {
                tokio::spawn(answer(inbound, answering.clone()));
            }
        });
        Self { shared, _control: control, _runtime: runtime }
    }

    /// All that was said to it, in words.
    #[must_use]
    pub fn heard(&self) -> Vec<String> {
        self.shared.heard.lock().unwrap().clone()
    }
}

async fn answer(mut inbound: Inbound, shared: Arc<ImpostorState>) {
    let note = |what: String| shared.heard.lock().unwrap().push(what);
    inbound.channel.set_limit(MAX_CLIENT_MESSAGE);
    while let Ok(Some(message)) = inbound.channel.recv().await {
        if inbound.protocol.0 == LINK_PROTOCOL {
            note(format!("{} bytes of a tracker", message.len()));
            continue;
        }
        let Ok(ToTracker { call, body }) = minicbor::decode(&message) else { return };
        note(format!("{body:?}"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        let now_ms = u64::try_from(now).unwrap();
        let body = match body {
            Call::Hello { .. } => {
                Reply::Done(Answer::Welcome { number: 2, now_ms, revision: None, lists: None })
            }
            Call::Node(NodeCall::Register { .. }) => {
                let address = inbound.remote.to_string();
                Reply::Done(Answer::Node(NodeAnswer::Registered { address }))
            }
            Call::Node(NodeCall::Report(_)) => Reply::Done(Answer::Node(NodeAnswer::Orders {
                orders: shared.orders.clone(),
                ticket_keys: vec![shared.key],
                now_ms,
                retry_after_ms: 100,
            })),
            Call::TicketKeys => Reply::Done(Answer::TicketKeys(vec![shared.key])),
            _ => Reply::Refused(Refusal {
                kind: RefusalKind::Unavailable,
                text: "later".into(),
                retry_after_ms: None,
            }),
        };
        let said = minicbor::to_vec(FromTracker { call, body }).unwrap();
        if inbound.channel.send(&said).await.is_err() {
            return;
        }
    }
}

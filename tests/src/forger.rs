//! A tracker that lies: it has got hold of a real one's key, and changes what that one says to a client.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use shoal_common::limits::MAX_CLIENT_MESSAGE;
use shoal_common::tracker_api::CLIENT_PROTOCOL;
use shoal_net::{Channel, Control, ControlConfig, ControlLimits, Identity, Inbound, Protocol};
use tokio::runtime::Runtime;

/// What is replaced, and by what of the same length.
type Forgery = Arc<Mutex<(Vec<u8>, Vec<u8>)>>;

/// Stands between one client and a tracker, with the keys of both.
pub struct Forger {
    forgery: Forgery,
    // Before what it runs on.
    _control: Control,
    _runtime: Runtime,
}

impl Forger {
    /// Listens at `at` as if it were the tracker of that key, and asks the real one as if it were the client of that key.
    #[must_use]
    pub fn start(at: SocketAddr, tracker: (SocketAddr, Identity), client: Identity) -> Self {
        let runtime = Runtime::new().unwrap();
        let forgery = Forgery::default();
        let (real, key) = tracker;
        let (control, mut incoming) = runtime.block_on(plane(key, Some(at)));
        let forging = forgery.clone();
        runtime.spawn(async move {
            while let Some(inbound) = incoming.next().await {
                tokio::spawn(pass_on(inbound, real, client.clone(), forging.clone()));
            }
        });
        Self { forgery, _control: control, _runtime: runtime }
    }

    /// From now on says `by` wherever the tracker said `what`.
    ///
    /// # Panics
    /// When they are not equally long: the messages would come apart.
    pub fn replace(&self, what: &str, by: &str) {
        assert_eq!(what.len(), by.len());
        *self.forgery.lock().unwrap() = (what.into(), by.into());
    }
}

async fn plane(identity: Identity, listen: Option<SocketAddr>) -> (Control, shoal_net::Incoming) {
    let protocols = vec![Protocol(CLIENT_PROTOCOL)];
    let config = ControlConfig { identity, listen, protocols, limits: ControlLimits::default() };
    Control::start(config).await.unwrap()
}

/// Carries messages both ways until either side ends.
async fn pass_on(inbound: Inbound, real: SocketAddr, client: Identity, forgery: Forgery) {
    let (control, _) = plane(client, None).await;
    let Ok(tracker) = control.dial(&real.ip().to_string(), real.port(), None).await else { return };
    let Ok(mut outside) = control.open(tracker, Protocol(CLIENT_PROTOCOL)).await else { return };
    let mut inside: Channel = inbound.channel;
    inside.set_limit(MAX_CLIENT_MESSAGE);
    outside.set_limit(MAX_CLIENT_MESSAGE);
    loop {
        let sent = tokio::select! {
            asked = inside.recv() => match asked {
                Ok(Some(message)) => outside.send(&message).await,
                _ => return,
            },
            said = outside.recv() => match said {
                Ok(Some(message)) => {
                    let forged = forge(message, &forgery.lock().unwrap());
                    inside.send(&forged).await
                }
                _ => return,
            },
        };
        if sent.is_err() {
            return;
        }
    }
}

fn forge(mut message: Vec<u8>, (what, by): &(Vec<u8>, Vec<u8>)) -> Vec<u8> {
    if !what.is_empty() {
        for start in 0..message.len().saturating_sub(what.len() - 1) {
            if message[start..].starts_with(what) {
                message[start..start + what.len()].copy_from_slice(by);
            }
        }
    }
    message
}

//! A wire that can be cut or go silent, and the usual peers.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use shoal_net::{Control, ControlConfig, ControlLimits, Identity, Incoming, Protocol};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const ECHO: Protocol = Protocol("/test/echo/1");

/// Longest wait for anything that should happen at once; only a failure takes so long.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {limit:?}"),
    }
}

pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(SOON, what, future).await
}

/// A control plane that listens on loopback.
pub(crate) async fn server(limits: ControlLimits) -> (Control, Incoming, SocketAddr) {
    let listen = Some("127.0.0.1:0".parse().unwrap());
    let config = ControlConfig { identity: Identity::generate(), listen, protocols: vec![ECHO], limits };
    let (control, incoming) = Control::start(config).await.unwrap();
    let address = control.local_addr().unwrap();
    (control, incoming, address)
}

/// A control plane that only dials.
pub(crate) async fn client() -> Control {
    let config = ControlConfig {
        identity: Identity::generate(),
        listen: None,
        protocols: vec![],
        limits: ControlLimits::default(),
    };
    Control::start(config).await.unwrap().0
}

/// Sends every message back, on every channel.
pub(crate) fn echo(mut incoming: Incoming) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        while let Some(mut inbound) = incoming.next().await {
            tokio::spawn(async move {
                inbound.channel.set_limit(shoal_net::MAX_MESSAGE);
                while let Ok(Some(message)) = inbound.channel.recv().await {
                    if inbound.channel.send(&message).await.is_err() {
                        return;
                    }
                }
            });
        }
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Pass,
    /// Bytes stop, connections stay.
    Silent,
    /// Connections are closed.
    Cut,
}

/// Forwards TCP connections to one address.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    pub(crate) mode: watch::Sender<Mode>,
    pub(crate) opened: Arc<AtomicUsize>,
    pub(crate) closed: Arc<AtomicUsize>,
}

impl Wire {
    pub(crate) async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watching) = watch::channel(Mode::Pass);
        let (opened, closed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opens, closes) = (opened.clone(), closed.clone());
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                opens.fetch_add(1, Ordering::SeqCst);
                let (watching, closes) = (watching.clone(), closes.clone());
                tokio::spawn(async move {
                    forward(near, target, watching).await;
                    closes.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, mode, opened, closed }
    }
}

async fn forward(mut near: TcpStream, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    let (mut up, mut down) = ([0; 4096], [0; 4096]);
    loop {
        let now = *mode.borrow();
        match now {
            Mode::Cut => return,
            Mode::Silent => {
                if mode.changed().await.is_err() {
                    return;
                }
            }
            Mode::Pass => tokio::select! {
                changed = mode.changed() => if changed.is_err() { return },
                count = near.read(&mut up) => match count {
                    Ok(count @ 1..) => if far.write_all(&up[..count]).await.is_err() { return },
                    _ => return,
                },
                count = far.read(&mut down) => match count {
                    Ok(count @ 1..) => if near.write_all(&down[..count]).await.is_err() { return },
                    _ => return,
                },
            },
        }
    }
}

/// Waits for a condition, asking again each millisecond.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    soon(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

//! One virtual server: a listener on its port, the connections it took, and what they were sent. It can be taken down and
//! up again while the process runs.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use shoal_common::size_text;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::server::body::Meter;
use crate::server::places::Place;
use crate::server::respond::respond;
use crate::server::site::Site;
use crate::server::watched::Watched;

/// Connections that the system keeps until they are accepted.
const BACKLOG: u32 = 1_024;
/// Longest head of a request. Browsers and proxies send up to 16 KiB of cookies to a host; with more the answer is 431.
const MAX_HEAD: usize = 32 * 1024;
/// Pause after a failure to accept, which is mostly one of too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long a client may keep its connection without doing anything with it.
const TIMEOUTS: Timeouts = Timeouts { head: Duration::from_secs(30), stalled: Duration::from_secs(30) };
/// How often the log says that accepting fails, while it does.
const SAY_AGAIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
struct Timeouts {
    /// Longest time that a request's head may take, or a kept connection be idle.
    head: Duration,
    /// A connection ends when its client has taken nothing for this long although something is there for it.
    stalled: Duration,
}

/// See the module.
pub(super) struct VirtualServer {
    number: usize,
    address: SocketAddr,
    site: Arc<Site>,
    meter: Arc<Meter>,
    running: Mutex<Option<Running>>,
    /// When the last status line was made, and what had been sent then.
    reported: Mutex<(Instant, u64)>,
}

struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl VirtualServer {
    /// Opens the port and serves.
    pub(super) async fn open(number: usize, address: SocketAddr, site: &Arc<Site>) -> io::Result<Arc<Self>> {
        let server = Arc::new(Self {
            number,
            address,
            site: site.clone(),
            meter: Arc::new(Meter::new(site.buffers())),
            running: Mutex::new(None),
            reported: Mutex::new((Instant::now(), 0)),
        });
        server.start().await?;
        Ok(server)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes the server up, if it is down.
    pub(super) async fn start(&self) -> io::Result<()> {
        if self.running().is_some() {
            return Ok(());
        }
        let listener = listen(self.address)?;
        let running = Running { stop: CancellationToken::new(), tasks: TaskTracker::new() };
        let accepting = accept(
            listener,
            self.site.clone(),
            self.meter.clone(),
            TIMEOUTS,
            running.stop.clone(),
            running.tasks.clone(),
        );
        running.tasks.spawn(accepting);
        *self.running() = Some(running);
        Ok(())
    }

    /// Takes the server down: its port is closed and its connections are cut.
    pub(super) async fn stop(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.stop.cancel();
            running.tasks.close();
            running.tasks.wait().await;
        }
    }

    /// One line for the operator.
    pub(super) fn status_line(&self) -> String {
        let state = if self.running().is_some() { "up" } else { "down" };
        let connections = self.meter.connections.load(Ordering::Relaxed);
        let bytes = self.meter.bytes.load(Ordering::Relaxed);
        let rate = {
            let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
            let (since, before) = std::mem::replace(&mut *reported, (Instant::now(), bytes));
            let millis = since.elapsed().as_millis().max(1);
            u64::try_from(u128::from(bytes - before) * 1_000 / millis).unwrap_or(u64::MAX)
        };
        format!(
            "server {} port {}: {state}, {connections} connections, {} served, {}/s",
            self.number,
            self.address.port(),
            size_text(bytes),
            size_text(rate)
        )
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves at a listener until the future is dropped, which cuts its connections.
pub(super) async fn serve(listener: TcpListener, site: Arc<Site>) {
    let (meter, stop) = (Arc::new(Meter::new(site.buffers())), CancellationToken::new());
    let _cut = stop.clone().drop_guard();
    accept(listener, site, meter, TIMEOUTS, stop, TaskTracker::new()).await;
}

/// A listener on which a crowd may wait: an overflow of the system's default, 128, costs a client a second.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts until it is stopped. Connections are tasks of the same tracker.
async fn accept(
    listener: TcpListener,
    site: Arc<Site>,
    meter: Arc<Meter>,
    timeouts: Timeouts,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    let mut said: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let end = stop.child_token();
                let place = tokio::select! {
                    () = stop.cancelled() => return,
                    place = site.places().admit(from.ip(), end.clone()) => place,
                };
                let (site, meter) = (site.clone(), meter.clone());
                tasks.spawn(async move {
                    meter.connections.fetch_add(1, Ordering::Relaxed);
                    tokio::select! {
                        () = end.cancelled() => {}
                        () = converse(stream, site, meter.clone(), timeouts, place) => {}
                    }
                    meter.connections.fetch_sub(1, Ordering::Relaxed);
                });
            }
            Err(error) => {
                if said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
                    said = Some(Instant::now());
                    tracing::warn!(%error, "cannot accept connections; trying again");
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

async fn converse(stream: TcpStream, site: Arc<Site>, meter: Arc<Meter>, timeouts: Timeouts, place: Place) {
    let place = Arc::new(place);
    let Ok(local) = stream.local_addr() else { return };
    let stream = Watched::new(stream, place.clone(), timeouts.stalled);
    let service = service_fn(move |request| {
        let (site, meter, place) = (site.clone(), meter.clone(), place.clone());
        async move {
            let answered = respond(request, site, local.ip(), meter.clone(), &place).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|error| {
                tracing::warn!(%error, "an answer could not be put together");
                let mut response = hyper::Response::new(crate::server::body::Body::empty(&meter));
                *response.status_mut() = hyper::StatusCode::INTERNAL_SERVER_ERROR;
                response
            }))
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(timeouts.head)
        // This bounds what waits to be sent, too: one block more.
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
#[path = "virtual_server_tests.rs"]
mod tests;

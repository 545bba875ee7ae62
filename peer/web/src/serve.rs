//! The connections on the socket: taken while there are not too many, checked for their user, and ended when they say nothing
//! or take nothing.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use shoal_client::Client;
use shoal_wipe::without_traces;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{self, Asked};
use crate::events::{self, Recent};
use crate::keys::Keys;
use crate::loopback::{self, Doors};
use crate::resources::{Site, Work};
use crate::roots::Reach;
use crate::socket::{self, Socket, SocketError};

/// Connections at a time; a person's scripts have a few.
const MAX_CONNECTIONS: usize = 256;
/// How long a request's head may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a head, and of what is read ahead of a body.
const MAX_HEAD: usize = 64 * 1024;
/// How long the caller may take to read what is left once all is said.
const READ_WITHIN: Duration = Duration::from_secs(30);
/// How long a refusal may take to be written.
const REFUSE_WITHIN: Duration = Duration::from_secs(1);
/// Callers that are told at once why they are not served, at most.
const MAX_REFUSALS: usize = 64;
/// Bytes of a refused caller that are passed over.
const MAX_PASSED_OVER: u64 = 1024 * 1024;
/// How long answers that are on their way may take at the end.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);
/// The pause after a connection could not be taken: the system is short of something.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

const BUSY: &str = "too many programs ask this daemon at once; try again";
const STRANGER: &str = "only programs of the user who runs this daemon may use it";

/// The API of a running client.
#[derive(Debug)]
pub struct Web {
    path: PathBuf,
    served: Option<Result<SocketAddr, String>>,
    closing: CancellationToken,
    tasks: TaskTracker,
}

/// Where a browser is served.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// The address, of this machine alone.
    pub at: SocketAddr,
    /// The folders that a page may reach; where none is given, the download folder and the folders of what is shared.
    pub roots: Vec<PathBuf>,
    /// Folders that a page never reaches, besides the client's own: what else the program keeps for itself.
    pub private: Vec<PathBuf>,
}

/// Serves the API of a client on the socket of its data folder. Commands go to `asked`. With `web`, resources are served
/// there too; where that cannot be, the socket is served all the same, and [`Web::served`] says why.
///
/// # Errors
/// See [`SocketError`].
pub fn start(
    client: &Client,
    asked: mpsc::Sender<Asked>,
    web: Option<WebConfig>,
) -> Result<Web, SocketError> {
    let data = client.whoami().data_dir;
    let given: Arc<[PathBuf]> = web.iter().flat_map(|web| web.roots.clone()).collect();
    let private: Arc<[PathBuf]> = web.iter().flat_map(|web| web.private.clone()).collect();
    let web = web.map(|web| web.at);
    let web = web.map(|at| {
        loopback::listen(at, &data).map_err(|error| format!("cannot serve at http://{at}: {error}"))
    });
    // Whoever finds the socket finds the page, too.
    let sockets = socket::listen(&data, socket::runtime_folder().as_deref())?;
    let (closing, tasks) = (CancellationToken::new(), TaskTracker::new());
    let recent = Arc::new(Recent::default());
    tasks.spawn(events::collect(client.clone(), recent.clone(), closing.clone()));
    let work = Work::new(tasks.clone(), closing.clone());
    let keys = Arc::new(Keys::open(&data));
    let served = web.map(|listening| {
        let (listener, at, pages) = listening?;
        let doors = Doors { keys: keys.clone(), pages: Arc::new(pages) };
        let site = Site::new(client.clone(), Reach::Roots { given, private }, work.clone());
        let router = loopback::router(client.clone(), site, recent.clone(), doors, closing.clone());
        tasks.spawn(accept_tcp(listener, router, tasks.clone(), closing.clone()));
        Ok(at)
    });
    let at = served.as_ref().and_then(|served: &Result<_, _>| served.as_ref().ok().copied());
    let loopback = at.map(|at| api::Loopback { at, keys });
    let site = Site::new(client.clone(), Reach::Everywhere, work);
    let router = api::router(client.clone(), asked, site, recent, loopback, closing.clone());
    let path = sockets.first().map_or_else(|| socket::in_data(&data), |socket| socket.path.clone());
    let web = Web { path, served, closing: closing.clone(), tasks: tasks.clone() };
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for socket in sockets {
        let parts = (router.clone(), tasks.clone(), places.clone());
        tasks.spawn(accept(socket, parts, closing.clone()));
    }
    Ok(web)
}

impl Web {
    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a browser finds it, or why none does, if it was asked for.
    #[must_use]
    pub fn served(&self) -> Option<&Result<SocketAddr, String>> {
        self.served.as_ref()
    }

    /// Stops listening, and lets answers that are on their way go out.
    pub async fn close(self) {
        self.closing.cancel();
        self.tasks.close();
        if timeout(CLOSE_WITHIN, self.tasks.wait()).await.is_err() {
            tracing::debug!("some callers did not take their answers in time");
        }
    }
}

/// Takes connections, as many as there are places for at all sockets together.
async fn accept(
    socket: Socket,
    (router, tasks, places): (Router, TaskTracker, Arc<Semaphore>),
    closing: CancellationToken,
) {
    let refusals = Refusals::new(&tasks);
    let mut strangers: u64 = 0;
    while let Some(accepted) = closing.run_until_cancelled(socket.listener.accept()).await {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("cannot take a connection on the socket: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        match (socket::is_trusted(&stream), places.clone().try_acquire_owned()) {
            (Ok(true), Ok(place)) => {
                let (router, closing) = (router.clone(), closing.clone());
                tasks.spawn(async move {
                    serve(stream, router, closing).await;
                    drop(place);
                });
            }
            (Ok(true), Err(_)) => refusals.refuse(stream, "503 Service Unavailable", BUSY).await,
            (Ok(false) | Err(_), _) => {
                strangers = strangers.saturating_add(1);
                // So that none of them fills the log.
                if strangers.is_power_of_two() {
                    tracing::error!(
                        "a program of another user connected to the socket and was refused ({strangers} so far)"
                    );
                }
                refusals.refuse(stream, "403 Forbidden", STRANGER).await;
            }
        }
    }
}

/// The same on loopback, where every request is judged by itself.
async fn accept_tcp(listener: TcpListener, router: Router, tasks: TaskTracker, closing: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refusals = Refusals::new(&tasks);
    while let Some(accepted) = closing.run_until_cancelled(listener.accept()).await {
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok((stream, _)), Ok(place)) => {
                let (router, closing) = (router.clone(), closing.clone());
                tasks.spawn(async move {
                    serve(stream, router, closing).await;
                    drop(place);
                });
            }
            (Ok((stream, _)), Err(_)) => refusals.refuse(stream, "503 Service Unavailable", BUSY).await,
            (Err(error), _) => {
                tracing::warn!("cannot take a connection at loopback: {error}");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

/// One request and its answer. A password may be in what is read: all work on it is done without leaving traces.
async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    closing: CancellationToken,
) {
    let answered = CancellationToken::new();
    let router = router.layer(axum::Extension(api::Answered(answered.clone())));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(MAX_HEAD).keep_alive(false);
    let connection = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = Box::pin(connection);
    let late = async {
        answered.cancelled().await;
        tokio::time::sleep(READ_WITHIN).await;
    };
    let ends = tokio::select! {
        // A caller that went away, or said nonsense, is no concern of ours.
        _ = poll_fn(|context| without_traces(|| connection.as_mut().poll(context))) => false,
        () = late => false,
        () = closing.cancelled() => true,
    };
    if ends {
        connection.as_mut().graceful_shutdown();
        let rest = poll_fn(|context| without_traces(|| connection.as_mut().poll(context)));
        let _ = timeout(CLOSE_WITHIN, rest).await;
    }
    without_traces(|| drop(connection));
}

/// Answers callers that are not served, a few at a time.
struct Refusals {
    tasks: TaskTracker,
    places: Arc<Semaphore>,
}

impl Refusals {
    fn new(tasks: &TaskTracker) -> Self {
        Self { tasks: tasks.clone(), places: Arc::new(Semaphore::new(MAX_REFUSALS)) }
    }

    /// Says why. Where too many are being told, what one has sent already may cost it the answer.
    async fn refuse(
        &self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
        status: &str,
        error: &str,
    ) {
        let body = serde_json::json!({ "ok": false, "error": error }).to_string();
        let answer = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            let _ = timeout(REFUSE_WITHIN, stream.write_all(answer.as_bytes())).await;
            return;
        };
        self.tasks.spawn(async move {
            // One that takes no answer gets none.
            let _ = timeout(REFUSE_WITHIN, tell(stream, &answer)).await;
            drop(place);
        });
    }
}

/// Answers, and passes over what the caller sends: a connection that is closed with bytes unread loses its answer.
async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) -> io::Result<()> {
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream.take(MAX_PASSED_OVER), &mut tokio::io::sink()).await?;
    Ok(())
}

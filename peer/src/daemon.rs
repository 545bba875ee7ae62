//! A client without a prompt that takes commands through its socket: those of the prompt, several at a time. The client goes on
//! when a caller goes away; only the caller's command ends then.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_client::Client;
use shoal_console::service;
use shoal_web::{Asked, Done, Said, SocketError, Table, Web, WebConfig, Words};
use shoal_wipe::without_traces;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::command::{Caller, Context, Parsed, parse_apart, parse_words_apart};
use crate::reply::Reply;
use crate::runner::{self, Next};
use crate::screen::{Screen, object};

/// Commands that are carried out at a time.
const AT_ONCE: usize = 64;
/// Commands that wait meanwhile; further callers are told to try again.
const WAITING: usize = 64;
/// How long the daemon may take to end.
const END_WITHIN: Duration = Duration::from_millis(4_000);

/// The commands of a running client's socket.
pub struct Daemon {
    web: Web,
    asked: mpsc::Receiver<Asked>,
}

impl Daemon {
    /// Opens the client's socket, and serves browsers at an address that must be loopback.
    ///
    /// # Errors
    /// See [`SocketError`].
    pub fn start(client: &Client, web: Option<WebConfig>) -> Result<Self, SocketError> {
        let (sender, asked) = mpsc::channel(WAITING);
        Ok(Self { web: shoal_web::start(client, sender, web)?, asked })
    }

    /// What is to be said of the address for browsers, if one was asked for.
    #[must_use]
    pub fn web_note(&self) -> Option<String> {
        Some(match self.web.served()? {
            Ok(at) => {
                format!(
                    "a browser or program on this machine may use this client at http://{at}: type shoal web"
                )
            }
            Err(error) => format!("{error}; everything else goes on"),
        })
    }

    /// Where the page is, if it is served.
    #[must_use]
    pub fn page(&self) -> Option<SocketAddr> {
        self.web.served()?.as_ref().ok().copied()
    }

    /// The socket.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.web.path()
    }

    /// Carries out commands until one of them ends the daemon. Dropping the future ends those that are under way.
    pub async fn serve(&mut self, client: &Client) {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                Some(asked) = self.asked.recv(), if running.len() < AT_ONCE => {
                    running.spawn(Box::pin(carry_out(client.clone(), asked)));
                }
                Some(ended) = running.join_next() => if ended.is_ok_and(|next| next == Next::Quit) {
                    return;
                },
                else => return,
            }
        }
    }

    /// Ends the daemon and its client, within five seconds.
    pub async fn end(self, client: &Client) {
        service::stopping();
        let both = async { tokio::join!(client.shutdown(), self.web.close()) };
        if timeout(END_WITHIN, both).await.is_err() {
            tracing::warn!("not everything ended within {END_WITHIN:?}; what is left ends with the process");
        }
    }
}

/// Carries out one command, for as long as its caller is there.
async fn carry_out(client: Client, asked: Asked) -> Next {
    let Asked { words, folder, passwords, answer } = asked;
    let parsed = match words {
        Words::Line(line) => {
            let parsed = parse_apart(&line);
            without_traces(move || drop(line));
            parsed
        }
        Words::Cut(words) => parse_words_apart(words),
    };
    let Some(parsed) = parsed else {
        let _ =
            answer.send(Said::Done(done("", &Err("there is no command in the request".to_owned())))).await;
        return Next::Failed;
    };
    let passwords = Arc::new(Mutex::new(passwords.into()));
    let context = Context {
        client,
        screen: Screen::of(answer.clone()),
        attended: false,
        caller: Some(Caller { folder, passwords }),
    };
    let ended = tokio::select! {
        ended = run(&context, parsed) => ended,
        () = answer.closed() => None,
    };
    let Some((said, next)) = ended else { return Next::Failed };
    // A caller that is gone by now has no use for it.
    let _ = answer.send(Said::Done(said)).await;
    next
}

async fn run(context: &Context, parsed: Parsed) -> Option<(Done, Next)> {
    // It fails only where the caller is gone.
    let (name, result, next) = runner::carry_out(context, parsed).await.ok()?;
    Some((done(&name, &result), next))
}

/// The result as a caller gets it.
fn done(name: &str, result: &Result<Reply, String>) -> Done {
    let (text, table) = match result {
        Ok(reply) => (reply.text.clone(), reply.table.as_ref()),
        Err(error) => (error.clone(), None),
    };
    let titles = |table: &crate::reply::Table| table.titles.iter().map(ToString::to_string).collect();
    let table = table.map(|table| Table { titles: titles(table), rows: table.rows.clone() });
    Done { result: object(name, result), text, table }
}

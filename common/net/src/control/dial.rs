//! From `host port` to addresses, and from libp2p's errors to what a person can act on.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p::core::transport::TransportError;
use libp2p::swarm;
use shoal_common::PeerId;
use tokio::net::lookup_host;

use crate::address;

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;
/// How long an address is tried alone (RFC 8305, section 5).
const HEAD_START: Duration = Duration::from_millis(250);

/// Why a dial gave no connection. Each says what to do about it; `at` is what was dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("{at}: the name cannot be resolved ({reason}); check its spelling and your DNS")]
    Unresolved {
        /// `host:port`.
        at: String,
        /// What the resolver said.
        reason: String,
    },
    /// Nothing listens there.
    #[error("{at} refuses connections: nothing listens there now")]
    Refused {
        /// `host:port`.
        at: String,
    },
    /// Nothing answered in time.
    #[error("{at} does not answer")]
    TimedOut {
        /// `host:port`.
        at: String,
    },
    /// The network cannot reach it.
    #[error("{at} cannot be reached ({reason})")]
    Unreachable {
        /// `host:port`.
        at: String,
        /// What the system said.
        reason: String,
    },
    /// Another peer answered.
    #[error("{at} answers with another key: expected {expected}, found {found}")]
    WrongKey {
        /// `host:port`.
        at: String,
        /// The id that was asked for.
        expected: PeerId,
        /// The id that was proven.
        found: PeerId,
    },
    /// It is this very process.
    #[error("{at} is this process itself")]
    Myself {
        /// `host:port`.
        at: String,
    },
    /// Something listens there and does not speak our protocol, or turned us away.
    #[error("{at} answers, but not as a Shoal tracker, or has no room ({reason})")]
    Handshake {
        /// `host:port`.
        at: String,
        /// The innermost cause.
        reason: String,
    },
    /// The control plane is shut down.
    #[error("{at} was not dialled: shutting down")]
    Closed {
        /// `host:port`.
        at: String,
    },
}

/// Every address of the name, at most [`MAX_ADDRESSES`].
pub(super) async fn resolve(host: &str, port: u16, at: &str) -> Result<Vec<SocketAddr>, DialError> {
    let unresolved = |reason: String| DialError::Unresolved { at: at.to_owned(), reason };
    let found = lookup_host((host, port)).await.map_err(|error| unresolved(error.to_string()))?;
    let addresses: Vec<_> = found.take(MAX_ADDRESSES).collect();
    if addresses.is_empty() { Err(unresolved("no address".to_owned())) } else { Ok(addresses) }
}

/// `host:port`, in brackets if the host is an IPv6 address.
pub(super) fn target(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// Dials the addresses in turn, the next one when the last has failed or [`HEAD_START`] is over, and
/// gives the first success, or the failure that got furthest. Dropping it drops every dial under way.
pub(super) async fn race<F>(
    addresses: Vec<SocketAddr>,
    dial: impl Fn(SocketAddr) -> F,
) -> Result<PeerId, DialError>
where
    F: Future<Output = Result<PeerId, DialError>>,
{
    let mut waiting = addresses.into_iter();
    let mut running: FuturesUnordered<F> = waiting.next().map(&dial).into_iter().collect();
    let mut worst = None;
    loop {
        tokio::select! {
            result = running.next() => match result {
                Some(Ok(peer)) => return Ok(peer),
                Some(Err(error)) => {
                    if worst.as_ref().is_none_or(|worst| progress(worst) < progress(&error)) {
                        worst = Some(error);
                    }
                }
                None => return Err(worst.expect("at least one address was dialled")),
            },
            () = tokio::time::sleep(HEAD_START), if waiting.len() > 0 => {}
        }
        running.extend(waiting.next().map(&dial));
    }
}

/// How far the dial got before this failure.
fn progress(error: &DialError) -> u8 {
    match error {
        DialError::Closed { .. } | DialError::Unresolved { .. } => 0,
        DialError::TimedOut { .. } => 1,
        DialError::Unreachable { .. } => 2,
        DialError::Refused { .. } => 3,
        DialError::Handshake { .. } => 4,
        DialError::WrongKey { .. } | DialError::Myself { .. } => 5,
    }
}

/// Tells what went wrong, `at` what was dialled, with `expected` as the id that was asked for.
pub(super) fn explain(error: swarm::DialError, at: String, expected: Option<PeerId>) -> DialError {
    match error {
        swarm::DialError::LocalPeerId { .. } | swarm::DialError::NoAddresses => DialError::Myself { at },
        swarm::DialError::WrongPeerId { obtained, .. } => match (expected, address::from_libp2p(&obtained)) {
            (Some(expected), Some(found)) => DialError::WrongKey { at, expected, found },
            _ => DialError::Handshake { at, reason: format!("its key, {obtained}, is not Ed25519") },
        },
        swarm::DialError::Transport(errors) => match errors.into_iter().next() {
            Some((_, error)) => transport_failed(&error, at),
            None => DialError::TimedOut { at },
        },
        swarm::DialError::Aborted => DialError::Closed { at },
        swarm::DialError::Denied { cause } => {
            DialError::Handshake { at, reason: cause.source().map_or_else(String::new, ToString::to_string) }
        }
        swarm::DialError::DialPeerConditionFalse(_) => {
            DialError::Handshake { at, reason: "already being dialled".to_owned() }
        }
    }
}

fn transport_failed(error: &TransportError<io::Error>, at: String) -> DialError {
    let TransportError::Other(error) = error else {
        return DialError::Unreachable { at, reason: "not an address that can be dialled".to_owned() };
    };
    let (kind, reason) = innermost(error);
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => DialError::Refused { at },
        Some(io::ErrorKind::TimedOut) => DialError::TimedOut { at },
        Some(
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::InvalidInput,
        ) => DialError::Unreachable { at, reason },
        _ => DialError::Handshake { at, reason },
    }
}

/// The kind of the innermost I/O error and the text of the innermost error at all. libp2p wraps errors
/// in I/O errors, whose `source` skips the error that they wrap.
fn innermost(error: &io::Error) -> (Option<io::ErrorKind>, String) {
    let (mut kind, mut text) = (None, String::new());
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        text = error.to_string();
        next = match error.downcast_ref::<io::Error>() {
            Some(io) => {
                kind = Some(io.kind());
                io.get_ref().map(|inner| inner as &(dyn Error + 'static))
            }
            None => error.source(),
        };
    }
    (kind, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: &str = "h:1";

    fn failed(kind: io::ErrorKind) -> DialError {
        let wrapped = io::Error::other(io::Error::other(io::Error::from(kind)));
        let errors = vec![(libp2p::Multiaddr::empty(), TransportError::Other(wrapped))];
        explain(swarm::DialError::Transport(errors), AT.to_owned(), None)
    }

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 1))
    }

    #[test]
    fn the_innermost_error_decides() {
        assert_eq!(failed(io::ErrorKind::ConnectionRefused), DialError::Refused { at: AT.to_owned() });
        assert_eq!(failed(io::ErrorKind::TimedOut), DialError::TimedOut { at: AT.to_owned() });
        assert!(matches!(failed(io::ErrorKind::HostUnreachable), DialError::Unreachable { .. }));
        assert!(matches!(failed(io::ErrorKind::UnexpectedEof), DialError::Handshake { .. }));
    }

    #[tokio::test]
    async fn of_several_addresses_the_failure_that_got_furthest_is_told() {
        let kinds =
            [io::ErrorKind::HostUnreachable, io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut];
        let told = race(vec![address(0), address(1), address(2)], |to| {
            let SocketAddr::V4(to) = to else { unreachable!("only IPv4 above") };
            std::future::ready(Err(failed(kinds[usize::from(to.ip().octets()[3])])))
        });
        assert_eq!(told.await, Err(DialError::Refused { at: AT.to_owned() }));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_first_address_holds_the_second_up_for_its_head_start_only() {
        let started = tokio::time::Instant::now();
        let won = race(vec![address(1), address(2)], |to| async move {
            if to == address(1) {
                std::future::pending::<()>().await;
            }
            Ok(PeerId([2; 32]))
        });
        assert_eq!(won.await, Ok(PeerId([2; 32])));
        assert!(started.elapsed() < HEAD_START * 2);
    }

    #[test]
    fn an_ipv6_target_is_bracketed() {
        assert_eq!(target("::1", 9), "[::1]:9");
        assert_eq!(target("example.org", 9), "example.org:9");
    }

    #[tokio::test]
    async fn names_and_addresses_resolve() {
        for (host, count) in [("127.0.0.1", 1), ("::1", 1)] {
            assert_eq!(resolve(host, 80, host).await.unwrap().len(), count);
        }
        assert!(!resolve("localhost", 80, "localhost").await.unwrap().is_empty());
        let error = resolve("no-such-host.invalid", 80, "no-such-host.invalid:80").await.unwrap_err();
        assert!(matches!(error, DialError::Unresolved { .. }), "{error}");
    }
}

//! Making a bulk connection to a peer.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use shoal_common::PeerId;
use tokio::time::timeout;

use super::handshake;
use super::stream::BulkStream;
use super::tls::{ALPN, REVERSED, WrongPeer, client_config, server_config};
use super::way::Way;
use crate::identity::Identity;

/// How long connecting may take, handshake included.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no bulk connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BulkError<W = SocketAddr> {
    /// Nothing listens there.
    #[error("{way} refuses connections")]
    Refused {
        /// Over which way.
        way: W,
    },
    /// Nothing answered in time.
    #[error("{way} does not answer")]
    TimedOut {
        /// Over which way.
        way: W,
    },
    /// The network cannot reach it.
    #[error("{way} cannot be reached ({reason})")]
    Unreachable {
        /// Over which way.
        way: W,
        /// What the system said.
        reason: String,
    },
    /// Another peer answered: the address is another one's now.
    #[error("{way} answers with another key: expected {expected}, found {found}")]
    WrongPeer {
        /// Over which way.
        way: W,
        /// The peer that was asked for.
        expected: PeerId,
        /// The peer that proved to be there.
        found: PeerId,
    },
    /// It answers, but does not meet our terms or we not its.
    #[error("{way} did not complete the handshake ({reason})")]
    Handshake {
        /// Over which way.
        way: W,
        /// What went wrong.
        reason: String,
    },
}

/// Connects to `expected` over a way, within 5 s. The listener may still turn us away after this has returned, for it
/// decides last; then the first read fails. Dropping the future leaves no connection behind.
///
/// # Errors
/// When nothing, or another peer, answers, or the handshake fails.
pub async fn connect<W: Way>(
    way: W,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream<W::Reader, W::Writer>, BulkError<W>> {
    let connected = timeout(CONNECT, try_connect(&way, expected, identity, ALPN)).await;
    connected.unwrap_or(Err(BulkError::TimedOut { way }))
}

/// As [`connect`], to a peer that is served over the connection and not asked.
///
/// # Errors
/// As [`connect`]; also when the peer is of an earlier version.
pub async fn connect_reversed<W: Way>(
    way: W,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream<W::Reader, W::Writer>, BulkError<W>> {
    let connected = timeout(CONNECT, try_connect(&way, expected, identity, REVERSED)).await;
    connected.unwrap_or(Err(BulkError::TimedOut { way }))
}

/// Opens a way at whose other end `expected` connects as to a listener, within 5 s. Dropping the future leaves nothing.
///
/// # Errors
/// As [`connect`].
pub async fn meet<W: Way>(
    way: W,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream<W::Reader, W::Writer>, BulkError<W>> {
    let met = timeout(CONNECT, try_meet(&way, expected, identity)).await;
    met.unwrap_or(Err(BulkError::TimedOut { way }))
}

async fn try_meet<W: Way>(
    way: &W,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream<W::Reader, W::Writer>, BulkError<W>> {
    let failed = |reason: String| BulkError::Handshake { way: way.clone(), reason };
    let key = identity.certified_key().map_err(failed)?;
    let config = server_config(key).map_err(|error| failed(error.to_string()))?;
    let (mut input, mut output) = way.open().await.map_err(|error| unreachable(way.clone(), &error))?;
    let shaken = handshake::accept(&mut tokio::io::join(&mut input, &mut output), Arc::new(config)).await;
    let established = shaken.map_err(|error| refused_terms(way.clone(), &error))?;
    let found = established.peer;
    if found != expected {
        return Err(BulkError::WrongPeer { way: way.clone(), expected, found });
    }
    BulkStream::new(input, output, established).map_err(|error| failed(error.to_string()))
}

async fn try_connect<W: Way>(
    way: &W,
    expected: PeerId,
    identity: &Identity,
    alpn: &[u8],
) -> Result<BulkStream<W::Reader, W::Writer>, BulkError<W>> {
    let failed = |reason: String| BulkError::Handshake { way: way.clone(), reason };
    let key = identity.certified_key().map_err(failed)?;
    let config = client_config(key, expected, alpn).map_err(|error| failed(error.to_string()))?;
    let (mut input, mut output) = way.open().await.map_err(|error| unreachable(way.clone(), &error))?;
    let shaken = handshake::connect(&mut tokio::io::join(&mut input, &mut output), Arc::new(config)).await;
    let established = shaken.map_err(|error| refused_terms(way.clone(), &error))?;
    BulkStream::new(input, output, established).map_err(|error| failed(error.to_string()))
}

fn unreachable<W>(way: W, error: &io::Error) -> BulkError<W> {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => BulkError::Refused { way },
        io::ErrorKind::TimedOut => BulkError::TimedOut { way },
        _ => BulkError::Unreachable { way, reason: error.to_string() },
    }
}

fn refused_terms<W>(way: W, error: &io::Error) -> BulkError<W> {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) = tls
        && let Some(WrongPeer { expected, found }) = other.0.downcast_ref::<WrongPeer>()
    {
        return BulkError::WrongPeer { way, expected: *expected, found: *found };
    }
    BulkError::Handshake { way, reason: error.to_string() }
}

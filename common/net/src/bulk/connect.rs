//! Connecting to a peer's bulk lane.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::CertificateError;
use shoal_common::PeerId;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::handshake;
use super::stream::{BulkStream, ready_socket};
use super::tls::{WrongPeer, client_config};
use crate::identity::Identity;

/// How long connecting may take, handshake included.
const CONNECT: Duration = Duration::from_secs(5);

/// Why there is no bulk connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BulkError {
    /// Nothing listens there.
    #[error("{address} refuses connections")]
    Refused {
        /// Where.
        address: SocketAddr,
    },
    /// Nothing answered in time.
    #[error("{address} does not answer")]
    TimedOut {
        /// Where.
        address: SocketAddr,
    },
    /// The network cannot reach it.
    #[error("{address} cannot be reached ({reason})")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// Somebody else answered: the peer's address has passed on to another one.
    #[error("{address} answers with another key: expected {expected}, found {found}")]
    WrongPeer {
        /// Where.
        address: SocketAddr,
        /// Who was asked for.
        expected: PeerId,
        /// Who proved to be there.
        found: PeerId,
    },
    /// It answers, but does not meet our terms or we not its.
    #[error("{address} did not complete the handshake ({reason})")]
    Handshake {
        /// Where.
        address: SocketAddr,
        /// What went wrong.
        reason: String,
    },
}

/// Connects to `expected` at `address`, within 5 s. The listener may still turn us away after this has
/// returned, for it judges us last; then the first read fails. Dropping the future leaves no connection
/// behind.
///
/// # Errors
/// When nobody answers, or somebody else, or the handshake fails.
pub async fn connect(
    address: SocketAddr,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream, BulkError> {
    let connected = timeout(CONNECT, try_connect(address, expected, identity));
    connected.await.unwrap_or(Err(BulkError::TimedOut { address }))
}

async fn try_connect(
    address: SocketAddr,
    expected: PeerId,
    identity: &Identity,
) -> Result<BulkStream, BulkError> {
    let failed = |reason: String| BulkError::Handshake { address, reason };
    let key = identity.certified_key().map_err(failed)?;
    let config = client_config(key, expected).map_err(|error| failed(error.to_string()))?;
    let mut tcp = TcpStream::connect(address).await.map_err(|error| unreachable(address, &error))?;
    ready_socket(&tcp).map_err(|error| unreachable(address, &error))?;
    let shaken = handshake::connect(&mut tcp, Arc::new(config)).await;
    let established = shaken.map_err(|error| refused_terms(address, &error))?;
    BulkStream::new(tcp, address, established).map_err(|error| failed(error.to_string()))
}

fn unreachable(address: SocketAddr, error: &io::Error) -> BulkError {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => BulkError::Refused { address },
        io::ErrorKind::TimedOut => BulkError::TimedOut { address },
        _ => BulkError::Unreachable { address, reason: error.to_string() },
    }
}

fn refused_terms(address: SocketAddr, error: &io::Error) -> BulkError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    if let Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) = tls
        && let Some(WrongPeer { expected, found }) = other.0.downcast_ref::<WrongPeer>()
    {
        return BulkError::WrongPeer { address, expected: *expected, found: *found };
    }
    BulkError::Handshake { address, reason: error.to_string() }
}

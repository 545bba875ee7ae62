//! Why the network could not do something.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use shoal_common::PeerId;

use crate::protocol::Protocol;

/// How often the log says that connections cannot be accepted, while that is so.
pub(crate) const LOG_AGAIN: Duration = Duration::from_secs(60);

/// Why the control plane or a bulk listener could not do something.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// Another program listens on that address and port.
    #[error("{address} is in use by another program; stop it or choose another port")]
    PortInUse {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// The address is not one of this machine's.
    #[error("{address} is not an address of this machine")]
    NotOurAddress {
        /// What was to be bound.
        address: SocketAddr,
    },
    /// The system does not let us listen there.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// What was to be bound.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate could be made for our key.
    #[error("cannot make a TLS certificate: {reason}")]
    Certificate {
        /// What the TLS library said.
        reason: String,
    },
    /// A protocol's name does not begin with a slash.
    #[error("{protocol} is no protocol name: it must begin with a slash")]
    BadProtocol {
        /// The name.
        protocol: Protocol,
    },
    /// There is no connection to that peer; dial first.
    #[error("not connected to {peer}")]
    NotConnected {
        /// The peer to which a channel was to be opened.
        peer: PeerId,
    },
    /// The peer does not speak that protocol.
    #[error("{peer} does not speak {protocol}; is it another version?")]
    Unsupported {
        /// The peer to which a channel was to be opened.
        peer: PeerId,
        /// The protocol.
        protocol: Protocol,
    },
    /// Too many channels are being opened to that peer at once.
    #[error("too many channels to {peer} are being opened at once")]
    Busy {
        /// The peer to which a channel was to be opened.
        peer: PeerId,
    },
    /// The connection broke, or the peer did not agree in time.
    #[error("the connection to {peer} was lost")]
    Lost {
        /// The peer to which a channel was to be opened.
        peer: PeerId,
    },
    /// The control plane is shut down.
    #[error("shutting down")]
    Closed,
}

impl NetError {
    /// Sorts the errors of binding a listening socket.
    pub(crate) fn listen(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::PortInUse { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurAddress { address },
            _ => Self::Listen { address, source },
        }
    }
}

//! The handshake, driven by rustls over a socket; what comes out of it are the keys of both directions and the bytes that
//! were read beyond it.

use std::io;
use std::sync::Arc;

use rustls::client::{ClientConnectionData, UnbufferedClientConnection};
use rustls::kernel::KernelConnection;
use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, UnbufferedStatus};
use rustls::{ClientConfig, CommonState, ConnectionTrafficSecrets, Error, ExtractedSecrets, ServerConfig};
use shoal_common::PeerId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::tls::{no_name, proven_peer};

/// Room for what comes during a handshake. Ours takes three kilobytes each way; rustls bounds its messages by 64 KiB.
const INCOMING: usize = 64 * 1024;

/// A finished handshake.
pub(super) struct Established {
    pub(super) peer: PeerId,
    /// Whether the end that accepted is the one that asks.
    pub(super) reversed: bool,
    pub(super) secrets: ExtractedSecrets,
    pub(super) keys: KeySource,
    /// What the other end has said already.
    pub(super) plain: Vec<u8>,
    /// Bytes of a record that was not whole yet.
    pub(super) incoming: Vec<u8>,
}

/// Where new keys come from when a direction's are used up (RFC 8446, section 7.2).
pub(super) enum KeySource {
    Client(KernelConnection<ClientConnectionData>),
    Server(KernelConnection<ServerConnectionData>),
}

impl KeySource {
    pub(super) fn next_sending(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_tx_secret(),
            Self::Server(kernel) => kernel.update_tx_secret(),
        }
    }

    pub(super) fn next_receiving(&mut self) -> Result<(u64, ConnectionTrafficSecrets), Error> {
        match self {
            Self::Client(kernel) => kernel.update_rx_secret(),
            Self::Server(kernel) => kernel.update_rx_secret(),
        }
    }
}

/// Speaks first.
pub(super) async fn connect<S>(socket: &mut S, config: Arc<ClientConfig>) -> io::Result<Established>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    run(socket, Box::new(UnbufferedClientConnection::new(config, no_name()).map_err(invalid)?)).await
}

/// Answers.
pub(super) async fn accept<S>(socket: &mut S, config: Arc<ServerConfig>) -> io::Result<Established>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    run(socket, Box::new(UnbufferedServerConnection::new(config).map_err(invalid)?)).await
}

/// rustls's client and server, which share no trait.
trait Machine: Sized {
    type Data;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    fn state(&self) -> &CommonState;

    fn finish(self) -> Result<(ExtractedSecrets, KeySource), Error>;
}

impl Machine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn finish(self) -> Result<(ExtractedSecrets, KeySource), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, KeySource::Client(kernel)))
    }
}

impl Machine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, incoming: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(incoming)
    }

    fn state(&self) -> &CommonState {
        self
    }

    fn finish(self) -> Result<(ExtractedSecrets, KeySource), Error> {
        let (secrets, kernel) = self.dangerous_into_kernel_connection()?;
        Ok((secrets, KeySource::Server(kernel)))
    }
}

/// What to do next.
enum Next {
    Process,
    Send,
    Read,
    Fail(io::Error),
}

async fn run<S, M>(socket: &mut S, mut machine: Box<M>) -> io::Result<Established>
where
    S: AsyncRead + AsyncWrite + Unpin,
    M: Machine,
{
    let mut incoming = vec![0; INCOMING];
    let (mut filled, mut outgoing, mut plain) = (0, Vec::new(), Vec::new());
    loop {
        let UnbufferedStatus { discard, state, .. } = machine.process(&mut incoming[..filled]);
        let next = match state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                encode(data, &mut outgoing);
                Next::Process
            }
            Ok(ConnectionState::TransmitTlsData(data)) => {
                data.done();
                Next::Send
            }
            Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                while let Some(record) = traffic.next_record() {
                    plain.extend_from_slice(record.map_err(invalid)?.payload);
                }
                Next::Process
            }
            Ok(ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_)) => Next::Read,
            Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                Next::Fail(io::ErrorKind::UnexpectedEof.into())
            }
            Ok(_) => Next::Fail(invalid(Error::General("data before the handshake".to_owned()))),
            Err(error) => Next::Fail(invalid(error)),
        };
        incoming.copy_within(discard..filled, 0);
        filled -= discard;
        match next {
            Next::Process => {}
            Next::Send => {
                socket.write_all(&outgoing).await?;
                outgoing.clear();
            }
            Next::Read if !machine.state().is_handshaking() => {
                let (peer, reversed) = proven_peer(machine.state()).map_err(invalid)?;
                let (secrets, keys) = machine.finish().map_err(invalid)?;
                incoming.truncate(filled);
                return Ok(Established { peer, reversed, secrets, keys, plain, incoming });
            }
            Next::Read => match socket.read(&mut incoming[filled..]).await? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            },
            Next::Fail(error) => {
                // The alert, so that the other side learns why; it comes before rustls looks at the bytes again.
                let rest = &mut incoming[..filled];
                if let Ok(ConnectionState::EncodeTlsData(data)) = machine.process(rest).state {
                    encode(data, &mut outgoing);
                }
                let _ = socket.write_all(&outgoing).await;
                return Err(error);
            }
        }
    }
}

fn encode<Data>(mut data: EncodeTlsData<'_, Data>, outgoing: &mut Vec<u8>) {
    let start = outgoing.len();
    loop {
        match data.encode(&mut outgoing[start..]) {
            Ok(count) => return outgoing.truncate(start + count),
            Err(EncodeError::InsufficientSize(size)) => outgoing.resize(start + size.required_size, 0),
            Err(EncodeError::AlreadyEncoded) => return,
        }
    }
}

fn invalid(error: Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

//! The terms of bulk connections, one by one: a connection that does not meet one is refused.
//!
//! The strangers here are made of rustls itself. Each test breaks one term of a configuration that is
//! shown to work otherwise.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test and its helpers fail by panicking")]

mod support;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use libp2p::identity::Keypair;
use libp2p::tls::certificate;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientSessionMemoryCache, Resumption};
use rustls::crypto::ring::{default_provider, sign};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, HandshakeKind, ServerConfig,
    SignatureScheme, SupportedProtocolVersion, version,
};
use shoal_common::PeerId;
use shoal_net::Identity;
use shoal_net::bulk::{self, BulkError, BulkLimits, Listener};
use support::{soon, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

static TLS13: &[&SupportedProtocolVersion] = &[&version::TLS13];
static TLS12: &[&SupportedProtocolVersion] = &[&version::TLS12];

/// Takes any certificate: the strangers judge nobody.
#[derive(Debug)]
struct Anybody;

fn any_schemes() -> Vec<SignatureScheme> {
    default_provider().signature_verification_algorithms.supported_schemes()
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        any_schemes()
    }
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        any_schemes()
    }
}

/// A key of libp2p's, its certificate, and the peer id that it proves.
struct Stranger {
    id: PeerId,
    key: CertifiedKey,
}

impl Stranger {
    fn new() -> Self {
        let pair = Keypair::generate_ed25519();
        let id = PeerId::from_libp2p_bytes(&pair.public().to_peer_id().to_bytes()).unwrap();
        let (certificate, key) = certificate::generate(&pair).unwrap();
        let key = sign::any_ecdsa_type(&key).unwrap();
        Self { id, key: CertifiedKey::new(vec![certificate], key) }
    }

    /// With its certificate sent twice.
    fn with_two_certificates(mut self) -> Self {
        self.key.cert.push(self.key.cert[0].clone());
        self
    }

    /// With a certificate whose key is not the one that signs the handshake.
    fn with_the_certificate_of(mut self, other: &Self) -> Self {
        self.key.cert = other.key.cert.clone();
        self
    }

    fn client(self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(self.key)));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    fn server(self, versions: &[&'static SupportedProtocolVersion], alpn: &[&[u8]]) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_client_cert_verifier(Arc::new(Anybody))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(self.key)));
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    }
}

const SHOAL: &[&[u8]] = &[b"shoal/1"];

fn listener() -> (Listener, SocketAddr) {
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(address, &Identity::generate(), BulkLimits::default()).unwrap();
    let address = listener.local_addr();
    (listener, address)
}

async fn stranger_connects(
    to: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<client::TlsStream<TcpStream>> {
    let tcp = TcpStream::connect(to).await.unwrap();
    let name = ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into());
    TlsConnector::from(config).connect(name, tcp).await
}

/// Shows that our listener turns this client away: it sees an error, and a good client that comes later
/// is the first one to be accepted.
async fn refused_by_listener(config: ClientConfig) {
    let (mut listener, address) = listener();
    let turned_away = async {
        let mut stream = stranger_connects(address, Arc::new(config)).await?;
        stream.write_all(b"let me in").await?;
        match stream.read(&mut [0; 1]).await? {
            0 => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            _ => Ok(()),
        }
    };
    soon("the refusal", turned_away).await.unwrap_err();

    let good = Stranger::new();
    let id = good.id;
    let _stream = stranger_connects(address, Arc::new(good.client(TLS13, SHOAL))).await.unwrap();
    assert_eq!(soon("the good client", listener.accept()).await.unwrap().0.peer(), id);
}

/// Has our side connect to a server with this configuration, expecting `expected`.
async fn we_connect_to(config: ServerConfig, expected: PeerId) -> Result<PeerId, BulkError> {
    let (result, _stranger) = we_meet(config, expected).await;
    result
}

async fn we_meet(
    config: ServerConfig,
    expected: PeerId,
) -> (Result<PeerId, BulkError>, io::Result<server::TlsStream<TcpStream>>) {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp.local_addr().unwrap();
    let identity = Identity::generate();
    let accept = async {
        let (stream, _) = tcp.accept().await.unwrap();
        TlsAcceptor::from(Arc::new(config)).accept(stream).await
    };
    let connect = bulk::connect(address, expected, &identity);
    let (ours, theirs) =
        within(Duration::from_secs(4), "the end of the handshake", async { tokio::join!(connect, accept) })
            .await;
    (ours.map(|stream| stream.peer()), theirs)
}

#[tokio::test]
async fn the_strangers_are_let_in_while_they_keep_to_the_terms() {
    let (mut listener, address) = listener();
    let stranger = Stranger::new();
    let id = stranger.id;
    let _stream = stranger_connects(address, Arc::new(stranger.client(TLS13, SHOAL))).await.unwrap();
    assert_eq!(soon("the stranger", listener.accept()).await.unwrap().0.peer(), id);

    let stranger = Stranger::new();
    let id = stranger.id;
    assert_eq!(we_connect_to(stranger.server(TLS13, SHOAL), id).await, Ok(id));
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let mut config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(TLS13)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    config.alpn_protocols = vec![SHOAL[0].to_vec()];
    refused_by_listener(config).await;
}

#[tokio::test]
async fn two_certificates_are_refused() {
    refused_by_listener(Stranger::new().with_two_certificates().client(TLS13, SHOAL)).await;
    let stranger = Stranger::new().with_two_certificates();
    let id = stranger.id;
    let result = we_connect_to(stranger.server(TLS13, SHOAL), id).await;
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
}

#[tokio::test]
async fn the_certificate_of_another_is_of_no_use_without_its_key() {
    let victim = Stranger::new();
    refused_by_listener(Stranger::new().with_the_certificate_of(&victim).client(TLS13, SHOAL)).await;
    let thief = Stranger::new().with_the_certificate_of(&victim);
    let result = we_connect_to(thief.server(TLS13, SHOAL), victim.id).await;
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
}

#[tokio::test]
async fn another_peer_than_the_expected_one_is_refused() {
    let (expected, stranger) = (Stranger::new().id, Stranger::new());
    let found = stranger.id;
    let result = we_connect_to(stranger.server(TLS13, SHOAL), expected).await;
    assert!(
        matches!(result, Err(BulkError::WrongPeer { expected: e, found: f, .. }) if (e, f) == (expected, found)),
        "{result:?}"
    );
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    refused_by_listener(Stranger::new().client(TLS12, SHOAL)).await;
    let stranger = Stranger::new();
    let id = stranger.id;
    let result = we_connect_to(stranger.server(TLS12, SHOAL), id).await;
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
}

#[tokio::test]
async fn another_protocol_within_is_refused() {
    for alpn in [&[b"h2".as_slice()][..], &[b"libp2p"], &[b"shoal/2"]] {
        refused_by_listener(Stranger::new().client(TLS13, alpn)).await;
        let stranger = Stranger::new();
        let id = stranger.id;
        let result = we_connect_to(stranger.server(TLS13, alpn), id).await;
        assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
    }
}

#[tokio::test]
async fn no_protocol_within_is_refused() {
    refused_by_listener(Stranger::new().client(TLS13, &[])).await;
    let stranger = Stranger::new();
    let id = stranger.id;
    let result = we_connect_to(stranger.server(TLS13, &[]), id).await;
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
}

#[tokio::test]
async fn a_client_cannot_resume_and_is_offered_no_early_data() {
    let (mut listener, address) = listener();
    let stranger = Stranger::new();
    let mut config = stranger.client(TLS13, SHOAL);
    config.resumption = Resumption::store(Arc::new(ClientSessionMemoryCache::new(8)));
    config.enable_early_data = true;
    let config = Arc::new(config);
    for _ in 0..2 {
        let mut near = stranger_connects(address, config.clone()).await.unwrap();
        let (mut far, _) = soon("the connection", listener.accept()).await.unwrap();
        // Tickets would come in front of the first bytes.
        far.write_all(b"x").await.unwrap();
        far.flush().await.unwrap();
        assert_eq!(soon("a byte", near.read_u8()).await.unwrap(), b'x');
        let connection = near.get_ref().1;
        assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(connection.tls13_tickets_received(), 0);
        assert!(!connection.is_early_data_accepted());
    }
}

#[tokio::test]
async fn we_do_not_resume_either() {
    let stranger = Stranger::new();
    let id = stranger.id;
    let mut config = stranger.server(TLS13, SHOAL);
    config.max_early_data_size = 4096;
    config.send_tls13_tickets = 4;
    for _ in 0..2 {
        let (ours, theirs) = we_meet(config.clone(), id).await;
        assert_eq!(ours, Ok(id));
        let theirs = theirs.unwrap();
        assert_eq!(theirs.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn a_certificate_without_a_peer_id_is_refused() {
    // One byte of the name of libp2p's extension, 1.3.6.1.4.1.53594.1.1, is changed.
    let mut stranger = Stranger::new();
    let mut bytes = stranger.key.cert[0].to_vec();
    let oid = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xa2, 0x5a, 0x01, 0x01];
    let at = bytes.windows(oid.len()).position(|window| window == oid).unwrap();
    bytes[at + oid.len() - 1] = 0x02;
    stranger.key.cert = vec![CertificateDer::from(bytes)];
    let id = stranger.id;
    let result = we_connect_to(stranger.server(TLS13, SHOAL), id).await;
    assert!(matches!(result, Err(BulkError::Handshake { .. })), "{result:?}");
}

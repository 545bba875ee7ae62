//! The terms of a bulk connection: who may be at the other end, and which TLS they must speak.
//!
//! TLS 1.3 only; exactly one certificate from each side, of libp2p's kind, which ties the TLS key to a
//! peer id (<https://github.com/libp2p/specs/blob/master/tls/tls.md>); ALPN `shoal/1` from each side; no
//! resumption and no early data, so every connection proves both ids afresh. The crypto provider is
//! named here and never the process's default, which any dependency could change.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use libp2p::tls::certificate;
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::{self, cipher_suite};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use shoal_common::PeerId;

use crate::address::from_libp2p;

/// What both sides must name as the protocol within (RFC 7301).
pub(crate) const ALPN: &[u8] = b"shoal/1";
/// The same where the end that dials serves, and the end that accepts asks. Listeners of earlier versions refuse it.
pub(crate) const REVERSED: &[u8] = b"shoal/1 reversed";

/// How we listen: any peer with a key may connect.
pub(crate) fn server_config(key: CertifiedKey) -> Result<ServerConfig, Error> {
    let verifier = Arc::new(PeerVerifier { expected: None });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![ALPN.to_vec(), REVERSED.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    // For `record`, which protects what is said after the handshake.
    config.enable_secret_extraction = true;
    Ok(config)
}

/// How we connect: only `expected` may answer, and what is spoken is [`ALPN`] or [`REVERSED`].
pub(crate) fn client_config(key: CertifiedKey, expected: PeerId, alpn: &[u8]) -> Result<ClientConfig, Error> {
    let verifier = Arc::new(PeerVerifier { expected: Some(expected) });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
    config.alpn_protocols = vec![alpn.to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = false;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// There is no name to ask for: this one keeps SNI out of the handshake, as libp2p does.
pub(crate) fn no_name() -> ServerName<'static> {
    ServerName::IpAddress(IpAddr::V4(Ipv4Addr::UNSPECIFIED).into())
}

/// The peer that a finished handshake proved, and whether the connection is a reversed one. rustls takes a connection in which one
/// side named no protocol at all, so that is checked here.
pub(crate) fn proven_peer(connection: &CommonState) -> Result<(PeerId, bool), Error> {
    let reversed = match connection.alpn_protocol() {
        Some(ALPN) => false,
        Some(REVERSED) => true,
        _ => return Err(Error::NoApplicationProtocol),
    };
    match connection.peer_certificates() {
        Some([certificate]) => Ok((peer_of(certificate, &[])?, reversed)),
        _ => Err(Error::NoCertificatesPresented),
    }
}

/// The peer that answered instead of the expected one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub(crate) struct WrongPeer {
    pub(crate) expected: PeerId,
    pub(crate) found: PeerId,
}

/// AES-128-GCM first: the fastest by far where the CPU has instructions for it, and every machine that
/// moves gigabytes has.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(CryptoProvider {
        cipher_suites: vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS13_AES_256_GCM_SHA384,
            cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ],
        ..ring::default_provider()
    })
}

fn peer_of(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    if !others.is_empty() {
        return Err(Error::General("more than one certificate".to_owned()));
    }
    let parsed = certificate::parse(certificate)?;
    from_libp2p(&parsed.peer_id()).ok_or_else(|| Error::General("a key that is not Ed25519".to_owned()))
}

/// Takes libp2p's certificates, of `expected` or of any peer.
#[derive(Debug)]
struct PeerVerifier {
    expected: Option<PeerId>,
}

impl PeerVerifier {
    fn verify(&self, end: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<(), Error> {
        let found = peer_of(end, others)?;
        match self.expected {
            Some(expected) if expected != found => {
                let wrong = OtherError(Arc::new(WrongPeer { expected, found }));
                Err(Error::InvalidCertificate(CertificateError::Other(wrong)))
            }
            _ => Ok(()),
        }
    }
}

/// Only reached if TLS 1.2 was negotiated, which neither configuration offers.
fn refuse_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
}

fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    certificate::parse(certificate)?.verify_signature(signed.scheme, message, signed.signature())?;
    Ok(HandshakeSignatureValid::assertion())
}

/// libp2p's certificates are ECDSA on P-256 in practice; the others cost nothing to take.
fn schemes() -> Vec<SignatureScheme> {
    vec![
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
        SignatureScheme::ED25519,
    ]
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end, others).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    fn client_auth_mandatory(&self) -> bool {
        true
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end, others).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        refuse_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;
    use rustls::CipherSuite;

    #[test]
    fn nothing_is_resumed_or_sent_early_and_aes_128_is_preferred() {
        let identity = Identity::generate();
        let server = server_config(identity.certified_key().unwrap()).unwrap();
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
        assert!(!server.session_storage.can_cache() && !server.ticketer.enabled());
        let client = client_config(identity.certified_key().unwrap(), identity.peer_id(), ALPN).unwrap();
        assert!(!client.enable_early_data);
        let first = client.crypto_provider().cipher_suites[0].suite();
        assert_eq!(first, CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn a_certificate_names_its_peer() {
        let identity = Identity::generate();
        let key = identity.certified_key().unwrap();
        assert_eq!(peer_of(&key.cert[0], &[]).unwrap(), identity.peer_id());
        assert!(peer_of(&key.cert[0], &key.cert).is_err(), "two certificates");
        assert!(peer_of(&CertificateDer::from(vec![0; 300]), &[]).is_err(), "garbage");
    }

    #[test]
    fn an_altered_certificate_names_nobody_else() {
        let identity = Identity::generate();
        let key = identity.certified_key().unwrap();
        let original = key.cert[0].to_vec();
        for position in 0..original.len() {
            let mut altered = original.clone();
            altered[position] ^= 1;
            // A few bits, as the count of unused ones in the signature, say nothing.
            let named = peer_of(&CertificateDer::from(altered), &[]);
            assert!(named.is_err() || named == Ok(identity.peer_id()), "byte {position}: {named:?}");
        }
    }
}

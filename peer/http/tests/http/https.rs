//! `fetch` from servers over TLS, with certificates that the system trusts and such that it does not.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::{Lab, Manners, assert_content, fetch_command, finish, random};

/// Puts TLS before the lab's servers, with a certificate for `127.0.0.1` by an authority that is written to `authority`.
struct Front {
    port: u16,
    _runtime: Runtime,
}

impl Front {
    fn start(lab: &Lab, authority: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut issuer = CertificateParams::default();
        // Two of the same name would be taken for one with a wrong key.
        issuer.distinguished_name.push(DnType::CommonName, authority.display().to_string());
        issuer.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = issuer.self_signed(&key).unwrap();
        let base64 = base64::engine::general_purpose::STANDARD.encode(issuer.der());
        std::fs::write(
            authority,
            format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n"),
        )
        .unwrap();
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &issuer, &key).unwrap();
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], private).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (port, behind) = (listener.local_addr().unwrap().port(), lab.port);
        runtime.spawn(async move {
            while let Ok((outside, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut inside = TcpStream::connect(("127.0.0.1", behind)).await?;
                    let mut outside = acceptor.accept(outside).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
                });
            }
        });
        Self { port, _runtime: runtime }
    }

    fn url(&self) -> String {
        format!("https://127.0.0.1:{}/file.bin", self.port)
    }
}

#[test]
fn servers_whose_certificates_the_system_trusts_are_fetched_from_and_no_others() {
    let (bytes, folder) = (random((3 << 20) + 5, 41), tempfile::tempdir().unwrap());
    let labs = [(); 3].map(|()| Lab::start(&bytes, Manners::default()));
    let trusted = folder.path().join("trusted.pem");
    let fronts =
        [Front::start(&labs[0], &trusted), Front::start(&labs[1], &folder.path().join("unknown.pem"))];
    let to = folder.path().join("out.bin");
    let run = |urls: &[String]| {
        let mut command = fetch_command(urls);
        // Where a Linux system's certificates lie may be said thus, as for curl.
        command.arg("-o").arg(&to).env("SSL_CERT_FILE", &trusted).env_remove("SSL_CERT_DIR");
        finish(command.spawn().unwrap())
    };
    let ended = run(&[fronts[1].url()]);
    ended.failed_saying("certificate").failed_saying("SSL_CERT_FILE");
    assert!(!to.exists() && labs[1].served() == 0);
    run(&[fronts[0].url(), fronts[1].url(), labs[2].url("file.bin")]).succeeded();
    assert_content(&to, &bytes);
    assert!(labs[0].served() > 0 && labs[1].served() == 0 && labs[2].served() > 0);
}

//! Certificates for the peer, and an authority that has signed them.

use std::path::PathBuf;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ServerConfig, SupportedProtocolVersion};

/// A server's certificate with its key, signed by an authority of its own.
#[derive(Clone)]
pub(crate) struct Certificate {
    certificate: CertificateDer<'static>,
    key: Arc<PrivatePkcs8KeyDer<'static>>,
    folder: Arc<TempDir>,
}

impl Certificate {
    pub(crate) fn of(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let signed = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("authority.pem"), authority.pem()).unwrap();
        let key = Arc::new(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Self { certificate: signed.into(), key, folder: Arc::new(folder) }
    }

    /// The authority's own certificate, as a file.
    pub(crate) fn authority_file(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// As the login of TDS 7.4 has it: packets around TLS 1.2 can't carry what TLS 1.3 sends afterwards.
    pub(super) fn acceptor_within_packets(&self) -> TlsAcceptor {
        self.acceptor(&TLS12, &[])
    }

    /// As TDS 8.0 has it.
    pub(super) fn acceptor_strict(&self) -> TlsAcceptor {
        self.acceptor(&TLS13, &[b"tds/8.0"])
    }

    fn acceptor(&self, version: &'static SupportedProtocolVersion, protocols: &[&[u8]]) -> TlsAcceptor {
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).unwrap().with_no_client_auth();
        let key = PrivateKeyDer::Pkcs8(self.key.clone_key());
        let mut config = builder.with_single_cert(vec![self.certificate.clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

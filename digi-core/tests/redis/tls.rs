//! Certificates for servers and clients.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;

use crate::server::RedisServer;

/// An authority with a certificate for servers on this machine and another for clients, in files.
pub(crate) struct Authority {
    folder: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority for a test");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        for name in ["server", "client"] {
            let key = KeyPair::generate().unwrap();
            let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
            let signed = CertificateParams::new(names).unwrap().signed_by(&key, &authority).unwrap();
            write(&format!("{name}.pem"), signed.pem());
            write(&format!("{name}.key"), key.serialize_pem());
        }
        Self { folder }
    }

    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Which speaks TLS only; `clients` says whether clients need a certificate, yes or no.
    pub(crate) fn server(&self, clients: &str) -> RedisServer {
        let lines = self.lines(clients);
        let lines: Vec<_> = ["port 0", "tls-port PORT"].into_iter().chain(lines.iter().map(String::as_str)).collect();
        RedisServer::start(&lines)
    }

    /// For a server's configuration.
    pub(crate) fn lines(&self, clients: &str) -> [String; 4] {
        [
            format!("tls-cert-file {}", self.file("server.pem")),
            format!("tls-key-file {}", self.file("server.key")),
            format!("tls-ca-cert-file {}", self.file("ca.pem")),
            format!("tls-auth-clients {clients}"),
        ]
    }
}

//! Opening a connection to a Redis server.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, ProtocolVersion, PushInfo, RedisConnectionInfo, Value};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::url::{Address, Login, TlsFiles};
use crate::layer::LayerError;

/// How long opening a connection may take, with TLS and login.
const OPEN: Duration = Duration::from_secs(5);

/// How long an answer may take. Then the connection counts as dead.
pub(in crate::layer) const ANSWER: Duration = Duration::from_secs(3);

/// How many requests may wait to be written. More wait outside.
const REQUESTS: usize = 256;

/// How Redis is spoken to: in the clear, or by TLS.
#[derive(Clone, Default)]
pub(in crate::layer) struct Connector {
    tls: Option<TlsConnector>,
}

/// An open connection, which works while `driver` is polled and is closed when that is dropped.
pub(in crate::layer) struct Open {
    pub(in crate::layer) requests: MultiplexedConnection,
    /// Ends when the connection does.
    pub(in crate::layer) driver: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connector {
    /// # Errors
    /// A file that cannot be read, or that does not hold what it should.
    pub(in crate::layer) fn new(tls: Option<&TlsFiles>) -> Result<Self, LayerError> {
        Ok(Self { tls: tls.map(tls_of).transpose()? })
    }

    /// # Errors
    /// Why not, without the password.
    pub(in crate::layer) async fn open(
        &self,
        address: &Address,
        login: &Login,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Open, String> {
        match tokio::time::timeout(OPEN, self.try_open(address, login, on_push)).await {
            Ok(Ok(open)) => Ok(open),
            Ok(Err(error)) => Err(login.hide_in(&error)),
            Err(_) => Err(format!("no answer within {} s", OPEN.as_secs())),
        }
    }

    async fn try_open(
        &self,
        address: &Address,
        login: &Login,
        on_push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> Result<Open, String> {
        let plain =
            TcpStream::connect((address.host.as_str(), address.port)).await.map_err(|error| error.to_string())?;
        plain.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => speak(plain, login, on_push).await,
            Some(tls) => {
                let name = ServerName::try_from(address.host.clone()).map_err(|error| error.to_string())?;
                let encrypted = tls.connect(name, plain).await.map_err(|error| format!("TLS: {error}"))?;
                speak(encrypted, login, on_push).await
            }
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    login: &Login,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<Open, String> {
    let mut info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(login.db);
    info = info.set_lib_name("digi", env!("CARGO_PKG_VERSION"));
    if let Some(user) = &login.user {
        info = info.set_username(user);
    }
    if let Some(password) = &login.password {
        info = info.set_password(password.as_str());
    }
    let config = AsyncConnectionConfig::new()
        .set_response_timeout(Some(ANSWER))
        .set_pipeline_buffer_size(REQUESTS)
        .set_push_sender(move |push| {
            on_push(push);
            Ok::<_, redis::aio::SendError>(())
        });
    let (requests, driver) =
        MultiplexedConnection::new_with_config(&info, stream, config).await.map_err(|error| error.to_string())?;
    Ok(Open { requests, driver: Box::pin(driver) })
}

impl Open {
    /// Asks one thing of a connection that is not kept.
    ///
    /// # Errors
    /// The server's, or the connection's.
    pub(super) async fn ask(&mut self, command: &Cmd) -> Result<Value, String> {
        let mut requests = self.requests.clone();
        let answer = async move { requests.send_packed_command(command).await.and_then(Value::extract_error) };
        tokio::select! {
            answer = answer => answer.map_err(|error| error.to_string()),
            () = &mut self.driver => Err("the connection was closed".to_owned()),
        }
    }
}

fn tls_of(files: &TlsFiles) -> Result<TlsConnector, LayerError> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| unusable(path, &error))?;
            }
        }
        None => {
            // One that cannot be read is no obstacle to the others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                let text = "this system has no root certificates to check Redis's against: name a file with `?ca=…`";
                return Err(LayerError(text.to_owned()));
            }
        }
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| LayerError(format!("TLS: {error}")))?
        .with_root_certificates(roots);
    let config = match (&files.cert, &files.key) {
        (Some(cert), Some(key)) => {
            let private = PrivateKeyDer::from_pem_slice(&read(key)?).map_err(|error| unusable(key, &error))?;
            config.with_client_auth_cert(certificates(cert)?, private).map_err(|error| unusable(cert, &error))?
        }
        _ => config.with_no_client_auth(),
    };
    Ok(TlsConnector::from(Arc::new(config)))
}

fn certificates(path: &str) -> Result<Vec<CertificateDer<'static>>, LayerError> {
    let found = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| unusable(path, &error))?;
    if found.is_empty() {
        return Err(unusable(path, &"it holds no certificate in PEM"));
    }
    Ok(found)
}

fn read(path: &str) -> Result<Vec<u8>, LayerError> {
    std::fs::read(path).map_err(|error: io::Error| unusable(path, &error))
}

fn unusable(path: &str, error: &dyn std::fmt::Display) -> LayerError {
    LayerError(format!("the file {path}, which the layer's URL names for TLS, cannot be used: {error}"))
}

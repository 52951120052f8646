//! Who a connection is.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use http::request::Parts;

use crate::error::CloseCode;
use crate::id::UserKey;

/// Who is logged in on a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The user.
    pub user: UserKey,
    /// The name that others see.
    pub name: Arc<str>,
    /// Which of the WebSocket sub-protocols that the client offered to select. None: [`SUBPROTOCOL`] if it was
    /// offered.
    pub subprotocol: Option<String>,
    /// See [`Scope::login`](crate::consumer::Scope::login).
    pub login: Option<Arc<str>>,
}

/// The sub-protocol that Digi's own clients offer.
pub const SUBPROTOCOL: &str = "digi";

/// Why an [`Authenticator`] names nobody. The connection is closed with the code of the same name: a browser is not
/// shown the HTTP status of a refused handshake, but it is shown a close code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// Nobody is logged in, or the proof is wrong or too old.
    #[error("nobody is logged in")]
    Unauthenticated,
    /// It could not be found out just now.
    #[error("the login could not be checked")]
    Unavailable,
}

impl From<AuthError> for CloseCode {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Unauthenticated => Self::Unauthenticated,
            AuthError::Unavailable => Self::Unavailable,
        }
    }
}

/// Tells from the handshake who a connection is. Asked once per connection, concurrently, and cut off after
/// [`auth_timeout`](super::ServerLimits::auth_timeout). Whether the user may enter the room is not its business.
#[async_trait]
pub trait Authenticator: Send + Sync + 'static {
    /// The identity behind a handshake's URL and headers. `remote` is the socket's peer: behind a proxy, the proxy.
    ///
    /// # Errors
    /// Why there is none.
    async fn authenticate(&self, request: &Parts, remote: SocketAddr) -> Result<Identity, AuthError>;
}

type Answer = Pin<Box<dyn Future<Output = Result<Identity, AuthError>> + Send>>;

/// Asks the host: an [`Authenticator`] out of an async closure, which gets a copy of the request.
///
/// ```
/// use digi_core::server::{AuthError, CallbackAuthenticator, Identity};
/// use digi_core::UserKey;
///
/// let sessions = CallbackAuthenticator::new(|request, _remote| async move {
///     match request.headers.get("cookie") {
///         Some(cookie) if cookie == "session=alice" => {
///             Ok(Identity { user: UserKey::from("1"), name: "Alice".into(), subprotocol: None, login: None })
///         }
///         _ => Err(AuthError::Unauthenticated),
///     }
/// });
/// # let _ = sessions;
/// ```
pub struct CallbackAuthenticator(Box<dyn Fn(Parts, SocketAddr) -> Answer + Send + Sync>);

impl CallbackAuthenticator {
    /// An authenticator that asks `callback`.
    pub fn new<F, A>(callback: F) -> Self
    where
        F: Fn(Parts, SocketAddr) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Identity, AuthError>> + Send + 'static,
    {
        Self(Box::new(move |request, remote| Box::pin(callback(request, remote))))
    }
}

#[async_trait]
impl Authenticator for CallbackAuthenticator {
    async fn authenticate(&self, request: &Parts, remote: SocketAddr) -> Result<Identity, AuthError> {
        (self.0)(request.clone(), remote).await
    }
}

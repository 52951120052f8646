//! A WebSocket server in front of an [`Engine`] (feature `server`).
//!
//! It terminates `<route><token>/` (by default `/ws/chat/<token>/`, the slash at the end optional, the client's
//! cursor as `?after=`), asks an [`Authenticator`] who it is, and connects the engine's session to the socket.
//!
//! ```no_run
//! use digi_core::engine::Engine;
//! use digi_core::server::{JwtAuthenticator, JwtKey, Server};
//!
//! # async fn serve(engine: Engine) -> Result<(), digi_core::Error> {
//! let logins = JwtAuthenticator::new(JwtKey::hs256("a secret of the application, long enough")?);
//! let server = Server::builder(engine).authenticator(logins).listen("127.0.0.1:9001").start().await?;
//! println!("ws://{}/ws/chat/<token>/", server.local_addr());
//! // until asked to stop
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! # What a client is told
//!
//! | what | answer |
//! |---|---|
//! | `/healthz` | 200 while serving, 503 while draining |
//! | another path | 404, or what the [`fallback`](ServerBuilder::fallback) says |
//! | the route, but no WebSocket | 426; a malformed handshake 400 |
//! | a page of a foreign origin | 403 |
//! | headers too long, or too slow | 431, or cut off |
//! | too many connections, or draining | 503 |
//! | nobody logged in, a bad token, not a member, … | the handshake succeeds, then the [close code](crate::CloseCode) and its name as reason: a browser is shown no HTTP status |
//! | a binary frame | an `error` frame, the connection stays |
//! | a message above [`frame_bytes`](ServerLimits::frame_bytes) | an `error` frame, then 1009 |
//! | text that is not UTF-8 | an `error` frame, then 1007 |
//! | other breaches of RFC 6455 | 4507 |
//! | no answer to a ping | 4002 |
//!
//! Origins: by default only pages of the host that the request is for may connect; [`origins`](ServerBuilder::origins)
//! lists others. Requests without `Origin` come from no browser and pass.
//!
//! TLS is the business of a proxy in front, which has to keep the `Host` header.

mod auth;
mod connection;
mod handshake;
mod http;
mod jwt;
mod limits;
mod log;
mod origin;
mod socket;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::http::{Request, Response};
use bytes::Bytes;
use tokio::net::{TcpListener, TcpSocket, TcpStream, lookup_host};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use auth::{AuthError, Authenticator, CallbackAuthenticator, Identity, SUBPROTOCOL};
pub use jwt::{JwtAuthenticator, JwtKey};
pub use limits::ServerLimits;
pub use origin::Origins;

use crate::engine::Engine;
use crate::error::{Code, Error};

/// Sockets beyond `max_connections` that are let in only to be told so, and to ask for the health.
const SPARE: u32 = 64;
/// How long to wait after the system refused a new socket (out of descriptors, usually): nothing announces that it
/// would give one again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Fallback = Arc<dyn Fn(Request<()>) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> + Send + Sync>;

/// The WebSocket server; see the module's text.
pub struct Server(());

impl Server {
    /// A server in front of this engine.
    pub fn builder(engine: Engine) -> ServerBuilder {
        ServerBuilder {
            engine,
            listen: Listen::Address("127.0.0.1:9001".to_owned()),
            reuse_port: false,
            route: "/ws/chat/".to_owned(),
            authenticator: None,
            origins: Origins::default(),
            limits: ServerLimits::default(),
            fallback: None,
        }
    }
}

/// Where a server listens: an address (`host:port`, port 0 for any free one), or a listener that is bound already.
#[derive(Debug)]
pub enum Listen {
    /// To be bound.
    Address(String),
    /// Bound by the host.
    Listener(TcpListener),
}

impl From<&str> for Listen {
    fn from(address: &str) -> Self {
        Self::Address(address.to_owned())
    }
}

impl From<String> for Listen {
    fn from(address: String) -> Self {
        Self::Address(address)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address.to_string())
    }
}

impl From<TcpListener> for Listen {
    fn from(listener: TcpListener) -> Self {
        Self::Listener(listener)
    }
}

/// Puts a server together; only the authenticator has no default.
#[must_use]
pub struct ServerBuilder {
    engine: Engine,
    listen: Listen,
    reuse_port: bool,
    route: String,
    authenticator: Option<Arc<dyn Authenticator>>,
    origins: Origins,
    limits: ServerLimits,
    fallback: Option<Fallback>,
}

impl ServerBuilder {
    /// Where to listen. Default: `127.0.0.1:9001`.
    pub fn listen(mut self, listen: impl Into<Listen>) -> Self {
        self.listen = listen.into();
        self
    }

    /// Whether other processes may listen on the same address (`SO_REUSEPORT`): the system then spreads new connections
    /// over them. Default: no. Does nothing for a listener that is bound already.
    pub fn reuse_port(mut self, reuse_port: bool) -> Self {
        self.reuse_port = reuse_port;
        self
    }

    /// What precedes the token in the URL's path. Default: `/ws/chat/`.
    pub fn route(mut self, route: impl Into<String>) -> Self {
        self.route = route.into();
        self
    }

    /// Who tells the users apart.
    pub fn authenticator(mut self, authenticator: impl Authenticator) -> Self {
        self.authenticator = Some(Arc::new(authenticator));
        self
    }

    /// The origins whose pages may connect, as browsers write them (`https://chat.example`, a port only if it is not
    /// the scheme's own). `"*"` lets in every page: safe only where no cookie logs anybody in. Default: pages of the
    /// host that the request is for.
    pub fn origins<S: AsRef<str>>(mut self, origins: impl IntoIterator<Item = S>) -> Self {
        self.origins = Origins::new(origins);
        self
    }

    /// The bounds.
    pub fn limits(mut self, limits: ServerLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Answers the requests that are neither a WebSocket's nor `/healthz`; their bodies are not read. Default: 404.
    pub fn fallback<F, A>(mut self, fallback: F) -> Self
    where
        F: Fn(Request<()>) -> A + Send + Sync + 'static,
        A: Future<Output = Response<Bytes>> + Send + 'static,
    {
        self.fallback = Some(Arc::new(move |request| Box::pin(fallback(request))));
        self
    }

    /// Binds and serves, on the runtime that this is called on.
    ///
    /// # Errors
    /// [`Code::Config`] when a setting is wrong or the address cannot be bound.
    pub async fn start(self) -> Result<ServerHandle, Error> {
        self.limits.check()?;
        if !self.route.starts_with('/') || !self.route.ends_with('/') {
            return Err(Code::Config.with(format!("the route {:?} has to begin and end with a slash", self.route)));
        }
        let Some(authenticator) = self.authenticator else {
            return Err(Code::Config.with("a server needs an authenticator"));
        };
        let listener = match self.listen {
            Listen::Listener(listener) => listener,
            Listen::Address(address) => bind(&address, self.reuse_port)
                .await
                .map_err(|error| Code::Config.with(format!("cannot listen on {address}: {error}")))?,
        };
        let local_addr = listener
            .local_addr()
            .map_err(|error| Code::Config.with(format!("the listener has no local address: {error}")))?;
        let shared = Arc::new(Shared {
            engine: self.engine,
            route: self.route,
            authenticator,
            origins: self.origins,
            fallback: self.fallback,
            connections: Arc::new(Semaphore::new(self.limits.max_connections as usize)),
            spare: Arc::new(Semaphore::new(SPARE as usize)),
            draining: AtomicBool::new(false),
            limits: self.limits,
        });
        let (stop, stopped) = watch::channel(());
        let listening = tokio::spawn(listen(shared.clone(), listener, stopped));
        Ok(ServerHandle { shared, local_addr, listening, stop })
    }
}

/// The first of the addresses that a name stands for which can be bound.
async fn bind(address: &str, reuse_port: bool) -> io::Result<TcpListener> {
    if !reuse_port {
        return TcpListener::bind(address).await;
    }
    let mut failure = io::Error::new(io::ErrorKind::InvalidInput, "the name stands for no address");
    for address in lookup_host(address).await? {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(true)?;
            socket.bind(address)?;
            // As many may wait as tokio's own listener allows.
            socket.listen(1024)
        };
        match bound() {
            Ok(listener) => return Ok(listener),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// A running server. Dropped without [`shutdown`](Self::shutdown) it stops listening, and what is connected stays.
#[must_use]
pub struct ServerHandle {
    shared: Arc<Shared>,
    local_addr: SocketAddr,
    listening: JoinHandle<()>,
    stop: watch::Sender<()>,
}

impl ServerHandle {
    /// The address that is listened on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Closes the engine and then the server: from now on nobody is let in (503, `/healthz` too), what is queued is
    /// committed, every session is closed with 1012, and this returns when the last socket is closed.
    pub async fn shutdown(self) {
        self.shared.draining.store(true, Ordering::Release);
        self.shared.engine.close().await;
        drop(self.stop);
        // It only ends early by a panic, and then it listens no more either.
        let _ = self.listening.await;
        // Every socket's end is bounded by the limits, so this is too. The semaphores are never closed.
        let _ = self.shared.connections.acquire_many(self.shared.limits.max_connections).await;
        let _ = self.shared.spare.acquire_many(SPARE).await;
    }
}

/// What all connections of a server share.
struct Shared {
    engine: Engine,
    route: String,
    authenticator: Arc<dyn Authenticator>,
    origins: Origins,
    limits: ServerLimits,
    fallback: Option<Fallback>,
    connections: Arc<Semaphore>,
    spare: Arc<Semaphore>,
    draining: AtomicBool,
}

impl Shared {
    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire) || self.engine.is_closed()
    }
}

async fn listen(shared: Arc<Shared>, listener: TcpListener, mut stopped: watch::Receiver<()>) {
    loop {
        let accepted = tokio::select! {
            biased;
            _ = stopped.changed() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(&shared, stream, peer),
            // The client was faster away than it could be accepted.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                log::cannot_accept(&error);
                tokio::select! {
                    _ = stopped.changed() => return,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let connection = shared.connections.clone().try_acquire_owned();
    let full = connection.is_err();
    let Ok(permit) = connection.or_else(|_| shared.spare.clone().try_acquire_owned()) else {
        // More refused clients than can be talked to: a closed socket has to do.
        return;
    };
    let shared = shared.clone();
    tokio::spawn(async move {
        let _permit = permit;
        // Frames are gathered here and written as soon as they are there; the kernel need not wait for more. A socket
        // on which that fails works nevertheless, only slower.
        let _ = stream.set_nodelay(true);
        let opening = async {
            let upgraded = http::serve(&shared, stream, peer, full).await?;
            connection::open(&shared, upgraded).await
        };
        // Boxed, so that what HTTP needed is freed before the long life of a WebSocket begins.
        if let Some(connection) = Box::pin(opening).await {
            connection.serve(&shared.limits).await;
        }
    });
}

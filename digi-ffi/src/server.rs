//! `digi_server`.

use std::ffi::{c_char, c_void};
use std::net::SocketAddr;
use std::sync::Arc;

use digi_core::server::{
    AuthError, CallbackAuthenticator, Identity, JwtAuthenticator, JwtKey, Server, ServerBuilder, ServerHandle,
    ServerLimits,
};
use digi_core::{Code, Error};
use http::request::Parts;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::callback::{self, inside};
use crate::cipher::write_text;
use crate::engine::digi_engine;
use crate::fork::Origin;
use crate::handle::{Context, Out, borrow, digi_text, list, sized, text};
use crate::result::{DIGI_OK, Failure, bad_argument, digi_error, digi_result, guard, guard_outside, guard_value};
use crate::wait::{Deadline, wait};

/// Callbacks that run at once. Further clients wait, and those who wait too long are answered 4001.
const THREADS: usize = 32;

/// A WebSocket server in front of an engine, on the engine's threads: `/ws/chat/<token>/`, the client's cursor as
/// `?after=`. Any thread may use one.
pub struct digi_server {
    address: SocketAddr,
    origin: Origin,
    handle: Handle,
    running: Mutex<Option<ServerHandle>>,
}

/// The request of a client that wants in. Lives until the callback returns.
pub struct digi_handshake {
    request: Parts,
    remote: String,
}

/// Where the callback says who it is. Lives until it returns.
pub struct digi_identity {
    named: Option<Identity>,
}

/// How a server is to be. What stays zero is left at its default.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_server_options {
    /// `sizeof(digi_server_options)`.
    pub size: usize,
    /// What precedes the token in the path. None: `/ws/chat/`.
    pub route: digi_text,
    /// The origins whose pages may connect, such as `https://chat.example`. None: pages of the host that the request is for.
    pub origins: *const digi_text,
    /// How many they are.
    pub origin_count: usize,
    /// Who logs in by a JSON Web Token (HS256): the secret that signs it. The user is its `sub`, the name its `name`.
    pub jwt_secret: digi_text,
    /// Or the host says who it is: see `digi_authenticate`. One of the two is needed.
    pub authenticate: digi_authenticate,
    /// The host's own, for `authenticate`.
    pub ctx: *mut c_void,
    /// Called once with `ctx` when nothing will use it any more; may be NULL.
    pub destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// Sockets at once; 0: 20,000.
    pub max_connections: u32,
    /// Whether other processes may listen on the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
}

/// Says who a connection is: reads the handshake (`digi_handshake_get`), names the user (`digi_identity_set`) and answers
/// `DIGI_OK`. Without a name, nobody is logged in: the connection is closed with `DIGI_CLOSE_UNAUTHENTICATED`. Another
/// answer: it could not be found out, `DIGI_CLOSE_UNAVAILABLE`.
///
/// Called in threads of Digi's, up to 32 at once. It may block for some seconds; it must not call functions that take an
/// engine, session or server.
pub type digi_authenticate = Option<
    unsafe extern "C" fn(
        ctx: *mut c_void,
        handshake: *const digi_handshake,
        identity: *mut digi_identity,
    ) -> digi_result,
>;

struct Host {
    ctx: Context,
    authenticate: unsafe extern "C" fn(*mut c_void, *const digi_handshake, *mut digi_identity) -> digi_result,
}

impl Host {
    fn ask(&self, request: Parts, remote: SocketAddr) -> Result<Identity, AuthError> {
        let handshake = digi_handshake { request, remote: remote.to_string() };
        let mut identity = digi_identity { named: None };
        let _inside = inside("an authenticator");
        // SAFETY: the host's function; what the pointers point to lives while it runs.
        match unsafe { (self.authenticate)(self.ctx.pointer, &raw const handshake, &raw mut identity) } {
            DIGI_OK => identity.named.ok_or(AuthError::Unauthenticated),
            _ => Err(AuthError::Unavailable),
        }
    }
}

/// Starts a server on an address such as `127.0.0.1:9001` (port 0: any that is free). `options` are copied, and their `ctx`
/// belongs to Digi once this has succeeded; if it fails, it stays the host's.
///
/// Errors: `DIGI_ERR_CONFIG` when a setting is wrong or the address cannot be bound, `DIGI_ERR_BAD_KEY` for a secret below 32
/// bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_server_start(
    engine: *mut digi_engine,
    address: *const c_char,
    address_length: usize,
    options: *const digi_server_options,
    server: *mut *mut digi_server,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, address, options, out) = unsafe {
            let address = text(address, address_length, "address")?;
            (borrow(engine, "engine")?, address, sized(options, "options")?, Out::new(server, "server")?)
        };
        let inner = &engine.inner;
        inner.origin.check()?;
        // SAFETY: as above.
        let (builder, host) = unsafe { options.read(Server::builder(inner.engine.clone()).listen(address))? };
        let running = inner.run(builder.start()).inspect_err(|_| {
            if let Some(host) = host {
                host.ctx.give_back();
            }
        })?;
        out.give(digi_server {
            address: running.local_addr(),
            origin: inner.origin,
            handle: inner.handle().clone(),
            running: Mutex::new(Some(running)),
        });
        Ok(DIGI_OK)
    })
}

impl digi_server_options {
    unsafe fn read(&self, mut builder: ServerBuilder) -> Result<(ServerBuilder, Option<Arc<Host>>), Failure> {
        // SAFETY: the caller's promise.
        let (route, secret, origins) = unsafe {
            let origins: Result<Vec<_>, _> = list(self.origins, self.origin_count, "options.origins")?
                .iter()
                .map(|origin| origin.needed("options.origins"))
                .collect();
            (self.route.get("options.route")?, self.jwt_secret.get("options.jwt_secret")?, origins?)
        };
        if let Some(route) = route {
            builder = builder.route(route);
        }
        if !origins.is_empty() {
            builder = builder.origins(origins);
        }
        let mut limits = ServerLimits::default();
        if self.max_connections > 0 {
            limits.max_connections = self.max_connections;
        }
        builder = builder.limits(limits).reuse_port(self.reuse_port);
        match (secret, self.authenticate) {
            (Some(secret), None) => Ok((builder.authenticator(JwtAuthenticator::new(JwtKey::hs256(secret)?)), None)),
            (None, Some(authenticate)) => {
                let host = Arc::new(Host { ctx: Context::new(self.ctx, self.destroy), authenticate });
                Ok((builder.authenticator(asking(host.clone())), Some(host)))
            }
            _ => Err(bad_argument("options", "one of jwt_secret and authenticate is needed, and not both")),
        }
    }
}

fn asking(host: Arc<Host>) -> CallbackAuthenticator {
    let threads = Arc::new(Semaphore::new(THREADS));
    CallbackAuthenticator::new(move |request, remote| {
        let (host, threads) = (host.clone(), threads.clone());
        async move {
            // It is never closed.
            let Ok(permit) = threads.acquire_owned().await else { return Err(AuthError::Unavailable) };
            let asked = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                host.ask(request, remote)
            });
            asked.await.unwrap_or(Err(AuthError::Unavailable))
        }
    })
}

/// What a handshake says, into `value`, which lives until the callback returns: a header by its name in lower case
/// (`cookie`), or `:path`, `:query`, `:remote` (the client's address, behind a proxy the proxy's). A header that is not
/// there, or is not readable text, gives none (`data` NULL), and `DIGI_OK`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_handshake_get(
    handshake: *const digi_handshake,
    name: *const c_char,
    name_length: usize,
    value: *mut digi_text,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (handshake, name, out) =
            unsafe { (borrow(handshake, "handshake")?, text(name, name_length, "name")?, Out::new(value, "value")?) };
        let uri = &handshake.request.uri;
        let found = match name {
            ":path" => Some(uri.path()),
            ":query" => Some(uri.query().unwrap_or_default()),
            ":remote" => Some(handshake.remote.as_str()),
            name => handshake.request.headers.get(name).and_then(|value| std::str::from_utf8(value.as_bytes()).ok()),
        };
        out.set(digi_text::of_option(found));
        Ok(DIGI_OK)
    })
}

/// Names the user behind a connection: an immutable key, the name that others see (NULL: the key), and by what the host
/// knows this log-in again (NULL: nothing; see `digi_scope.login`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_identity_set(
    identity: *mut digi_identity,
    user: digi_text,
    user_name: digi_text,
    login: digi_text,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        unsafe {
            borrow(identity, "identity")?;
            let user = user.needed("user")?;
            let name = user_name.get("user_name")?.unwrap_or(user);
            let login = login.get("login")?.map(Into::into);
            (*identity).named = Some(Identity { user: user.into(), name: name.into(), subprotocol: None, login });
        }
        Ok(DIGI_OK)
    })
}

/// Writes the address that is listened on, with its port, into `address`, ended by NUL; 64 bytes are enough.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_server_address(
    server: *const digi_server,
    address: *mut c_char,
    size: usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        unsafe {
            let server = borrow(server, "server")?;
            write_text(&server.address.to_string(), address, size, "address")?;
        }
        Ok(DIGI_OK)
    })
}

/// Closes the engine, as `digi_engine_close` does, and then the server: from now on nobody is let in, what is queued is
/// stored, every client is told to reconnect, and this returns when the last socket is closed. From the second time on it
/// does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_server_stop(server: *mut digi_server, error: *mut *mut digi_error) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let server = unsafe { borrow(server, "server")? };
        server.origin.check()?;
        let running = server.running.lock().take();
        if let Some(running) = running {
            let stopping = wait(server.handle.spawn(running.shutdown()), Deadline::NEVER);
            stopping.and_then(Result::ok).ok_or_else(|| Error::from(Code::EngineClosed))?;
        }
        Ok(DIGI_OK)
    })
}

/// Stops listening, if it does, and frees the server; sockets that are connected stay as long as the engine. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_server_free(server: *mut digi_server) {
    guard_value((), || {
        if server.is_null() {
            return;
        }
        // SAFETY: by the header's conventions a server that was not freed.
        let server = unsafe { Box::from_raw(server) };
        if server.origin.is_here() {
            callback::later(move || drop(server));
        } else {
            std::mem::forget(server);
        }
    });
}

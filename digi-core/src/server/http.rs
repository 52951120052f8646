//! Everything that is said in HTTP: one request per socket, answered or turned into a WebSocket.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, ORIGIN, RETRY_AFTER};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::auth::{AuthError, Identity};
use super::{Shared, handshake, log};
use crate::consumer::Scope;
use crate::error::CloseCode;

/// hyper refuses a smaller buffer.
const MIN_BUFFER: usize = 8 * 1024;

/// A socket that has become a WebSocket.
pub(super) struct Upgraded {
    pub(super) stream: TcpStream,
    /// What the client sent behind its request.
    pub(super) early: Bytes,
    pub(super) visit: Visit,
}

/// Who came, and whether to let them in.
pub(super) struct Visit {
    pub(super) label: log::Label,
    pub(super) scope: Result<Scope, CloseCode>,
}

/// Reads one request and answers it; gives the socket back if it became a WebSocket.
pub(super) async fn serve(shared: &Shared, stream: TcpStream, peer: SocketAddr, full: bool) -> Option<Upgraded> {
    let limits = &shared.limits;
    let visit = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let visit = &visit;
        async move {
            let (mut answer, visitor) = answer(shared, request.map(drop), peer, full).await;
            if visitor.is_none() {
                // hyper's `keep_alive(false)` would write this into the answer to a handshake, too.
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            *visit.lock() = visitor;
            Ok::<_, Infallible>(answer.map(Full::new))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.handshake_timeout)
        .max_header_size(limits.header_bytes)
        .max_buf_size(limits.header_bytes.max(MIN_BUFFER))
        .serve_connection(TokioIo::new(stream), service)
        .without_shutdown();
    // Reading and asking have their own bounds; this one also covers a client that does not take its answer.
    let whole = limits.handshake_timeout + limits.auth_timeout + limits.write_timeout;
    let http1::Parts { io, read_buf, .. } = timeout(whole, connection).await.ok()?.ok()?;
    let mut stream = io.into_inner();
    match visit.into_inner() {
        Some(visit) => Some(Upgraded { stream, early: read_buf, visit }),
        None => {
            // Nothing can be done for a client that is gone already.
            let _ = stream.shutdown().await;
            None
        }
    }
}

async fn answer(
    shared: &Shared,
    request: Request<()>,
    peer: SocketAddr,
    full: bool,
) -> (Response<Bytes>, Option<Visit>) {
    let (parts, ()) = request.into_parts();
    if parts.uri.path() == "/healthz" {
        return (health(shared), None);
    }
    if full {
        return (busy("too many connections"), None);
    }
    match handshake::token(parts.uri.path(), &shared.route) {
        Some(token) => match upgrade(shared, &parts, token, peer).await {
            Ok((answer, visit)) => (answer, Some(visit)),
            Err(answer) => (*answer, None),
        },
        None => (fall_back(shared, parts).await, None),
    }
}

fn health(shared: &Shared) -> Response<Bytes> {
    if shared.is_draining() { busy("draining") } else { plain(StatusCode::OK, "ok") }
}

async fn upgrade(
    shared: &Shared,
    request: &Parts,
    token: String,
    peer: SocketAddr,
) -> Result<(Response<Bytes>, Visit), Box<Response<Bytes>>> {
    let key = handshake::key(request)?;
    let label = log::Label::new(&shared.route, &token, peer);
    if shared.is_draining() {
        return Err(busy("restarting").into());
    }
    if !shared.origins.allow(&request.headers) {
        log::refused_origin(&label, request.headers.get(ORIGIN));
        return Err(plain(StatusCode::FORBIDDEN, "this origin may not connect").into());
    }
    log::handshaking(&label);
    let identity = match timeout(shared.limits.auth_timeout, shared.authenticator.authenticate(request, peer)).await {
        Ok(identity) => identity,
        Err(_) => Err(AuthError::Unavailable),
    };
    let wanted = identity.as_ref().ok().and_then(|identity| identity.subprotocol.as_deref());
    let answer = handshake::accept(request, key, wanted);
    let scope = identity.map_err(CloseCode::from).map(|identity| scope(request, token, identity, peer));
    Ok((answer, Visit { label, scope }))
}

fn scope(request: &Parts, token: String, identity: Identity, peer: SocketAddr) -> Scope {
    let origin = request.headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    Scope {
        token,
        user: identity.user,
        user_name: identity.name,
        after: handshake::query(&request.uri, "after"),
        origin: origin.map(str::to_owned),
        remote: Some(peer.to_string()),
        login: identity.login,
    }
}

async fn fall_back(shared: &Shared, request: Parts) -> Response<Bytes> {
    let Some(fallback) = shared.fallback.as_ref().filter(|_| !handshake::is_upgrade(&request)) else {
        return plain(StatusCode::NOT_FOUND, "not found");
    };
    match timeout(shared.limits.auth_timeout, fallback(Request::from_parts(request, ()))).await {
        // A fallback must not turn the socket into something that nobody serves.
        Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
            plain(StatusCode::INTERNAL_SERVER_ERROR, "a fallback cannot switch protocols")
        }
        Ok(answer) => answer,
        Err(_) => busy("no answer in time"),
    }
}

/// A text as answer.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response<Bytes> {
    let mut answer = Response::new(Bytes::from_static(text.as_bytes()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

fn busy(text: &'static str) -> Response<Bytes> {
    /// Long enough for a restart, short enough for whoever waits.
    const AGAIN: Duration = Duration::from_secs(5);
    let mut answer = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN.as_secs()));
    answer
}

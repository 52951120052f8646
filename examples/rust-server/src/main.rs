//! A chat server in one file: an embedded database, a page for two people, and Digi in between.
//!
//! It has no login: whoever reaches it may be alice or bob. So it listens on this machine only, unless told otherwise.
//!
//! * `DIGI_LISTEN`: the address, default `127.0.0.1:8000`
//! * `DIGI_DATA`: the folder of the database and the secret, default `./data`
//! * `DIGI_LAYER`: the channel layer, default `local:`; servers that share the folder hear of each other's messages at once
//!   with `redis://127.0.0.1`
//! * `RUST_LOG`: what is logged, default `info`

use std::error::Error;
use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use digi_core::engine::Engine;
use digi_core::server::{JwtAuthenticator, JwtKey, Server};
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{Code, RoomId, UserKey};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use jsonwebtoken::{EncodingKey, Header};
use mimalloc::MiMalloc;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

const ROOM: RoomId = RoomId(1);
const PEOPLE: [&str; 2] = ["alice", "bob"];
const ROUTE: &str = "/ws/chat/";
/// Seconds. The page asks for a new login whenever it connects.
const LOGIN_LIFETIME: u64 = 60;

const POLICY: &str = "default-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A message is a dozen of small allocations: with the system's allocator they take a tenth of the time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();

    let listen = std::env::var("DIGI_LISTEN").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    let data = PathBuf::from(std::env::var_os("DIGI_DATA").unwrap_or_else(|| "data".into()));
    let layer = std::env::var("DIGI_LAYER").unwrap_or_else(|_| "local:".to_owned());
    fs::create_dir_all(&data)?;
    let secret = secret(&data)?;
    // One half seals the ids, the other signs the logins.
    let (ids, logins) = secret.split_at(32);
    let keyring = Keyring::new(ids)?;
    let path = format!("{ROUTE}{}/", keyring.seal(Kind::Room, ROOM.0));

    let store = format!("sqlite:{}", data.join("chat.db").display());
    let engine = Engine::builder().keys(keyring).store(&store).layer(&layer).build().await?;
    let members = PEOPLE.map(|name| (UserKey::from(name), Arc::from(name), Role::Member));
    let room = NewRoom { id: Some(ROOM), name: "Alice and Bob".into(), kind: "demo".into(), members: members.into() };
    if let Err(error) = engine.create_room(&room).await
        && error.code() != Code::RoomExists
    {
        return Err(error.into());
    }
    let site = Arc::new(Site { path, login_key: EncodingKey::from_secret(logins) });
    let server = Server::builder(engine.clone())
        .listen(listen)
        .route(ROUTE)
        .authenticator(JwtAuthenticator::new(JwtKey::hs256(logins)?))
        .fallback(move |request| {
            let site = site.clone();
            async move { site.answer(&request) }
        })
        .start()
        .await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    println!("listening on http://{}/", server.local_addr());
    println!("Open it in two tabs: be alice in one and bob in the other. Ctrl-C stops the server.");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    server.shutdown().await;
    engine.close().await;
    Ok(())
}

/// 64 random bytes, made at the first start and kept.
fn secret(data: &Path) -> Result<Vec<u8>, Box<dyn Error>> {
    let (path, unfinished) = (data.join("secret"), data.join("secret.new"));
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Ok(secret) if secret.len() != 64 => return Err(format!("{} is damaged", path.display()).into()),
        known => return Ok(known?),
    }
    let mut secret = vec![0; 64];
    getrandom::fill(&mut secret)?;
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(&secret)?;
    file.sync_all()?;
    fs::rename(&unfinished, &path)?;
    Ok(secret)
}

/// The pages beside the WebSockets.
struct Site {
    path: String,
    login_key: EncodingKey,
}

impl Site {
    fn answer(&self, request: &Request<()>) -> Response<Bytes> {
        let (status, kind, body) = match request.uri().path() {
            _ if !matches!(*request.method(), Method::GET | Method::HEAD) => failed(StatusCode::METHOD_NOT_ALLOWED),
            "/" => page("text/html", include_str!("../static/index.html")),
            "/page.css" => page("text/css", include_str!("../static/page.css")),
            "/page.mjs" => page("text/javascript", include_str!("../static/page.mjs")),
            "/digi.js" => page("text/javascript", include_str!("../../../python/digi/django/static/digi/digi.js")),
            "/join" => self.join(request.uri().query()),
            _ => failed(StatusCode::NOT_FOUND),
        };
        let mut answer = Response::new(body);
        *answer.status_mut() = status;
        let cautious = [(CONTENT_SECURITY_POLICY, POLICY), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "no-store")].into_iter().chain(cautious);
        answer.headers_mut().extend(headers.map(|(name, value)| (name, HeaderValue::from_static(value))));
        answer
    }

    /// Where the room is and who the visitor is. A real site would look at its own session here.
    fn join(&self, query: Option<&str>) -> (StatusCode, &'static str, Bytes) {
        let asked = query.and_then(|query| query.strip_prefix("user="));
        let Some(user) = PEOPLE.into_iter().find(|name| Some(*name) == asked) else {
            return failed(StatusCode::NOT_FOUND);
        };
        let expires = jsonwebtoken::get_current_timestamp() + LOGIN_LIFETIME;
        let claims = json!({ "sub": user, "name": user, "exp": expires });
        match jsonwebtoken::encode(&Header::default(), &claims, &self.login_key) {
            Ok(login) => {
                (StatusCode::OK, "application/json", json!({ "path": self.path, "login": login }).to_string().into())
            }
            Err(_) => failed(StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

fn page(kind: &'static str, text: &'static str) -> (StatusCode, &'static str, Bytes) {
    (StatusCode::OK, kind, Bytes::from_static(text.as_bytes()))
}

fn failed(status: StatusCode) -> (StatusCode, &'static str, Bytes) {
    (status, "text/plain", status.to_string().into())
}

//! A server of its own per test, and a client that waits for nothing for ever.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use digi_core::engine::Engine;
use digi_core::server::{JwtAuthenticator, JwtKey, Server, ServerBuilder, ServerHandle, ServerLimits};
use digi_core::store::Store;
use digi_core::store::memory::MemoryStore;
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{Millis, RoomId};
use futures_util::{SinkExt, StreamExt};
use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) const ROOM: RoomId = RoomId(7);
const KEY: &str = "the keyring's secret in these tests";
const JWT: &str = "the secret that signs JSON web tokens";

/// Ends a test that would otherwise hang.
pub(crate) async fn soon<F: Future>(what: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), what).await.expect("this should not take so long")
}

/// A running server with a room of two: Ana (user 1) and Ben (user 2). Cy (user 3) is no member.
pub(crate) struct Chat {
    pub(crate) server: ServerHandle,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) keys: Keyring,
}

impl Chat {
    pub(crate) async fn start() -> Self {
        Self::with(|server| server).await
    }

    pub(crate) async fn limited(limits: ServerLimits) -> Self {
        Self::with(|server| server.limits(limits)).await
    }

    pub(crate) async fn with(configure: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let keys = Keyring::new(KEY).unwrap();
        let store = Arc::new(MemoryStore::new());
        let members = vec![("1".into(), "Ana".into(), Role::Member), ("2".into(), "Ben".into(), Role::Member)];
        let room = NewRoom { id: Some(ROOM), members, ..NewRoom::default() };
        store.create_room(&room, Millis(1)).await.unwrap();
        let engine = Engine::builder().keys(keys.clone()).store_object(store.clone()).build().await.unwrap();
        let logins = JwtAuthenticator::new(JwtKey::hs256(JWT).unwrap());
        let server = configure(Server::builder(engine).authenticator(logins).listen("127.0.0.1:0"));
        Self { server: server.start().await.unwrap(), store, keys }
    }

    /// The path of the room.
    pub(crate) fn path(&self) -> String {
        format!("/ws/chat/{}/", self.keys.seal(Kind::Room, ROOM.get()))
    }

    /// A handshake for that path, with nobody's login.
    pub(crate) fn request(&self, path: &str) -> Request {
        format!("ws://{}{path}", self.server.local_addr()).into_client_request().unwrap()
    }

    pub(crate) async fn handshake(&self, request: Request) -> Result<(Client, Response), Error> {
        let stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        let (socket, response) = soon(tokio_tungstenite::client_async(request, stream)).await?;
        Ok((Client(socket), response))
    }

    /// Connects with a login, whatever becomes of it.
    pub(crate) async fn login(&self, path: &str, jwt: &str) -> Client {
        let mut request = self.request(path);
        request.headers_mut().insert("authorization", format!("Bearer {jwt}").parse().unwrap());
        self.handshake(request).await.unwrap().0
    }

    /// Enters the room as that user.
    pub(crate) async fn enter(&self, user: &str) -> Client {
        let mut client = self.login(&self.path(), &jwt(user)).await;
        assert_eq!(client.json().await["type"], "resumed");
        client
    }

    /// One HTTP request, given as its lines; the whole answer.
    pub(crate) async fn http(&self, lines: &[&str]) -> String {
        let mut stream = TcpStream::connect(self.server.local_addr()).await.unwrap();
        stream.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// A login for the next minute.
pub(crate) fn jwt(user: &str) -> String {
    signed(JWT, &claims(user, get_current_timestamp() + 60))
}

pub(crate) fn expired_jwt(user: &str) -> String {
    signed(JWT, &claims(user, get_current_timestamp() - 3600))
}

pub(crate) fn foreign_jwt(user: &str) -> String {
    signed("some other secret, long enough for it", &claims(user, get_current_timestamp() + 60))
}

fn claims(user: &str, exp: u64) -> Value {
    let name = match user {
        "1" => "Ana",
        "2" => "Ben",
        _ => "Cy",
    };
    json!({ "sub": user, "name": name, "exp": exp })
}

fn signed(secret: &str, claims: &Value) -> String {
    let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
    encode(&Header::default(), claims, &EncodingKey::from_secret(secret.as_bytes())).unwrap()
}

pub(crate) struct Client(pub(crate) WebSocketStream<TcpStream>);

impl Client {
    pub(crate) async fn message(&mut self) -> Message {
        soon(self.0.next()).await.expect("a message").unwrap()
    }

    pub(crate) async fn json(&mut self) -> Value {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Ping(_) => {}
                other => panic!("{other:?} instead of a frame"),
            }
        }
    }

    pub(crate) async fn send(&mut self, frame: &Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The `code` of the next frame, which is an error.
    pub(crate) async fn error(&mut self) -> String {
        let frame = self.json().await;
        assert_eq!(frame["type"], "error", "{frame}");
        frame["code"].as_str().unwrap().to_owned()
    }

    /// The code and reason with which the server closes; frames before it are passed over.
    pub(crate) async fn closed(mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.message().await {
                let frame = frame.expect("a close code");
                assert!(soon(self.0.next()).await.is_none());
                return (frame.code.into(), frame.reason.to_string());
            }
        }
    }

    /// The socket itself, for bytes that no client would send.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.0.into_inner()
    }
}

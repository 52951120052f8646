//! Digi's engine: the chat that a Rust service embeds, independent of transport, store and channel layer.
//!
//! ```
//! use digi_core::consumer::Scope;
//! use digi_core::engine::Engine;
//! use digi_core::store::model::{NewRoom, Role};
//! use digi_core::token::{Keyring, Kind};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = Keyring::new("a secret of at least thirty-two bytes")?;
//! let engine = Engine::builder().keys(keys).store("memory:").build().await?;
//! let members = vec![("7".into(), "alice".into(), Role::Member)];
//! let room = engine.create_room(&NewRoom { members, ..NewRoom::default() }).await?;
//!
//! // A connection, from whatever transport: the token comes out of its URL, the user from its login.
//! let token = engine.keys().seal(Kind::Room, room.get());
//! let scope = Scope { token, user: "7".into(), user_name: "alice".into(), after: None, origin: None, remote: None, login: None };
//! let session = engine.connect(scope).await.map_err(|code| code.to_string())?;
//! session.receive(r#"{"type": "add", "message": "hello"}"#).await?;
//! assert!(session.next().await.map_err(|code| code.to_string())?.as_str().contains("resumed"));
//! assert!(session.next().await.map_err(|code| code.to_string())?.as_str().contains("hello"));
//! engine.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Where to find what, in the order in which a message passes:
//!
//! | module | holds |
//! |---|---|
//! | [`server`] | the WebSocket server (feature `server`): handshake, login, connection |
//! | [`engine`] | the tokio driver: [`Engine`], [`Session`], writer, outboxes (feature `engine`) |
//! | [`token`] | id encryption: what stands in URLs and frames |
//! | [`frame`] | what browsers send and receive |
//! | [`consumer`] | the state machine of one connection |
//! | [`store`] | the database behind a trait: memory, SQLite (feature `sqlite`) |
//! | [`room`] | routing and order: who is shown what, and when |
//! | [`event`], [`layer`] | what nodes tell each other, and how |
//! | [`logging`] | log lines for bindings |
//! | [`id`], [`error`] | the words of it all |
//! | [`testing`] | suites for one's own store or layer, and the simulation (feature `testing`) |
//!
//! `token`, `frame`, `event`, `consumer` and `room` are pure: no async, no clock, no randomness, no locks, no I/O. They
//! are all there is without default features.
#![forbid(unsafe_code)]

/// Whether a deliberate bug is switched on: always `false` without the feature `bugs`.
#[cfg(not(feature = "bugs"))]
macro_rules! testing_bug {
    ($bug:ident) => {
        false
    };
}
#[cfg(feature = "bugs")]
macro_rules! testing_bug {
    ($bug:ident) => {
        $crate::testing::bugs::is_on($crate::testing::bugs::Bug::$bug)
    };
}

pub mod consumer;
#[cfg(feature = "engine")]
pub mod engine;
pub mod error;
pub mod event;
pub mod frame;
pub mod id;
#[cfg(feature = "engine")]
pub mod layer;
#[cfg(feature = "engine")]
pub mod logging;
pub mod room;
#[cfg(feature = "server")]
pub mod server;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
pub mod token;

#[cfg(feature = "engine")]
pub use engine::{Engine, Session};
pub use error::{CloseCode, Code, Error};
pub use id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};

/// The README's example is compiled with the documentation's.
#[cfg(all(doctest, feature = "server", feature = "sqlite"))]
#[doc = include_str!("../../README.md")]
struct Readme;

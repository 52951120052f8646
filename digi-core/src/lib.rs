//! Digi's engine.
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

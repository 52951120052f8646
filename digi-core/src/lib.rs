//! Digi's engine.
#![forbid(unsafe_code)]

pub mod error;
pub mod id;
pub mod token;

pub use error::{CloseCode, Code, Error};
pub use id::{ClientId, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};

//! The bounds of an engine, as fields and by name.

use super::outbox::OutboxLimits;
use crate::consumer::ConsumerLimits;
use crate::error::{Code, Error};
use crate::room::RoomLimits;

/// The bounds of an engine. Each says what happens at it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Of one connection.
    pub consumer: ConsumerLimits,
    /// Of one room.
    pub room: RoomLimits,
    /// Of what waits for one session.
    pub outbox: OutboxLimits,
    /// Sessions of this engine. Beyond: closed with 4003 `overloaded`.
    pub sessions: usize,
    /// Sessions of one user. Beyond: closed with 4505 `too_many_sessions`.
    pub sessions_per_user: usize,
    /// Commands that wait to be stored. Beyond, [`Session::receive`](super::Session::receive) waits.
    pub queued: usize,
    /// Commands in one transaction.
    pub batch: usize,
    /// Over how many milliseconds sessions are closed when the engine closes, so that not all of them reconnect at
    /// once.
    pub close_spread: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            consumer: ConsumerLimits::default(),
            room: RoomLimits::default(),
            outbox: OutboxLimits::default(),
            sessions: 100_000,
            sessions_per_user: 100,
            queued: 10_000,
            batch: 1_000,
            close_spread: 3_000,
        }
    }
}

/// Every name once, with the field that it stands for.
macro_rules! named {
    ($($name:literal => $($field:ident).+;)+) => {
        impl Limits {
            /// The names under which bindings and configuration files know the bounds.
            pub const NAMES: &[&str] = &[$($name),+];

            /// Sets the bound with this name.
            ///
            /// # Errors
            /// `config` when there is none, or the value is too large for it.
            pub fn set(&mut self, name: &str, value: u64) -> Result<(), Error> {
                match name {
                    $($name => self.$($field).+ = value.try_into().map_err(|_| too_large(name, value))?,)+
                    other => return Err(unknown(other)),
                }
                Ok(())
            }

            /// Every bound with its name.
            #[allow(clippy::useless_conversion, reason = "the fields have several types")]
            pub fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, u64::try_from(self.$($field).+).unwrap_or(u64::MAX))),+]
            }
        }
    };
}

named! {
    "frame_bytes" => consumer.frame_bytes;
    "body_bytes" => consumer.body_bytes;
    "in_flight" => consumer.in_flight;
    "history" => consumer.reset_history;
    "replay_bytes" => consumer.replay_bytes;
    "frames_per_second" => consumer.frames.per_second;
    "frames_burst" => consumer.frames.burst;
    "refusals_per_second" => consumer.refusals.per_second;
    "refusals_burst" => consumer.refusals.burst;
    "outbox_frames" => outbox.frames;
    "outbox_bytes" => outbox.bytes;
    "room_sessions" => room.sessions;
    "sessions" => sessions;
    "sessions_per_user" => sessions_per_user;
    "queued" => queued;
    "batch" => batch;
    "close_spread_ms" => close_spread;
}

fn too_large(name: &str, value: u64) -> Error {
    Code::Config.with(format!("limits: {name} is too large: {value}"))
}

fn unknown(name: &str) -> Error {
    Code::Config.with(format!("limits: there is no {name:?}; there are {}", Limits::NAMES.join(", ")))
}

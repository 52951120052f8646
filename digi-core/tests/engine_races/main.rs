//! The engine on stores that fail, answer late or not at all, and hosts that do things at once.

#![cfg(feature = "engine")]
// What clippy.toml allows in tests it does not allow in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod failures;
mod lanes;
mod races;
mod support;

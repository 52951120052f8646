//! Where rooms, members, messages and the log live: the trait [`Store`] and its backends, one file each.
//!
//! The store is the truth. Everything that is ever shown has been committed here first, and whoever missed something
//! reads it from here. Every backend passes one suite (`store_suite!`, feature `testing`).

pub mod model;

#[cfg(feature = "engine")]
pub mod attempt;
#[cfg(feature = "engine")]
mod contract;
#[cfg(feature = "engine")]
pub mod memory;
#[cfg(feature = "mssql")]
pub mod mssql;
#[cfg(feature = "engine")]
pub mod planner;
#[cfg(feature = "engine")]
mod recent;
#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(feature = "engine")]
pub use contract::{Store, StoreError, lane_of};

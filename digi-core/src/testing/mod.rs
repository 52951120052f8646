//! For tests: the suites that every store and layer passes, and the simulation.

#[cfg(feature = "bugs")]
pub mod bugs;
pub mod layer_suite;
pub mod simulation;
pub mod store_suite;

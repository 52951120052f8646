//! Whether a host can be reached, and what the log hears of it.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tracing::{info, warn};

/// The two connections to a host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Publisher,
    Subscriber,
}

pub(super) struct Health {
    /// What the log calls the host.
    name: String,
    is_up: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    up: [bool; 2],
    /// Whether the log was told last that it is up.
    told: Option<bool>,
    reason: String,
}

impl Health {
    pub(super) fn new(name: String) -> Self {
        Self { name, is_up: AtomicBool::new(false), state: Mutex::default() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub(super) fn up(&self, role: Role) {
        let mut state = self.state.lock();
        state.up[role as usize] = true;
        if state.up == [true; 2] {
            self.is_up.store(true, Ordering::Release);
            if state.told.replace(true) != Some(true) {
                info!("Redis {} is there", self.name);
            }
        }
    }

    pub(super) fn away(&self, role: Role, reason: &str) {
        let mut state = self.state.lock();
        state.up[role as usize] = false;
        self.is_up.store(false, Ordering::Release);
        if state.told.replace(false) != Some(false) {
            warn!("Redis {} is away: {reason}; chat goes on, and other nodes' messages come later", self.name);
        } else if state.reason != reason {
            info!("Redis {} is still away: {reason}", self.name);
        }
        reason.clone_into(&mut state.reason);
    }
}

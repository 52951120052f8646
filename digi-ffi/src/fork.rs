//! Whether this process was forked off since: cheaper to ask than the process's number.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use digi_core::Code;

use crate::result::Failure;

static FORKS: AtomicU32 = AtomicU32::new(0);

unsafe extern "C" fn in_child() {
    FORKS.fetch_add(1, Ordering::Relaxed);
}

/// The process in which it was made.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Origin(u32);

impl Origin {
    pub(crate) fn here() -> Self {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| {
            // SAFETY: the handler only counts. Where it can't be registered (no memory), forks go unnoticed here, and
            // the engine still notices by itself.
            unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        });
        Self(FORKS.load(Ordering::Relaxed))
    }

    pub(crate) fn is_here(self) -> bool {
        self.0 == FORKS.load(Ordering::Relaxed)
    }

    /// Refuses in a process that was forked off.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.is_here() { Ok(()) } else { Err(Code::EngineForked.into()) }
    }
}

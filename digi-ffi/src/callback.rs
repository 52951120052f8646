//! Which of the host's callbacks this thread is in. Some are called with locks held, or are what a call would wait for:
//! calling back from them is refused instead of never returning.

use std::cell::Cell;

use digi_core::Code;

use crate::result::Failure;

thread_local! {
    static INSIDE: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Until it is dropped, this thread is in a callback from which Digi must not be called.
pub(crate) struct Inside(Option<&'static str>);

pub(crate) fn inside(which: &'static str) -> Inside {
    Inside(INSIDE.replace(Some(which)))
}

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.set(self.0);
    }
}

/// Refuses where this thread is in such a callback.
pub(crate) fn refuse() -> Result<(), Failure> {
    match INSIDE.get() {
        None => Ok(()),
        Some(which) => {
            Err(Code::InCallback.with(format!("called from {which}, where that could wait for ever")).into())
        }
    }
}

/// Does what cannot be refused: here, or from within such a callback in a thread of its own.
pub(crate) fn later(work: impl FnOnce() + Send + 'static) {
    if INSIDE.get().is_none() {
        work();
    } else if let Err(error) = std::thread::Builder::new().name("digi-free".to_owned()).spawn(work) {
        tracing::error!(%error, "what was freed within a callback stays: the system gives no thread");
    }
}

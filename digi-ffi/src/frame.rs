//! `digi_frame`.

use std::ffi::c_char;

use digi_core::frame::Frame;

use crate::handle::{Out, free};
use crate::result::guard_value;

/// A frame for a client: JSON text, to be sent as one WebSocket text message or however the host's clients are spoken to.
/// It is shared with everybody else who gets the same one, and lives until it is freed, whatever happens to the session.
/// Immutable; any number of threads may use one.
pub struct digi_frame(pub(crate) Frame);

/// The text, which is not ended by NUL, and its length in bytes. Lives as long as the frame.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_frame_text(frame: *const digi_frame, length: *mut usize) -> *const c_char {
    guard_value(std::ptr::null(), || {
        // SAFETY: the header's conventions.
        let (frame, length) = unsafe { (frame.as_ref(), Out::optional(length)) };
        let bytes = frame.map_or(&b""[..], |frame| frame.0.as_bytes());
        if let Some(length) = length {
            length.set(bytes.len());
        }
        bytes.as_ptr().cast()
    })
}

/// Frees a frame. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_frame_free(frame: *mut digi_frame) {
    // SAFETY: the header's conventions.
    guard_value((), || unsafe { free(frame) });
}

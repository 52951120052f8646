//! Where Digi's log goes.

use std::ffi::{c_char, c_void};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use parking_lot::RwLock;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::callback::inside;
use crate::handle::Context;
use crate::result::{DIGI_OK, bad_argument, digi_error, digi_result, guard_outside};

/// Something is broken.
pub const DIGI_LOG_ERROR: i32 = 1;
/// Something went wrong, and Digi went on.
pub const DIGI_LOG_WARNING: i32 = 2;
/// What operators want to know, such as who comes and goes at a server.
pub const DIGI_LOG_INFO: i32 = 3;
/// More.
pub const DIGI_LOG_DEBUG: i32 = 4;

/// Takes one line of the log: its level (`DIGI_LOG_…`), which part of Digi says it, and the text, which holds no secret
/// and no message's text. Called in any thread, several at once, with locks held: it must not block and must not call Digi.
pub type digi_log_callback = Option<
    unsafe extern "C" fn(
        ctx: *mut c_void,
        level: i32,
        target: *const c_char,
        target_length: usize,
        text: *const c_char,
        text_length: usize,
    ),
>;

struct Sink {
    ctx: Context,
    callback: unsafe extern "C" fn(*mut c_void, i32, *const c_char, usize, *const c_char, usize),
}

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);
static MOST: AtomicI32 = AtomicI32::new(0);

/// Hands the log of the whole process to `callback`: lines up to `level`. NULL: to nobody, as at first. `destroy`, which
/// may be NULL, is called with `ctx` once the callback is no longer used.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` for a level that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_log(
    level: i32,
    callback: digi_log_callback,
    ctx: *mut c_void,
    destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        if !(DIGI_LOG_ERROR..=DIGI_LOG_DEBUG).contains(&level) {
            return Err(bad_argument("level", "it is none of the DIGI_LOG_… numbers"));
        }
        let sink = callback.map(|callback| Arc::new(Sink { ctx: Context::new(ctx, destroy), callback }));
        MOST.store(if sink.is_some() { level } else { 0 }, Ordering::Relaxed);
        let before = std::mem::replace(&mut *SINK.write(), sink);
        // Fails from the second time on: it is there already.
        let _ = tracing::subscriber::set_global_default(ToHost);
        drop(before);
        Ok(DIGI_OK)
    })
}

struct ToHost;

fn number(level: Level) -> i32 {
    match level {
        Level::ERROR => DIGI_LOG_ERROR,
        Level::WARN => DIGI_LOG_WARNING,
        Level::INFO => DIGI_LOG_INFO,
        Level::DEBUG => DIGI_LOG_DEBUG,
        Level::TRACE => DIGI_LOG_DEBUG + 1,
    }
}

impl Subscriber for ToHost {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Other libraries' details are not Digi's to tell; the level that is asked for may change.
        if metadata.is_event() && metadata.target().starts_with("digi") {
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        number(*metadata.level()) <= MOST.load(Ordering::Relaxed)
    }

    fn event(&self, event: &Event<'_>) {
        let Some(sink) = SINK.read().clone() else { return };
        let (target, text) = (event.metadata().target(), digi_core::logging::line(event));
        let _inside = inside("a log callback");
        // SAFETY: the host's function, with texts that live while it runs.
        unsafe {
            (sink.callback)(
                sink.ctx.pointer,
                number(*event.metadata().level()),
                target.as_ptr().cast(),
                target.len(),
                text.as_ptr().cast(),
                text.len(),
            );
        }
    }

    // There are no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

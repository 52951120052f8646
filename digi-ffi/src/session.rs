//! `digi_session`.

use std::ffi::{c_char, c_int, c_void};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use digi_core::frame::Frame;
use digi_core::{CloseCode, Code, Session};
use parking_lot::{Condvar, Mutex};

use crate::fork::Origin;
use crate::frame::digi_frame;
use crate::handle::{Out, borrow};
use crate::ready::{Flag, Listing, Ready};
use crate::result::{
    DIGI_AGAIN, DIGI_OK, Failure, bad_argument, close_code_of, code_of, digi_error, digi_result, guard_outside,
    guard_value,
};
use crate::wait::{Deadline, wait};
use crate::{callback, handle};

/// One connection to an engine, made by `digi_engine_connect`. Any number of threads may use one at once; of those who
/// read, each frame goes to one. Free it when no other thread is in a function with it.
pub struct digi_session(());

pub(crate) type Accepting = Pin<Box<dyn Future<Output = Result<(), CloseCode>> + Send>>;

/// What a `digi_session` points to.
pub(crate) struct Open {
    session: Session,
    origin: Origin,
    ready: Arc<Ready>,
    signals: Arc<Signals>,
    waker: Waker,
    pub(crate) listing: Listing,
    is_freed: AtomicBool,
    /// None once it has been accepted or refused.
    accepting: Mutex<Option<Accepting>>,
    is_accepted: AtomicBool,
    data: *mut c_void,
}

// SAFETY: `data` is the host's, who gets it back; nothing else is done with it.
unsafe impl Send for Open {}
// SAFETY: as above; the rest is so by itself.
unsafe impl Sync for Open {}

/// Who is to hear that there is something to read.
struct Signals {
    session: OnceLock<Weak<Open>>,
    waiting: AtomicUsize,
    /// Counts the times, for those who wait.
    times: Mutex<u64>,
    woken: Condvar,
    flag: OnceLock<Flag>,
}

impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if let Some(flag) = self.flag.get() {
            flag.set();
        }
        if self.waiting.load(Ordering::SeqCst) > 0 {
            *self.times.lock() += 1;
            self.woken.notify_all();
        }
        if let Some(session) = self.session.get().and_then(Weak::upgrade) {
            session.ready.mark(&session);
        }
    }
}

impl Open {
    pub(crate) fn start(
        session: Session,
        accepting: Accepting,
        origin: Origin,
        ready: &Arc<Ready>,
        data: *mut c_void,
    ) -> Arc<Self> {
        let signals = Arc::new(Signals {
            session: OnceLock::new(),
            waiting: AtomicUsize::new(0),
            times: Mutex::new(0),
            woken: Condvar::new(),
            flag: OnceLock::new(),
        });
        let open = Arc::new(Self {
            session,
            origin,
            ready: ready.clone(),
            waker: Waker::from(signals.clone()),
            signals,
            listing: Listing::default(),
            is_freed: AtomicBool::new(false),
            accepting: Mutex::new(Some(accepting)),
            is_accepted: AtomicBool::new(false),
            data,
        });
        // It is empty so far.
        let _ = open.signals.session.set(Arc::downgrade(&open));
        ready.add(&open);
        open
    }

    pub(crate) fn is_freed(&self) -> bool {
        self.is_freed.load(Ordering::Acquire)
    }

    fn close_code(&self) -> CloseCode {
        self.session.closed().unwrap_or(CloseCode::Normal)
    }

    /// Waits until the session is in its room; whether it is.
    fn is_accepted(&self, deadline: Deadline) -> Result<bool, Failure> {
        if self.is_accepted.load(Ordering::Acquire) {
            return Ok(true);
        }
        // One thread waits for the answer, the others for that one.
        let slot = match deadline.get() {
            None => Some(self.accepting.lock()),
            Some(until) => self.accepting.try_lock_until(until),
        };
        let Some(mut slot) = slot else { return Ok(false) };
        if let Some(accepting) = slot.as_mut() {
            let Some(answer) = wait(accepting, deadline) else { return Ok(false) };
            *slot = None;
            self.is_accepted.store(answer.is_ok(), Ordering::Release);
        }
        if self.is_accepted.load(Ordering::Acquire) { Ok(true) } else { Err(self.close_code().into()) }
    }

    fn receive(&self, text: &str, deadline: Deadline) -> Result<digi_result, Failure> {
        self.origin.check()?;
        if !self.is_accepted(deadline)? {
            return Ok(DIGI_AGAIN);
        }
        match wait(self.session.receive_unforked(text), deadline) {
            None => Ok(DIGI_AGAIN),
            Some(Ok(())) => Ok(DIGI_OK),
            Some(Err(error)) if error.code() == Code::SessionClosed => Err(self.close_code().into()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    fn poll(&self) -> Poll<Result<Frame, CloseCode>> {
        pin!(self.session.next()).poll(&mut Context::from_waker(&self.waker))
    }

    /// Takes what is there, up to `most` frames; the close code when there are none and will be none.
    fn take(self: &Arc<Self>, most: usize, take: &mut impl FnMut(Frame)) -> Result<usize, CloseCode> {
        let mut taken = 0;
        self.ready.unmark(self);
        while taken < most {
            match self.poll() {
                Poll::Ready(Ok(frame)) => {
                    take(frame);
                    taken += 1;
                }
                Poll::Ready(Err(code)) if taken == 0 => return Err(code),
                // Told next time.
                Poll::Ready(Err(_)) => break,
                Poll::Pending if self.lower_flag() => {}
                Poll::Pending => return Ok(taken),
            }
        }
        // There may be more: whoever waits for the list or a descriptor is told of it again.
        self.ready.mark(self);
        if let Some(flag) = self.signals.flag.get() {
            flag.set();
        }
        Ok(taken)
    }

    /// Nothing was there, so the session's own descriptor is to say so; whether that was new, and one has to look again:
    /// what came before it was lowered is announced by nothing else.
    fn lower_flag(&self) -> bool {
        self.signals.flag.get().is_some_and(Flag::clear)
    }

    /// As [`take`](Self::take), waiting for the first. None: the deadline has passed.
    pub(crate) fn next(
        self: &Arc<Self>,
        most: usize,
        timeout: i64,
        mut take: impl FnMut(Frame),
    ) -> Result<usize, Failure> {
        self.origin.check()?;
        let taken = self.take(most, &mut take)?;
        if taken > 0 || timeout == 0 || most == 0 {
            return Ok(taken);
        }
        let signals = &self.signals;
        let deadline = Deadline::after(timeout);
        signals.waiting.fetch_add(1, Ordering::SeqCst);
        let result = loop {
            let seen = *signals.times.lock();
            match self.take(most, &mut take) {
                Ok(0) => {}
                other => break other,
            }
            let mut times = signals.times.lock();
            let mut is_late = false;
            while *times == seen && !is_late {
                match deadline.get() {
                    None => signals.woken.wait(&mut times),
                    Some(until) => is_late = signals.woken.wait_until(&mut times, until).timed_out(),
                }
            }
            if is_late {
                break Ok(0);
            }
        };
        signals.waiting.fetch_sub(1, Ordering::SeqCst);
        Ok(result?)
    }
}

/// The session behind a handle, as an owner of its own.
unsafe fn open(session: *const digi_session) -> Result<Arc<Open>, Failure> {
    // SAFETY: by the header's conventions NULL, or what `give` gave and `digi_session_free` has not taken back.
    unsafe {
        borrow(session, "session")?;
        Arc::increment_strong_count(session.cast::<Open>());
        Ok(Arc::from_raw(session.cast::<Open>()))
    }
}

/// A session as the host knows it; `digi_session_free` takes it back.
pub(crate) fn give(session: Arc<Open>) -> *mut digi_session {
    Arc::into_raw(session).cast_mut().cast()
}

/// A text that the client has sent (the frames are listed at the header's top). Whatever is wrong with it, also that there
/// are too many, the client is told in a frame, and the answer is `DIGI_OK`.
///
/// `timeout_ms` is how long to wait where the session is not in its room yet, or too much waits to be stored already:
/// 0 not at all, -1 for ever. `DIGI_AGAIN`: not taken, give it again.
///
/// Errors: a `DIGI_CLOSE_…` when the session is closed; instead `DIGI_ERR_ENGINE_CLOSED` once its engine is closing
/// or freed (if the session has been in its room); `DIGI_ERR_ENGINE_FORKED`; `DIGI_ERR_BAD_ARGUMENT` (also for what is
/// not UTF-8; see `digi_session_receive_unreadable`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_receive(
    session: *mut digi_session,
    text: *const c_char,
    length: usize,
    timeout_ms: i64,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (session, text) = unsafe { (open(session)?, handle::text(text, length, "text")?) };
        session.receive(text, Deadline::after(timeout_ms))
    })
}

/// The client has sent what is no readable text: it gets an `error` frame with this code (`DIGI_ERR_NOT_TEXT`,
/// `DIGI_ERR_FRAME_TOO_LARGE`, …). Before the session is in its room it does nothing.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` for a number that is no code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_receive_unreadable(
    session: *mut digi_session,
    code: digi_result,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let session = unsafe { open(session)? };
        session.origin.check()?;
        let code = code_of(code).ok_or_else(|| bad_argument("code", "it is none of the DIGI_ERR_… numbers"))?;
        session.session.receive_unreadable(code);
        Ok(DIGI_OK)
    })
}

/// The next frame for the client, to be freed with `digi_frame_free`. `timeout_ms` is how long to wait for it: 0 not at
/// all, -1 for ever. `DIGI_AGAIN`: there is none yet.
///
/// Errors: a `DIGI_CLOSE_…` once the session is closed and every frame has been handed out: close the client's connection
/// with this number, and free the session. `DIGI_ERR_ENGINE_FORKED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_next(
    session: *mut digi_session,
    timeout_ms: i64,
    frame: *mut *mut digi_frame,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (session, out) = unsafe { (open(session)?, Out::new(frame, "frame")?) };
        let mut next = None;
        session.next(1, timeout_ms, |frame| next = Some(frame))?;
        let Some(frame) = next else { return Ok(DIGI_AGAIN) };
        out.give(digi_frame(frame));
        Ok(DIGI_OK)
    })
}

/// As `digi_session_next`, for several frames with one call: up to `most` into `frames`, and how many into `count`. It
/// waits for the first only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_next_many(
    session: *mut digi_session,
    timeout_ms: i64,
    frames: *mut *mut digi_frame,
    most: usize,
    count: *mut usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (session, count) = unsafe { (open(session)?, Out::new(count, "count")?) };
        if frames.is_null() || most == 0 {
            return Err(bad_argument("frames", "there is no space for a frame"));
        }
        let mut place = frames;
        let taken = session.next(most, timeout_ms, |frame| {
            // SAFETY: `frames` has `most` places, and at most as many are handed out.
            unsafe {
                place.write(Box::into_raw(Box::new(digi_frame(frame))));
                place = place.add(1);
            }
        })?;
        if taken == 0 {
            return Ok(DIGI_AGAIN);
        }
        count.set(taken);
        Ok(DIGI_OK)
    })
}

/// A descriptor of this session alone that is readable while there is something to read (and once the session is
/// closed), for poll, epoll or kqueue: don't read from it, call `digi_session_next` until it says `DIGI_AGAIN`. Made at the
/// first call, and closed with `digi_session_free`. With many sessions `digi_engine_descriptor` costs one for all.
///
/// Errors: `DIGI_ERR_CONFIG` when the system has no descriptor left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_descriptor(
    session: *mut digi_session,
    descriptor: *mut c_int,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (session, out) = unsafe { (open(session)?, Out::new(descriptor, "descriptor")?) };
        session.origin.check()?;
        let flag = &session.signals.flag;
        if flag.get().is_none() {
            let new = Flag::new()?;
            // Something may be there already.
            new.set();
            // Another thread may have been first.
            let _ = flag.set(new);
        }
        out.set(flag.get().map_or(-1, Flag::descriptor));
        Ok(DIGI_OK)
    })
}

/// The pointer that `digi_engine_connect` was given with the scope; NULL for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_data(session: *const digi_session) -> *mut c_void {
    // SAFETY: the header's conventions.
    guard_value(std::ptr::null_mut(), || unsafe { open(session) }.map_or(std::ptr::null_mut(), |open| open.data))
}

/// Closes the session with one of the `DIGI_CLOSE_…` numbers (`DIGI_CLOSE_NORMAL` when the client has gone). Frames that
/// wait are still handed out, then this number. A session that is closed already keeps its own.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` for a number that is no close code.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_close(
    session: *mut digi_session,
    code: digi_result,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let session = unsafe { open(session)? };
        session.origin.check()?;
        let code = close_code_of(code).ok_or_else(|| bad_argument("code", "it is none of the DIGI_CLOSE_… numbers"))?;
        session.session.close(code);
        Ok(DIGI_OK)
    })
}

/// Ends the session, if it is open, and frees it; it leaves its room at once. NULL is fine. May be called for a session
/// within its own callback, and after its engine was freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_session_free(session: *mut digi_session) {
    guard_value((), || {
        if session.is_null() {
            return;
        }
        // SAFETY: by the header's conventions what `give` gave, and not freed yet.
        let session = unsafe { Arc::from_raw(session.cast_const().cast::<Open>()) };
        session.is_freed.store(true, Ordering::Release);
        if session.origin.is_here() {
            callback::later(move || session.session.close(CloseCode::Normal));
        } else {
            // Its locks may have been held when this process was forked off.
            std::mem::forget(session);
        }
    });
}

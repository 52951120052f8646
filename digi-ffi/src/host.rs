//! The host's say in what is stored, and its clock.

use std::ffi::{c_char, c_void};

use digi_core::Millis;
use digi_core::consumer::{Policy, Verdict};
use digi_core::store::model::{Command, Membership};
use digi_core::{Code, Error};

use crate::callback::inside;
use crate::handle::{Context, borrow, text};
use crate::model::{digi_command, role_number};
use crate::result::{DIGI_OK, Failure, bad_argument, code_of, digi_error, digi_result, guard};

/// The host's say in what may be stored: `judge` is asked about every command of a member before it is stored, and about
/// none of the host's own.
///
/// It answers `DIGI_OK` to let it pass, or a `DIGI_ERR_…` to refuse it: the client gets that code
/// (`DIGI_ERR_REFUSED` is meant for this; another number counts as it). `digi_verdict_set_text` replaces the message's
/// text, or is the sentence that goes with a refusal. `role` is the member's `DIGI_ROLE_…`.
///
/// It is called in any thread, several at once, with locks held: it must not block, and must not call Digi but for the
/// verdict and ciphers.
#[repr(C)]
pub struct digi_policy {
    /// `sizeof(digi_policy)`.
    pub size: usize,
    /// The host's own; NULL is fine.
    pub ctx: *mut c_void,
    /// Called once with `ctx` when nothing will use it any more; may be NULL.
    pub destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// See above.
    pub judge: Option<
        unsafe extern "C" fn(
            ctx: *mut c_void,
            command: *const digi_command,
            role: i32,
            verdict: *mut digi_verdict,
        ) -> digi_result,
    >,
}

/// What a policy says beside its result. Lives until `judge` returns.
pub struct digi_verdict {
    text: Option<String>,
}

pub(crate) struct HostPolicy {
    ctx: Context,
    judge: unsafe extern "C" fn(*mut c_void, *const digi_command, i32, *mut digi_verdict) -> digi_result,
}

impl HostPolicy {
    pub(crate) fn new(policy: digi_policy) -> Result<Self, Failure> {
        let judge = policy.judge.ok_or_else(|| bad_argument("policy.judge", "it is NULL"))?;
        Ok(Self { ctx: Context::new(policy.ctx, policy.destroy), judge })
    }
}

impl Policy for HostPolicy {
    fn judge(&self, command: &Command, membership: &Membership) -> Verdict {
        let shown = digi_command::of(command);
        let mut verdict = digi_verdict { text: None };
        let result = {
            let _inside = inside("a policy");
            // SAFETY: the host's function, with pointers that live while it runs.
            unsafe { (self.judge)(self.ctx.pointer, &raw const shown, role_number(membership.role), &raw mut verdict) }
        };
        match (result, verdict.text) {
            (DIGI_OK, None) => Verdict::Allow,
            (DIGI_OK, Some(text)) => Verdict::Replace(text),
            (code, text) => {
                let code = code_of(code).unwrap_or(Code::Refused);
                Verdict::Refuse(text.map_or_else(|| Error::from(code), |text| code.with(text)))
            }
        }
    }
}

/// Sets the text that goes with a policy's answer: the message's new text, or the sentence of a refusal.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_verdict_set_text(
    verdict: *mut digi_verdict,
    text: *const c_char,
    length: usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        unsafe {
            borrow(verdict, "verdict")?;
            (*verdict).text = Some(self::text(text, length, "text")?.to_owned());
        }
        Ok(DIGI_OK)
    })
}

/// The host's clock: `now` gives milliseconds since 1970-01-01T00:00:00Z. Called in any thread, several at once, with
/// locks held: it must not block, and must not call Digi. It may go back; times of a room never do.
#[repr(C)]
pub struct digi_clock {
    /// `sizeof(digi_clock)`.
    pub size: usize,
    /// The host's own; NULL is fine.
    pub ctx: *mut c_void,
    /// Called once with `ctx` when nothing will use it any more; may be NULL.
    pub destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    /// See above.
    pub now: Option<unsafe extern "C" fn(ctx: *mut c_void) -> u64>,
}

pub(crate) struct Clock {
    ctx: Context,
    now: unsafe extern "C" fn(*mut c_void) -> u64,
}

impl Clock {
    pub(crate) fn new(clock: digi_clock) -> Result<Self, Failure> {
        let now = clock.now.ok_or_else(|| bad_argument("clock.now", "it is NULL"))?;
        Ok(Self { ctx: Context::new(clock.ctx, clock.destroy), now })
    }

    pub(crate) fn now(&self) -> Millis {
        let _inside = inside("a clock");
        // SAFETY: the host's function.
        Millis(unsafe { (self.now)(self.ctx.pointer) })
    }
}

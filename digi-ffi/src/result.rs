//! What functions answer, the text of what went wrong, and the border that no panic crosses.

use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use digi_core::{CloseCode, Code, Error};

use crate::callback;

/// What a function answers: `DIGI_OK`, `DIGI_AGAIN`, one of the `DIGI_ERR_…` above or, from functions that deal with a
/// session, one of the `DIGI_CLOSE_…`: the session is closed, and that is why.
pub type digi_result = i32;

/// Done.
pub const DIGI_OK: digi_result = 0;
/// Not done, nothing went wrong: there is nothing yet, or no space yet. Ask again later.
pub const DIGI_AGAIN: digi_result = 1;

/// What went wrong, as a code and a sentence for a person. Freed with `digi_error_free`.
pub struct digi_error {
    code: digi_result,
    text: CString,
}

/// What a call on the Rust side fails with.
#[derive(Debug)]
pub(crate) enum Failure {
    Digi(Error),
    Closed(CloseCode),
}

impl Failure {
    fn code(&self) -> digi_result {
        match self {
            Self::Digi(error) => number(error.code()),
            Self::Closed(code) => close_number(*code),
        }
    }

    fn text(&self) -> &str {
        match self {
            Self::Digi(error) => error.detail(),
            Self::Closed(code) => code.text(),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Digi(error)
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::Digi(code.into())
    }
}

impl From<CloseCode> for Failure {
    fn from(code: CloseCode) -> Self {
        Self::Closed(code)
    }
}

/// The argument with this name is not as it has to be.
pub(crate) fn bad_argument(name: &str, what: &str) -> Failure {
    Code::BadArgument.with(format!("{name}: {what}")).into()
}

pub(crate) fn number(code: Code) -> digi_result {
    digi_result::from(code.number())
}

pub(crate) fn close_number(code: CloseCode) -> digi_result {
    digi_result::from(code.number())
}

/// The code of the one table with this number.
pub(crate) fn code_of(number: digi_result) -> Option<Code> {
    Code::ALL.iter().copied().find(|code| digi_result::from(code.number()) == number)
}

/// The close code of the one table with this number.
pub(crate) fn close_code_of(number: digi_result) -> Option<CloseCode> {
    CloseCode::ALL.iter().copied().find(|code| digi_result::from(code.number()) == number)
}

/// Runs a function's work. A panic ends here, as `DIGI_ERR_INTERNAL`.
pub(crate) fn guard(error: *mut *mut digi_error, work: impl FnOnce() -> Result<digi_result, Failure>) -> digi_result {
    // What a panic leaves half done is behind locks that do not poison, and is no worse than an error there.
    let failure = match catch_unwind(AssertUnwindSafe(work)) {
        Ok(Ok(result)) => return result,
        Ok(Err(failure)) => failure,
        Err(_) => Code::Internal.into(),
    };
    let code = failure.code();
    if !error.is_null() {
        let text: Vec<u8> = failure.text().bytes().filter(|byte| *byte != 0).collect();
        let text = CString::new(text).unwrap_or_default();
        // SAFETY: not NULL, so by the header's convention it may be written.
        unsafe { error.write(Box::into_raw(Box::new(digi_error { code, text }))) };
    }
    code
}

/// As [`guard`], for what waits or takes locks: refused inside a callback that must not do so.
pub(crate) fn guard_outside(
    error: *mut *mut digi_error,
    work: impl FnOnce() -> Result<digi_result, Failure>,
) -> digi_result {
    guard(error, || {
        callback::refuse()?;
        work()
    })
}

/// As [`guard`], for functions that cannot fail; a panic gives `otherwise`.
pub(crate) fn guard_value<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(otherwise)
}

/// Digi's version: what the library is, where the header says what the program was compiled against. Lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn digi_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The stable name of a result, such as `not_a_member`, as it also stands in frames; `unknown` for a number that is none.
/// Lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn digi_result_name(result: digi_result) -> *const c_char {
    guard_value(c"unknown".as_ptr(), || names::of(result))
}

/// The code of an error, the same as the function's result; `DIGI_OK` for NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_error_code(error: *const digi_error) -> digi_result {
    // SAFETY: NULL or an error of this library, by the header's convention.
    guard_value(DIGI_OK, || unsafe { error.as_ref() }.map_or(DIGI_OK, |error| error.code))
}

/// The sentence of an error, ended by NUL; the empty text for NULL. Lives as long as the error.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_error_text(error: *const digi_error) -> *const c_char {
    // SAFETY: NULL or an error of this library, by the header's convention.
    guard_value(c"".as_ptr(), || unsafe { error.as_ref() }.map_or(c"".as_ptr(), |error| error.text.as_ptr()))
}

/// Frees an error. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_error_free(error: *mut digi_error) {
    // SAFETY: NULL or an error of this library that was not freed, by the header's convention.
    guard_value((), || unsafe { crate::handle::free(error) });
}

/// The names, ended by NUL, made when this is compiled: whoever asks for one allocates nothing.
mod names {
    use std::ffi::c_char;

    use super::{CloseCode, Code, DIGI_AGAIN, DIGI_OK, digi_result};

    /// More than any name has; one that is longer does not compile.
    const SPACE: usize = 24;

    type Name = [u8; SPACE];

    const fn ended(name: &str) -> Name {
        let (bytes, mut text, mut at) = (name.as_bytes(), [0; SPACE], 0);
        assert!(bytes.len() < SPACE);
        while at < bytes.len() {
            text[at] = bytes[at];
            at += 1;
        }
        text
    }

    /// In the order of the table.
    static CODES: [Name; Code::ALL.len()] = {
        let (mut names, mut at) = ([[0; SPACE]; Code::ALL.len()], 0);
        while at < names.len() {
            names[at] = ended(Code::ALL[at].name());
            at += 1;
        }
        names
    };

    /// In the order of the table.
    static CLOSE_CODES: [Name; CloseCode::ALL.len()] = {
        let (mut names, mut at) = ([[0; SPACE]; CloseCode::ALL.len()], 0);
        while at < names.len() {
            names[at] = ended(CloseCode::ALL[at].name());
            at += 1;
        }
        names
    };

    pub(super) fn of(result: digi_result) -> *const c_char {
        let code = || Code::ALL.iter().position(|code| digi_result::from(code.number()) == result);
        let close_code = || CloseCode::ALL.iter().position(|code| digi_result::from(code.number()) == result);
        let name = match result {
            DIGI_OK => return c"ok".as_ptr(),
            DIGI_AGAIN => return c"again".as_ptr(),
            _ => code().map(|at| &CODES[at]).or_else(|| close_code().map(|at| &CLOSE_CODES[at])),
        };
        name.map_or(c"unknown".as_ptr(), |name| name.as_ptr().cast())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;

    #[test]
    fn a_panic_becomes_a_code_and_a_text() {
        let mut error = std::ptr::null_mut();
        let result = guard(&raw mut error, || panic!("injected"));
        assert_eq!(result, number(Code::Internal));
        // SAFETY: the guard has written it.
        unsafe {
            assert_eq!(digi_error_code(error), number(Code::Internal));
            assert_eq!(CStr::from_ptr(digi_error_text(error)).to_str(), Ok(Code::Internal.text()));
            digi_error_free(error);
        }
        assert_eq!(guard(std::ptr::null_mut(), || panic!("injected, and nobody asks why")), number(Code::Internal));
        assert_eq!(guard_value(7, || panic!("injected")), 7);
    }

    #[test]
    fn every_code_has_its_name() {
        // SAFETY: the names live for ever.
        let name = |result| unsafe { CStr::from_ptr(digi_result_name(result)) }.to_str().unwrap_or_default();
        for code in Code::ALL {
            assert_eq!(name(number(*code)), code.name());
            assert_eq!(code_of(number(*code)), Some(*code));
        }
        for code in CloseCode::ALL {
            assert_eq!(name(close_number(*code)), code.name());
            assert_eq!(close_code_of(close_number(*code)), Some(*code));
        }
        assert_eq!((name(DIGI_OK), name(DIGI_AGAIN), name(99)), ("ok", "again", "unknown"));
    }
}

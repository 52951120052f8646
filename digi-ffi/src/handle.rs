//! Pointers that come from C.

use std::ffi::c_char;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::result::{Failure, bad_argument};

/// A text in UTF-8 with its length in bytes; it need not end with NUL. `data` NULL: none, where one may be left out.
///
/// What Digi gives to a callback lives until the callback returns. `DIGI_TEXT("literal")` initialises one with a literal,
/// `digi_text_of(string)` makes one of what ends with NUL.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_text {
    /// The first byte.
    pub data: *const c_char,
    /// How many bytes.
    pub length: usize,
}

/// Longer than any text of a chat: a length beyond it is taken for a mistake, and nothing is read.
const LONGEST: usize = 64 * 1024 * 1024;

impl digi_text {
    pub(crate) const NONE: Self = Self { data: std::ptr::null(), length: 0 };

    /// To be used while `text` lives.
    pub(crate) fn of(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), length: text.len() }
    }

    pub(crate) fn of_option(text: Option<&str>) -> Self {
        text.map_or(Self::NONE, Self::of)
    }

    /// The text, if there is one.
    ///
    /// # Safety
    /// `data` is NULL or readable for `length` bytes while the result is used.
    pub(crate) unsafe fn get<'a>(self, name: &str) -> Result<Option<&'a str>, Failure> {
        if self.data.is_null() {
            return if self.length == 0 { Ok(None) } else { Err(bad_argument(name, "it is NULL and has a length")) };
        }
        if self.length > LONGEST {
            return Err(bad_argument(name, "its length is beyond that of any text"));
        }
        // SAFETY: the caller's promise.
        let bytes = unsafe { std::slice::from_raw_parts(self.data.cast::<u8>(), self.length) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| bad_argument(name, "it is not UTF-8"))
    }

    /// The text, which must be there.
    ///
    /// # Safety
    /// As [`digi_text::get`].
    pub(crate) unsafe fn needed<'a>(self, name: &str) -> Result<&'a str, Failure> {
        // SAFETY: the caller's promise.
        unsafe { self.get(name) }?.ok_or_else(|| bad_argument(name, "it is NULL"))
    }
}

/// The text at a pointer of this length.
///
/// # Safety
/// As [`digi_text::get`].
pub(crate) unsafe fn text<'a>(data: *const c_char, length: usize, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: the caller's promise.
    unsafe { digi_text { data, length }.needed(name) }
}

/// What a handle or struct pointer points to.
///
/// # Safety
/// `pointer` is NULL or points to a `T` that lives and is not written to while the result is used.
pub(crate) unsafe fn borrow<'a, T>(pointer: *const T, name: &str) -> Result<&'a T, Failure> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| bad_argument(name, "it is NULL"))
}

/// Where a result goes; written to once the function succeeds.
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// # Safety
    /// `pointer` is NULL or may be written to.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        if pointer.is_null() { Err(bad_argument(name, "it is NULL")) } else { Ok(Self(pointer)) }
    }

    /// # Safety
    /// `pointer` may be written to unless it is NULL; then the result is not wanted.
    pub(crate) unsafe fn optional(pointer: *mut T) -> Option<Self> {
        (!pointer.is_null()).then_some(Self(pointer))
    }

    pub(crate) fn set(self, value: T) {
        // SAFETY: not NULL, and writable by the promise at `new`.
        unsafe { self.0.write(value) };
    }
}

impl<T> Out<*mut T> {
    pub(crate) fn give(self, value: T) {
        self.set(Box::into_raw(Box::new(value)));
    }
}

/// Frees what [`Out::give`] gave.
///
/// # Safety
/// `pointer` is NULL or came from there and was not freed.
pub(crate) unsafe fn free<T>(pointer: *mut T) {
    if !pointer.is_null() {
        // SAFETY: the caller's promise.
        drop(unsafe { Box::from_raw(pointer) });
    }
}

/// A list at a pointer; empty for NULL without a length.
///
/// # Safety
/// `data` is NULL or points to `length` values that live while the result is used.
pub(crate) unsafe fn list<'a, T>(data: *const T, length: usize, name: &str) -> Result<&'a [T], Failure> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(bad_argument(name, "it is NULL and has a length"));
    }
    if length > LONGEST / size_of::<T>().max(1) {
        return Err(bad_argument(name, "its length is beyond any list's"));
    }
    // SAFETY: the caller's promise.
    Ok(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Structs of the host's begin with their size, so that they can grow: what an older host's struct lacks is zero.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose first member is a `size_t` with its size in bytes. All of `T`'s members
/// may be zero.
pub(crate) unsafe fn sized<T>(pointer: *const T, name: &str) -> Result<T, Failure> {
    if pointer.is_null() {
        return Err(bad_argument(name, "it is NULL"));
    }
    // SAFETY: it begins with its size.
    let size = unsafe { pointer.cast::<usize>().read_unaligned() };
    if size < size_of::<usize>() {
        return Err(bad_argument(name, "its member size is not set: it is the struct's sizeof"));
    }
    if size > size_of::<T>() {
        return Err(bad_argument(name, "it was made for a newer Digi: its member size is beyond what this one knows"));
    }
    // SAFETY: every member may be zero, and `size` bytes may be read.
    unsafe {
        let mut whole = std::mem::MaybeUninit::<T>::zeroed();
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), whole.as_mut_ptr().cast::<u8>(), size);
        Ok(whole.assume_init())
    }
}

type Destroy = Option<unsafe extern "C" fn(*mut std::ffi::c_void)>;

/// A pointer that the host gave along with its callbacks, and what destroys it.
pub(crate) struct Context {
    pub(crate) pointer: *mut std::ffi::c_void,
    destroy: Destroy,
    is_given_back: AtomicBool,
}

// SAFETY: the header asks of the host that its callbacks and their context may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(crate) fn new(pointer: *mut std::ffi::c_void, destroy: Destroy) -> Self {
        Self { pointer, destroy, is_given_back: AtomicBool::new(false) }
    }

    /// What it was for has failed: it stays the host's, and is not destroyed.
    pub(crate) fn give_back(&self) {
        self.is_given_back.store(true, Ordering::Release);
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(destroy) = self.destroy
            && !self.is_given_back.load(Ordering::Acquire)
        {
            let _inside = crate::callback::inside("a destroy function");
            // SAFETY: called once, when no callback runs or will; the header says so to the host.
            unsafe { destroy(self.pointer) };
        }
    }
}

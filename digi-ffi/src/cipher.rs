//! `digi_cipher`.

use std::collections::BTreeMap;
use std::ffi::c_char;

use digi_core::token::{Emit, Keyring, Kind};
use digi_core::{Code, Error};
use serde::Deserialize;

use crate::handle::{Out, borrow, free, text};
use crate::result::{DIGI_OK, Failure, bad_argument, digi_error, digi_result, guard, guard_value};

/// Seals ids into tokens, which stand in URLs and frames, and opens them. Immutable; any number of threads may use one.
pub struct digi_cipher(pub(crate) Keyring);

/// The id of a room.
pub const DIGI_KIND_ROOM: u32 = 0;
/// The id of a message.
pub const DIGI_KIND_MESSAGE: u32 = 1;
/// Bytes that every token fits into, with a NUL behind it.
pub const DIGI_TOKEN_SIZE: usize = 192;

/// Several keys, as JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    keys: BTreeMap<u8, String>,
    seal_with: Option<u8>,
    #[serde(default)]
    django: Vec<String>,
    #[serde(default)]
    fernet: Vec<String>,
    #[serde(default)]
    fernet_kinds: Option<Vec<String>>,
    #[serde(default)]
    emit: Option<String>,
}

impl Keys {
    fn build(&self) -> Result<Keyring, Error> {
        let mut builder = Keyring::builder();
        for (id, secret) in &self.keys {
            builder = builder.key(*id, secret);
        }
        if let Some((first, fallbacks)) = self.django.split_first() {
            builder = builder.django(first, &fallbacks.iter().map(String::as_str).collect::<Vec<_>>());
        }
        for key in &self.fernet {
            builder = builder.legacy_fernet(key);
        }
        if let Some(id) = self.seal_with {
            builder = builder.seal_with(id);
        }
        if let Some(kinds) = &self.fernet_kinds {
            let kind = |name: &String| match name.as_str() {
                "room" => Ok(Kind::Room),
                "message" => Ok(Kind::Message),
                other => Err(Code::BadKey.with(format!("fernet_kinds: \"room\" or \"message\", not {other:?}"))),
            };
            builder = builder.legacy_kinds(&kinds.iter().map(kind).collect::<Result<Vec<_>, _>>()?);
        }
        match self.emit.as_deref() {
            None | Some("v1") => {}
            Some("fernet") => builder = builder.emit(Emit::Fernet),
            Some(other) => return Err(Code::BadKey.with(format!("emit: \"v1\" or \"fernet\", not {other:?}"))),
        }
        builder.build()
    }
}

fn kind(number: u32) -> Result<Kind, Failure> {
    match number {
        DIGI_KIND_ROOM => Ok(Kind::Room),
        DIGI_KIND_MESSAGE => Ok(Kind::Message),
        _ => Err(bad_argument("kind", "it is neither DIGI_KIND_ROOM nor DIGI_KIND_MESSAGE")),
    }
}

/// Makes a cipher out of one secret of at least 32 bytes (any bytes); the same secret gives the same tokens again.
///
/// Errors: `DIGI_ERR_BAD_KEY` for one that is shorter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_cipher_new(
    secret: *const c_char,
    length: usize,
    cipher: *mut *mut digi_cipher,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (secret, out) =
            unsafe { (crate::handle::list(secret.cast::<u8>(), length, "secret")?, Out::new(cipher, "cipher")?) };
        out.give(digi_cipher(Keyring::new(secret)?));
        Ok(DIGI_OK)
    })
}

/// Makes a cipher out of several keys, as a JSON object:
///
/// ```text
/// {"keys": {"1": "last year's secret, long enough", "2": "this year's"}, "seal_with": 2}
/// ```
///
/// `keys` by their ids (0 to 255; never give an id to another secret), `seal_with` the one that seals, where there are
/// several. `django`: a list of `SECRET_KEY` and its fallbacks, for a process beside a Django project. `fernet`: the keys
/// of a classic app, whose links open then (`fernet_kinds`: `["room"]` by default); `"emit": "fernet"` seals for it, too.
///
/// Errors: `DIGI_ERR_BAD_KEY`, `DIGI_ERR_CONFIG`; the text names the key, never a secret.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_cipher_from_json(
    json: *const c_char,
    length: usize,
    cipher: *mut *mut digi_cipher,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (json, out) = unsafe { (text(json, length, "json")?, Out::new(cipher, "cipher")?) };
        let keys: Keys = serde_json::from_str(json).map_err(|error| {
            // Its own words may quote a secret.
            Code::BadKey.with(format!(
                "the keys are no such JSON object: line {}, column {}",
                error.line(),
                error.column()
            ))
        })?;
        out.give(digi_cipher(keys.build()?));
        Ok(DIGI_OK)
    })
}

/// Writes the token of an id (`kind`: `DIGI_KIND_…`) into `token`, ended by NUL, and its length without that into
/// `length`, which may be NULL. `size` is that of `token`; `DIGI_TOKEN_SIZE` is enough. Of a message's id it is what
/// frames have as `message_id`.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` when the token does not fit.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_cipher_seal(
    cipher: *const digi_cipher,
    kind: u32,
    id: i64,
    token: *mut c_char,
    size: usize,
    length: *mut usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (cipher, length) = unsafe { (borrow(cipher, "cipher")?, Out::optional(length)) };
        let sealed = cipher.0.seal(self::kind(kind)?, id);
        // SAFETY: `token` has `size` bytes.
        unsafe { write_text(&sealed, token, size, "token")? };
        if let Some(length) = length {
            length.set(sealed.len());
        }
        Ok(DIGI_OK)
    })
}

/// Opens a token of that kind and writes the id into `id`: of a frame's `message_id` (`DIGI_KIND_MESSAGE`) the number
/// for `digi_command.message_id`.
///
/// Errors: `DIGI_ERR_BAD_TOKEN`, whatever the reason.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_cipher_open(
    cipher: *const digi_cipher,
    kind: u32,
    token: *const c_char,
    length: usize,
    id: *mut i64,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (cipher, token, out) =
            unsafe { (borrow(cipher, "cipher")?, text(token, length, "token")?, Out::new(id, "id")?) };
        out.set(cipher.0.open(self::kind(kind)?, token).map_err(|_| Code::BadToken)?);
        Ok(DIGI_OK)
    })
}

/// Frees a cipher; engines and consumers made with it keep what they need. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_cipher_free(cipher: *mut digi_cipher) {
    // SAFETY: the header's conventions.
    guard_value((), || unsafe { free(cipher) });
}

/// Writes a text and a NUL.
///
/// # Safety
/// `buffer` is NULL or may be written to for `size` bytes.
pub(crate) unsafe fn write_text(text: &str, buffer: *mut c_char, size: usize, name: &str) -> Result<(), Failure> {
    if buffer.is_null() {
        return Err(bad_argument(name, "it is NULL"));
    }
    if size <= text.len() {
        return Err(bad_argument(name, &format!("it has {size} bytes, and {} are needed", text.len() + 1)));
    }
    // SAFETY: there is space for the text and the NUL.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len());
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

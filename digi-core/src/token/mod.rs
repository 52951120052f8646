//! Id encryption: what stands in URLs and frames instead of a bare id.
//!
//! A token is an id, encrypted and authenticated under a [`Keyring`]. Whoever holds one learns nothing about
//! the id and cannot make another one; whether its bearer may enter the room is asked elsewhere. Route by the
//! opened id, never by the text: keys rotate, and a legacy token has several texts.
//!
//! ```
//! use digi_core::token::{Keyring, Kind};
//!
//! let keys = Keyring::new("correct horse battery staple, and more")?;
//! let token = keys.seal(Kind::Room, 42);
//! assert_eq!(keys.open(Kind::Room, &token)?, 42);
//! assert!(keys.open(Kind::Message, &token).is_err());
//! # Ok::<(), digi_core::Error>(())
//! ```
//!
//! # Version 1
//!
//! 51 characters of base64url without padding (RFC 4648 §5) over 38 bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version, `0x01` |
//! | 1 | key id |
//! | 12 | nonce: the first 96 bits of HMAC-SHA-256(nonce key, kind ‖ id) |
//! | 8 | the id as big-endian `i64`, encrypted with AES-256-GCM (NIST SP 800-38D) |
//! | 16 | its tag, over the associated data `digi:v1:<kind>` too |
//!
//! `kind` is `room` or `message`, the id in the HMAC is the same eight bytes. Both 32-byte keys come from the
//! configured secret by HKDF-SHA-256 (RFC 5869) without salt, with the info `digi:v1:encryption key` and
//! `digi:v1:nonce key`.
//!
//! Tokens are *stable*: an id has one text per key, so a browser finds the message that an edit names. The
//! price is that equal ids can be seen to be equal, and that of n ids under one key two share a nonce with
//! probability about n²/2⁹⁷ (a billion ids: 2⁻³⁷).
//!
//! # Rotation
//!
//! Keys carry explicit ids. First give every process the new key to open with ([`KeyringBuilder::key`]), then
//! let it seal ([`KeyringBuilder::seal_with`]), and drop the old one when its links may die. Sealing with
//! another key changes the text of message tokens: pages that find messages by that text need a reload.
//!
//! # Legacy Fernet
//!
//! Classic ids are Fernet tokens (<https://github.com/fernet/spec>) of the id in decimal, encoded in base64 once
//! more (`Z0FBQUFB…`), or bare (`gAAAAA…`). A keyring with the classic key opens both and, with
//! [`Emit::Fernet`], hands out the wrapped form, so that stock workers understand it. Emitted tokens are stable
//! as well: their IV is a PRF of kind and id, their time stamp is fixed. Time stamps are not checked on opening,
//! and a library that sets no ttl accepts the fixed one. Fernet knows no kind, so which kinds may be opened this
//! way is a setting ([`KeyringBuilder::legacy_kinds`]).
//!
//! Fernet is composed here from `aes`, `cbc`, `hmac` and `sha2`: the `fernet` crates bring randomness and a
//! second generation of the same crates (or OpenSSL), and none encrypts under a given IV.

mod fernet;
mod keyring;
#[cfg(test)]
mod tests;
mod v1;

#[cfg(feature = "bridge")]
pub(crate) use fernet::Key as FernetKey;
pub use keyring::{Keyring, KeyringBuilder};

use crate::{Code, Error};

/// What an id names. A token of one kind never opens as another (legacy Fernet excepted, which knows no kind).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// A room: the id in a chat's URL.
    Room,
    /// A message: the id in frames.
    Message,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 2] = [Self::Room, Self::Message];

    /// The name that goes into nonces and IVs.
    const fn name(self) -> &'static [u8] {
        match self {
            Self::Room => b"room",
            Self::Message => b"message",
        }
    }

    /// The associated data of version 1.
    const fn associated_data(self) -> &'static [u8] {
        match self {
            Self::Room => b"digi:v1:room",
            Self::Message => b"digi:v1:message",
        }
    }
}

/// The format that a keyring seals in. It opens every format that it has keys for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Emit {
    /// Digi's own.
    #[default]
    V1,
    /// The classic app's, for a fleet in which stock workers must understand the ids.
    Fernet,
}

/// A token that does not open. It says no more on purpose: a wrong key, a wrong kind and a forged token look
/// the same to whoever sent it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("token does not open")]
pub struct TokenError(());

impl From<TokenError> for Error {
    fn from(_: TokenError) -> Self {
        Code::BadToken.into()
    }
}

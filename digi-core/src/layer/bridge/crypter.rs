//! The encryption of `channels_redis`: Fernet under keys that are the SHA-256 of what is configured
//! (`BaseMessageSerializer` in
//! <https://github.com/django/channels_redis/blob/4.3.0/channels_redis/serializers.py>).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::message::Unreadable;
use crate::error::Error;
use crate::token::FernetKey;

/// How far another's clock may be ahead, in seconds, where an age is looked at: `cryptography.fernet._MAX_CLOCK_SKEW`.
const CLOCK_SKEW: u64 = 60;

/// Encrypts under the first of its keys, decrypts under any; without keys does nothing.
pub(super) struct Crypter {
    keys: Vec<FernetKey>,
}

impl Crypter {
    /// # Errors
    /// None for any secret.
    pub(super) fn new(secrets: &[Zeroizing<Vec<u8>>]) -> Result<Self, Error> {
        let key_of = |secret: &Zeroizing<Vec<u8>>| {
            let digest = Zeroizing::new(<[u8; 32]>::from(Sha256::digest(&**secret)));
            FernetKey::new(&Zeroizing::new(URL_SAFE.encode(digest.as_slice())))
        };
        Ok(Self { keys: secrets.iter().map(key_of).collect::<Result<_, _>>()? })
    }

    /// `now` in seconds since 1970; none when there are no random numbers.
    pub(super) fn encrypt(&self, plain: Vec<u8>, now: u64) -> Option<Vec<u8>> {
        let Some(key) = self.keys.first() else { return Some(plain) };
        let mut iv = [0; 16];
        getrandom::fill(&mut iv).ok()?;
        Some(URL_SAFE.encode(key.encrypt(now, &iv, &plain)).into_bytes())
    }

    /// With `ttl`, what is older than so many seconds counts as damaged.
    ///
    /// # Errors
    /// It was not made under any of the keys, or is too old.
    pub(super) fn decrypt(&self, text: &[u8], now: u64, ttl: Option<u64>) -> Result<Vec<u8>, Unreadable> {
        if self.keys.is_empty() {
            return Ok(text.to_vec());
        }
        let raw = URL_SAFE.decode(text).map_err(|_| Unreadable::Key)?;
        let plain = self.keys.iter().find_map(|key| key.decrypt(&raw)).ok_or(Unreadable::Key)?;
        let made = raw.get(1..9).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        match ttl {
            Some(ttl) if made.saturating_add(ttl) < now || now.saturating_add(CLOCK_SKEW) < made => {
                Err(Unreadable::Age)
            }
            _ => Ok(plain),
        }
    }
}

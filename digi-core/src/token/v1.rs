//! Version 1: AES-256-GCM with a nonce derived from what is sealed. The module above has the format.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Kind;
use crate::{Code, Error};

const VERSION: u8 = 1;
const NONCE: usize = 12;
const TAG: usize = 16;
const RAW: usize = 2 + NONCE + size_of::<i64>() + TAG;
/// Characters of a token.
const TEXT: usize = (RAW * 4).div_ceil(3);

/// One key with its ciphers set up, so that a token costs no key schedule.
pub(super) struct Key {
    id: u8,
    cipher: Aes256Gcm,
    nonce: Hmac<Sha256>,
}

/// A token's bytes, of the right length and version and in their only spelling; not yet authenticated.
pub(super) struct Sealed<'a> {
    pub(super) key_id: u8,
    nonce: &'a [u8; NONCE],
    payload: [u8; 8],
    tag: &'a [u8; TAG],
}

impl Key {
    pub(super) fn new(id: u8, secret: &[u8]) -> Result<Self, Error> {
        let hkdf = Hkdf::<Sha256>::new(None, secret);
        let encryption = expand::<32>(&hkdf, b"digi:v1:encryption key")?;
        let nonce = expand::<32>(&hkdf, b"digi:v1:nonce key")?;
        Ok(Self {
            id,
            cipher: Aes256Gcm::new((&*encryption).into()),
            nonce: Hmac::new_from_slice(&*nonce).map_err(|_| Code::Internal)?,
        })
    }

    /// A key whose id follows from its secret: the same wherever the secret stands in a list.
    pub(super) fn with_derived_id(secret: &[u8]) -> Result<Self, Error> {
        let [id] = *expand::<1>(&Hkdf::<Sha256>::new(None, secret), b"digi:v1:key id")?;
        Self::new(id, secret)
    }

    pub(super) const fn id(&self) -> u8 {
        self.id
    }

    pub(super) fn seal_into(&self, kind: Kind, id: i64, out: &mut String) {
        let mut payload = id.to_be_bytes();
        let mac = self.nonce.clone().chain_update(kind.name()).chain_update(payload).finalize().into_bytes();
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(&mac[..NONCE]);
        let sealed =
            self.cipher.encrypt_inout_detached((&nonce).into(), kind.associated_data(), payload.as_mut_slice().into());
        let tag = sealed.unwrap_or_else(|_| {
            // GCM refuses nothing below 64 GiB. Were that to change, a token that shows nothing and opens nowhere.
            payload = [0; 8];
            [0; TAG].into()
        });

        let mut raw = [0; RAW];
        raw[0] = VERSION;
        raw[1] = self.id;
        raw[2..][..NONCE].copy_from_slice(&nonce);
        raw[2 + NONCE..][..8].copy_from_slice(&payload);
        raw[RAW - TAG..].copy_from_slice(&tag);
        out.reserve(TEXT);
        URL_SAFE_NO_PAD.encode_string(raw, out);
    }

    pub(super) fn open(&self, kind: Kind, sealed: &Sealed<'_>) -> Option<i64> {
        let mut payload = sealed.payload;
        self.cipher
            .decrypt_inout_detached(
                sealed.nonce.into(),
                kind.associated_data(),
                payload.as_mut_slice().into(),
                sealed.tag.into(),
            )
            .ok()?;
        Some(i64::from_be_bytes(payload))
    }
}

/// The bytes that `token` spells, in a buffer for [`Sealed::parse`].
pub(super) fn decode(token: &str) -> Option<[u8; RAW]> {
    // Before decoding, so that a megabyte costs nothing.
    if token.len() != TEXT {
        return None;
    }
    let mut raw = [0; RAW];
    // This engine refuses padding and stray last bits, so a token has one spelling.
    let length = URL_SAFE_NO_PAD.decode_slice(token, &mut raw).ok()?;
    (length == RAW).then_some(raw)
}

impl<'a> Sealed<'a> {
    pub(super) fn parse(raw: &'a [u8; RAW]) -> Option<Self> {
        let [VERSION, key_id, rest @ ..] = raw else { return None };
        let (nonce, rest) = rest.split_first_chunk()?;
        let (payload, rest) = rest.split_first_chunk()?;
        Some(Self { key_id: *key_id, nonce, payload: *payload, tag: rest.try_into().ok()? })
    }
}

fn expand<const N: usize>(hkdf: &Hkdf<Sha256>, info: &[u8]) -> Result<Zeroizing<[u8; N]>, Error> {
    let mut key = Zeroizing::new([0; N]);
    hkdf.expand(info, &mut *key).map_err(|_| Code::Internal)?;
    Ok(key)
}

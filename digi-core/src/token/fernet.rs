//! Legacy ids: Fernet (<https://github.com/fernet/spec/blob/master/Spec.md>), bare or wrapped in base64 once more.

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE, URL_SAFE_PAD_INDIFFERENT};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::Kind;
use crate::{Code, Error};

const VERSION: u8 = 0x80;
const BLOCK: usize = 16;
const MAC: usize = 32;
/// Version, time stamp, IV and MAC: a token without its ciphertext.
const OVERHEAD: usize = 1 + 8 + BLOCK + MAC;
/// How bare tokens begin: the version, and a time stamp before the year 4147.
const BARE: &str = "gAAAAA";
/// How wrapped tokens begin: the same in base64.
const WRAPPED: &str = "Z0FBQUFB";
/// An `i64` has up to 20 characters and thus two blocks: 89 bytes, 120 characters, wrapped 160.
const MAX_TEXT: usize = 160;

/// The time stamp of emitted tokens, in seconds since 1970: 2020-01-01T00:00:00Z. Fixed, or the same id would
/// get another text every second; long past, because a library may refuse the future.
const EMITTED_AT: u64 = 1_577_836_800;

/// One Fernet key with its ciphers set up.
pub(crate) struct Key {
    cipher: Aes128,
    mac: Hmac<Sha256>,
    iv: Hmac<Sha256>,
}

/// Whether a token has the shape of a legacy one. Tokens of version 1 begin with `A`.
pub(super) fn is_legacy(token: &str) -> bool {
    token.starts_with(WRAPPED) || token.starts_with(BARE)
}

/// The bytes of a legacy token that is long enough for an id and not longer; not yet authenticated.
pub(super) fn decode(token: &str) -> Option<Vec<u8>> {
    if token.len() > MAX_TEXT {
        return None;
    }
    // Links lose their `=` on the way. One alphabet does for the wrapping: base64 of base64 text never needs
    // the two characters in which the standard and the URL-safe alphabet differ.
    let raw = if token.starts_with(WRAPPED) {
        let bare = STANDARD_PAD_INDIFFERENT.decode(token).ok()?;
        URL_SAFE_PAD_INDIFFERENT.decode(bare).ok()?
    } else {
        URL_SAFE_PAD_INDIFFERENT.decode(token).ok()?
    };
    let blocks = raw.len().checked_sub(OVERHEAD)?;
    (blocks == BLOCK || blocks == 2 * BLOCK).then_some(raw)
}

impl Key {
    /// A key as `Fernet.generate_key()` writes it: 32 bytes in URL-safe base64.
    pub(crate) fn new(text: &str) -> Result<Self, Error> {
        let bad = || Code::BadKey.with("a legacy Fernet key is 32 bytes in URL-safe base64 (44 characters)");
        let raw = Zeroizing::new(URL_SAFE_PAD_INDIFFERENT.decode(text).map_err(|_| bad())?);
        let raw: &[u8; 32] = raw.as_slice().try_into().map_err(|_| bad())?;
        let (signing, encryption) = raw.split_at(16);
        let mut iv = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(None, raw).expand(b"digi:fernet:iv key", &mut *iv).map_err(|_| Code::Internal)?;
        Ok(Self {
            cipher: Aes128::new_from_slice(encryption).map_err(|_| Code::Internal)?,
            mac: Hmac::new_from_slice(signing).map_err(|_| Code::Internal)?,
            iv: Hmac::new_from_slice(&*iv).map_err(|_| Code::Internal)?,
        })
    }

    /// Appends the wrapped token of `id`, the same every time.
    pub(super) fn seal_into(&self, kind: Kind, id: i64, out: &mut String) {
        let prf = self.iv.clone().chain_update(kind.name()).chain_update(id.to_be_bytes()).finalize().into_bytes();
        let mut iv = [0; BLOCK];
        iv.copy_from_slice(&prf[..BLOCK]);
        let raw = self.encrypt(EMITTED_AT, &iv, id.to_string().as_bytes());
        STANDARD.encode_string(URL_SAFE.encode(raw), out);
    }

    /// The id in the bytes of a token, if it was made with this key and holds one.
    pub(super) fn open(&self, raw: &[u8]) -> Option<i64> {
        canonical(std::str::from_utf8(&self.decrypt(raw)?).ok()?)
    }

    /// The bytes of a token, before base64; `time` in seconds since 1970.
    pub(crate) fn encrypt(&self, time: u64, iv: &[u8; BLOCK], plaintext: &[u8]) -> Vec<u8> {
        let ciphertext = cbc::Encryptor::inner_iv_init(&self.cipher, iv.into()).encrypt_padded_vec::<Pkcs7>(plaintext);
        let mut raw = Vec::with_capacity(OVERHEAD + ciphertext.len());
        raw.push(VERSION);
        raw.extend_from_slice(&time.to_be_bytes());
        raw.extend_from_slice(iv);
        raw.extend_from_slice(&ciphertext);
        let mac = self.mac.clone().chain_update(&raw).finalize().into_bytes();
        raw.extend_from_slice(&mac);
        raw
    }

    /// What the bytes of a token hold, if it was made with this key. Its time stamp, the eight bytes behind the first, is
    /// authentic then, and not judged here.
    pub(crate) fn decrypt(&self, raw: &[u8]) -> Option<Vec<u8>> {
        let (signed, mac) = raw.split_last_chunk::<MAC>()?;
        // In constant time, and before anything is looked at.
        self.mac.clone().chain_update(signed).verify_slice(mac).ok()?;
        let [VERSION, rest @ ..] = signed else { return None };
        let (_time, rest) = rest.split_first_chunk::<8>()?;
        let (iv, ciphertext) = rest.split_first_chunk::<BLOCK>()?;
        cbc::Decryptor::inner_iv_init(&self.cipher, iv.into()).decrypt_padded_vec::<Pkcs7>(ciphertext).ok()
    }
}

/// The number that `text` is the decimal form of, as `str()` prints it: no `+`, no leading zeros, no spaces.
fn canonical(text: &str) -> Option<i64> {
    let id: i64 = text.parse().ok()?;
    (id.to_string() == text).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vectors of https://github.com/fernet/spec: generate.json, verify.json and invalid.json.
    const SECRET: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    const HELLO: &str =
        "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==";

    #[test]
    fn the_specification_s_token_is_generated() {
        // 1985-10-26T01:20:00-07:00
        let raw = Key::new(SECRET).unwrap().encrypt(499_162_800, &std::array::from_fn(|i| i as u8), b"hello");
        assert_eq!(URL_SAFE.encode(raw), HELLO);
    }

    #[test]
    fn the_specification_s_token_is_verified() {
        let key = Key::new(SECRET).unwrap();
        let raw = decode(HELLO).unwrap();
        assert_eq!(key.decrypt(&raw).as_deref(), Some(&b"hello"[..]));
        assert_eq!(key.open(&raw), None, "not an id");
    }

    #[test]
    fn the_specification_s_invalid_tokens_are_refused() {
        let key = Key::new(SECRET).unwrap();
        for (why, token) in [
            (
                "incorrect mac",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykQUFBQUFBQUFBQQ==",
            ),
            ("too short", "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPA=="),
            (
                "invalid base64",
                "%%%%%%%%%%%%%AECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==",
            ),
            (
                "payload size not multiple of block size",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPOm73QeoCk9uGib28Xe5vz6oxq5nmxbx_v7mrfyudzUm",
            ),
            (
                "payload padding error",
                "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0ODz4LEpdELGQAad7aNEHbf-JkLPIpuiYRLQ3RtXatOYREu2FWke6CnJNYIbkuKNqOhw==",
            ),
            (
                "incorrect IV (causes padding error)",
                "gAAAAAAdwJ6xBQECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAkLhFLHpGtDBRLRTZeUfWgHSv49TF2AUEZ1TIvcZjK1zQ==",
            ),
            (
                "trailing characters after b64 padding",
                "gAAAAAAdwJ6wAAECAwQFBgcICQoLDA0ODy021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==trailingdata",
            ),
            (
                "invalid characters in b64",
                "*gAAAAAAdwJ6wAAECAwQFBgcI!CQoLDA0ODy021?cpGVWKZ_eEwC@GM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==",
            ),
            (
                "invalid non-urlsafe characters in b64",
                "gAAAAAAdwJ6wAAEC/AwQFBgcICQoLDA0ODy+021cpGVWKZ_eEwCGM4BLLF_5CV9dOPmrhuVUPgJobwOz7JcbmrR64jVmpU4IwqDA==",
            ),
        ] {
            assert_eq!(decode(token).and_then(|raw| key.decrypt(&raw)), None, "{why}");
            // Past the length check too, where the bytes can be had at all.
            if let Ok(raw) = URL_SAFE.decode(token) {
                assert_eq!(key.decrypt(&raw), None, "{why}");
            }
        }
    }

    #[test]
    fn time_stamps_are_not_checked() {
        // Refused by the specification for its ttl only: from the far future, and expired. Both hold the empty text.
        let key = Key::new(SECRET).unwrap();
        for token in [
            "gAAAAAAdwStRAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAnja1xKYyhd-Y6mSkTOyTGJmw2Xc2a6kBd-iX9b_qXQcw==",
            "gAAAAAAdwJ6xAAECAwQFBgcICQoLDA0OD3HkMATM5lFqGaerZ-fWPAl1-szkFVzXTuGb4hR8AKtwcaX1YdykRtfsH-p1YsUD2Q==",
        ] {
            assert_eq!(key.decrypt(&decode(token).unwrap()).as_deref(), Some(&b""[..]));
        }
    }

    #[test]
    fn a_classic_id_is_a_token_of_one_block() {
        let raw = decode(
            "Z0FBQUFBQm15MjlPNXcwQWdzUGlobHl3NE4tVHlQak81NWQwbEg2Rm9MUVJyMklYcV9LdWJvQnhXWThRZUhoWlhrVnFjZElScXJlR3Z6YW9TWGdSdm9TaWN6dFloR1R5SWc9PQ==",
        )
        .unwrap();
        assert_eq!(raw.len(), OVERHEAD + BLOCK);
        assert_eq!(raw[0], VERSION);
        let time = u64::from_be_bytes(raw[1..9].try_into().unwrap());
        assert_eq!(crate::Millis(time * 1000).rfc3339().to_string()[..10], *"2024-08-25");
        assert_eq!(Key::new(SECRET).unwrap().open(&raw), None);
    }

    #[test]
    fn only_an_authentic_canonical_id_opens() {
        let key = Key::new(SECRET).unwrap();
        let open = |plaintext: &str| key.open(&key.encrypt(0, &[7; BLOCK], plaintext.as_bytes()));
        for id in [0, 1, -1, 42, i64::MAX, i64::MIN] {
            assert_eq!(open(&id.to_string()), Some(id));
        }
        for plaintext in
            ["", "+1", "01", "-0", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "١", "9223372036854775808", "abc"]
        {
            assert_eq!(open(plaintext), None, "{plaintext:?}");
        }
        assert_eq!(key.open(&key.encrypt(0, &[7; BLOCK], &[0xff, 0xfe])), None, "not UTF-8");
    }

    #[test]
    fn authentic_tokens_of_another_shape_are_refused() {
        let key = Key::new(SECRET).unwrap();
        let sign = |signed: &[u8]| {
            let mac = key.mac.clone().chain_update(signed).finalize().into_bytes();
            [signed, &mac].concat()
        };
        let raw = key.encrypt(0, &[7; BLOCK], b"42");
        let signed = &raw[..raw.len() - MAC];
        assert_eq!(key.open(&sign(signed)), Some(42));
        let mut version = signed.to_vec();
        version[0] = 0x81;
        assert_eq!(key.open(&sign(&version)), None, "version");
        for length in 0..signed.len() {
            assert_eq!(key.open(&sign(&signed[..length])), None, "{length} bytes");
        }
    }
}

//! The keys that seal and open, and how they are put together.

use std::fmt;
use std::iter;
use std::sync::Arc;

use super::{Emit, Kind, TokenError, fernet, v1};
use crate::{Code, Error};

/// The shortest secret, in bytes: as long as the keys derived from it.
const MIN_SECRET: usize = 32;

/// Seals ids into tokens and opens them again. Cheap to clone; keys are wiped from memory with the last clone
/// and never printed.
#[derive(Clone)]
pub struct Keyring(Arc<Keys>);

struct Keys {
    sealer: Sealer,
    keys: Vec<Arc<v1::Key>>,
    legacy: Vec<Arc<fernet::Key>>,
    legacy_kinds: Vec<Kind>,
}

enum Sealer {
    V1(Arc<v1::Key>),
    Fernet(Arc<fernet::Key>),
}

impl Keyring {
    /// A keyring with several keys, legacy keys, or another format to emit.
    pub fn builder() -> KeyringBuilder {
        KeyringBuilder::default()
    }

    /// One key with the id 0, out of a `secret` of at least 32 bytes.
    ///
    /// # Errors
    /// [`Code::BadKey`] when the secret is shorter.
    pub fn new(secret: impl AsRef<[u8]>) -> Result<Self, Error> {
        Self::builder().key(0, secret).build()
    }

    /// The keyring of a Django project: see [`KeyringBuilder::django`].
    ///
    /// # Errors
    /// [`Code::BadKey`] when one of the secrets has less than 32 bytes.
    pub fn from_django(secret_key: &str, fallbacks: &[&str]) -> Result<Self, Error> {
        Self::builder().django(secret_key, fallbacks).build()
    }

    /// The token of `id`, the same every time.
    pub fn seal(&self, kind: Kind, id: i64) -> String {
        let mut out = String::new();
        self.seal_into(kind, id, &mut out);
        out
    }

    /// Appends the token of `id` to `out`; version 1 allocates nothing else. Tokens need no escaping in JSON;
    /// those of version 1 (51 characters) need none in URLs either, Fernet's may end in `=`.
    pub fn seal_into(&self, kind: Kind, id: i64, out: &mut String) {
        match &self.0.sealer {
            Sealer::V1(key) => key.seal_into(kind, id, out),
            Sealer::Fernet(key) => key.seal_into(kind, id, out),
        }
    }

    /// The id in `token`, whichever of the keys sealed it.
    ///
    /// # Errors
    /// [`TokenError`] for whatever reason it does not open.
    pub fn open(&self, kind: Kind, token: &str) -> Result<i64, TokenError> {
        let id = if fernet::is_legacy(token) { self.open_legacy(kind, token) } else { self.open_v1(kind, token) };
        id.ok_or(TokenError(()))
    }

    fn open_v1(&self, kind: Kind, token: &str) -> Option<i64> {
        let raw = v1::decode(token)?;
        let sealed = v1::Sealed::parse(&raw)?;
        // Derived ids have one byte, so two keys may share one.
        self.0.keys.iter().filter(|key| key.id() == sealed.key_id).find_map(|key| key.open(kind, &sealed))
    }

    fn open_legacy(&self, kind: Kind, token: &str) -> Option<i64> {
        if !self.0.legacy_kinds.contains(&kind) {
            return None;
        }
        let raw = fernet::decode(token)?;
        self.0.legacy.iter().find_map(|key| key.open(&raw))
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<u8> = self.0.keys.iter().map(|key| key.id()).collect();
        let emit = match &self.0.sealer {
            Sealer::V1(key) => format!("v1 with key {}", key.id()),
            Sealer::Fernet(_) => "fernet".to_owned(),
        };
        f.debug_struct("Keyring")
            .field("key_ids", &ids)
            .field("legacy_keys", &self.0.legacy.len())
            .field("legacy_kinds", &self.0.legacy_kinds)
            .field("emit", &emit)
            .finish()
    }
}

/// Puts a [`Keyring`] together. A mistake is reported by [`KeyringBuilder::build`].
///
/// ```
/// use digi_core::token::{Keyring, Kind};
///
/// let (old, new) = ("the secret of last year, long enough", "the secret of this year, long enough");
/// let before = Keyring::builder().key(1, old).build()?;
/// let after = Keyring::builder().key(1, old).key(2, new).seal_with(2).build()?;
/// assert_eq!(after.open(Kind::Room, &before.seal(Kind::Room, 42))?, 42);
/// # Ok::<(), digi_core::Error>(())
/// ```
#[must_use]
#[derive(Default)]
pub struct KeyringBuilder {
    keys: Vec<Held>,
    seal_with: Option<u8>,
    legacy: Vec<Arc<fernet::Key>>,
    legacy_kinds: Option<Vec<Kind>>,
    emit: Emit,
    error: Option<Error>,
}

struct Held {
    key: Arc<v1::Key>,
    /// Its id was given, not derived: `seal_with` may name it.
    explicit: bool,
}

impl KeyringBuilder {
    /// A key that opens tokens, out of a `secret` of at least 32 bytes. Its `id` stands in every token that it
    /// seals: never give the id to another secret.
    pub fn key(mut self, id: u8, secret: impl AsRef<[u8]>) -> Self {
        if self.explicit(id).is_some() {
            return self.fail(Code::BadKey.with(format!("two keys have the id {id}")));
        }
        let secret = secret.as_ref();
        let key = checked(&format!("the secret of key {id}"), secret).and_then(|()| v1::Key::new(id, secret));
        self.hold(key, true);
        self
    }

    /// The id of the [`key`](Self::key) that seals. Needed when there are several.
    pub fn seal_with(mut self, id: u8) -> Self {
        self.seal_with = Some(id);
        self
    }

    /// The secrets of a Django project: `SECRET_KEY` seals unless [`seal_with`](Self::seal_with) names another
    /// key, `SECRET_KEY_FALLBACKS` open. Their key ids are derived from the secrets, because a secret moves in
    /// those settings when it is rotated; of keys with the same id each is tried.
    pub fn django(mut self, secret_key: &str, fallbacks: &[&str]) -> Self {
        for (place, secret) in iter::once(&secret_key).chain(fallbacks).enumerate() {
            let name = match place {
                0 => "SECRET_KEY".to_owned(),
                _ => format!("SECRET_KEY_FALLBACKS[{}]", place - 1),
            };
            let key = checked(&name, secret.as_bytes()).and_then(|()| v1::Key::with_derived_id(secret.as_bytes()));
            self.hold(key, false);
        }
        self
    }

    /// A key of the classic app, as `Fernet.generate_key()` writes it (32 bytes in URL-safe base64). May be
    /// called again for more; each is tried.
    pub fn legacy_fernet(mut self, key: &str) -> Self {
        match fernet::Key::new(key) {
            Ok(key) => {
                self.legacy.push(Arc::new(key));
                self
            }
            Err(error) => self.fail(error),
        }
    }

    /// Which kinds may be opened as legacy Fernet. Fernet knows no kind: with both allowed, a room's token
    /// opens as the message of the same number too. Default: rooms only, for the links already handed out; with
    /// [`Emit::Fernet`] both, or its own tokens would not open.
    pub fn legacy_kinds(mut self, kinds: &[Kind]) -> Self {
        self.legacy_kinds = Some(kinds.to_vec());
        self
    }

    /// The format to seal in. [`Emit::Fernet`] seals with the first [`legacy_fernet`](Self::legacy_fernet) key.
    pub fn emit(mut self, emit: Emit) -> Self {
        self.emit = emit;
        self
    }

    /// The keyring.
    ///
    /// # Errors
    /// [`Code::BadKey`] for a secret below 32 bytes, an id given twice, a malformed Fernet key, a missing key,
    /// or no decision which one seals; [`Code::Config`] when [`Emit::Fernet`] meets
    /// [`legacy_kinds`](Self::legacy_kinds) that would not open its tokens.
    pub fn build(self) -> Result<Keyring, Error> {
        let v1 = self.sealing_key();
        if let Some(error) = self.error {
            return Err(error);
        }
        if let (Some(_), Err(error)) = (self.seal_with, &v1) {
            return Err(error.clone());
        }
        let sealer = match (self.emit, self.legacy.first()) {
            (Emit::V1, _) => Sealer::V1(v1?),
            (Emit::Fernet, Some(key)) => Sealer::Fernet(key.clone()),
            (Emit::Fernet, None) => {
                return Err(Code::BadKey.with("to emit Fernet a keyring needs a legacy Fernet key"));
            }
        };
        let legacy_kinds = match (self.emit, self.legacy_kinds) {
            (Emit::V1, kinds) => kinds.unwrap_or_else(|| vec![Kind::Room]),
            (Emit::Fernet, None) => Kind::ALL.to_vec(),
            (Emit::Fernet, Some(kinds)) if Kind::ALL.iter().all(|kind| kinds.contains(kind)) => kinds,
            (Emit::Fernet, Some(_)) => {
                return Err(Code::Config.with("emitting Fernet needs both kinds in the legacy kinds"));
            }
        };
        let keys = self.keys.into_iter().map(|held| held.key).collect();
        Ok(Keyring(Arc::new(Keys { sealer, keys, legacy: self.legacy, legacy_kinds })))
    }

    fn sealing_key(&self) -> Result<Arc<v1::Key>, Error> {
        let held = match (self.seal_with, self.keys.as_slice()) {
            (Some(id), _) => {
                self.explicit(id).ok_or_else(|| Code::BadKey.with(format!("there is no key {id} to seal with")))?
            }
            (None, []) => return Err(Code::BadKey.with("a keyring needs a key: a secret of at least 32 bytes")),
            (None, [only]) => only,
            (None, several) => several
                .iter()
                .find(|held| !held.explicit)
                .ok_or_else(|| Code::BadKey.with("there are several keys: say which one seals"))?,
        };
        Ok(held.key.clone())
    }

    fn explicit(&self, id: u8) -> Option<&Held> {
        self.keys.iter().find(|held| held.explicit && held.key.id() == id)
    }

    fn hold(&mut self, key: Result<v1::Key, Error>, explicit: bool) {
        match key {
            Ok(key) => self.keys.push(Held { key: Arc::new(key), explicit }),
            Err(error) => {
                self.error.get_or_insert(error);
            }
        }
    }

    fn fail(mut self, error: Error) -> Self {
        self.error.get_or_insert(error);
        self
    }
}

fn checked(name: &str, secret: &[u8]) -> Result<(), Error> {
    if secret.len() < MIN_SECRET {
        let length = secret.len();
        return Err(Code::BadKey.with(format!("{name} has {length} bytes; it needs at least {MIN_SECRET}")));
    }
    Ok(())
}

//! `digi.TokenCipher`.

use digi_core::Code;
use digi_core::token::{Emit, Keyring, Kind};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyMapping, PyString};

use crate::errors::Failure;

#[pyclass(frozen, module = "digi._digi")]
pub(crate) struct TokenCipher(pub(crate) Keyring);

/// A secret as text or bytes. Without a `Debug`.
pub(crate) struct Secret(pub(crate) Vec<u8>);

impl<'py> FromPyObject<'_, 'py> for Secret {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        if let Ok(text) = object.cast::<PyString>() {
            return Ok(Self(text.to_cow()?.as_bytes().to_vec()));
        }
        if let Ok(bytes) = object.cast::<PyBytes>() {
            return Ok(Self(bytes.as_bytes().to_vec()));
        }
        Err(PyTypeError::new_err("a secret is str or bytes"))
    }
}

impl TokenCipher {
    /// The keyring of a cipher, or of a bare secret.
    pub(crate) fn keyring_of(object: &Bound<'_, PyAny>) -> PyResult<Keyring> {
        if let Ok(cipher) = object.cast::<Self>() {
            return Ok(cipher.get().0.clone());
        }
        let secret: Secret = object
            .extract()
            .map_err(|_| PyTypeError::new_err("cipher: a TokenCipher, or a secret of at least 32 bytes"))?;
        Ok(Keyring::new(secret.0).map_err(Failure::from)?)
    }
}

#[pymethods]
impl TokenCipher {
    #[new]
    #[pyo3(signature = (secret=None, *, keys=None, seal_with=None, django=Vec::new(), legacy_fernet=Vec::new(), legacy_kinds=None, emit="v1"))]
    #[pyo3(
        text_signature = "(secret=None, *, keys=None, seal_with=None, django=(), legacy_fernet=(), legacy_kinds=None, emit='v1')"
    )]
    fn new(
        secret: Option<Secret>,
        keys: Option<&Bound<'_, PyMapping>>,
        seal_with: Option<u8>,
        django: Vec<String>,
        legacy_fernet: Vec<String>,
        legacy_kinds: Option<Vec<String>>,
        emit: &str,
    ) -> PyResult<Self> {
        let mut builder = Keyring::builder();
        let keys = match keys {
            Some(keys) => keys.items()?.into_any().extract::<Vec<(u8, Secret)>>()?,
            None => Vec::new(),
        };
        if let Some(secret) = secret {
            if keys.iter().any(|(id, _)| *id == 0) {
                return Err(PyValueError::new_err("`secret` is the key with the id 0, and `keys` has one, too"));
            }
            builder = builder.key(0, secret.0);
        }
        for (id, secret) in keys {
            builder = builder.key(id, secret.0);
        }
        if let Some(id) = seal_with {
            builder = builder.seal_with(id);
        }
        if let Some((secret_key, fallbacks)) = django.split_first() {
            let fallbacks: Vec<&str> = fallbacks.iter().map(String::as_str).collect();
            builder = builder.django(secret_key, &fallbacks);
        }
        for key in &legacy_fernet {
            builder = builder.legacy_fernet(key);
        }
        if let Some(names) = legacy_kinds {
            let kinds: PyResult<Vec<Kind>> = names.iter().map(|name| kind_of(name)).collect();
            builder = builder.legacy_kinds(&kinds?);
        }
        let emit = match emit {
            "v1" => Emit::V1,
            "fernet" => Emit::Fernet,
            other => return Err(PyValueError::new_err(format!("emit: \"v1\" or \"fernet\", not {other:?}"))),
        };
        Ok(Self(builder.emit(emit).build().map_err(Failure::from)?))
    }

    fn seal(&self, kind: &str, id: i64) -> PyResult<String> {
        Ok(self.0.seal(kind_of(kind)?, id))
    }

    fn open(&self, kind: &str, token: &str) -> PyResult<i64> {
        Ok(self.0.open(kind_of(kind)?, token).map_err(|_| Failure::from(Code::BadToken))?)
    }

    fn __repr__(&self) -> String {
        format!("<digi.TokenCipher {:?}>", self.0)
    }
}

fn kind_of(name: &str) -> PyResult<Kind> {
    match name {
        "room" => Ok(Kind::Room),
        "message" => Ok(Kind::Message),
        other => Err(PyValueError::new_err(format!("kind: \"room\" or \"message\", not {other:?}"))),
    }
}

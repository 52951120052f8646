//! Tokens exchanged with Python's `cryptography`, the package that made the classic ids.
//!
//! The interpreter is `DIGI_TEST_PYTHON`, or else the workspace's `.venv/bin/python`. Where it has no
//! `cryptography` the test says so and passes, except in CI (`CI=true`).
#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Command, Output};

use digi_core::token::{Emit, Keyring, Kind};

const IDS: [i64; 7] = [0, 1, 42, -7, 999_999_999_999_999, i64::MAX, i64::MIN];

fn python() -> PathBuf {
    std::env::var_os("DIGI_TEST_PYTHON")
        .map_or_else(|| concat!(env!("CARGO_MANIFEST_DIR"), "/../.venv/bin/python").into(), PathBuf::from)
}

fn run(script: &str, args: &[String]) -> Result<String, String> {
    let describe = |output: Output| String::from_utf8_lossy(&output.stderr).into_owned();
    match Command::new(python()).arg("-c").arg(script).args(args).output() {
        Ok(output) if output.status.success() => Ok(String::from_utf8(output.stdout).unwrap()),
        Ok(output) => Err(describe(output)),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether there is a `cryptography` to talk to.
fn available() -> bool {
    match run("import cryptography", &[]) {
        Ok(_) => true,
        Err(why) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("{} cannot import cryptography: {why}", python().display())
        }
        Err(why) => {
            eprintln!("skipped: {} cannot import cryptography: {why}", python().display());
            false
        }
    }
}

fn generate_key() -> String {
    let script = "from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())";
    run(script, &[]).unwrap().trim().to_owned()
}

#[test]
fn digi_opens_what_python_encrypted() {
    if !available() {
        return;
    }
    let key = generate_key();
    let keys = Keyring::builder().legacy_fernet(&key).emit(Emit::Fernet).build().unwrap();
    let args: Vec<String> = [key].into_iter().chain(IDS.map(|id| id.to_string())).collect();
    let tokens = run(
        "
import base64, sys
from cryptography.fernet import Fernet
fernet = Fernet(sys.argv[1])
for id in sys.argv[2:]:
    token = fernet.encrypt(id.encode())
    print(token.decode(), base64.b64encode(token).decode(), base64.urlsafe_b64encode(token).decode().rstrip('='))
",
        &args,
    )
    .unwrap();
    assert_eq!(tokens.lines().count(), IDS.len());
    for (line, id) in tokens.lines().zip(IDS) {
        assert_eq!(line.split(' ').count(), 3);
        for token in line.split(' ') {
            assert_eq!(keys.open(Kind::Room, token), Ok(id), "{token}");
        }
    }
}

#[test]
fn python_decrypts_what_digi_emitted() {
    if !available() {
        return;
    }
    let key = generate_key();
    let keys = Keyring::builder().legacy_fernet(&key).emit(Emit::Fernet).build().unwrap();
    let tokens = Kind::ALL.into_iter().flat_map(|kind| IDS.map(|id| keys.seal(kind, id)));
    let args: Vec<String> = [key.clone()].into_iter().chain(tokens).collect();
    // Decrypted as the classic app does it: unwrapped first, no ttl. The time stamp is the documented one.
    let ids = run(
        "
import base64, sys
from cryptography.fernet import Fernet
fernet = Fernet(sys.argv[1])
for wrapped in sys.argv[2:]:
    token = base64.b64decode(wrapped, validate=True)
    assert fernet.extract_timestamp(token) == 1577836800
    print(fernet.decrypt(token).decode())
",
        &args,
    )
    .unwrap();
    let ids: Vec<&str> = ids.lines().collect();
    let expected: Vec<String> = IDS.iter().chain(&IDS).map(i64::to_string).collect();
    assert_eq!(ids, expected);
}

#[test]
fn version_1_is_what_its_documentation_says() {
    if !available() {
        return;
    }
    let secret = "a secret that Digi and Python share: été";
    let keys = Keyring::builder().key(200, secret).build().unwrap();
    let args: Vec<String> = [secret.to_owned()].into_iter().chain(IDS.map(|id| id.to_string())).collect();
    let tokens = run(
        "
import base64, sys
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

def derive(info):
    return HKDF(hashes.SHA256(), 32, None, info).derive(sys.argv[1].encode())

def seal(kind, id):
    mac = hmac.HMAC(derive(b'digi:v1:nonce key'), hashes.SHA256())
    mac.update(kind + id)
    nonce = mac.finalize()[:12]
    sealed = AESGCM(derive(b'digi:v1:encryption key')).encrypt(nonce, id, b'digi:v1:' + kind)
    return base64.urlsafe_b64encode(bytes([1, 200]) + nonce + sealed).rstrip(b'=').decode()

for id in sys.argv[2:]:
    id = int(id).to_bytes(8, 'big', signed=True)
    print(seal(b'room', id), seal(b'message', id))
",
        &args,
    )
    .unwrap();
    let expected: Vec<String> =
        IDS.iter().map(|&id| format!("{} {}", keys.seal(Kind::Room, id), keys.seal(Kind::Message, id))).collect();
    assert_eq!(tokens.lines().collect::<Vec<_>>(), expected);
}

//! Against what the real package writes: the bytes are those of channels_redis 4.3.0 with msgpack 1.2.4 and cryptography
//! 50.0.2, from `RedisPubSubChannelLayer(…).serialize(…)` and `RedisChannelLayer().serialize(…)`.

use serde_json::json;
use zeroize::Zeroizing;

use super::crypter::Crypter;
use super::message::{Classic, Payload, Unreadable};
use super::{Inbound, core};
use crate::frame::{Encoder, Frame};
use crate::id::RoomId;
use crate::store::model::MessageOp;
use crate::token::{Emit, Keyring, Kind};

const MESSAGE: &str =
    "84a474797065ac636861742e6d657373616765a76d657373616765a368c3a9a475736572a5616c696365aa6d6573736167655f6964a27431";
const EDIT: &str = "84a474797065b1636861742e6d6573736167652e65646974a76d657373616765a178a475736572a5616c696365aa6d6573736167655f6964a27431";
const DELETE: &str =
    "83a474797065b3636861742e6d6573736167652e64656c657465a475736572a5616c696365aa6d6573736167655f6964a27431";

/// `MESSAGE` under `symmetric_encryption_keys=["first key", b"second"]`, and under `[b"second"]`.
const ENCRYPTED: [&str; 2] = [
    "gAAAAABrCG6zcovn10sE-aAZtWNYwFv2xuQQJol-d1VZHUSZiFQO-DINr6hxjmmc4V7tdnolzEuWegASNY5HDqna_YS6A8WUgXnVIjDcBzwyHu-OCnycmTk8bnahBj-HyrN0KYoBz1Is4CMGf4otDgJAKuWzA6MJlQ==",
    "gAAAAABrCG6z5PGKOPvQASuZY5Zc08IkkMwsSbXamrUkMQwm0lMqTB7zIViX_AowGhPRpbUOP-lWO1dwq29XoHOliXZwNcCC9vaXvXf1dfmRDd8-EO7EF-62pe7SfR-5ZhoCFcSk2288HJ3ArKqsWiXDZahsfBzAdQ==",
];

/// When they were made, in seconds.
const MADE: u64 = 0x6b08_6eb3;

/// `MESSAGE` in the core format, for `specific.digi0123456789abcdef!7` and `…!8`.
const CORE: &str = "3273e7d2f26238993dec142d85a474797065ac636861742e6d657373616765a76d657373616765a368c3a9a475736572a5616c696365aa6d6573736167655f6964a27431b05f5f617367695f6368616e6e656c5f5f92bf73706563696669632e64696769303132333435363738396162636465662137bf73706563696669632e64696769303132333435363738396162636465662138";

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn encoder() -> Encoder {
    Encoder::new(Keyring::new("a secret for tests, long enough!").unwrap())
}

fn shown(payload: Payload) -> Vec<serde_json::Value> {
    let inbound: Vec<Inbound> = payload.into_inbound([RoomId(7)]);
    inbound.iter().map(|message| serde_json::from_str(message.frame(&encoder()).as_str()).unwrap()).collect()
}

fn crypter(keys: &[&str]) -> Crypter {
    let keys: Vec<_> = keys.iter().map(|key| Zeroizing::new(key.as_bytes().to_vec())).collect();
    Crypter::new(&keys).unwrap()
}

#[test]
fn what_the_package_writes_becomes_classic_frames() {
    for (hex, frame) in [
        (MESSAGE, json!({"type": "add", "message": "hé", "user": "alice", "message_id": "t1"})),
        (EDIT, json!({"type": "edit", "message": "x", "user": "alice", "message_id": "t1"})),
        (DELETE, json!({"type": "delete", "user": "alice", "message_id": "t1"})),
    ] {
        assert_eq!(shown(Payload::read(&bytes(hex)).unwrap()), [frame]);
    }
    let payload = Payload::read(&bytes(CORE)[core::RANDOM..]).unwrap();
    assert_eq!(payload.channels, ["specific.digi0123456789abcdef!7", "specific.digi0123456789abcdef!8"]);
    assert_eq!(shown(payload).len(), 1);
}

#[test]
fn what_digi_writes_is_the_same_with_a_mark() {
    for (op, kind, hex) in
        [(MessageOp::Added, "add", MESSAGE), (MessageOp::Edited, "edit", EDIT), (MessageOp::Deleted, "delete", DELETE)]
    {
        let text = if op == MessageOp::Added { "h\\u00e9" } else { "x" };
        let message = if op == MessageOp::Deleted { String::new() } else { format!(r#""message":"{text}","#) };
        let frame = Frame::from_text(format!(
            r#"{{"type":"{kind}",{message}"user":"alice","message_id":"t1","seq":4,"pos":4,"at":"2026-03-01T12:00:00.123Z"}}"#
        ));
        let written = Classic::of(&frame).unwrap().encode(op, "0f", None);
        let mut wanted = bytes(hex);
        wanted[0] += 1;
        wanted.extend(b"\xa4digi\xa20f");
        assert_eq!(written, wanted);
        assert_eq!(shown(Payload::read(&written).unwrap()), [] as [serde_json::Value; 0], "marked");
    }
}

#[test]
fn what_the_package_encrypts_is_decrypted_under_any_of_the_keys() {
    let both = crypter(&["first key", "second"]);
    for text in ENCRYPTED {
        assert_eq!(both.decrypt(text.as_bytes(), 0, None).unwrap(), bytes(MESSAGE));
    }
    let second = crypter(&["second"]);
    assert_eq!(second.decrypt(ENCRYPTED[0].as_bytes(), 0, None), Err(Unreadable::Key));
    assert_eq!(second.decrypt(b"\x81", 0, None), Err(Unreadable::Key));
    let written = both.encrypt(bytes(MESSAGE), MADE).unwrap();
    assert!(written.starts_with(&ENCRYPTED[0].as_bytes()[..10]), "the same version and time");
    assert_ne!(written, both.encrypt(bytes(MESSAGE), MADE).unwrap());
    assert_eq!(crypter(&["first key"]).decrypt(&written, 0, None).unwrap(), bytes(MESSAGE), "the first encrypts");
    assert_eq!(crypter(&[]).encrypt(vec![1], 0).unwrap(), [1]);
}

#[test]
fn an_age_counts_as_the_package_counts_it() {
    let crypter = crypter(&["second"]);
    let at = |now| crypter.decrypt(ENCRYPTED[1].as_bytes(), now, Some(70)).map(drop);
    for (now, wanted) in [
        (MADE, Ok(())),
        (MADE + 70, Ok(())),
        (MADE + 71, Err(Unreadable::Age)),
        (MADE - 60, Ok(())),
        (MADE - 61, Err(Unreadable::Age)),
    ] {
        assert_eq!(at(now), wanted, "{now}");
    }
}

#[test]
fn what_does_not_cross_is_passed_over_and_what_is_damaged_is_refused() {
    let pack = |value: serde_json::Value| rmp_serde::to_vec_named(&value).unwrap();
    for passed_over in [json!({"type": "typing"}), json!({"type": 5}), json!({}), json!({"type": "chat.member.joined"})]
    {
        assert!(shown(Payload::read(&pack(passed_over)).unwrap()).is_empty());
    }
    let format = [pack(json!([1])), pack(json!("x")), vec![], vec![0xc1], bytes(&MESSAGE[..40]), b"gAAAA".to_vec()];
    for payload in format.into_iter().chain([[bytes(MESSAGE), vec![0]].concat()]) {
        assert_eq!(Payload::read(&payload), Err(Unreadable::Format), "{payload:x?}");
    }
    let mut deep = [bytes("81a178"), vec![0x91; 100_000]].concat();
    deep.push(0xc0);
    assert_eq!(Payload::read(&deep), Err(Unreadable::Format));
    for (value, field) in [
        (json!({"type": "chat.message"}), "message"),
        (json!({"type": "chat.message", "message": 5}), "message"),
        (json!({"type": "chat.message", "message": "x", "user": ["a"]}), "user"),
        (json!({"type": "chat.message", "message": "x", "message_id": {}}), "message_id"),
        (json!({"type": "chat.message.edit", "message": "x"}), "message_id"),
        (json!({"type": "chat.message.delete"}), "message_id"),
    ] {
        assert_eq!(Payload::read(&pack(value)), Err(Unreadable::Field(field)));
    }
    let numbers = json!({"type": "chat.message", "message": "x", "user": 7, "message_id": 9});
    assert_eq!(
        shown(Payload::read(&pack(numbers)).unwrap()),
        [json!({"type": "add", "message": "x", "user": 7, "message_id": 9})]
    );
}

#[test]
fn a_message_id_that_opens_is_sealed_as_digi_seals() {
    let fernet = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
    let stock = Keyring::builder().legacy_fernet(fernet).emit(Emit::Fernet).build().unwrap();
    let token = stock.seal(Kind::Message, 42);
    let id_of = |keyring: Keyring| {
        let frame = Encoder::new(keyring).unnumbered(MessageOp::Added, Some("x"), None, Some(&json!(token)));
        let frame: serde_json::Value = serde_json::from_str(frame.as_str()).unwrap();
        frame["message_id"].as_str().unwrap().to_owned()
    };
    let digi = || Keyring::builder().key(0, "a secret for tests, long enough!").legacy_fernet(fernet);
    let both = digi().legacy_kinds(&Kind::ALL).build().unwrap();
    assert_eq!(id_of(both.clone()), both.seal(Kind::Message, 42));
    // By default only rooms are opened as legacy.
    assert_eq!(id_of(digi().build().unwrap()), token);
}

proptest::proptest! {
    #[test]
    fn no_payload_upsets_the_reader(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        let _ = Payload::read(&payload);
        let _ = crypter(&["second"]).decrypt(&payload, 0, Some(70));
    }
}

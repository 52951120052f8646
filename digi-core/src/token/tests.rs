use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_PAD_INDIFFERENT, URL_SAFE, URL_SAFE_NO_PAD};
use proptest::prelude::*;

use super::*;

const SECRET: &str = "0123456789abcdef0123456789abcdef";
const OTHER: &str = "another secret, of forty-one characters..";
const FERNET: &str = "cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=";
const OTHER_FERNET: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn fernet() -> KeyringBuilder {
    Keyring::builder().legacy_fernet(FERNET).emit(Emit::Fernet)
}

fn refused(builder: KeyringBuilder) -> (Code, String) {
    let error = builder.build().unwrap_err();
    (error.code(), error.detail().to_owned())
}

/// Every text that differs from `token` in one character.
fn neighbours(token: &str) -> impl Iterator<Item = String> {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=.% ";
    (0..token.len()).flat_map(move |at| {
        alphabet.iter().filter(move |&&with| token.as_bytes()[at] != with).map(move |&with| {
            let mut bytes = token.as_bytes().to_vec();
            bytes[at] = with;
            String::from_utf8(bytes).unwrap()
        })
    })
}

/// Every strict prefix and suffix, and `token` with something around it.
fn other_lengths(token: &str) -> impl Iterator<Item = String> {
    let cut = (0..token.len()).map(move |at| token[..at].to_owned());
    let cut_off = (1..token.len()).map(move |at| token[at..].to_owned());
    let around = ["A", "=", "==", " ", "\n", "\0", "é"];
    cut.chain(cut_off).chain(around.into_iter().flat_map(move |c| [format!("{token}{c}"), format!("{c}{token}")]))
}

#[test]
fn a_keyring_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone + 'static>() {}
    shared::<Keyring>();
}

#[test]
fn every_part_of_a_key_wipes_itself() {
    // Each holds only while the crate's `zeroize` feature is on.
    fn wiped<T: zeroize::ZeroizeOnDrop>() {}
    wiped::<aes_gcm::Aes256Gcm>();
    wiped::<aes::Aes128>();
    wiped::<sha2::Sha256>();
    wiped::<cbc::Encryptor<aes::Aes128>>();
}

#[test]
fn version_1_stays_what_it_is() {
    // Computed with Python's `cryptography` after the table in the module's documentation.
    let keys = Keyring::builder().key(7, SECRET).build().unwrap();
    for (kind, id, token) in [
        (Kind::Room, 42, "AQdpCR0iGNoSuh-2XTpKMlhndeCZn56HHs7tCJyyDGQIlQ0I6r4"),
        (Kind::Message, 42, "AQcOobmRn2VhGhY3QdTk_AVM7DNryJvST50oUPgvRSWIGXq-mR0"),
        (Kind::Message, i64::MIN, "AQfJ1ZA_X6wpa2IC5xXByPF3I1264mwmWBtXVvYZEIxirkFL-wg"),
    ] {
        assert_eq!(keys.seal(kind, id), token);
        assert_eq!(keys.open(kind, token), Ok(id));
    }
}

#[test]
fn derived_key_ids_stay_what_they_are() {
    let raw = URL_SAFE_NO_PAD.decode(Keyring::from_django(SECRET, &[]).unwrap().seal(Kind::Room, 1)).unwrap();
    assert_eq!(raw[..2], [1, 207]);
}

#[test]
fn sealing_appends() {
    let keys = Keyring::new(SECRET).unwrap();
    let mut out = "before ".to_owned();
    keys.seal_into(Kind::Room, 1, &mut out);
    assert_eq!(out, format!("before {}", keys.seal(Kind::Room, 1)));
    assert_eq!(out.len(), "before ".len() + 51);
}

#[test]
fn no_changed_token_of_version_1_opens() {
    let keys = Keyring::builder().key(0, SECRET).key(1, OTHER).seal_with(0).build().unwrap();
    let token = keys.seal(Kind::Room, 42);
    for changed in neighbours(&token).chain(other_lengths(&token)) {
        assert!(keys.open(Kind::Room, &changed).is_err(), "{changed}");
    }
    let raw = URL_SAFE_NO_PAD.decode(&token).unwrap();
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.open(Kind::Room, &URL_SAFE_NO_PAD.encode(flipped)).is_err(), "bit {bit}");
    }
}

#[test]
fn a_token_of_version_1_has_one_spelling() {
    // 51 characters hold 306 bits, the token 304: the last two must be zero, or there were four spellings.
    let keys = Keyring::new(SECRET).unwrap();
    let token = keys.seal(Kind::Room, 42);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = alphabet.find(token.chars().last().unwrap()).unwrap();
    assert_eq!(last % 4, 0);
    for stray in 1..4 {
        let other = format!("{}{}", &token[..50], &alphabet[last + stray..=last + stray]);
        assert!(keys.open(Kind::Room, &other).is_err());
    }
}

#[test]
fn no_changed_legacy_token_opens() {
    let keys = fernet().build().unwrap();
    let wrapped = keys.seal(Kind::Room, 42);
    let bare = String::from_utf8(STANDARD.decode(&wrapped).unwrap()).unwrap();
    // Without padding, inside or outside, it is the same token; nothing else is.
    let unpadded = |token: &str| match STANDARD_PAD_INDIFFERENT.decode(token) {
        Ok(inner) if token.starts_with("Z0FBQUFB") => String::from_utf8_lossy(&inner).trim_end_matches('=').to_owned(),
        _ => token.trim_end_matches('=').to_owned(),
    };
    for token in [&wrapped, &bare] {
        for changed in
            neighbours(token).chain(other_lengths(token)).filter(|changed| unpadded(changed) != unpadded(token))
        {
            assert!(keys.open(Kind::Room, &changed).is_err(), "{changed}");
        }
    }
    let raw = URL_SAFE.decode(&bare).unwrap();
    for bit in 0..raw.len() * 8 {
        let mut flipped = raw.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(keys.open(Kind::Room, &URL_SAFE.encode(flipped)).is_err(), "bit {bit}");
    }
}

#[test]
fn legacy_tokens_open_in_every_spelling() {
    let keys = fernet().build().unwrap();
    for id in [42, i64::MIN, i64::MAX] {
        let wrapped = keys.seal(Kind::Room, id);
        assert!(wrapped.starts_with("Z0FBQUFB"));
        let bare = String::from_utf8(STANDARD.decode(&wrapped).unwrap()).unwrap();
        assert!(bare.starts_with("gAAAAA"));
        let unpadded = bare.trim_end_matches('=');
        for token in [
            wrapped.as_str(),
            wrapped.trim_end_matches('='),
            &bare,
            unpadded,
            &STANDARD.encode(unpadded),
            &URL_SAFE.encode(&bare),
            &URL_SAFE_NO_PAD.encode(unpadded),
        ] {
            assert_eq!(keys.open(Kind::Room, token), Ok(id), "{token}");
        }
    }
}

#[test]
fn a_classic_id_does_not_open_without_its_key() {
    let classic = "Z0FBQUFBQm15MjlPNXcwQWdzUGlobHl3NE4tVHlQak81NWQwbEg2Rm9MUVJyMklYcV9LdWJvQnhXWThRZUhoWlhrVnFjZElScXJlR3Z6YW9TWGdSdm9TaWN6dFloR1R5SWc9PQ==";
    for kind in Kind::ALL {
        let error = fernet().legacy_fernet(OTHER_FERNET).build().unwrap().open(kind, classic).unwrap_err();
        assert_eq!(error.to_string(), "token does not open");
        assert_eq!(Error::from(error), Code::BadToken.into());
        assert!(Keyring::new(SECRET).unwrap().open(kind, classic).is_err());
    }
}

#[test]
fn which_kinds_open_as_legacy_is_a_setting() {
    let token = fernet().build().unwrap().seal(Kind::Room, 42);
    let opens = |builder: KeyringBuilder| {
        let keys = builder.key(0, SECRET).legacy_fernet(FERNET).build().unwrap();
        Kind::ALL.map(|kind| keys.open(kind, &token).is_ok())
    };
    assert_eq!(opens(Keyring::builder()), [true, false]);
    assert_eq!(opens(Keyring::builder().legacy_kinds(&[])), [false, false]);
    assert_eq!(opens(Keyring::builder().legacy_kinds(&[Kind::Message])), [false, true]);
    assert_eq!(opens(Keyring::builder().legacy_kinds(&Kind::ALL)), [true, true]);
    assert_eq!(opens(fernet()), [true, true]);
}

#[test]
fn every_legacy_key_opens_and_the_first_one_emits() {
    let old = fernet().build().unwrap();
    let both = Keyring::builder().legacy_fernet(OTHER_FERNET).legacy_fernet(FERNET).emit(Emit::Fernet).build().unwrap();
    assert_eq!(both.open(Kind::Room, &old.seal(Kind::Room, 5)), Ok(5));
    assert!(old.open(Kind::Room, &both.seal(Kind::Room, 5)).is_err());
}

#[test]
fn a_fleet_moves_from_fernet_to_version_1_and_on_to_a_new_key() {
    let phases = [
        fernet().build(),
        fernet().key(1, SECRET).build(),
        Keyring::builder().key(1, SECRET).legacy_fernet(FERNET).legacy_kinds(&Kind::ALL).build(),
        Keyring::builder()
            .key(1, SECRET)
            .key(2, OTHER)
            .seal_with(1)
            .legacy_fernet(FERNET)
            .legacy_kinds(&Kind::ALL)
            .build(),
        Keyring::builder()
            .key(2, OTHER)
            .key(1, SECRET)
            .seal_with(2)
            .legacy_fernet(FERNET)
            .legacy_kinds(&Kind::ALL)
            .build(),
        Keyring::builder().key(2, OTHER).key(1, SECRET).seal_with(2).build(),
        Keyring::builder().key(2, OTHER).build(),
    ]
    .map(Result::unwrap);
    for neighbours in phases.windows(2) {
        let [before, after] = neighbours else { unreachable!() };
        for kind in Kind::ALL {
            // Processes of two neighbouring phases run side by side; the two that drop keys come once links died.
            assert_eq!(after.open(kind, &after.seal(kind, 42)), Ok(42));
            assert_eq!(before.open(kind, &after.seal(kind, 42)), Ok(42));
        }
    }
    for neighbours in phases[..5].windows(2) {
        for kind in Kind::ALL {
            assert_eq!(neighbours[1].open(kind, &neighbours[0].seal(kind, 42)), Ok(42));
        }
    }
}

#[test]
fn django_s_secrets_rotate_by_moving() {
    let secrets: Vec<String> = (0..300).map(|n| format!("django-insecure-{n:050}")).collect();
    let fallbacks: Vec<&str> = secrets.iter().map(String::as_str).collect();
    // Of 300 keys some share their one-byte id; each token opens nevertheless.
    let keys = Keyring::from_django(SECRET, &fallbacks).unwrap();
    for secret in secrets.iter().map(String::as_str).chain([SECRET]) {
        let alone = Keyring::from_django(secret, &[]).unwrap();
        assert_eq!(keys.open(Kind::Room, &alone.seal(Kind::Room, 42)), Ok(42));
        assert_eq!(alone.open(Kind::Room, &keys.seal(Kind::Room, 42)).is_ok(), secret == SECRET);
    }
    assert_eq!(keys.seal(Kind::Room, 42), Keyring::from_django(SECRET, &[]).unwrap().seal(Kind::Room, 42));
}

#[test]
fn django_s_secret_gives_way_to_an_explicit_key() {
    let django = Keyring::from_django(SECRET, &[]).unwrap();
    let both = || Keyring::builder().key(1, OTHER).django(SECRET, &[]);
    assert_eq!(both().build().unwrap().seal(Kind::Room, 1), django.seal(Kind::Room, 1));
    let moved = both().seal_with(1).build().unwrap();
    assert_eq!(moved.seal(Kind::Room, 1), Keyring::builder().key(1, OTHER).build().unwrap().seal(Kind::Room, 1));
    assert_eq!(moved.open(Kind::Room, &django.seal(Kind::Room, 1)), Ok(1));
}

#[test]
fn unusable_keys_are_refused_with_the_reason() {
    let bad_key = |builder, detail: &str| assert_eq!(refused(builder), (Code::BadKey, detail.to_owned()));
    let b = Keyring::builder;
    bad_key(b().key(3, &SECRET[1..]), "the secret of key 3 has 31 bytes; it needs at least 32");
    bad_key(b().key(0, ""), "the secret of key 0 has 0 bytes; it needs at least 32");
    bad_key(b().django("short", &[]), "SECRET_KEY has 5 bytes; it needs at least 32");
    bad_key(b().django(SECRET, &[OTHER, "old"]), "SECRET_KEY_FALLBACKS[1] has 3 bytes; it needs at least 32");
    bad_key(b().key(1, SECRET).key(1, OTHER), "two keys have the id 1");
    bad_key(b().key(1, SECRET).seal_with(2), "there is no key 2 to seal with");
    bad_key(fernet().seal_with(2), "there is no key 2 to seal with");
    bad_key(b(), "a keyring needs a key: a secret of at least 32 bytes");
    bad_key(b().legacy_fernet(FERNET), "a keyring needs a key: a secret of at least 32 bytes");
    bad_key(b().key(1, SECRET).key(2, OTHER), "there are several keys: say which one seals");
    bad_key(b().key(1, SECRET).emit(Emit::Fernet), "to emit Fernet a keyring needs a legacy Fernet key");
    for key in ["", "secret", &FERNET[4..], "cw/0x689RpI+jtRR7oE8h/eQsKImvJapLeSbXpwF4e4="] {
        bad_key(
            b().key(1, SECRET).legacy_fernet(key),
            "a legacy Fernet key is 32 bytes in URL-safe base64 (44 characters)",
        );
    }
    let (code, detail) = refused(fernet().legacy_kinds(&[Kind::Room]));
    assert_eq!((code, detail.as_str()), (Code::Config, "emitting Fernet needs both kinds in the legacy kinds"));
    // The first mistake is the one that is told.
    bad_key(b().key(1, "a").key(1, SECRET).key(1, OTHER), "the secret of key 1 has 1 bytes; it needs at least 32");
}

#[test]
fn debug_shows_no_secret() {
    let keys = Keyring::builder().key(7, SECRET).legacy_fernet(FERNET).build().unwrap();
    assert_eq!(
        format!("{keys:?}"),
        r#"Keyring { key_ids: [7], legacy_keys: 1, legacy_kinds: [Room], emit: "v1 with key 7" }"#
    );
}

fn kinds() -> impl Strategy<Value = (Kind, Kind)> {
    prop_oneof![Just((Kind::Room, Kind::Message)), Just((Kind::Message, Kind::Room))]
}

proptest! {
    #[test]
    fn what_is_sealed_opens_as_itself_only(id: i64, (kind, other) in kinds(), key_id: u8, secret in prop::collection::vec(any::<u8>(), 32..80)) {
        let keys = Keyring::builder().key(key_id, &secret).build().unwrap();
        let token = keys.seal(kind, id);
        prop_assert_eq!(&token, &Keyring::builder().key(key_id, &secret).build().unwrap().seal(kind, id));
        prop_assert_eq!(keys.open(kind, &token), Ok(id));
        prop_assert!(keys.open(other, &token).is_err());
        prop_assert!(Keyring::builder().key(key_id, OTHER).build().unwrap().open(kind, &token).is_err());
        prop_assert_ne!(&token, &keys.seal(kind, id.wrapping_add(1)));
        prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
    }

    #[test]
    fn what_is_emitted_as_fernet_opens(id: i64, (kind, other) in kinds(), raw: [u8; 32]) {
        let key = URL_SAFE.encode(raw);
        let build = |key: &str| Keyring::builder().legacy_fernet(key).emit(Emit::Fernet).build().unwrap();
        let token = build(&key).seal(kind, id);
        prop_assert_eq!(&token, &build(&key).seal(kind, id));
        prop_assert_eq!(build(&key).open(kind, &token), Ok(id));
        prop_assert_eq!(build(&key).open(other, &token), Ok(id));
        prop_assert_ne!(&token, &build(&key).seal(other, id));
        prop_assert!(build(FERNET).open(kind, &token).is_err());
    }

    #[test]
    fn nothing_made_up_opens_or_panics(token in prop_oneof![
        ".*",
        "[A-Za-z0-9_-]{51}",
        "A[QRST][A-Za-z0-9_-]{49}",
        "gAAAAA[A-Za-z0-9_-]{94}(==)?",
        "gAAAAA.*",
        "Z0FBQUFB[A-Za-z0-9+/_-]{128}",
        "Z0FBQUFB.*",
        "gAAAAA[A-Za-z0-9_-]{94}==".prop_map(|bare| STANDARD.encode(bare)),
    ]) {
        let keys = fernet().key(0, SECRET).build().unwrap();
        for kind in Kind::ALL {
            prop_assert!(keys.open(kind, &token).is_err());
        }
    }
}

use super::*;
use crate::store::mssql::options::{Encrypt, MssqlOptions, Trust};

const SECRET: &str = "what somebody wrote";

fn kind(number: u32, severity: u8) -> Kind {
    let failure = of_server(number, severity, SECRET);
    assert_eq!(failure.number, Some(number));
    assert!(failure.text.contains(&number.to_string()), "{failure}");
    failure.kind
}

#[test]
fn numbers_say_what_can_be_done() {
    use Kind::*;
    for (number, severity, expected) in [
        (1205, 13, GaveWay),
        (3960, 16, GaveWay),
        (1222, 16, LockTimeout),
        (2627, 14, Duplicate),
        (2601, 14, Duplicate),
        (1105, 17, Full),
        (9002, 17, Full),
        (40544, 17, Full),
        (8152, 16, Rejected),
        (2628, 16, Rejected),
        (547, 16, Rejected),
        // A column that takes no NULL: not the broken pipe that has the same number in a client.
        (233, 16, Rejected),
        (208, 16, Schema),
        (229, 14, Schema),
        (2760, 16, Schema),
        (701, 17, Away),
        (3906, 16, Away),
        (976, 14, Away),
        (49919, 16, Away),
        (40197, 17, Broken),
        (6005, 14, Broken),
        // Of a trigger; of none of the known; of a server in trouble.
        (50_000, 16, Rejected),
        (8623, 16, Rejected),
        (8649, 17, Away),
        (823, 24, Broken),
        // However well known: the connection is gone, and with it the answer.
        (1205, 20, Broken),
        (40544, 20, Broken),
    ] {
        assert_eq!(kind(number, severity), expected, "{number}");
    }
}

#[test]
fn only_a_broken_connection_leaves_a_commit_open() {
    let error = |number, committing| of_server(number, 16, SECRET).into_store_error(committing);
    for committing in [false, true] {
        assert!(matches!(error(1205, committing), StoreError::Unavailable(_)));
        assert!(matches!(error(1222, committing), StoreError::Unavailable(_)));
        assert!(matches!(error(2627, committing), StoreError::Rejected(_)));
        assert!(matches!(error(1105, committing), StoreError::Full(_)));
        assert!(matches!(error(2628, committing), StoreError::Rejected(_)));
        assert!(matches!(error(208, committing), StoreError::Schema(_)));
        assert!(matches!(error(3906, committing), StoreError::Unavailable(_)));
    }
    assert!(matches!(error(40613, true), StoreError::Unknown(_)));
    assert!(matches!(error(40613, false), StoreError::Unavailable(_)));
    for error in [
        Error::Io { kind: ErrorKind::UnexpectedEof, message: SECRET.into() },
        Error::Io { kind: ErrorKind::TimedOut, message: SECRET.into() },
        Error::Protocol(SECRET.into()),
        Error::Conversion(SECRET.into()),
        Error::Utf16,
    ] {
        let failure = Failure::of_request(&error);
        assert_eq!((failure.kind, failure.number), (Kind::Broken, None));
        assert!(!failure.text.contains(SECRET), "{failure}");
        assert!(matches!(failure.into_store_error(true), StoreError::Unknown(_)));
    }
}

#[test]
fn texts_that_may_quote_what_was_stored_are_not_handed_on() {
    for number in 1..60_000 {
        for severity in [11, 16, 20] {
            let failure = of_server(number, severity, &format!("{SECRET}\n{}", "x".repeat(5_000)));
            let quoted = matches!(failure.kind, Kind::Full | Kind::Schema);
            assert_eq!(failure.text.contains(SECRET), quoted, "{failure}");
            assert!(failure.text.len() < 700 && !failure.text.contains('\n'), "{failure}");
        }
    }
}

fn login(error: &Error, options: &MssqlOptions) -> String {
    let failure = Failure::of_login(error, options);
    assert_eq!(failure.kind, Kind::Away);
    failure.text
}

#[test]
fn a_failed_login_names_the_setting() {
    let mut options = MssqlOptions::new("db.example", "chat", "digi", "Sesam-1!");
    for (number, parts) in [
        (18456, ["db.example:1433", "`digi`", "password"]),
        (4060, ["`chat`", "`digi`", "database"]),
        (911, ["`chat`", "`digi`", "database"]),
        (18486, ["`digi`", "locked", "unlock"]),
        (18488, ["`digi`", "expired", "change"]),
        (40615, ["db.example:1433", "firewall", "allow"]),
        (40613, ["db.example:1433", "moving", "40613"]),
        (17809, ["db.example:1433", "at present", "17809"]),
    ] {
        let text = refused_text(number, &options);
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let eof = Error::Io { kind: ErrorKind::UnexpectedEof, message: "tls handshake eof".into() };
    assert!(login(&eof, &options).contains("`encrypt=strict`"));
    let nonsense = Error::Io { kind: ErrorKind::InvalidData, message: "corrupt message".into() };
    assert!(login(&nonsense, &options).contains("`encrypt=strict`"));
    options.encrypt = Encrypt::Strict;
    for error in [eof, nonsense, Error::Io { kind: ErrorKind::TimedOut, message: String::new() }] {
        assert!(login(&error, &options).contains("`encrypt=required`"));
    }
    options.encrypt = Encrypt::Required;
    options.trust = Trust::Authority("/etc/ca.pem".into());
    for (error, part) in [
        (Error::Protocol("Server does not allow the requested encryption level.".into()), "`encrypt=off`"),
        (Error::Tls("certificate was rejected: UnknownIssuer.".into()), "(UnknownIssuer): name its authority"),
        (Error::Tls("certificate not valid for name \"db\"".into()), "another name"),
        (Error::Tls("certificate expired: verification time".into()), "(expired)"),
        (Error::Io { kind: ErrorKind::InvalidData, message: "the CA source `x` holds none".into() }, "/etc/ca.pem"),
        (Error::Io { kind: ErrorKind::NotFound, message: "no usable CA certificates".into() }, "`trust_ca`"),
        (Error::Io { kind: ErrorKind::TimedOut, message: String::new() }, "3 s"),
        (Error::Utf16, "check host and port"),
    ] {
        let text = login(&error, &options);
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("Sesam"), "{text}");
    }
}

fn refused_text(number: u32, options: &MssqlOptions) -> String {
    connecting::refused(number, options)
}

#[test]
fn an_address_that_cannot_be_reached_is_named() {
    let options = MssqlOptions::new("::1", "chat", "digi", "Sesam-1!");
    for kind in [ErrorKind::ConnectionRefused, ErrorKind::TimedOut, ErrorKind::HostUnreachable, ErrorKind::Other] {
        let failure = Failure::of_tcp(&kind.into(), &options);
        assert_eq!(failure.kind, Kind::Away);
        assert!(failure.text.contains("[::1]:1433") && failure.text.contains("host and port"), "{failure}");
    }
}

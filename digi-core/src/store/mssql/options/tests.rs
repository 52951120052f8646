use super::*;

const PLAIN: &str = "mssql://digi:Sesam-1!@db.example/chat";

fn refused(url: &str) -> String {
    match MssqlOptions::parse(url) {
        Err(StoreError::BadUrl(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_short_url_has_the_defaults() {
    let options = MssqlOptions::parse(PLAIN).unwrap();
    assert_eq!((options.host.as_str(), options.port), ("db.example", 1433));
    assert_eq!((options.database.as_str(), options.user.as_str()), ("chat", "digi"));
    assert_eq!(options.password.0.as_str(), "Sesam-1!");
    assert_eq!((options.encrypt, &options.trust), (Encrypt::Required, &Trust::System));
    assert_eq!((options.schema.as_str(), options.app.as_str()), ("dbo", "digi"));
    assert_eq!((options.lanes, options.pool), (4, 8));
    let made = MssqlOptions::new("db.example", "chat", "digi", "Sesam-1!");
    assert_eq!(format!("{made:?}"), format!("{options:?}"));
}

#[test]
fn a_long_url_has_every_part() {
    let options = MssqlOptions::parse(
        "mssql://d%40igi:p%3Aa%2F%3F%23%25%20w%C3%B6@[::1]:14330/my%20chat%2F1?encrypt=strict&trust_ca=/etc/a%26b.pem\
         &schema=chat%5D&lanes=64&pool=1000&app=digi%202&trust_cert=false",
    )
    .unwrap();
    assert_eq!((options.host.as_str(), options.port), ("::1", 14330));
    assert_eq!(options.address(), "[::1]:14330");
    assert_eq!((options.database.as_str(), options.user.as_str()), ("my chat/1", "d@igi"));
    assert_eq!(options.password.0.as_str(), "p:a/?#% wö");
    assert_eq!((options.encrypt, &options.trust), (Encrypt::Strict, &Trust::Authority("/etc/a&b.pem".into())));
    assert_eq!((options.schema.as_str(), options.app.as_str()), ("chat]", "digi 2"));
    assert_eq!(options.quoted_schema(), "[chat]]]");
    assert_eq!((options.lanes, options.pool), (64, 1000));
    // What stands raw and can only be meant one way.
    let options = MssqlOptions::parse("mssql://digi:a:b@10.0.0.7/chat?trust_cert=true&encrypt=off").unwrap();
    assert_eq!((options.host.as_str(), options.password.0.as_str()), ("10.0.0.7", "a:b"));
    assert_eq!((options.encrypt, &options.trust), (Encrypt::Off, &Trust::Anything));
}

#[test]
fn what_is_wrong_with_a_url_is_named() {
    let with = |query: &str| format!("{PLAIN}?{query}");
    for (url, part) in [
        ("mysql://digi:Sesam-1!@db/chat".to_owned(), "`mssql://`"),
        ("mssql:digi:Sesam-1!@db/chat".to_owned(), "`mssql://`"),
        ("mssql://digi:Sesam-1!@db/my chat".to_owned(), "blank"),
        ("mssql://digi:Sesam-1!\t@db/chat".to_owned(), "control"),
        ("mssql://".to_owned(), "no host"),
        ("mssql://digi:Sesam-1!@/chat".to_owned(), "no host"),
        ("mssql://digi:Sesam-1!@:1433/chat".to_owned(), "no host"),
        ("mssql://db.example/chat".to_owned(), "password"),
        ("mssql://digi@db.example/chat".to_owned(), "password"),
        ("mssql://digi:@db.example/chat".to_owned(), "password"),
        ("mssql://:Sesam-1!@db.example/chat".to_owned(), "user"),
        ("mssql://digi:Sesam-1!@db.example".to_owned(), "no database"),
        ("mssql://digi:Sesam-1!@db.example/?lanes=1".to_owned(), "no database"),
        ("mssql://digi:Sesam-1!@db.example/chat/more".to_owned(), "%2F"),
        ("mssql://digi:Sesam-1!@db.example/chat#here".to_owned(), "percent-encoded"),
        ("mssql://digi:Sesam-1!@db.example:0/chat".to_owned(), "port"),
        ("mssql://digi:Sesam-1!@db.example:65536/chat".to_owned(), "port"),
        ("mssql://digi:Sesam-1!@db.example:mssql/chat".to_owned(), "port"),
        ("mssql://digi:Sesam-1!@db\\SQLEXPRESS/chat".to_owned(), "instance"),
        ("mssql://digi:Sesam-1!@[::1/chat".to_owned(), "IPv6"),
        ("mssql://digi:Sesam-1!@dåtabase/chat".to_owned(), "ASCII"),
        ("mssql://digi:Sesam-1!%FF@db.example/chat".to_owned(), "password"),
        ("mssql://digi:Sesam-1!@db.example/%FF".to_owned(), "database"),
        ("mssql://digi:Sesam-1!@db.example/a%00b".to_owned(), "database"),
        (format!("mssql://digi:Sesam-1!@db.example/{}", "a".repeat(129)), "database"),
        (format!("mssql://{}:Sesam-1!@db.example/a", "a".repeat(129)), "user"),
        (format!("mssql://digi:{}@db.example/a", "a".repeat(129)), "password"),
        (with("encrypt=yes"), "strict, required or off"),
        (with("encrypt"), "strict, required or off"),
        (with("trust_cert=1"), "true or false"),
        (with("trust_ca="), "trust_ca"),
        (with("trust_cert=true&trust_ca=/a.pem"), "exclude"),
        (with("trust_ca=/a.pem&trust_cert=true"), "exclude"),
        (with("schema="), "schema"),
        (with("schema=a%00b"), "schema"),
        (with("schema=a%0Ab"), "schema"),
        (format!("{PLAIN}?schema={}", "s".repeat(129)), "schema"),
        (with("lanes=0"), "1 to 64"),
        (with("lanes=65"), "1 to 64"),
        (with("lanes=two"), "1 to 64"),
        (with("pool=0"), "1 to 1000"),
        (with("pool=1001"), "1 to 1000"),
        (with("app="), "app"),
        (with("timeout=5"), "`timeout`"),
        (with("lanes=1&lanes=1"), "`lanes` stands twice"),
        (with("app=%FF"), "UTF-8"),
    ] {
        let text = refused(&url);
        assert!(text.contains(part), "{url}: {text}");
        assert!(!text.contains("Sesam") && !text.contains('\n'), "{url}: {text}");
    }
}

/// Whatever a password does to the URL around it, nothing of it is quoted.
#[test]
fn no_piece_of_a_password_is_ever_shown() {
    for first in ["@", "/", "?", "#", ":", "&", "=", "%", "\\", "[", "1", "1/", "@x/", "@x/y?", "@x/y?lanes=", "@x/#"] {
        for second in ["", "@", "/", "?", "#", ":", "&encrypt=", "%FF", " "] {
            let url = format!("mssql://digi:{first}SECRET{second}SECRET@db.example/chat");
            if let Err(error) = MssqlOptions::parse(&url) {
                assert!(!format!("{error} {error:?}").contains("SECRET"), "{url}: {error}");
            }
        }
    }
    let options = MssqlOptions::parse(PLAIN).unwrap();
    let shown = format!("{options:?} {:?}", options.config().unwrap());
    assert!(!shown.contains("Sesam"), "{shown}");
}

#[test]
fn a_certificate_is_read_whatever_its_file_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.cer");
    let mut options = MssqlOptions::new("db.example", "chat", "digi", "Sesam-1!");
    options.trust = Trust::Authority(path.clone());
    let refused = |options: &MssqlOptions| options.config().unwrap_err().to_string();
    assert!(refused(&options).contains("authority.cer"), "{}", refused(&options));
    std::fs::write(&path, "").unwrap();
    assert!(refused(&options).contains("no certificate"), "{}", refused(&options));
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----").unwrap();
    options.config().unwrap();
}

#[test]
fn fields_that_were_set_by_hand_are_checked_too() {
    type Change = fn(&mut MssqlOptions);
    let changes: [(Change, &str); 6] = [
        (|options| options.lanes = 0, "lanes"),
        (|options| options.pool = 1_001, "pool"),
        (|options| options.port = 0, "port"),
        (|options| options.schema = "a\u{0}".into(), "schema"),
        (|options| options.host = String::new(), "host"),
        (|options| options.password = "".into(), "password"),
    ];
    for (change, part) in changes {
        let mut options = MssqlOptions::parse(PLAIN).unwrap();
        change(&mut options);
        let text = options.config().unwrap_err().to_string();
        assert!(text.contains(part), "{text}");
    }
}

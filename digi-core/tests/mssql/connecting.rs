//! Getting in, and being told why not.

use std::time::Instant;

use digi_core::store::mssql::{Encrypt, MssqlOptions, MssqlStore, Trust};
use digi_core::store::{Store, StoreError};
use tokio::net::TcpListener;

use crate::peer::{Answer, Certificate, Encryption, PASSWORD, Peer, Reserved, Setup};
use crate::script::{self, MEMBER, ROOM};

/// Asks for something.
async fn ask(options: MssqlOptions) -> Result<(), StoreError> {
    let store = MssqlStore::open(options)?;
    store.member(ROOM, &"alice".into()).await.map(|answer| assert!(answer.membership.is_some()))
}

/// Why nothing comes of it; nothing is told of the password.
async fn refusal(options: MssqlOptions) -> String {
    match ask(options).await {
        Err(StoreError::Unavailable(text)) => {
            assert!(!text.contains(PASSWORD) && !text.contains('\n'), "{text}");
            text
        }
        other => panic!("{other:?}"),
    }
}

fn assert_names(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no `{part}` in: {text}");
    }
}

#[tokio::test]
async fn a_refused_login_is_told_with_what_to_change() {
    let text = "Login failed for user 'digi'. Reason: the password is Correct-Horse-7";
    for (number, parts) in [
        (18456, ["localhost:", "`digi`", "user and password"]),
        (4060, ["`chat`", "`digi`", "database's name"]),
        (911, ["`chat`", "`digi`", "database's name"]),
        (18486, ["localhost:", "`digi`", "unlock"]),
        (18487, ["localhost:", "`digi`", "expired"]),
        (40615, ["localhost:", "firewall", "allow"]),
        (17809, ["localhost:", "17809", "at present"]),
    ] {
        let peer = Peer::start(Setup::refusing(number, text));
        assert_names(&refusal(peer.options()).await, &parts);
    }
}

#[tokio::test]
async fn an_address_where_nothing_listens_is_named() {
    let nothing = Reserved::new();
    let mut options = MssqlOptions::new("127.0.0.1", "chat", "digi", PASSWORD);
    options.port = nothing.address().port();
    assert_names(&refusal(options).await, &[&nothing.address().to_string(), "check host and port"]);
    let mut options = MssqlOptions::new("nowhere.invalid", "chat", "digi", PASSWORD);
    options.port = 14_330;
    assert_names(&refusal(options).await, &["nowhere.invalid:14330", "check host and port"]);
}

#[tokio::test]
async fn a_server_that_takes_the_connection_and_says_nothing_is_not_waited_for() {
    let mut setup = Setup::new(|_| panic!("nobody was let in"));
    setup.login = None;
    let peer = Peer::start(setup);
    let begin = Instant::now();
    assert_names(&refusal(peer.options()).await, &["localhost:", "hasn't let us in"]);
    assert!((2..30).contains(&begin.elapsed().as_secs()), "{:?}", begin.elapsed());
    peer.until(|seen| seen.open == 0 || seen.connections > 1).await;
}

#[tokio::test]
async fn something_else_than_sql_server_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let other = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut tcp, _) = listener.accept().await.unwrap();
            let _ = tcp.read(&mut [0; 1024]).await;
            let _ = tcp.write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n").await;
        }
    });
    for encrypt in [Encrypt::Strict, Encrypt::Required, Encrypt::Off] {
        let mut options = MssqlOptions::new("127.0.0.1", "chat", "digi", PASSWORD);
        options.port = address.port();
        options.encrypt = encrypt;
        assert_names(&refusal(options).await, &[&address.to_string()]);
    }
    other.abort();
}

/// Each kind of client with each kind of server: gets in, or hears which setting would let it in.
#[tokio::test]
async fn encryption_is_agreed_on_or_told_with_what_to_change() {
    for (client, server, expected) in [
        (Encrypt::Off, Encryption::None, Err("certificate")),
        (Encrypt::Off, Encryption::Optional, Ok(())),
        (Encrypt::Off, Encryption::Required, Ok(())),
        (Encrypt::Off, Encryption::Strict, Err("`encrypt=strict`")),
        (Encrypt::Required, Encryption::None, Err("`encrypt=off`")),
        (Encrypt::Required, Encryption::Optional, Ok(())),
        (Encrypt::Required, Encryption::Required, Ok(())),
        (Encrypt::Required, Encryption::Strict, Err("`encrypt=strict`")),
        (Encrypt::Strict, Encryption::None, Err("`encrypt=required`")),
        (Encrypt::Strict, Encryption::Optional, Err("`encrypt=required`")),
        (Encrypt::Strict, Encryption::Required, Err("`encrypt=required`")),
        (Encrypt::Strict, Encryption::Strict, Ok(())),
    ] {
        let mut setup = Setup::new(|request| script::server(request).into());
        setup.encryption = server;
        let peer = Peer::start(setup);
        let mut options = peer.options();
        options.encrypt = client;
        match expected {
            Ok(()) => {
                ask(options).await.unwrap_or_else(|error| panic!("{client:?} with {server:?}: {error}"));
                assert_eq!(peer.requests_with(MEMBER).len(), 1);
            }
            Err(setting) => {
                let text = refusal(options).await;
                assert!(text.contains(setting), "{client:?} with {server:?}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_trusted_by_its_authority_or_not_at_all() {
    for (client, server) in [(Encrypt::Required, Encryption::Optional), (Encrypt::Strict, Encryption::Strict)] {
        let mut setup = Setup::new(|request| script::server(request).into());
        setup.encryption = server;
        let peer = Peer::start(setup);
        let options = |trust: Trust| MssqlOptions { encrypt: client, trust, ..peer.options() };
        let stranger = Certificate::of("localhost");
        for trust in [Trust::System, Trust::Authority(stranger.authority_file())] {
            assert_names(&refusal(options(trust)).await, &["certificate", "`trust_ca`", "`trust_cert=true`"]);
        }
        // The login did not get to somebody who isn't the server.
        assert!(peer.look(|seen| seen.requests.is_empty()));
        ask(peer.options_with(client)).await.unwrap();
        ask(options(Trust::Anything)).await.unwrap();
        let other_name = MssqlOptions { host: "127.0.0.1".into(), ..peer.options_with(client) };
        assert_names(&refusal(other_name.clone()).await, &["another name", "`trust_cert=true`"]);
        ask(MssqlOptions { trust: Trust::Anything, ..other_name }).await.unwrap();
    }
}

#[tokio::test]
async fn a_file_without_a_certificate_is_named() {
    let peer = Peer::start(Setup::new(|_| panic!("nobody was let in")));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authority.pem");
    for content in ["", "nothing of the kind", "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"] {
        std::fs::write(&path, content).unwrap();
        let options = MssqlOptions { trust: Trust::Authority(path.clone()), ..peer.options() };
        let text = ask(options).await.unwrap_err().to_string();
        assert_names(&text, &["`trust_ca`", path.to_str().unwrap()]);
    }
}

#[tokio::test]
async fn an_address_of_ip_version_6_will_do() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        // A machine without it.
        return;
    };
    let peer = Peer::run(listener, Setup::new(|request| script::server(request).into()));
    let url = format!("mssql://digi:{PASSWORD}@[::1]:{}/chat?trust_cert=true", peer.address.port());
    ask(MssqlOptions::parse(&url).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_login_is_sent_on_to_the_server_that_has_the_database() {
    let server = Peer::start(Setup::new(|request| script::server(request).into()));
    let mut setup = Setup::new(|_| panic!("the gateway answers nothing else"));
    setup.login = Some(Answer::routed_to("localhost", server.address.port()));
    let gateway = Peer::start(setup);
    ask(MssqlOptions { trust: Trust::Anything, ..gateway.options() }).await.unwrap();
    assert_eq!(server.requests_with(MEMBER).len(), 1);
    // In a circle it ends as well.
    let reserved = Reserved::new();
    let mut setup = Setup::new(|_| panic!("the gateway answers nothing else"));
    setup.login = Some(Answer::routed_to("localhost", reserved.address().port()));
    let gateway = reserved.start(setup);
    assert_names(&refusal(gateway.options()).await, &["another server"]);
}

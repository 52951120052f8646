//! Who gets in, and what the others are told.

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use digi_core::server::{AuthError, CallbackAuthenticator, Identity, ServerLimits};
use digi_core::token::{Keyring, Kind};
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;

use crate::support::{Chat, ROOM, expired_jwt, foreign_jwt, jwt, soon};

const UPGRADE: [&str; 5] = [
    "host: chat.example",
    "connection: keep-alive, Upgrade",
    "upgrade: websocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn a_jwt_logs_in_and_selects_the_subprotocol() {
    let chat = Chat::start().await;
    let mut request = chat.request(&chat.path());
    let offers = format!("digi, digi.jwt.{}", jwt("1"));
    request.headers_mut().insert("sec-websocket-protocol", offers.parse().unwrap());
    let (mut client, response) = chat.handshake(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "digi");
    assert_eq!(client.json().await["type"], "resumed");

    let request = chat.request(&format!("{}?jwt={}", chat.path(), jwt("2")));
    let (mut client, response) = chat.handshake(request).await.unwrap();
    assert!(response.headers().get("sec-websocket-protocol").is_none());
    assert_eq!(client.json().await["type"], "resumed");
}

#[tokio::test]
async fn bad_logins_are_closed_with_4503() {
    let chat = Chat::start().await;
    // {"alg":"none","typ":"JWT"} . {"sub":"1","exp":9999999999} .
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiIxIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
    for bad in [expired_jwt("1"), foreign_jwt("1"), unsigned.to_owned(), "nonsense".to_owned(), String::new()] {
        let mut request = chat.request(&chat.path());
        request.headers_mut().insert("sec-websocket-protocol", format!("digi, digi.jwt.{bad}").parse().unwrap());
        let (client, response) = chat.handshake(request).await.unwrap();
        // Without it a browser would not get to see the close code.
        assert_eq!(response.headers()["sec-websocket-protocol"], "digi");
        assert_eq!(client.closed().await, (4503, "unauthenticated".to_owned()), "{bad}");
    }
    let (client, _) = chat.handshake(chat.request(&chat.path())).await.unwrap();
    assert_eq!(client.closed().await.0, 4503);
}

#[tokio::test]
async fn tokens_that_do_not_open_are_closed_with_4500() {
    let chat = Chat::start().await;
    let foreign = Keyring::new("the secret of a neighbour, long enough").unwrap();
    let classic = "Z0FBQUFBQm15MjlPNXcwQWdzUGlobHl3NE4tVHlQak81NWQwbEg2Rm9MUVJyMklYcV9LdWJvQnhXWThRZUhoWlhrVnFjZElScX\
                   JlR3Z6YW9TWGdSdm9TaWN6dFloR1R5SWc9PQ%3D%3D";
    for bad in [
        "nonsense",
        "%%%",
        "%ff%00",
        classic,
        &chat.keys.seal(Kind::Message, ROOM.get()),
        &foreign.seal(Kind::Room, ROOM.get()),
    ] {
        let client = chat.login(&format!("/ws/chat/{bad}/"), &jwt("1")).await;
        assert_eq!(client.closed().await, (4500, "bad_token".to_owned()), "{bad}");
    }
}

#[tokio::test]
async fn strangers_are_closed_with_4501() {
    let chat = Chat::start().await;
    let client = chat.login(&chat.path(), &jwt("3")).await;
    assert_eq!(client.closed().await, (4501, "not_a_member".to_owned()));
    // A room that does not exist looks the same.
    let nowhere = format!("/ws/chat/{}/", chat.keys.seal(Kind::Room, 99));
    assert_eq!(chat.login(&nowhere, &jwt("1")).await.closed().await.0, 4501);
}

#[tokio::test]
async fn a_callback_logs_in() {
    let logins = CallbackAuthenticator::new(|request, remote| async move {
        assert!(remote.ip().is_loopback());
        match request.headers.get("cookie") {
            Some(cookie) if cookie == "session=ana" => Ok(Identity {
                user: "1".into(),
                name: "Ana".into(),
                subprotocol: Some("classic".to_owned()),
                login: None,
            }),
            Some(_) => Err(AuthError::Unauthenticated),
            None => Err(AuthError::Unavailable),
        }
    });
    let chat = Chat::with(|server| server.authenticator(logins)).await;
    let with = |cookie: Option<&'static str>| {
        let mut request = chat.request(&chat.path());
        request.headers_mut().insert("sec-websocket-protocol", "digi, classic".parse().unwrap());
        if let Some(cookie) = cookie {
            request.headers_mut().insert("cookie", cookie.parse().unwrap());
        }
        chat.handshake(request)
    };
    let (mut client, response) = with(Some("session=ana")).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "classic");
    assert_eq!(client.json().await["type"], "resumed");
    assert_eq!(with(Some("session=eve")).await.unwrap().0.closed().await.0, 4503);
    assert_eq!(with(None).await.unwrap().0.closed().await, (4001, "unavailable".to_owned()));
}

#[tokio::test]
async fn a_hanging_callback_is_cut_off() {
    let limits = ServerLimits { auth_timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let logins = CallbackAuthenticator::new(|_, _| pending());
    let chat = Chat::with(|server| server.authenticator(logins).limits(limits)).await;
    let (client, _) = chat.handshake(chat.request(&chat.path())).await.unwrap();
    assert_eq!(client.closed().await, (4001, "unavailable".to_owned()));
}

#[tokio::test]
async fn foreign_origins_get_403() {
    let own = Chat::start().await;
    let listed = Chat::with(|server| server.origins(["https://app.example"])).await;
    let any = Chat::with(|server| server.origins(["*"])).await;
    let here = format!("http://{}", own.server.local_addr());
    for (chat, origin, allowed) in [
        (&own, here.as_str(), true),
        (&own, "https://app.example", false),
        (&own, "null", false),
        (&listed, "https://app.example", true),
        (&listed, here.as_str(), false),
        (&any, "https://evil.example", true),
    ] {
        let mut request = chat.request(&chat.path());
        request.headers_mut().insert("origin", origin.parse().unwrap());
        match chat.handshake(request).await {
            Ok(_) => assert!(allowed, "{origin}"),
            Err(Error::Http(response)) => assert_eq!((response.status().as_u16(), allowed), (403, false), "{origin}"),
            Err(other) => panic!("{origin}: {other}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_websocket_is_told_so() {
    let chat = Chat::start().await;
    let path = chat.path();
    let get = format!("GET {path} HTTP/1.1");
    let upgrade = |line: &str, without: &str, more: &str| {
        let mut lines = vec![line.to_owned()];
        lines.extend(UPGRADE.iter().filter(|line| !line.starts_with(without)).map(ToString::to_string));
        lines.push(more.to_owned());
        lines
    };
    for (lines, expected) in [
        (upgrade("GET /elsewhere HTTP/1.1", "?", "x: y"), "404"),
        (upgrade("GET /ws/chat/ HTTP/1.1", "?", "x: y"), "404"),
        (upgrade("GET /ws/chat/a/b/ HTTP/1.1", "?", "x: y"), "404"),
        (vec![get.clone(), "host: chat.example".to_owned()], "426"),
        (upgrade(&get, "sec-websocket-version", "sec-websocket-version: 8"), "426"),
        (upgrade(&get, "sec-websocket-key", "x: y"), "400"),
        (upgrade(&get, "sec-websocket-key", "sec-websocket-key: short"), "400"),
        (upgrade(&get, "connection", "connection: close"), "400"),
        (upgrade(&format!("POST {path} HTTP/1.1"), "?", "x: y"), "400"),
        (vec!["nonsense".to_owned()], "400"),
    ] {
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        assert_eq!(status(&chat.http(&lines).await), expected, "{lines:?}");
    }
}

#[tokio::test]
async fn health_and_fallback() {
    let chat = Chat::with(|server| {
        server.fallback(|request| async move {
            let mut answer = http::Response::new(Bytes::from(format!("page {}", request.uri().path())));
            *answer.status_mut() = StatusCode::ACCEPTED;
            answer
        })
    })
    .await;
    let health = chat.http(&["GET /healthz HTTP/1.1", "host: x"]).await;
    assert!(status(&health) == "200" && health.ends_with("ok"), "{health}");
    let page = chat.http(&["GET /index.html HTTP/1.1", "host: x"]).await;
    assert!(status(&page) == "202" && page.ends_with("page /index.html"), "{page}");
    assert_eq!(status(&chat.http(&["HEAD / HTTP/1.1", "host: x"]).await), "202");
}

#[tokio::test]
async fn long_headers_get_431() {
    let limits = ServerLimits { header_bytes: 4096, ..ServerLimits::default() };
    let chat = Chat::limited(limits).await;
    let cookie = format!("cookie: {}", "x".repeat(5000));
    assert_eq!(status(&chat.http(&["GET /healthz HTTP/1.1", "host: x", &cookie]).await), "431");
    let cookie = format!("cookie: {}", "x".repeat(3000));
    assert_eq!(status(&chat.http(&["GET /healthz HTTP/1.1", "host: x", &cookie]).await), "200");
}

#[tokio::test]
async fn a_slow_handshake_is_cut_off() {
    let limits = ServerLimits { handshake_timeout: Duration::from_millis(50), ..ServerLimits::default() };
    let chat = Chat::limited(limits).await;
    for beginning in ["", "GET /healthz HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(chat.server.local_addr()).await.unwrap();
        stream.write_all(beginning.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer, b"");
    }
}

#[tokio::test]
async fn one_connection_too_many_gets_503() {
    let limits = ServerLimits { max_connections: 1, ..ServerLimits::default() };
    let chat = Chat::limited(limits).await;
    let first = chat.enter("1").await;
    let refused = chat.handshake(chat.request(&chat.path())).await.err().expect("a refusal");
    assert!(matches!(refused, Error::Http(response) if response.status() == StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(status(&chat.http(&["GET /healthz HTTP/1.1", "host: x"]).await), "200");
    drop(first);
    // The place is free as soon as the server has noticed.
    soon(async { while chat.handshake(chat.request(&chat.path())).await.is_err() {} }).await;
}

//! Pings, slow and vanished clients, and what the operator reads of it all.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use digi_core::server::ServerLimits;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::support::{Chat, jwt, soon};

fn quick_pings() -> ServerLimits {
    let (ping_interval, ping_timeout) = (Duration::from_millis(30), Duration::from_millis(30));
    ServerLimits { ping_interval, ping_timeout, ..ServerLimits::default() }
}

#[tokio::test]
async fn a_mute_client_is_closed_with_4002() {
    let chat = Chat::limited(quick_pings()).await;
    let mut stream = chat.enter("1").await.into_stream();
    let mut frames = [0; 18];
    soon(stream.read_exact(&mut frames)).await.unwrap();
    // A ping without payload, then the close frame with 4002 (0x0fa2).
    assert_eq!(frames, *b"\x89\0\x88\x0e\x0f\xa2ping_timeout");
}

#[tokio::test]
async fn a_client_that_answers_pings_stays() {
    let limits = ServerLimits { ping_timeout: Duration::from_secs(10), ..quick_pings() };
    let chat = Chat::limited(limits).await;
    let mut ana = chat.enter("1").await;
    for _ in 0..3 {
        assert!(matches!(ana.message().await, Message::Ping(_)));
        // Reading on sends the pong; so does this.
        ana.0.flush().await.unwrap();
    }
    ana.send(&json!({ "message": "alive" })).await;
    assert_eq!(ana.json().await["message"], "alive");
}

#[tokio::test]
async fn a_client_may_leave_in_its_own_words() {
    let chat = Chat::start().await;
    let mut ana = chat.enter("1").await;
    ana.0.close(Some(CloseFrame { code: 1001.into(), reason: "moving on".into() })).await.unwrap();
    match ana.message().await {
        Message::Close(Some(frame)) => assert_eq!(u16::from(frame.code), 1001),
        other => panic!("{other:?}"),
    }
    assert!(soon(ana.0.next()).await.is_none());
}

/// Ben reads nothing any more, and more comes than sockets and outbox hold.
#[tokio::test]
async fn who_stops_reading_is_cut_off_and_the_others_notice_nothing() {
    let limits = ServerLimits { write_timeout: Duration::from_millis(500), ..ServerLimits::default() };
    let chat = Chat::limited(limits).await;
    let (mut ana, mut ben) = (chat.enter("1").await, chat.enter("2").await);
    // Each such character takes six in JSON.
    let body = "\u{1}".repeat(16 * 1024);
    for seq in 1..=150 {
        ana.send(&json!({ "message": body })).await;
        assert_eq!(ana.json().await["seq"], seq);
    }
    let mut seen = 0;
    let code = loop {
        match soon(ben.0.next()).await {
            Some(Ok(Message::Text(text))) => {
                seen += 1;
                let frame: serde_json::Value = serde_json::from_str(&text).unwrap();
                assert_eq!(frame["seq"], seen, "nothing is left out before the end");
            }
            Some(Ok(Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => break None,
        }
    };
    assert!(seen < 150, "{seen}");
    // Too slow; or not even that could be said.
    assert!(matches!(code, Some(4000) | None), "{code:?}");
    ana.send(&json!({ "message": "still here" })).await;
    assert_eq!(ana.json().await["message"], "still here");
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_names_connections_and_gives_no_secret_away() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    // The runtime of this test has one thread, so this sees the server's tasks too.
    let _guard = tracing::subscriber::set_default(subscriber);
    let chat = Chat::start().await;
    let login = jwt("1");
    let (mut ana, _) = chat.handshake(chat.request(&format!("{}?jwt={login}", chat.path()))).await.unwrap();
    assert_eq!(ana.json().await["type"], "resumed");
    let peer = ana.0.get_ref().local_addr().unwrap();
    let stranger = chat.login(&chat.path(), &jwt("3")).await;
    assert_eq!(stranger.closed().await.0, 4501);
    let token = chat.path().replace("/ws/chat/", "").replace('/', "");
    let ((), closed) = tokio::join!(soon(chat.server.shutdown()), ana.closed());
    assert_eq!(closed.0, 1012);

    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let path = format!("/ws/chat/{}…", &token[..8]);
    for line in [
        format!("HANDSHAKING {path} [{peer}]"),
        format!(" CONNECT {path} [{peer}]"),
        format!("DISCONNECT {path} [{peer}] 1012 restart"),
        format!("REJECT {path}"),
    ] {
        assert!(log.contains(&line), "{line:?} is missing in\n{log}");
    }
    assert!(!log.contains(&token) && !log.contains(&login), "{log}");
}

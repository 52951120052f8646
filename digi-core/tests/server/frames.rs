//! What clients should not send.

use digi_core::server::ServerLimits;
use futures_util::SinkExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::support::{Chat, soon};

#[tokio::test]
async fn each_bad_frame_gets_one_error_and_the_connection_stays() {
    let chat = Chat::start().await;
    let mut ana = chat.enter("1").await;
    for (frame, code) in [
        (Message::binary(b"{}".as_slice()), "not_text"),
        (Message::text("nonsense"), "bad_json"),
        (Message::text(""), "bad_json"),
        (Message::text("[1, 2]"), "bad_json"),
        (Message::text(r#"{"type":"dance"}"#), "unknown_type"),
        (Message::text(r#"{"type":"add","message":7}"#), "bad_frame"),
        (Message::text(r#"{"type":"edit","message":"x"}"#), "bad_frame"),
        (Message::text(r#"{"type":"edit","message_id":"x","message":"x"}"#), "bad_token"),
        (Message::text(r#"{"message":"  "}"#), "empty_body"),
        (Message::text(r#"{"message":"a\u0000b"}"#), "bad_body"),
        (Message::text(json!({ "message": "x".repeat(16 * 1024 + 1) }).to_string()), "body_too_long"),
        (Message::text(json!({ "message": "x".repeat(200 * 1024) }).to_string()), "frame_too_large"),
    ] {
        let shown = frame.to_string().chars().take(40).collect::<String>();
        ana.0.send(frame).await.unwrap();
        assert_eq!(ana.error().await, code, "{shown}");
    }
    ana.send(&json!({ "message": "still here" })).await;
    assert_eq!(ana.json().await["message"], "still here");
}

#[tokio::test]
async fn a_mebibyte_gets_an_error_and_1009() {
    let chat = Chat::start().await;
    let mut ana = chat.enter("1").await;
    ana.0.send(Message::text("x".repeat(1024 * 1024))).await.unwrap();
    assert_eq!(ana.error().await, "frame_too_large");
    assert_eq!(ana.closed().await, (1009, "frame_too_large".to_owned()));
}

#[tokio::test]
async fn a_message_that_grows_too_big_in_fragments_gets_1009() {
    let chat = Chat::limited(ServerLimits { frame_bytes: 1000, ..ServerLimits::default() }).await;
    let mut ana = chat.enter("1").await;
    let fragment = |kind| Message::Frame(Frame::message("x".repeat(600), OpCode::Data(kind), false));
    ana.0.send(fragment(Data::Text)).await.unwrap();
    ana.0.send(fragment(Data::Continue)).await.unwrap();
    assert_eq!(ana.error().await, "frame_too_large");
    assert_eq!(ana.closed().await.0, 1009);
}

#[tokio::test]
async fn text_that_is_not_utf8_gets_an_error_and_1007() {
    let chat = Chat::start().await;
    let mut ana = chat.enter("1").await;
    let bytes = b"{\"message\":\"\xff\xfe\"}".as_slice();
    ana.0.send(Message::Frame(Frame::message(bytes, OpCode::Data(Data::Text), true))).await.unwrap();
    assert_eq!(ana.error().await, "not_text");
    assert_eq!(ana.closed().await, (1007, "not_text".to_owned()));
}

#[tokio::test]
async fn breaches_of_the_protocol_get_4507() {
    // RFC 6455 §5: an unmasked frame, a reserved bit, a reserved opcode, a continuation of nothing, a long ping.
    let long_ping = [[0x89, 0xfe, 0, 126, 0, 0, 0, 0].as_slice(), &[0; 126]].concat();
    for bytes in [
        [0x81, 1, b'x'].as_slice(),
        &[0xc1, 0x81, 0, 0, 0, 0, b'x'],
        &[0x83, 0x80, 0, 0, 0, 0],
        &[0x80, 0x80, 0, 0, 0, 0],
        &long_ping,
    ] {
        let chat = Chat::start().await;
        let mut stream = chat.enter("1").await.into_stream();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        soon(stream.read_to_end(&mut answer)).await.unwrap();
        // 0x88: close; 0x119b: 4507.
        assert_eq!(answer, [&[0x88, 20, 0x11, 0x9b], b"protocol_violation".as_slice()].concat(), "{bytes:x?}");
    }
}

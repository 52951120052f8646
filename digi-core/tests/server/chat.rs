//! The way through the whole engine.

use digi_core::store::Store;
use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Chat, ROOM, jwt, soon};

#[tokio::test]
async fn two_people_add_edit_and_delete() {
    let chat = Chat::start().await;
    let (mut ana, mut ben) = (chat.enter("1").await, chat.enter("2").await);

    ana.send(&json!({ "message": "hello 🦀", "client_id": "c1" })).await;
    let added = ben.json().await;
    assert_eq!((&added["type"], &added["message"], &added["user"]), (&json!("add"), &json!("hello 🦀"), &json!("Ana")));
    let mut own = [ana.json().await, ana.json().await];
    own.sort_by_key(|frame| frame["type"].to_string());
    let ack = json!({ "type": "ack", "client_id": "c1", "message_id": added["message_id"], "seq": 1, "pos": 1 });
    assert_eq!(own, [ack, added.clone()]);

    let id = &added["message_id"];
    ana.send(&json!({ "type": "edit", "message_id": id, "message": "hello, world" })).await;
    for client in [&mut ana, &mut ben] {
        let edited = client.json().await;
        assert_eq!((&edited["type"], &edited["message_id"]), (&json!("edit"), id));
    }
    ana.send(&json!({ "action": "delete", "message_id": id })).await;
    for client in [&mut ana, &mut ben] {
        let deleted = client.json().await;
        assert_eq!((&deleted["type"], &deleted["message_id"]), (&json!("delete"), id));
    }
}

#[tokio::test]
async fn a_cursor_in_the_url_resumes() {
    let chat = Chat::start().await;
    let (mut ana, mut ben) = (chat.login(&chat.path(), &jwt("1")).await, chat.enter("2").await);
    let cursor = ana.json().await["cursor"].as_str().unwrap().to_owned();
    drop(ana);
    ben.send(&json!({ "message": "you missed this" })).await;
    assert_eq!(ben.json().await["type"], "add");

    let mut ana = chat.login(&format!("{}?after={cursor}", chat.path()), &jwt("1")).await;
    assert_eq!(ana.json().await["message"], "you missed this");
    assert_eq!(ana.json().await["type"], "resumed");
}

#[tokio::test]
async fn many_frames_arrive_in_order() {
    let chat = Chat::start().await;
    let (mut ana, mut ben) = (chat.enter("1").await, chat.enter("2").await);
    for number in 0..100 {
        ana.0.feed(Message::text(json!({ "message": format!("{number}") }).to_string())).await.unwrap();
    }
    ana.0.flush().await.unwrap();
    for client in [&mut ana, &mut ben] {
        for number in 0..100 {
            assert_eq!(client.json().await["message"], format!("{number}"));
        }
    }
}

#[tokio::test]
async fn a_shutdown_loses_nothing_and_says_restart() {
    let chat = Chat::start().await;
    let (mut ana, ben) = (chat.enter("1").await, chat.enter("2").await);
    for number in 0..50 {
        let add = json!({ "message": format!("{number}"), "client_id": format!("c{number}") });
        ana.0.feed(Message::text(add.to_string())).await.unwrap();
    }
    ana.0.flush().await.unwrap();
    // The last frame has been read once there is an answer to the ping behind it.
    ana.0.send(Message::Ping("all read".into())).await.unwrap();
    let mut acknowledged = 0;
    let mut count = |message: &Message| {
        if let Message::Text(text) = message
            && text.contains(r#""type":"ack""#)
        {
            acknowledged += 1;
        }
    };
    loop {
        match ana.message().await {
            Message::Pong(_) => break,
            message => count(&message),
        }
    }
    let (address, store) = (chat.server.local_addr(), chat.store.clone());
    let stopped = tokio::spawn(chat.server.shutdown());
    let code = loop {
        match ana.message().await {
            Message::Close(frame) => break frame.unwrap().code,
            message => count(&message),
        }
    };
    assert_eq!(u16::from(code), 1012);
    assert!(soon(ana.0.next()).await.is_none());
    assert_eq!(ben.closed().await, (1012, "restart".to_owned()));
    soon(stopped).await.unwrap();

    let stored = store.history(ROOM, None, 200).await.unwrap().messages.len();
    assert_eq!((acknowledged, stored), (50, 50));
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}

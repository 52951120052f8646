//! The peer: what tokio-tungstenite can do when it does nothing else. A text goes as it came to everybody who has
//! connected with the same path. No storage, no tokens, no limits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::accept_hdr_async_with_config;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::{Result, peer};

/// Frames in one write.
const BATCH: usize = 256;

type Room = Arc<Mutex<Vec<UnboundedSender<Message>>>>;
type Rooms = Arc<Mutex<HashMap<String, Room>>>;

/// Serves until the parent goes.
pub(crate) async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    peer::announce(listener.local_addr()?);
    let rooms = Rooms::default();
    let accepting = async {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(connection(stream, rooms.clone()));
        }
    };
    tokio::select! {
        () = accepting => Err("the listener has ended".into()),
        () = peer::parent_gone() => Ok(()),
    }
}

async fn connection(stream: TcpStream, rooms: Rooms) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut path = String::new();
    #[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
    let look = |request: &Request, response: Response| -> std::result::Result<Response, ErrorResponse> {
        path = request.uri().path().to_owned();
        Ok(response)
    };
    let config = WebSocketConfig::default().read_buffer_size(4096).write_buffer_size(4096);
    let mut socket = accept_hdr_async_with_config(stream, look, Some(config)).await?;
    let room = rooms.lock().unwrap_or_else(PoisonError::into_inner).entry(path).or_default().clone();
    let (outbox, mut frames) = unbounded_channel();
    room.lock().unwrap_or_else(PoisonError::into_inner).push(outbox.clone());
    // The generator waits for it, as it does for Digi's: from here on nothing is missed.
    outbox.send(Message::text(r#"{"type":"resumed"}"#))?;
    let mut batch = Vec::new();
    loop {
        tokio::select! {
            biased;
            message = socket.next() => match message {
                Some(Ok(text @ Message::Text(_))) => {
                    for member in room.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                        // Whoever has left takes itself out.
                        let _ = member.send(text.clone());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => break,
            },
            _ = frames.recv_many(&mut batch, BATCH) => {
                for frame in batch.drain(..) {
                    socket.feed(frame).await?;
                }
                socket.flush().await?;
            }
        }
    }
    room.lock().unwrap_or_else(PoisonError::into_inner).retain(|member| !member.same_channel(&outbox));
    Ok(())
}

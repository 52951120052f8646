//! Passwords stay where they belong.

use std::io;
use std::sync::{Arc, Mutex};

use digi_core::layer::{ChannelLayer, RedisLayer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::server::RedisServer;
use crate::support::{added, group, until, up};

const PASSWORD: &str = "pass-s3cret";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn count(&self, piece: &str) -> usize {
        self.text().matches(piece).count()
    }
}

/// A server that quotes what it was sent, as Redis before version 6 does of `HELLO`.
async fn old_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut bytes = [0; 4096];
            let count = client.read(&mut bytes).await.unwrap();
            let words: Vec<_> =
                std::str::from_utf8(&bytes[..count]).unwrap().split("\r\n").map(str::to_owned).collect();
            let quoted = format!("-ERR unknown command, with args beginning with: {}\r\n", words.join(" "));
            let _ = client.write_all(quoted.repeat(8).as_bytes()).await;
        }
    });
    address
}

#[tokio::test]
async fn the_password_is_nowhere_and_outages_are_logged_once() {
    let log = Log::default();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _guard = subscriber.finish().set_default();

    let mut server = RedisServer::start(&[&format!("requirepass {PASSWORD}")]);
    let url = format!("redis://:{PASSWORD}@{}", server.address());
    let layer = up(&url).await;
    layer.subscribe(&[group(1)]).await.unwrap();
    let mut told = format!("{layer:?}");
    server.kill();
    until("the node notices", || !layer.status().is_up).await;
    told += &format!("{:?}", layer.publish(&[added(1, 1)]).await.unwrap_err());
    server.restart();
    until("the node is back", || layer.status().is_up).await;
    let name = server.address();
    assert_eq!(
        log.count(&format!("WARN digi_core::layer::redis::health: Redis {name} is away: ")),
        1,
        "{}",
        log.text()
    );
    assert_eq!(log.count(&format!("INFO digi_core::layer::redis::health: Redis {name} is there")), 2, "{}", log.text());
    drop(layer);

    // A wrong one, and a server that repeats it.
    let wrong = format!("redis://user:{PASSWORD}-wrong@{}", server.address());
    let quoting = format!("redis://user:{PASSWORD}@{}", old_server().await);
    for (url, reason) in [(wrong, "WRONGPASS"), (quoting, "***")] {
        let layer = RedisLayer::from_url(&url).unwrap();
        until("it is said why", || log.text().contains(reason)).await;
        told += &format!("{layer:?} {:?}", layer.subscribe(&[group(1)]).await.unwrap_err());
    }
    for (what, text) in [("the log", log.text()), ("errors", told)] {
        assert!(!text.contains(PASSWORD), "the password is in {what}: {text}");
    }
}

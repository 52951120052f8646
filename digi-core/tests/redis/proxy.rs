//! A network between a layer and Redis that can be cut, held up and slowed down.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    /// Nothing gets through, and nobody hears why.
    Hang,
    /// Every connection is closed, also those to come.
    Cut,
}

struct Shared {
    target: String,
    mode: watch::Sender<Mode>,
    delay: watch::Sender<Duration>,
}

pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

impl Proxy {
    /// In front of `host:port`.
    pub(crate) async fn start(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            target,
            mode: watch::Sender::new(Mode::Pass),
            delay: watch::Sender::new(Duration::ZERO),
        });
        let for_all = shared.clone();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                connections.spawn(carry(client, for_all.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Self { port, shared, _task: task }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn pass(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    pub(crate) fn hang(&self) {
        self.shared.mode.send_replace(Mode::Hang);
    }

    pub(crate) fn cut(&self) {
        self.shared.mode.send_replace(Mode::Cut);
    }

    /// What a packet takes each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.delay.send_replace(delay);
    }
}

async fn carry(client: TcpStream, shared: Arc<Shared>) {
    let mut mode = shared.mode.subscribe();
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let Ok(server) = TcpStream::connect(&shared.target).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    tokio::select! {
        // One side has closed: then so does the other.
        () = pump(&mut from_client, &mut to_server, &shared) => {}
        () = pump(&mut from_server, &mut to_client, &shared) => {}
        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
    }
}

async fn pump(from: &mut (impl AsyncReadExt + Unpin), to: &mut (impl AsyncWriteExt + Unpin), shared: &Shared) {
    let mut mode = shared.mode.subscribe();
    // Small enough that a cut comes in the middle of things.
    let mut bytes = [0; 1000];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        let delay = *shared.delay.borrow();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if mode.wait_for(|mode| *mode != Mode::Hang).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

//! One of the stock workers' Redis servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, RedisError, Value};
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

use super::options::BridgeFormat;
use super::queue::Queue;
use super::rooms::Rooms;
use super::{Shared, core, pubsub};
use crate::frame::Frame;
use crate::layer::redis::backoff::Backoff;
use crate::layer::redis::connect::{Connector, Open};
use crate::layer::redis::url::{Address, Login};
use crate::store::model::MessageOp;

/// How often a connection with nothing to do is asked whether it is alive.
const PING: Duration = Duration::from_secs(3);

/// How many groups are joined or left in one write, and how many messages sent.
const TOGETHER: (usize, usize) = (1_000, 256);

pub(super) struct Host {
    pub(super) health: Health,
    address: Address,
    login: Login,
    connector: Connector,
    pub(super) rooms: Mutex<Rooms>,
    pub(super) outgoing: Queue<Outgoing>,
    /// Told whenever nothing is left to do, and nothing under way.
    settled: Notify,
}

/// What waits for a host.
pub(super) struct Outgoing {
    pub(super) since: Instant,
    pub(super) what: What,
}

pub(super) enum What {
    /// For the group of a room.
    Message { group: Arc<str>, op: MessageOp, frame: Frame },
    /// Of the core format: for one stock process.
    Payload { key: String, payload: Vec<u8> },
}

/// Whether something can be reached, and what the log hears of it.
pub(super) struct Health {
    name: String,
    is_up: AtomicBool,
    /// Whether the log was told last that it is up.
    told: Mutex<Option<bool>>,
}

impl Health {
    pub(super) fn new(name: String) -> Self {
        Self { name, is_up: AtomicBool::new(false), told: Mutex::new(None) }
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Acquire)
    }

    pub(super) fn up(&self) {
        if !self.is_up.swap(true, Ordering::AcqRel) && self.told.lock().replace(true) != Some(true) {
            info!("the bridge's Redis {} is there", self.name);
        }
    }

    pub(super) fn away(&self, reason: &str) {
        self.is_up.store(false, Ordering::Release);
        if self.told.lock().replace(false) != Some(false) {
            let name = &self.name;
            warn!("the bridge's Redis {name} is away: {reason}; Digi's chat goes on, stock workers hear nothing of it");
        }
    }
}

impl Host {
    pub(super) fn new(address: Address, login: Login, connector: Connector) -> Self {
        Self {
            health: Health::new(address.to_string()),
            address,
            login,
            connector,
            rooms: Mutex::default(),
            outgoing: Queue::new(),
            settled: Notify::new(),
        }
    }

    /// Waits until there is nothing left to do.
    pub(super) async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            self.outgoing.filled.notify_one();
            settled.await;
            if self.outgoing.is_empty() && self.rooms.lock().is_settled() {
                return;
            }
        }
    }

    pub(super) async fn connect(&self, on_push: impl Fn(PushInfo) + Send + Sync + 'static) -> Result<Open, String> {
        self.connector.open(&self.address, &self.login, on_push).await
    }

    /// Without the password.
    pub(super) fn text_of(&self, error: &RedisError) -> String {
        self.login.hide_in(&error.to_string())
    }

    /// All of it in one write; the answers, or that one of them is an error.
    pub(super) async fn ask(
        &self,
        requests: &mut MultiplexedConnection,
        pipeline: &redis::Pipeline,
    ) -> Result<Vec<Value>, String> {
        let answers = requests.send_packed_commands(pipeline, 0, pipeline.len()).await;
        answers
            .and_then(|answers| answers.into_iter().map(Value::extract_error).collect())
            .map_err(|error| self.text_of(&error))
    }
}

/// Keeps the connection to a host up, for ever.
pub(super) async fn keep(shared: Arc<Shared>, at: usize) {
    let host = &shared.hosts[at];
    let mut backoff = Backoff::new();
    loop {
        let here = shared.clone();
        let opened = host.connect(move |push| pubsub::on_push(&here, at, push)).await;
        let held = opened.is_ok();
        let reason = match opened {
            Err(reason) => reason,
            Ok(Open { requests, mut driver }) => {
                backoff.opened();
                tokio::select! {
                    () = &mut driver => "the connection was closed".to_owned(),
                    reason = serve(&shared, host, requests) => reason,
                }
            }
        };
        host.health.away(&reason);
        backoff.wait(held).await;
    }
}

/// Does what there is to do, until the connection is of no use; why.
async fn serve(shared: &Shared, host: &Host, mut requests: MultiplexedConnection) -> String {
    let mut begun = Instant::now();
    host.rooms.lock().begin_anew(shared.format);
    loop {
        if shared.format == BridgeFormat::Core && begun.elapsed() >= shared.renewal() {
            begun = Instant::now();
            host.rooms.lock().begin_anew(shared.format);
        }
        match work(shared, host, &mut requests).await {
            Ok(true) => continue,
            Ok(false) => {}
            Err(reason) => return reason,
        }
        host.health.up();
        host.settled.notify_waiters();
        let pause = PING.min(shared.renewal());
        if tokio::time::timeout(pause, host.outgoing.filled.notified()).await.is_err()
            && let Err(error) = requests.send_packed_command(&redis::cmd("PING")).await
        {
            return host.text_of(&error);
        }
    }
}

/// Whether there was something.
async fn work(shared: &Shared, host: &Host, requests: &mut MultiplexedConnection) -> Result<bool, String> {
    let (changes, is_settled) = {
        let mut rooms = host.rooms.lock();
        (rooms.take_changes(TOGETHER.0), rooms.is_settled())
    };
    if !(changes.join.is_empty() && changes.leave.is_empty()) {
        let pipeline = match shared.format {
            BridgeFormat::PubSub => pubsub::changes(shared, &changes),
            BridgeFormat::Core => core::changes(shared, &changes),
        };
        host.ask(requests, &pipeline).await?;
        let mut rooms = host.rooms.lock();
        rooms.joined(&changes.join);
        rooms.left(&changes.leave);
        return Ok(true);
    }
    let taken = host.outgoing.take(TOGETHER.1);
    if taken.is_empty() {
        return Ok(!is_settled);
    }
    // All of it, if this ends early: also when it is dropped with the connection.
    let mut lost = Lost { shared, count: taken.len() };
    let fresh: Vec<_> = taken.into_iter().filter(|entry| entry.since.elapsed() <= shared.expiry()).collect();
    let expired = lost.count - fresh.len();
    let missed = match shared.format {
        BridgeFormat::PubSub => pubsub::send(shared, host, requests, fresh).await?,
        BridgeFormat::Core => core::send(shared, host, requests, fresh).await?,
    };
    lost.count = expired + missed;
    Ok(true)
}

/// Counts what did not reach Redis, or may not have: nothing is sent twice, so it is gone.
struct Lost<'a> {
    shared: &'a Shared,
    count: usize,
}

impl Drop for Lost<'_> {
    fn drop(&mut self) {
        self.shared.lost(self.count as u64, "Redis was away, refused, or the stock processes are at capacity");
    }
}

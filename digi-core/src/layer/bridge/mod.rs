//! The bridge to stock Django Channels: what makes it possible to move a fleet over one process at a time.
//!
//! A stock worker's `group_send` reaches Digi's sessions, and what Digi commits reaches the stock workers, through the
//! Redis servers and in the format of their own `channels_redis` layer. Only the three classic messages cross. Digi's
//! nodes speak to each other over their [`ChannelLayer`](super::ChannelLayer), so what one of them sends over the bridge
//! is marked with the key `digi`, and dropped by the others.
//!
//! Like the layer that it imitates, the bridge promises nothing: what does not reach Redis in time is counted, and gone.

mod core;
mod crypter;
mod host;
mod message;
mod options;
mod pubsub;
mod queue;
mod rooms;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tracing::warn;

pub use options::{BridgeFormat, BridgeOptions};

use self::crypter::Crypter;
use self::host::{Health, Host, Outgoing, What};
pub(crate) use self::message::Inbound;
use self::message::{Classic, LONGEST, Payload, Unreadable};
use self::options::Groups;
use self::queue::Queue;
use super::LayerError;
use super::redis::connect::Connector;
use super::redis::ring::host_of;
use super::redis::url::{self, Servers};
use crate::error::{Code, Error};
use crate::event::Event;
use crate::id::RoomId;
use crate::store::model::MessageOp;

/// Between two warnings of one kind.
const WARN: Duration = Duration::from_secs(10);

/// How many payloads are read in one go.
const TOGETHER: usize = 256;

/// How long what is under way is waited for at the end.
const END: Duration = Duration::from_secs(2);

/// How often memberships of the core format are renewed at the least: if somebody empties Redis, stock workers are not
/// heard for so long.
const RENEWAL: Duration = Duration::from_secs(60);

/// One node's end of a bridge.
pub(crate) struct Bridge {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

/// How a bridge is, and what it has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BridgeStatus {
    pub(crate) is_up: bool,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) lost: u64,
    pub(crate) undecodable: u64,
}

struct Shared {
    /// What marks this node: 16 hexadecimal digits.
    node: String,
    format: BridgeFormat,
    prefix: String,
    /// What Redis channels of groups begin with.
    channels: String,
    groups: Groups,
    crypter: Crypter,
    capacity: u32,
    expiry: u32,
    group_expiry: u32,
    hosts: Vec<Host>,
    /// Of the core format: the connection on which this node reads.
    receiver: Health,
    /// What came in and is not read yet; of pub/sub with the room.
    inbox: Queue<(Option<RoomId>, Vec<u8>)>,
    /// In microseconds.
    last_score: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
    lost: AtomicU64,
    undecodable: AtomicU64,
    warned: [Rarely; 3],
}

/// So that a log is not filled.
#[derive(Default)]
struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    fn is_time(&self) -> bool {
        let mut last = self.0.lock();
        let is_time = last.is_none_or(|at| at.elapsed() >= WARN);
        if is_time {
            *last = Some(Instant::now());
        }
        is_time
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Bridge {
    /// Needs a tokio runtime. Does not wait for Redis.
    ///
    /// # Errors
    /// `config`, `bad_url`: what would not work.
    pub(crate) fn open(options: &BridgeOptions) -> Result<Self, Error> {
        options.check()?;
        let node = getrandom::u64().map_err(|error| Code::Config.with(format!("no random numbers: {error}")))?;
        let shared = Arc::new(Shared {
            node: format!("{node:016x}"),
            format: options.format,
            prefix: options.prefix.clone(),
            channels: pubsub::channel(&options.prefix, ""),
            groups: options.groups.clone(),
            crypter: Crypter::new(&options.keys)?,
            capacity: options.capacity,
            expiry: options.expiry,
            group_expiry: options.group_expiry,
            hosts: hosts_of(options)?,
            receiver: Health::new("for what stock workers send".to_owned()),
            inbox: Queue::new(),
            last_score: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            undecodable: AtomicU64::new(0),
            warned: Default::default(),
        });
        let mut tasks: Vec<_> =
            (0..shared.hosts.len()).map(|at| tokio::spawn(host::keep(shared.clone(), at)).abort_handle()).collect();
        if shared.format == BridgeFormat::Core {
            tasks.push(tokio::spawn(core::receive(shared.clone())).abort_handle());
        }
        Ok(Self { shared, tasks })
    }

    /// Hands committed changes of this node to the stock workers; those that do not cross are passed over. Never waits.
    pub(crate) fn publish(&self, events: &[Event]) {
        let shared = &self.shared;
        let since = Instant::now();
        let mut lost = 0;
        for events in events.chunk_by(|one, other| one.room == other.room) {
            let crossing: Vec<_> = events.iter().filter_map(|event| message::crossing(&event.kind)).collect();
            let Some(first) = events.first().filter(|_| !crossing.is_empty()) else { continue };
            let Some((at, group)) = shared.group_of(first.room) else {
                lost += crossing.len() as u64;
                continue;
            };
            let group: Arc<str> = group.into();
            for (op, frame) in crossing {
                let what = What::Message { group: group.clone(), op, frame: frame.clone() };
                lost += shared.hosts[at].outgoing.push(Outgoing { since, what }, frame.as_bytes().len());
            }
        }
        shared.lost(lost, "there was more than may wait");
    }

    /// From now on what stock workers send to these rooms comes in, as soon as Redis is there.
    pub(crate) fn subscribe(&self, rooms: &[RoomId]) {
        for room in rooms {
            if let Some((at, group)) = self.shared.group_of(*room) {
                self.shared.hosts[at].rooms.lock().want(*room, group);
            }
        }
        self.wake();
    }

    /// From now on, it does not.
    pub(crate) fn unsubscribe(&self, rooms: &[RoomId]) {
        for room in rooms {
            if let Some((at, _)) = self.shared.group_of(*room) {
                self.shared.hosts[at].rooms.lock().unwant(*room);
            }
        }
        self.wake();
    }

    fn wake(&self) {
        for host in &self.shared.hosts {
            host.outgoing.filled.notify_one();
        }
    }

    /// What came in from stock workers. Dropping the future loses nothing.
    pub(crate) async fn next(&self) -> Vec<Inbound> {
        loop {
            let payloads = self.shared.inbox.take(TOGETHER);
            if !payloads.is_empty() {
                let read: Vec<_> =
                    payloads.into_iter().flat_map(|(room, payload)| self.shared.read(room, &payload)).collect();
                self.shared.received.fetch_add(read.len() as u64, Ordering::Relaxed);
                return read;
            }
            self.shared.inbox.filled.notified().await;
        }
    }

    /// Sends what waits, and leaves all groups, as far as that can be done soon.
    pub(crate) async fn leave(&self) {
        let hosts = &self.shared.hosts;
        hosts.iter().for_each(|host| host.rooms.lock().unwant_all());
        let settle = async {
            // In the core format, what one host says of a group may be sent to another.
            for host in hosts.iter().chain(hosts).filter(|host| host.health.is_up()) {
                host.settle().await;
            }
        };
        let _ = tokio::time::timeout(END, settle).await;
    }

    /// How it is, and what it has done.
    pub(crate) fn status(&self) -> BridgeStatus {
        let shared = &self.shared;
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let reads = shared.format == BridgeFormat::PubSub || shared.receiver.is_up();
        BridgeStatus {
            is_up: reads && shared.hosts.iter().all(|host| host.health.is_up()),
            sent: get(&shared.sent),
            received: get(&shared.received),
            lost: get(&shared.lost),
            undecodable: get(&shared.undecodable),
        }
    }
}

fn hosts_of(options: &BridgeOptions) -> Result<Vec<Host>, Error> {
    let localhost = ["redis://localhost:6379".to_owned().into()];
    let urls = if options.hosts.is_empty() { &localhost[..] } else { &options.hosts };
    let mut hosts = Vec::new();
    for (at, text) in urls.iter().enumerate() {
        let number = at + 1;
        let fail = |error: &dyn std::fmt::Display| Code::BadUrl.with(format!("the bridge's host {number}: {error}"));
        // Parsed as a layer's, which the text of an error speaks of.
        let ours = |error: LayerError| error.0.replace("a Redis layer's URL", "its URL").replace("the layer's", "its");
        let url = url::parse(text).map_err(|error| fail(&ours(error)))?;
        let Servers::Hosts(servers) = url.servers else {
            return Err(fail(
                &"the bridge speaks to servers by `redis://` and `rediss://`, not to a cluster or by Sentinel",
            ));
        };
        if text.contains("prefix=") {
            return Err(fail(&"the prefix is an option of the bridge's own, not of the URL"));
        }
        let connector = Connector::new(url.tls.as_ref()).map_err(|error| fail(&ours(error)))?;
        hosts.extend(servers.into_iter().map(|(address, login)| Host::new(address, login, connector.clone())));
    }
    Ok(hosts)
}

impl Shared {
    /// In seconds since 1970.
    fn now(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    fn expiry(&self) -> Duration {
        Duration::from_secs(self.expiry.into())
    }

    fn renewal(&self) -> Duration {
        RENEWAL.min(Duration::from_secs(self.group_expiry.into()) / 4)
    }

    /// The time, and always later than the last: where scores are the same, Redis sorts by the random bytes.
    fn next_score(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let next = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_score.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).unwrap_or_default();
        let score = now.max(last.saturating_add(1));
        format!("{}.{:06}", score / 1_000_000, score % 1_000_000)
    }

    /// A room's group, and the host that has it.
    fn group_of(&self, room: RoomId) -> Option<(usize, String)> {
        let Some(group) = self.groups.name_of(room) else {
            if self.warned[0].is_time() {
                warn!(%room, "the bridge has no group for a room: its name would have to be 1 to 99 of A-Z a-z 0-9 - _ .");
            }
            return None;
        };
        let at = match self.format {
            BridgeFormat::PubSub => host_of(&pubsub::channel(&self.prefix, &group), self.hosts.len()),
            BridgeFormat::Core => host_of(&group, self.hosts.len()),
        };
        Some((at, group))
    }

    /// None when there are no random numbers.
    fn encode(&self, message: &Classic<'_>, op: MessageOp, channels: Option<&[String]>) -> Option<Vec<u8>> {
        self.crypter.encrypt(message.encode(op, &self.node, channels), self.now())
    }

    fn take_in(&self, room: Option<RoomId>, payload: Vec<u8>) {
        let bytes = payload.len();
        let forgotten = self.inbox.push((room, payload), bytes);
        self.lost(forgotten, "stock workers send more than can be read");
    }

    fn read(&self, room: Option<RoomId>, payload: &[u8]) -> Vec<Inbound> {
        match self.try_read(payload) {
            Ok(payload) => match room {
                Some(room) => payload.into_inbound([room]),
                None => {
                    let rooms = core::rooms_of(self, &payload.channels);
                    payload.into_inbound(rooms)
                }
            },
            Err(reason) => {
                let count = self.undecodable.fetch_add(1, Ordering::Relaxed) + 1;
                if self.warned[1].is_time() {
                    warn!(count, "a payload on the bridge is dropped: {reason}");
                }
                Vec::new()
            }
        }
    }

    fn try_read(&self, payload: &[u8]) -> Result<Payload, Unreadable> {
        if payload.len() > LONGEST {
            return Err(Unreadable::TooLong);
        }
        // As there: pub/sub has neither random bytes nor an age.
        let (payload, ttl) = match self.format {
            BridgeFormat::PubSub => (payload, None),
            BridgeFormat::Core => (payload.get(core::RANDOM..).unwrap_or_default(), Some(u64::from(self.expiry) + 10)),
        };
        Payload::read(&self.crypter.decrypt(payload, self.now(), ttl)?)
    }

    fn sent(&self, count: u64) {
        self.sent.fetch_add(count, Ordering::Relaxed);
    }

    fn lost(&self, count: u64, reason: &str) {
        if count == 0 {
            return;
        }
        let total = self.lost.fetch_add(count, Ordering::Relaxed) + count;
        if self.warned[2].is_time() {
            warn!(total, "messages did not get over the bridge: {reason}");
        }
    }
}

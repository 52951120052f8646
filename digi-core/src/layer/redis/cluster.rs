//! Redis Cluster, with sharded pub/sub: a group belongs to a slot, and a slot to one of the masters, which is a host
//! with connections of its own. Slots move; the map is asked for anew when something shows that they did.
//!
//! <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::connect::Connector;
use super::health::{Health, Role};
use super::host::{Common, Host};
use super::target::Target;
use super::url::{Address, Login};
use crate::event::Group;
use crate::layer::LayerError;

/// Of every cluster.
const SLOTS: usize = 16_384;

/// Between two looks at the map: while all is well, and while some of it is away.
const LOOK: (Duration, Duration) = (Duration::from_secs(10), Duration::from_millis(500));

/// Between two looks at the least: doubled while one reason to look follows another, up to the second figure.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// How long a node may take to give the map.
const ASK: Duration = Duration::from_secs(2);

pub(super) struct Cluster {
    shared: Arc<Shared>,
    task: AbortHandle,
}

struct Shared {
    common: Common,
    seeds: Vec<Address>,
    login: Login,
    health: Health,
    moved: Arc<Notify>,
    state: Mutex<State>,
}

/// Which master serves which slot.
#[derive(Default)]
struct Map {
    masters: Vec<Address>,
    /// The place among the masters, for every slot.
    owners: Vec<Option<usize>>,
    is_complete: bool,
}

impl Map {
    fn owner(&self, slot: usize) -> Option<&Address> {
        self.masters.get((*self.owners.get(slot)?)?)
    }
}

#[derive(Default)]
struct State {
    map: Map,
    hosts: HashMap<Address, Arc<Host>>,
    wanted: HashSet<Group>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    /// Needs a tokio runtime. Connects in the background.
    pub(super) fn start(mut common: Common, seeds: Vec<Address>, login: Login) -> Self {
        let moved = Arc::new(Notify::new());
        common.moved = Some(moved.clone());
        let names: Vec<_> = seeds.iter().map(Address::to_string).collect();
        let health = Health::new(format!("Cluster {}", names.join(",")));
        let shared = Arc::new(Shared { common, seeds, login, health, moved, state: Mutex::default() });
        let task = tokio::spawn(follow(shared.clone())).abort_handle();
        Self { shared, task }
    }

    pub(super) fn name(&self) -> &str {
        self.shared.health.name()
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.health.is_up() && self.shared.state.lock().is_complete()
    }

    pub(super) async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        let by_host = {
            let mut state = self.shared.state.lock();
            state.wanted.extend(groups);
            let by_host = self.shared.by_host(&state, groups.iter().copied(), |group| *group);
            // Under the lock, so that a change of owners finds them where they are.
            for (host, groups) in by_host.of_host.values() {
                host.want(groups);
            }
            by_host
        };
        let done = join_all(by_host.of_host.values().map(|(host, groups)| host.settle(groups))).await;
        done.into_iter().collect::<Result<(), _>>().and(by_host.complete)
    }

    pub(super) async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        let by_host = {
            let mut state = self.shared.state.lock();
            let gone: Vec<_> = groups.iter().copied().filter(|group| state.wanted.remove(group)).collect();
            let by_host = self.shared.by_host(&state, gone, |group| *group);
            for (host, groups) in by_host.of_host.values() {
                host.unwant(groups);
            }
            by_host
        };
        let done = join_all(by_host.of_host.values().map(|(host, groups)| host.forget(groups))).await;
        done.into_iter().collect::<Result<(), _>>().and(by_host.complete)
    }

    pub(super) async fn publish(&self, payloads: Vec<(Group, Vec<u8>)>) -> Result<(), LayerError> {
        let by_host = self.shared.by_host(&self.shared.state.lock(), payloads, |(group, _)| *group);
        let done = join_all(by_host.of_host.values().map(|(host, payloads)| host.publish(payloads))).await;
        done.into_iter().collect::<Result<(), _>>().and(by_host.complete)
    }
}

/// What belongs to each host, and whether every part belongs to one.
struct ByHost<T> {
    of_host: HashMap<Address, (Arc<Host>, Vec<T>)>,
    complete: Result<(), LayerError>,
}

impl State {
    fn owner(&self, slot: usize) -> Option<(&Address, &Arc<Host>)> {
        let address = self.map.owner(slot)?;
        Some((address, self.hosts.get(address)?))
    }

    fn is_complete(&self) -> bool {
        self.map.is_complete && self.hosts.values().all(|host| host.is_up())
    }
}

impl Shared {
    fn slot(&self, group: Group) -> usize {
        slot_of(self.common.channel(group).as_bytes())
    }

    fn by_host<T>(&self, state: &State, items: impl IntoIterator<Item = T>, group: impl Fn(&T) -> Group) -> ByHost<T> {
        let mut of_host = HashMap::new();
        let mut complete = Ok(());
        for item in items {
            match state.owner(self.slot(group(&item))) {
                Some((address, host)) => {
                    of_host.entry(address.clone()).or_insert_with(|| (host.clone(), Vec::new())).1.push(item);
                }
                None => {
                    self.moved.notify_one();
                    complete = Err(LayerError(format!("Redis {}: no node serves a slot", self.health.name())));
                }
            }
        }
        ByHost { of_host, complete }
    }

    /// Asks one node after the other.
    async fn map(&self) -> Result<Map, String> {
        let mut asked: Vec<_> = {
            let state = self.state.lock();
            let (up, away): (Vec<_>, Vec<_>) = state.hosts.iter().partition(|(_, host)| host.is_up());
            up.into_iter().chain(away).map(|(address, _)| address.clone()).collect()
        };
        for seed in &self.seeds {
            if !asked.contains(seed) {
                asked.push(seed.clone());
            }
        }
        let mut reasons = Vec::new();
        for address in asked {
            let answer = tokio::time::timeout(ASK, ask(&self.common.connector, &address, &self.login)).await;
            match answer.unwrap_or_else(|_| Err("no answer".to_owned())) {
                Ok(map) => return Ok(map),
                Err(reason) => reasons.push(format!("{address}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// Puts a new map to use: groups whose owner is another than before change hosts. Whether there were any.
    fn adopt(&self, map: Map) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let before = std::mem::replace(&mut state.map, map);
        let old_hosts = state.hosts.clone();
        state.hosts.retain(|address, _| state.map.masters.contains(address));
        for address in state.map.masters.iter().cloned() {
            state.hosts.entry(address.clone()).or_insert_with(|| {
                Arc::new(Host::start(self.common.clone(), Target::Fixed(address, self.login.clone())))
            });
        }
        let mut has_moved = false;
        for group in &state.wanted {
            let slot = self.slot(*group);
            let (old, new) = (before.owner(slot), state.map.owner(slot));
            if old == new {
                continue;
            }
            has_moved = true;
            if let Some(host) = old.and_then(|old| old_hosts.get(old)) {
                host.unwant(&[*group]);
            }
            if let Some(host) = new.and_then(|new| state.hosts.get(new)) {
                host.want(&[*group]);
            }
        }
        has_moved
    }
}

/// Keeps the map up to date, for ever.
async fn follow(shared: Arc<Shared>) {
    let mut pause = PAUSE.0;
    loop {
        let mut is_settled = true;
        match shared.map().await {
            Err(reason) => shared.health.away(Role::Subscriber, &reason),
            Ok(map) => {
                let has_moved = shared.adopt(map);
                shared.health.up(Role::Publisher);
                shared.health.up(Role::Subscriber);
                let hosts: Vec<_> = shared.state.lock().hosts.values().cloned().collect();
                let mut caught_up = has_moved;
                for result in join_all(hosts.iter().map(|host| host.catch_up())).await {
                    match result {
                        Ok(found) => caught_up |= found,
                        // Away, which it repairs by itself; or in the middle of a move.
                        Err(_) => is_settled = false,
                    }
                }
                if caught_up {
                    shared.common.inbox.lag();
                }
            }
        }
        tokio::time::sleep(pause).await;
        let is_complete = shared.state.lock().is_complete();
        let look = if is_settled && is_complete { LOOK.0 } else { LOOK.1 };
        pause = match tokio::time::timeout(look, shared.moved.notified()).await {
            Ok(()) => (pause * 2).min(PAUSE.1),
            Err(_) => PAUSE.0,
        };
    }
}

/// The map, as a node knows it.
async fn ask(connector: &Connector, address: &Address, login: &Login) -> Result<Map, String> {
    let mut open = connector.open(address, login, |_| {}).await?;
    // Instead of the newer CLUSTER SHARDS: it gives the port that fits the connection, be it TLS or not.
    let answer = open.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map_err(|error| login.hide_in(&error))?;
    map_in(answer, address).ok_or_else(|| "its answer to CLUSTER SLOTS is none".to_owned())
}

fn map_in(answer: Value, asked: &Address) -> Option<Map> {
    let Value::Array(ranges) = answer else { return None };
    let mut map = Map { owners: vec![None; SLOTS], ..Map::default() };
    for range in ranges {
        let Value::Array(range) = range else { return None };
        let [Value::Int(first), Value::Int(last), Value::Array(master), ..] = range.as_slice() else { return None };
        let [host, Value::Int(port), ..] = master.as_slice() else { return None };
        let host = match host {
            Value::BulkString(host) if !host.is_empty() && host != b"?" => String::from_utf8(host.clone()).ok()?,
            Value::SimpleString(host) => host.clone(),
            // It does not know its own.
            _ => asked.host.clone(),
        };
        let address = Address { host, port: u16::try_from(*port).ok()? };
        let known = map.masters.iter().position(|master| *master == address);
        let owner = known.unwrap_or_else(|| {
            map.masters.push(address);
            map.masters.len() - 1
        });
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        map.owners.get_mut(first..=last)?.fill(Some(owner));
    }
    map.is_complete = map.owners.iter().all(Option::is_some);
    Some(map)
}

/// The slot of a channel: of what stands between the first `{` and the next `}`, if anything does.
fn slot_of(channel: &[u8]) -> usize {
    let tag = channel.iter().position(|byte| *byte == b'{').and_then(|start| {
        let rest = &channel[start + 1..];
        rest.iter().position(|byte| *byte == b'}').filter(|end| *end > 0).map(|end| &rest[..end])
    });
    usize::from(crc16(tag.unwrap_or(channel))) % SLOTS
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte) << 8, |crc, _| if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check value of the specification, and what `CLUSTER KEYSLOT` of Redis 7.0 says.
    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        Value::Array(vec![Value::Int(first), Value::Int(last), Value::Array(vec![host, Value::Int(port)])])
    }

    #[test]
    fn a_map_is_read() {
        let asked = Address { host: "asked".into(), port: 1 };
        let host = |name: &str| Value::BulkString(name.into());
        let answer = [range(0, 9, host("a"), 6379), range(12, 16_383, host(""), 6380), range(10, 10, Value::Nil, 6380)];
        let map = map_in(Value::Array(answer.to_vec()), &asked).unwrap();
        let owner = |slot| map.owner(slot).map(Address::to_string);
        assert_eq!((owner(0), owner(9)), (Some("a:6379".into()), Some("a:6379".into())));
        assert_eq!((owner(10), owner(11), owner(16_383)), (Some("asked:6380".into()), None, Some("asked:6380".into())));
        assert_eq!((map.masters.len(), map.is_complete, owner(16_384)), (2, false, None));
        let whole = map_in(Value::Array(vec![range(0, 16_383, host("a"), 1)]), &asked).unwrap();
        assert!(whole.is_complete);
    }

    #[test]
    fn no_map_does_harm() {
        let asked = Address { host: "asked".into(), port: 1 };
        let host = || Value::BulkString(b"a".to_vec());
        for bad in
            [range(0, 16_384, host(), 1), range(5, 2, host(), 1), range(-1, 3, host(), 1), range(0, 1, host(), 70_000)]
        {
            assert!(map_in(Value::Array(vec![bad.clone()]), &asked).is_none(), "{bad:?}");
        }
        assert!(map_in(Value::Nil, &asked).is_none());
    }

    #[test]
    fn slots_are_those_of_redis() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (channel, slot) in KEYSLOTS {
            assert_eq!(slot_of(channel.as_bytes()), slot, "{channel}");
        }
    }

    const KEYSLOTS: [(&str, usize); 9] = [
        ("asgi__digi__chat_1", 7808),
        ("asgi__digi__chat_42", 4831),
        ("asgi__digi__chat_-1", 6999),
        ("asgi__digi__digi_nodes", 1583),
        ("{asgi}__digi__chat_7", 268),
        ("{}a", 10875),
        ("a{b", 13340),
        ("a{b}{c}", 3300),
        ("ключ", 10303),
    ];
}

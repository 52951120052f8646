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

#[derive(Default)]
struct State {
    /// The owner of every slot.
    owners: Vec<Option<Address>>,
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
        let address = self.owners.get(slot)?.as_ref()?;
        Some((address, self.hosts.get(address)?))
    }

    fn is_complete(&self) -> bool {
        self.owners.len() == SLOTS
            && self.owners.iter().all(Option::is_some)
            && self.hosts.values().all(|host| host.is_up())
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
    async fn owners(&self) -> Result<Vec<Option<Address>>, String> {
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
                Ok(owners) => return Ok(owners),
                Err(reason) => reasons.push(format!("{address}: {reason}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// Puts a new map to use: groups whose owner is another than before change hosts. Whether there were any.
    fn adopt(&self, owners: Vec<Option<Address>>) -> bool {
        let mut state = self.state.lock();
        let state = &mut *state;
        let before = std::mem::replace(&mut state.owners, owners);
        let known: HashSet<_> = state.owners.iter().flatten().cloned().collect();
        let old_hosts = state.hosts.clone();
        state.hosts.retain(|address, _| known.contains(address));
        for address in known {
            state.hosts.entry(address.clone()).or_insert_with(|| {
                Arc::new(Host::start(self.common.clone(), Target::Fixed(address, self.login.clone())))
            });
        }
        let mut has_moved = false;
        for group in &state.wanted {
            let slot = self.slot(*group);
            let (old, new) = (before.get(slot).and_then(Option::as_ref), state.owners[slot].as_ref());
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
        match shared.owners().await {
            Err(reason) => shared.health.away(Role::Subscriber, &reason),
            Ok(owners) => {
                let has_moved = shared.adopt(owners);
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

/// The owners of all slots, as a node knows them.
async fn ask(connector: &Connector, address: &Address, login: &Login) -> Result<Vec<Option<Address>>, String> {
    let mut open = connector.open(address, login, |_| {}).await?;
    // Instead of the newer CLUSTER SHARDS: it gives the port that fits the connection, be it TLS or not.
    let answer = open.ask(redis::cmd("CLUSTER").arg("SLOTS")).await.map_err(|error| login.hide_in(&error))?;
    owners_in(answer, address).ok_or_else(|| "its answer to CLUSTER SLOTS is none".to_owned())
}

fn owners_in(answer: Value, asked: &Address) -> Option<Vec<Option<Address>>> {
    let Value::Array(ranges) = answer else { return None };
    let mut owners = vec![None; SLOTS];
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
        let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
        owners.get_mut(first..=last)?.fill(Some(address));
    }
    Some(owners)
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

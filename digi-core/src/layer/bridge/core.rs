//! The format of `channels_redis.core`: a group is a sorted set of channels, and every process has a sorted set of
//! messages for all of its channels.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use redis::RedisResult;
use redis::aio::MultiplexedConnection;

use super::host::Host;
use super::message::Codec;
use super::options::BridgeOptions;
use super::{TOGETHER, WAIT, seconds, since_1970};
use crate::error::Error;
use crate::event::Event;
use crate::id::RoomId;
use crate::layer::redis::ring::host_of;

/// How the channels of all of Digi's nodes begin, `specific.<node>!<room>` as a stock process's are
/// `specific.<client prefix>!<random>`: what is sent over the bridge skips them.
const OURS: &str = "specific.digi";

/// A Redis that was emptied, or a `flush()` of a stock process, has forgotten who is in a group. So everybody is added
/// again after so long, or twice within the group's expiry.
const REFRESH: Duration = Duration::from_secs(60);

/// Puts messages into mailboxes, as far as there is space. KEYS are the mailboxes; ARGV: seconds until a mailbox
/// expires, its capacity, the highest score that has expired, how many messages there are, their scores, and then for
/// each mailbox the messages. Gives how many found no space.
const SEND: &str = "
    local over, count = 0, tonumber(ARGV[4])
    for box = 1, #KEYS do
        redis.call('ZREMRANGEBYSCORE', KEYS[box], 0, ARGV[3])
        local space = tonumber(ARGV[2]) - redis.call('ZCARD', KEYS[box])
        for at = 1, count do
            if at <= space then
                redis.call('ZADD', KEYS[box], ARGV[4 + at], ARGV[4 + box * count + at])
            else
                over = over + 1
            end
        end
        redis.call('EXPIRE', KEYS[box], ARGV[1])
    end
    return over";

pub(super) struct Core {
    hosts: Vec<Host>,
    prefix: String,
    /// `specific.<node>!`
    own: String,
    expiry: u64,
    group_expiry: u64,
    capacity: u32,
    joined: Mutex<Joined>,
    /// Its own, because it waits in Redis.
    receiving: tokio::sync::Mutex<Option<MultiplexedConnection>>,
    last_score: AtomicU64,
}

struct Joined {
    groups: HashMap<String, RoomId>,
    since: Instant,
}

impl Core {
    pub(super) fn open(options: &BridgeOptions, node: &str) -> Result<Self, Error> {
        let open = |(number, url)| Host::open(url, number, None::<fn(redis::PushInfo)>);
        let hosts = (1..).zip(&options.hosts).map(|(number, url)| open((number, url.as_str())));
        Ok(Self {
            hosts: hosts.collect::<Result<_, _>>()?,
            prefix: options.prefix.clone(),
            own: format!("{OURS}{node}!"),
            expiry: options.expiry.as_secs().max(1),
            group_expiry: options.group_expiry.as_secs(),
            capacity: options.capacity,
            joined: Mutex::new(Joined { groups: HashMap::new(), since: Instant::now() }),
            receiving: tokio::sync::Mutex::new(None),
            last_score: AtomicU64::new(0),
        })
    }

    fn group_key(&self, group: &str) -> String {
        format!("{}:group:{group}", self.prefix)
    }

    fn channel_of(&self, room: RoomId) -> String {
        format!("{}{room}", self.own)
    }

    pub(super) fn room_of(&self, channel: &str) -> Option<RoomId> {
        Some(RoomId(channel.strip_prefix(&self.own)?.parse().ok()?))
    }

    pub(super) async fn keep(&self, wanted: HashSet<String>, room: impl Fn(&str) -> Option<RoomId>) {
        let refresh = REFRESH.min(Duration::from_secs(self.group_expiry) / 2);
        let (join, quit) = {
            let mut joined = self.joined.lock();
            let quit: Vec<_> = joined.groups.iter().filter(|(group, _)| !wanted.contains(*group)).map(owned).collect();
            let again = joined.since.elapsed() >= refresh;
            if again {
                joined.since = Instant::now();
            }
            let is_new = |group: &String| again || !joined.groups.contains_key(group);
            let join: Vec<_> =
                wanted.iter().filter(|group| is_new(group)).filter_map(|g| Some((g.clone(), room(g)?))).collect();
            (join, quit)
        };
        let now = since_1970().as_secs_f64();
        let joining = |pipe: &mut redis::Pipeline, group: &str, room| {
            let key = self.group_key(group);
            pipe.cmd("ZADD").arg(&key).arg(now).arg(self.channel_of(room)).ignore();
            pipe.cmd("EXPIRE").arg(&key).arg(self.group_expiry).ignore();
        };
        let quitting = |pipe: &mut redis::Pipeline, group: &str, room| {
            pipe.cmd("ZREM").arg(self.group_key(group)).arg(self.channel_of(room)).ignore();
        };
        for (at, host) in self.hosts.iter().enumerate() {
            let here = |of: &[(String, RoomId)]| {
                of.iter().filter(|(group, _)| host_of(group, self.hosts.len()) == at).cloned().collect::<Vec<_>>()
            };
            let (join, quit) = (here(&join), here(&quit));
            if join.is_empty() && quit.is_empty() {
                host.noted(redis::cmd("PING").query_async::<String>(&mut host.commands.clone()).await);
            }
            for groups in quit.chunks(TOGETHER) {
                if self.pipelined(host, groups, quitting).await {
                    groups.iter().for_each(|(group, _)| _ = self.joined.lock().groups.remove(group));
                }
            }
            for groups in join.chunks(TOGETHER) {
                if !self.pipelined(host, groups, joining).await {
                    // Whatever this Redis knew of groups may be gone when it is back.
                    self.joined.lock().groups.retain(|group, _| host_of(group, self.hosts.len()) != at);
                    break;
                }
                self.joined.lock().groups.extend(groups.iter().cloned());
            }
        }
    }

    async fn pipelined(
        &self,
        host: &Host,
        groups: &[(String, RoomId)],
        add: impl Fn(&mut redis::Pipeline, &str, RoomId),
    ) -> bool {
        let mut pipe = redis::pipe();
        groups.iter().for_each(|(group, room)| add(&mut pipe, group, *room));
        host.noted(pipe.query_async::<()>(&mut host.commands.clone()).await).is_some()
    }

    /// Gives how many messages could not be sent, for want of Redis or of space.
    pub(super) async fn send(&self, events: &[Event], codec: &Codec, group: impl Fn(RoomId) -> String) -> usize {
        let mut missed = 0;
        for events in events.chunk_by(|one, other| one.room == other.room) {
            let Some(first) = events.first() else { continue };
            missed += self.send_to_group(events, codec, &group(first.room)).await.unwrap_or(events.len());
        }
        missed
    }

    async fn send_to_group(&self, events: &[Event], codec: &Codec, group: &str) -> Option<usize> {
        let host = &self.hosts[host_of(group, self.hosts.len())];
        let key = self.group_key(group);
        let gone = seconds().saturating_sub(self.group_expiry);
        let mut members = redis::pipe();
        members.cmd("ZREMRANGEBYSCORE").arg(&key).arg(0).arg(gone).ignore().cmd("ZRANGE").arg(&key).arg(0).arg(-1);
        let (channels,): (Vec<String>,) = host.noted(members.query_async(&mut host.commands.clone()).await)?;
        let mut missed = 0;
        for (at, mailboxes) in self.mailboxes(channels) {
            missed += self.fill(&self.hosts[at], &mailboxes, events, codec).await?;
        }
        Some(missed)
    }

    /// By host: the mailboxes of stock processes, and the channels that each is to hand a message to.
    fn mailboxes(&self, channels: Vec<String>) -> BTreeMap<usize, BTreeMap<String, Vec<String>>> {
        let mut hosts: BTreeMap<usize, BTreeMap<String, Vec<String>>> = BTreeMap::new();
        for channel in channels.into_iter().filter(|channel| !channel.starts_with(OURS)) {
            // `non_local_name` of channels.layers
            let name = channel.find('!').map_or(&*channel, |at| &channel[..=at]).to_owned();
            let host = host_of(&name, self.hosts.len());
            hosts.entry(host).or_default().entry(name).or_default().push(channel);
        }
        hosts
    }

    async fn fill(
        &self,
        host: &Host,
        mailboxes: &BTreeMap<String, Vec<String>>,
        events: &[Event],
        codec: &Codec,
    ) -> Option<usize> {
        let now = seconds();
        let events: Vec<_> = events.iter().filter(|event| event.frame().is_some()).collect();
        let mut command = redis::cmd("EVAL");
        command.arg(SEND).arg(mailboxes.len());
        for name in mailboxes.keys() {
            command.arg(format!("{}{name}", self.prefix));
        }
        command.arg(self.expiry).arg(self.capacity).arg(now.saturating_sub(self.expiry)).arg(events.len());
        for _ in &events {
            command.arg(self.score());
        }
        for channels in mailboxes.values() {
            for event in &events {
                command.arg(codec.encode(event, Some(channels), now)?);
            }
        }
        host.noted(command.query_async::<usize>(&mut host.commands.clone()).await)
    }

    /// Now, in seconds, and higher each time: messages with the same score would come out in any order.
    fn score(&self) -> f64 {
        let now = u64::try_from(since_1970().as_micros()).unwrap_or(u64::MAX);
        let after = |last: u64| Some(now.max(last.saturating_add(1)));
        let last = self.last_score.fetch_update(Ordering::AcqRel, Ordering::Acquire, after).unwrap_or_default();
        now.max(last.saturating_add(1)) as f64 / 1e6
    }

    /// Payloads out of this node's own mailbox.
    pub(super) async fn next(&self) -> Vec<Vec<u8>> {
        let host = &self.hosts[host_of(&self.own, self.hosts.len())];
        let mut receiving = self.receiving.lock().await;
        let taken = self.take(host, &mut receiving).await;
        if taken.is_err() {
            *receiving = None;
        }
        let Some(payloads) = host.noted(taken) else {
            tokio::time::sleep(WAIT).await;
            return Vec::new();
        };
        payloads
    }

    async fn take(&self, host: &Host, receiving: &mut Option<MultiplexedConnection>) -> RedisResult<Vec<Vec<u8>>> {
        if receiving.is_none() {
            *receiving = Some(host.client.get_multiplexed_async_connection().await?);
        }
        let Some(connection) = receiving else { return Ok(Vec::new()) };
        let key = format!("{}{}", self.prefix, self.own);
        let mut wait = redis::cmd("BZPOPMIN");
        wait.arg(&key).arg(WAIT.as_secs_f64() / 4.0);
        let first: Option<(String, Vec<u8>, f64)> = wait.query_async(connection).await?;
        let Some((_, first, _)) = first else { return Ok(Vec::new()) };
        let mut payloads = vec![first];
        let rest: Vec<(Vec<u8>, f64)> = redis::cmd("ZPOPMIN").arg(&key).arg(TOGETHER).query_async(connection).await?;
        payloads.extend(rest.into_iter().map(|(payload, _)| payload));
        Ok(payloads)
    }
}

fn owned((group, room): (&String, &RoomId)) -> (String, RoomId) {
    (group.clone(), *room)
}

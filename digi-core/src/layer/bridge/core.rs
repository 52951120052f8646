//! The format of `channels_redis.core.RedisChannelLayer`
//! (<https://github.com/django/channels_redis/blob/4.3.0/channels_redis/core.py>).
//!
//! A group is the sorted set `<prefix>:group:<group>` of channel names, with the time at which each joined. What comes
//! before the `!` in a channel's name stands for a process, and has a sorted set of its own, `<prefix><name up to the !>`,
//! of payloads with the time of sending; it takes so many and no more. A payload is 12 random bytes, so that no two are
//! the same, and the message in MessagePack, encrypted or not, with the names of the channels that it is for under
//! `__asgi_channel__`.
//!
//! Digi is in the group of each of its rooms as `specific.digi<node>!<room>`, and sends to no channel that is called so.
//! Its node is another after every start, so a copy of what is being worked on (`$inflight`, there) would help nobody.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, Value};

use super::Shared;
use super::host::{Host, Outgoing, What};
use super::message::Classic;
use super::rooms::Changes;
use crate::frame::Frame;
use crate::id::RoomId;
use crate::layer::redis::backoff::Backoff;
use crate::layer::redis::connect::Open;
use crate::layer::redis::ring::host_of;
use crate::store::model::MessageOp;

/// How the names of Digi's channels begin. Those of Channels are `specific.<32 hex digits>!…`.
const OURS: &str = "specific.digi";

/// The random bytes in front of a payload.
pub(super) const RANDOM: usize = 12;

/// How long Redis waits for a payload until it says that there is none: shorter than an answer may take.
const BLOCK: Duration = Duration::from_secs(1);

/// How many payloads are read at once.
const TOGETHER: usize = 100;

/// As the script of `group_send`, for one key: adds unless at capacity. 1 when it is.
const ADD: &str = "\
if redis.call('ZCOUNT', KEYS[1], '-inf', '+inf') < tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
  redis.call('EXPIRE', KEYS[1], ARGV[4])
  return 0
end
return 1";

fn group_key(shared: &Shared, group: &str) -> String {
    format!("{}:group:{group}", shared.prefix)
}

/// What stands for this node in names of channels, with the `!`.
fn own(shared: &Shared) -> String {
    format!("{OURS}{}!", shared.node)
}

/// Joins and leaves groups.
pub(super) fn changes(shared: &Shared, changes: &Changes) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(changes.join.len() * 2 + changes.leave.len());
    let own = own(shared);
    for (room, group) in &changes.leave {
        pipeline.cmd("ZREM").arg(group_key(shared, group)).arg(format!("{own}{room}"));
    }
    for (room, group) in &changes.join {
        let key = group_key(shared, group);
        pipeline.cmd("ZADD").arg(&key).arg(shared.next_score()).arg(format!("{own}{room}"));
        pipeline.cmd("EXPIRE").arg(&key).arg(shared.group_expiry);
    }
    pipeline
}

/// Gives how many were not sent.
///
/// # Errors
/// The connection, or Redis, refuses: how many of them have been sent is not known.
pub(super) async fn send(
    shared: &Shared,
    host: &Host,
    requests: &mut MultiplexedConnection,
    entries: Vec<Outgoing>,
) -> Result<usize, String> {
    let (mut messages, mut payloads) = (Vec::new(), Vec::new());
    for entry in entries {
        match entry.what {
            What::Message { group, op, frame } => messages.push((group, op, frame, entry.since)),
            What::Payload { key, payload } => payloads.push((key, payload)),
        }
    }
    let mut missed = add(shared, host, requests, payloads).await?;
    let groups = read_groups(shared, host, requests, messages.iter().map(|(group, ..)| group.clone())).await?;
    for (group, op, frame, since) in messages {
        let Some(processes) = groups.get(&group) else { continue };
        let Some(payloads) = payloads_for(shared, processes, op, &frame) else {
            missed += 1;
            continue;
        };
        for (process, payload) in payloads {
            let target = &shared.hosts[host_of(process, shared.hosts.len())];
            let (bytes, key) = (payload.len(), format!("{}{process}", shared.prefix));
            let forgotten = target.outgoing.push(Outgoing { since, what: What::Payload { key, payload } }, bytes);
            missed += forgotten as usize;
        }
    }
    Ok(missed)
}

/// The channels of a group, by process.
type Processes = IndexMap<String, Vec<String>>;

async fn read_groups(
    shared: &Shared,
    host: &Host,
    requests: &mut MultiplexedConnection,
    groups: impl Iterator<Item = Arc<str>>,
) -> Result<IndexMap<Arc<str>, Processes>, String> {
    let mut found: IndexMap<_, _> = groups.map(|group| (group, Processes::new())).collect();
    if found.is_empty() {
        return Ok(found);
    }
    let oldest = shared.now().saturating_sub(shared.group_expiry.into());
    let mut pipeline = Pipeline::with_capacity(found.len() * 2);
    for group in found.keys() {
        let key = group_key(shared, group);
        pipeline.cmd("ZREMRANGEBYSCORE").arg(&key).arg(0).arg(oldest);
        pipeline.cmd("ZRANGE").arg(&key).arg(0).arg(-1);
    }
    let answers = host.ask(requests, &pipeline).await?;
    for (processes, names) in found.values_mut().zip(answers.into_iter().skip(1).step_by(2)) {
        for name in texts(names).into_iter().filter(|name| !name.starts_with(OURS)) {
            let process = name.find('!').map_or(&*name, |end| &name[..=end]).to_owned();
            processes.entry(process).or_default().push(name);
        }
    }
    Ok(found)
}

fn texts(value: Value) -> Vec<String> {
    let Value::Array(values) = value else { return Vec::new() };
    let text = |value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).ok(),
        _ => None,
    };
    values.into_iter().filter_map(text).collect()
}

/// What each process is sent.
fn payloads_for<'a>(
    shared: &Shared,
    processes: &'a Processes,
    op: MessageOp,
    frame: &Frame,
) -> Option<Vec<(&'a str, Vec<u8>)>> {
    let message = Classic::of(frame)?;
    let payload = |(process, channels): (&'a String, &Vec<String>)| {
        let mut payload = vec![0; RANDOM];
        getrandom::fill(&mut payload).ok()?;
        payload.append(&mut shared.encode(&message, op, Some(channels))?);
        Some((process.as_str(), payload))
    };
    processes.iter().map(payload).collect()
}

/// Puts payloads before their processes. Gives how many found no place.
async fn add(
    shared: &Shared,
    host: &Host,
    requests: &mut MultiplexedConnection,
    payloads: Vec<(String, Vec<u8>)>,
) -> Result<usize, String> {
    if payloads.is_empty() {
        return Ok(0);
    }
    let oldest = shared.now().saturating_sub(shared.expiry.into());
    let mut keys: Vec<_> = payloads.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    keys.dedup();
    let cleaned = keys.len();
    let mut pipeline = Pipeline::with_capacity(cleaned + payloads.len());
    for key in keys {
        pipeline.cmd("ZREMRANGEBYSCORE").arg(key).arg(0).arg(oldest);
    }
    for (key, payload) in &payloads {
        let command = pipeline.cmd("EVAL").arg(ADD).arg(1).arg(key).arg(payload);
        command.arg(shared.capacity).arg(shared.next_score()).arg(shared.expiry);
    }
    let answers = host.ask(requests, &pipeline).await?;
    let full = answers.into_iter().skip(cleaned).filter(|answer| *answer == Value::Int(1)).count();
    shared.sent((payloads.len() - full) as u64);
    Ok(full)
}

/// Reads what stock workers send to this node, for ever.
pub(super) async fn receive(shared: Arc<Shared>) {
    let own = own(&shared);
    let host = &shared.hosts[host_of(&own, shared.hosts.len())];
    let key = format!("{}{own}", shared.prefix);
    let mut backoff = Backoff::new();
    loop {
        let opened = host.connect(|_| {}).await;
        let held = opened.is_ok();
        let reason = match opened {
            Err(reason) => reason,
            Ok(Open { requests, mut driver }) => {
                backoff.opened();
                tokio::select! {
                    () = &mut driver => "the connection was closed".to_owned(),
                    reason = read(&shared, host, &key, requests) => reason,
                }
            }
        };
        shared.receiver.away(&reason);
        backoff.wait(held).await;
    }
}

async fn read(shared: &Shared, host: &Host, key: &str, mut requests: MultiplexedConnection) -> String {
    let mut wait = redis::cmd("BZPOPMIN");
    wait.arg(key).arg(BLOCK.as_secs());
    let mut more = redis::cmd("ZPOPMIN");
    more.arg(key).arg(TOGETHER);
    let mut waits = true;
    loop {
        let answer = requests.send_packed_command(if waits { &wait } else { &more }).await;
        let answer = match answer.and_then(Value::extract_error) {
            Ok(answer) => answer,
            Err(error) => return host.text_of(&error),
        };
        shared.receiver.up();
        let payloads = if waits { first(answer) } else { members(answer) };
        // While one asks without waiting, more than one payload comes with each answer.
        waits = payloads.is_empty() || !waits && payloads.len() < TOGETHER;
        for payload in payloads {
            shared.take_in(None, payload);
        }
    }
}

/// The payload in the answer to `BZPOPMIN`: key, member, score.
fn first(answer: Value) -> Vec<Vec<u8>> {
    let Value::Array(values) = answer else { return Vec::new() };
    match values.into_iter().nth(1) {
        Some(Value::BulkString(payload)) => vec![payload],
        _ => Vec::new(),
    }
}

/// The payloads in the answer to `ZPOPMIN`: pairs of member and score.
fn members(answer: Value) -> Vec<Vec<u8>> {
    let Value::Array(pairs) = answer else { return Vec::new() };
    let payload = |pair| match pair {
        Value::Array(pair) => match pair.into_iter().next() {
            Some(Value::BulkString(payload)) => Some(payload),
            _ => None,
        },
        _ => None,
    };
    pairs.into_iter().filter_map(payload).collect()
}

/// The rooms for which a payload is, out of the channels that it names.
pub(super) fn rooms_of(shared: &Shared, channels: &[String]) -> Vec<RoomId> {
    let own = own(shared);
    let room = |channel: &String| channel.strip_prefix(&*own)?.parse().ok().map(RoomId);
    channels.iter().filter_map(room).collect()
}

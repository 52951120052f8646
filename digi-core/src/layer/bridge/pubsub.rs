//! The format of `channels_redis.pubsub.RedisPubSubChannelLayer`: a group is the Redis channel `<prefix>__group__<group>`,
//! a payload the message in MessagePack, encrypted as a whole or not at all
//! (<https://github.com/django/channels_redis/blob/4.3.0/channels_redis/pubsub.py>).

use redis::aio::MultiplexedConnection;
use redis::{Pipeline, PushInfo, PushKind, Value};

use super::Shared;
use super::host::{Host, Outgoing, What};
use super::message::Classic;
use super::rooms::Changes;

/// The Redis channel of a group. The host is found by this name.
pub(super) fn channel(prefix: &str, group: &str) -> String {
    format!("{prefix}__group__{group}")
}

/// One command for each group, so that each has an answer of its own.
pub(super) fn changes(shared: &Shared, changes: &Changes) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(changes.join.len() + changes.leave.len());
    for (_, group) in &changes.leave {
        pipeline.cmd("UNSUBSCRIBE").arg(channel(&shared.prefix, group));
    }
    for (_, group) in &changes.join {
        pipeline.cmd("SUBSCRIBE").arg(channel(&shared.prefix, group));
    }
    pipeline
}

/// Takes in what stock workers and other nodes publish.
pub(super) fn on_push(shared: &Shared, at: usize, push: PushInfo) {
    let mut data = push.data.into_iter();
    let (PushKind::Message, Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
        (push.kind, data.next(), data.next())
    else {
        return;
    };
    let group = std::str::from_utf8(&channel).ok().and_then(|name| name.strip_prefix(&*shared.channels));
    let room = group.and_then(|group| shared.hosts[at].rooms.lock().of_group(group));
    if let Some(room) = room {
        shared.take_in(Some(room), payload);
    }
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
    let mut pipeline = Pipeline::with_capacity(entries.len());
    let mut sent = 0;
    for entry in &entries {
        if let What::Message { group, op, frame } = &entry.what
            && let Some(payload) = Classic::of(frame).and_then(|message| shared.encode(&message, *op, None))
        {
            pipeline.cmd("PUBLISH").arg(channel(&shared.prefix, group)).arg(payload);
            sent += 1;
        }
    }
    host.ask(requests, &pipeline).await?;
    shared.sent(sent as u64);
    Ok(entries.len() - sent)
}

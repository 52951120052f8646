//! The format of `channels_redis.pubsub`: every group is a Redis channel.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::{PushInfo, PushKind, Value};
use tokio::sync::{Notify, mpsc};

use super::host::Host;
use super::message::Codec;
use super::options::BridgeOptions;
use super::{TOGETHER, WAIT, seconds};
use crate::error::Error;
use crate::event::Event;
use crate::id::RoomId;
use crate::layer::redis::ring::host_of;

/// How many messages wait for this node. Beyond, they are missed here.
const WAITING: usize = 4_096;

pub(super) struct PubSub {
    hosts: Vec<Host>,
    /// Whether a host's connection was lost, and with it its subscriptions.
    lost: Vec<Arc<AtomicBool>>,
    /// Groups that are subscribed to.
    joined: Mutex<HashSet<String>>,
    prefix: String,
    incoming: tokio::sync::Mutex<mpsc::Receiver<(Vec<u8>, Vec<u8>)>>,
    overflowed: Arc<AtomicU64>,
}

impl PubSub {
    pub(super) fn open(options: &BridgeOptions, changed: Arc<Notify>) -> Result<Self, Error> {
        let (sender, incoming) = mpsc::channel(WAITING);
        let overflowed = Arc::<AtomicU64>::default();
        let mut lost = Vec::new();
        let mut hosts = Vec::new();
        for (number, url) in (1..).zip(&options.hosts) {
            let is_lost = Arc::new(AtomicBool::new(false));
            lost.push(is_lost.clone());
            let (sender, changed, overflowed) = (sender.clone(), changed.clone(), overflowed.clone());
            let push = move |info: PushInfo| match info.kind {
                PushKind::Message => {
                    let mut data = info.data.into_iter();
                    if let (Some(Value::BulkString(channel)), Some(Value::BulkString(payload))) =
                        (data.next(), data.next())
                        && sender.try_send((channel, payload)).is_err()
                    {
                        overflowed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                PushKind::Disconnection => {
                    is_lost.store(true, Ordering::Release);
                    changed.notify_one();
                }
                _ => {}
            };
            hosts.push(Host::open(url, number, Some(push))?);
        }
        Ok(Self {
            hosts,
            lost,
            joined: Mutex::default(),
            prefix: options.prefix.clone(),
            incoming: tokio::sync::Mutex::new(incoming),
            overflowed,
        })
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// `_get_group_channel_name` of the package.
    fn channel(&self, group: &str) -> String {
        format!("{}__group__{group}", self.prefix)
    }

    /// The package hashes the channel's name, not the group's.
    fn host_of(&self, group: &str) -> usize {
        host_of(&self.channel(group), self.hosts.len())
    }

    pub(super) async fn keep(&self, wanted: HashSet<String>) {
        for (at, host) in self.hosts.iter().enumerate() {
            if self.lost[at].swap(false, Ordering::AcqRel) {
                self.joined.lock().retain(|group| self.host_of(group) != at);
            }
            let (join, quit) = {
                let joined = self.joined.lock();
                let missing = |of: &HashSet<String>, from: &HashSet<String>| {
                    of.difference(from).filter(|group| self.host_of(group) == at).cloned().collect::<Vec<_>>()
                };
                (missing(&wanted, &joined), missing(&joined, &wanted))
            };
            let mut commands = host.commands.clone();
            for groups in quit.chunks(TOGETHER) {
                let channels: Vec<_> = groups.iter().map(|group| self.channel(group)).collect();
                if host.noted(commands.unsubscribe(channels).await).is_some() {
                    self.joined.lock().retain(|group| !groups.contains(group));
                }
            }
            for groups in join.chunks(TOGETHER) {
                let channels: Vec<_> = groups.iter().map(|group| self.channel(group)).collect();
                if host.noted(commands.subscribe(channels).await).is_none() {
                    break;
                }
                self.joined.lock().extend(groups.iter().cloned());
            }
            if join.is_empty() && quit.is_empty() {
                // Finds out whether the host is still there, and connects to it if it was not.
                host.noted(redis::cmd("PING").query_async::<String>(&mut commands).await);
            }
        }
    }

    /// Gives how many messages could not be sent.
    pub(super) async fn send(&self, events: &[Event], codec: &Codec, group: impl Fn(RoomId) -> String) -> usize {
        let now = seconds();
        let mut pipes: HashMap<usize, (redis::Pipeline, usize)> = HashMap::new();
        for event in events {
            let Some(payload) = codec.encode(event, None, now) else { continue };
            let channel = self.channel(&group(event.room));
            let (pipe, count) = pipes.entry(host_of(&channel, self.hosts.len())).or_default();
            pipe.cmd("PUBLISH").arg(channel).arg(payload).ignore();
            *count += 1;
        }
        let mut missed = 0;
        for (at, (pipe, count)) in pipes {
            let host = &self.hosts[at];
            if host.noted(pipe.query_async::<()>(&mut host.commands.clone()).await).is_none() {
                missed += count;
            }
        }
        missed
    }

    /// Groups and payloads.
    pub(super) async fn next(&self) -> Vec<(String, Vec<u8>)> {
        let mut messages = Vec::new();
        let mut incoming = self.incoming.lock().await;
        let _ = tokio::time::timeout(WAIT, incoming.recv_many(&mut messages, TOGETHER)).await;
        let prefix = self.channel("");
        let named = messages.into_iter().filter_map(|(channel, payload)| {
            let channel = String::from_utf8(channel).ok()?;
            Some((channel.strip_prefix(&prefix)?.to_owned(), payload))
        });
        named.collect()
    }
}

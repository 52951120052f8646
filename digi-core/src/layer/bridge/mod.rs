//! The bridge to processes that still run stock Django Channels on `channels_redis`.
//!
//! A fleet is moved over one process at a time; meanwhile both kinds chat with each other. What a node of Digi's has
//! committed goes out as the classic app's three messages to the room's group, and what stock processes send to that
//! group comes in. Digi's nodes hear of each other over their own layer and drop what comes from one of them here, so
//! nothing is heard twice. Nothing but the three classic messages ever crosses: a stock consumer ends on a type that it
//! doesn't know.
//!
//! The bridge has the stock layer's guarantee and no other: what is sent while Redis is away or a queue is full is
//! missed by those on the other side. It holds nobody up.

mod core;
mod host;
mod message;
mod options;
mod pubsub;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::warn;

pub use options::{BridgeFormat, BridgeOptions};

use self::message::{Codec, Incoming, Undecodable};
use crate::error::{Code, Error};
use crate::event::Event;
use crate::frame::Frame;
use crate::id::RoomId;
use crate::token::Keyring;

/// Between two looks at what has to be joined, when nobody asks for one.
const LOOK: Duration = Duration::from_secs(2);

/// How long [`Bridge::next`] waits.
const WAIT: Duration = Duration::from_secs(1);

/// How many groups are joined or left at once.
const TOGETHER: usize = 500;

/// Between two warnings about the same thing.
const SILENCE: Duration = Duration::from_secs(60);

/// This node's end of a stock layer.
pub(crate) struct Bridge {
    way: Way,
    group: String,
    codec: Codec,
    wanted: Mutex<HashMap<String, RoomId>>,
    changed: Arc<Notify>,
    undecodable: AtomicU64,
    dropped: AtomicU64,
    warned: Mutex<Option<Instant>>,
}

enum Way {
    PubSub(pubsub::PubSub),
    Core(core::Core),
}

impl Bridge {
    /// Connects in the background. `node` is this node's number, unlike any other's.
    ///
    /// # Errors
    /// `config`, `bad_url`.
    pub(crate) fn open(options: &BridgeOptions, node: u64) -> Result<Self, Error> {
        options.check()?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(Code::Config.with("A bridge is opened on a tokio runtime with time enabled."));
        }
        let node = format!("{node:016x}");
        let changed = Arc::<Notify>::default();
        let is_core = options.format == BridgeFormat::Core;
        let codec = Codec::new(options, is_core, node.clone())?;
        let way = match options.format {
            BridgeFormat::PubSub => Way::PubSub(pubsub::PubSub::open(options, changed.clone())?),
            BridgeFormat::Core => Way::Core(core::Core::open(options, &node)?),
        };
        Ok(Self {
            way,
            group: options.group.clone(),
            codec,
            wanted: Mutex::default(),
            changed,
            undecodable: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            warned: Mutex::new(None),
        })
    }

    fn group_of(&self, room: RoomId) -> String {
        self.group.replace("{room}", &room.to_string())
    }

    /// From now on, soon, what stock processes send to these rooms' groups comes in.
    pub(crate) fn enter(&self, rooms: &[RoomId]) {
        let mut wanted = self.wanted.lock();
        wanted.extend(rooms.iter().map(|room| (self.group_of(*room), *room)));
        drop(wanted);
        self.changed.notify_one();
    }

    /// From now on, it doesn't.
    pub(crate) fn leave(&self, rooms: &[RoomId]) {
        let mut wanted = self.wanted.lock();
        for room in rooms {
            wanted.remove(&self.group_of(*room));
        }
        drop(wanted);
        self.changed.notify_one();
    }

    /// What came in and could not be read, so far.
    pub(crate) fn undecodable(&self) -> u64 {
        self.undecodable.load(Ordering::Relaxed)
    }

    /// Messages that stock processes missed because Redis was away or a queue full, and those of theirs that were missed
    /// here, so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed) + self.overflowed()
    }

    fn overflowed(&self) -> u64 {
        match &self.way {
            Way::PubSub(way) => way.overflowed(),
            Way::Core(_) => 0,
        }
    }

    pub(crate) fn note_dropped(&self, messages: usize) {
        self.dropped.fetch_add(messages as u64, Ordering::Relaxed);
    }

    /// Wakes whoever waits for [`Bridge::keep`]'s next turn.
    pub(crate) fn changed(&self) -> Arc<Notify> {
        self.changed.clone()
    }

    /// How long until the next turn of [`Bridge::keep`], if nothing changes.
    pub(crate) const fn pause() -> Duration {
        LOOK
    }

    /// Makes what is joined equal to what is wanted, as far as Redis can be reached.
    pub(crate) async fn keep(&self) {
        let wanted: HashSet<String> = self.wanted.lock().keys().cloned().collect();
        match &self.way {
            Way::PubSub(way) => way.keep(wanted).await,
            Way::Core(way) => way.keep(wanted, |group| self.wanted.lock().get(group).copied()).await,
        }
    }

    /// Sends what was committed here; what is not one of the three classic messages stays.
    pub(crate) async fn send(&self, events: &[Event]) {
        let missed = match &self.way {
            Way::PubSub(way) => way.send(events, &self.codec, |room| self.group_of(room)).await,
            Way::Core(way) => way.send(events, &self.codec, |room| self.group_of(room)).await,
        };
        self.note_dropped(missed);
    }

    /// What stock processes sent, as frames for the rooms; nothing after a second in which nothing came. Not to be
    /// cancelled.
    pub(crate) async fn next(&self, keys: &Keyring) -> Vec<(RoomId, Frame)> {
        let mut frames = Vec::new();
        match &self.way {
            Way::PubSub(way) => {
                for (group, payload) in way.next().await {
                    let Some(room) = self.wanted.lock().get(&group).copied() else { continue };
                    if let Some(Incoming { classic, .. }) = self.read(&payload) {
                        frames.push((room, classic.into_frame(keys)));
                    }
                }
            }
            Way::Core(way) => {
                for payload in way.next().await {
                    let Some(Incoming { classic, channels }) = self.read(&payload) else { continue };
                    for room in channels.iter().filter_map(|channel| way.room_of(channel)) {
                        frames.push((room, classic.clone().into_frame(keys)));
                    }
                }
            }
        }
        frames
    }

    fn read(&self, payload: &[u8]) -> Option<Incoming> {
        match self.codec.decode(payload, seconds()) {
            Ok(incoming) => incoming,
            Err(why) => {
                self.warn_of(why);
                None
            }
        }
    }

    fn warn_of(&self, why: Undecodable) {
        let count = self.undecodable.fetch_add(1, Ordering::Relaxed) + 1;
        let mut warned = self.warned.lock();
        if warned.is_none_or(|last| last.elapsed() >= SILENCE) {
            *warned = Some(Instant::now());
            warn!(%why, so_far = count, "a message from a stock process was dropped");
        }
    }
}

/// Since 1970.
fn seconds() -> u64 {
    since_1970().as_secs()
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

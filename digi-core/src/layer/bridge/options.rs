//! What a bridge is told.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::error::{Code, Error};
use crate::id::RoomId;

/// Which of the two layers of `channels_redis` the stock workers use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BridgeFormat {
    /// `channels_redis.pubsub.RedisPubSubChannelLayer`.
    PubSub,
    /// `channels_redis.core.RedisChannelLayer`.
    Core,
}

/// The `channels_redis` layer of the stock workers, as their own `CHANNEL_LAYERS` describes it. Everything has the
/// default that it has there.
#[derive(Clone)]
#[must_use]
pub struct BridgeOptions {
    pub(super) format: BridgeFormat,
    pub(super) hosts: Vec<Zeroizing<String>>,
    pub(super) prefix: String,
    pub(super) keys: Vec<Zeroizing<Vec<u8>>>,
    pub(super) groups: Groups,
    pub(super) capacity: u32,
    pub(super) expiry: u32,
    pub(super) group_expiry: u32,
}

impl BridgeOptions {
    /// A bridge to workers with `CONFIG: {}`.
    pub fn new(format: BridgeFormat) -> Self {
        Self {
            format,
            hosts: Vec::new(),
            prefix: "asgi".to_owned(),
            keys: Vec::new(),
            groups: Groups::Template("chat_{room}".to_owned()),
            capacity: 100,
            expiry: 60,
            group_expiry: 86_400,
        }
    }

    /// One more of the `hosts`: `redis://[user:password@]host[:6379][/db]`, or `rediss://…` with TLS and its options as in
    /// the URL of [`RedisLayer`](crate::layer::RedisLayer). The order counts. Without any: `redis://localhost:6379`.
    pub fn host(mut self, url: impl Into<String>) -> Self {
        self.hosts.push(Zeroizing::new(url.into()));
        self
    }

    /// `prefix`: what the names of all keys and channels begin with; `asgi` unless said otherwise.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// One more of the `symmetric_encryption_keys`: the first encrypts, each decrypts. Without any, nothing is encrypted.
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.keys.push(Zeroizing::new(key.as_ref().to_vec()));
        self
    }

    /// The name of a room's group in the stock workers, with `{room}` for the room's id: `chat_{room}` unless said
    /// otherwise.
    pub fn groups(mut self, template: impl Into<String>) -> Self {
        self.groups = Groups::Template(template.into());
        self
    }

    /// The same by a function, which is called often, and has to be quick. Rooms must have different names. A name that
    /// Channels would refuse leaves its room without a bridge.
    pub fn groups_by(mut self, name: impl Fn(RoomId) -> String + Send + Sync + 'static) -> Self {
        self.groups = Groups::Function(Arc::new(name));
        self
    }

    /// `capacity` of the core format: how many messages wait for one stock process. Beyond, it misses some.
    pub fn capacity(mut self, messages: u32) -> Self {
        self.capacity = messages;
        self
    }

    /// `expiry`, in seconds: how long a message may wait before it is dropped.
    pub fn expiry(mut self, seconds: u32) -> Self {
        self.expiry = seconds;
        self
    }

    /// `group_expiry` of the core format, in seconds: how long a membership in a group counts unless it is renewed. Digi
    /// renews its own.
    pub fn group_expiry(mut self, seconds: u32) -> Self {
        self.group_expiry = seconds;
        self
    }

    /// # Errors
    /// What would not work.
    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |text: &str| Err(Code::Config.with(format!("the bridge's {text}")));
        if let Groups::Template(template) = &self.groups
            && (template.matches("{room}").count() != 1 || !is_group_name(&template.replace("{room}", &"9".repeat(20))))
        {
            return bad(
                "template for groups has {room} in it once, and else ASCII letters, digits, `-`, `_` and `.`, at most 79",
            );
        }
        if self.capacity == 0 || self.expiry == 0 || self.group_expiry == 0 {
            return bad("capacity, expiry and group_expiry are 1 or more");
        }
        if self.keys.iter().any(|key| key.is_empty()) {
            return bad("symmetric_encryption_keys hold an empty key");
        }
        Ok(())
    }
}

impl fmt::Debug for BridgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Hosts have passwords in them.
        f.debug_struct("BridgeOptions")
            .field("format", &self.format)
            .field("hosts", &self.hosts.len())
            .field("prefix", &self.prefix)
            .field("keys", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// How a room's group is called.
#[derive(Clone)]
pub(super) enum Groups {
    Template(String),
    Function(Arc<dyn Fn(RoomId) -> String + Send + Sync>),
}

impl Groups {
    /// None when that is no name for a group.
    pub(super) fn name_of(&self, room: RoomId) -> Option<String> {
        let name = match self {
            Self::Template(template) => template.replace("{room}", &room.to_string()),
            // A host's function that panics must not take the caller with it.
            Self::Function(name) => catch_unwind(AssertUnwindSafe(|| name(room))).ok()?,
        };
        is_group_name(&name).then_some(name)
    }
}

/// What Channels takes for the name of a group: `BaseChannelLayer.require_valid_group_name` of channels 4.3
/// (<https://github.com/django/channels/blob/4.3.2/channels/layers.py>).
fn is_group_name(name: &str) -> bool {
    (1..100).contains(&name.len()) && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_the_room_in_its_name() {
        let name = |groups: &Groups, room| groups.name_of(RoomId(room));
        let options = BridgeOptions::new(BridgeFormat::Core);
        assert_eq!(name(&options.groups, 7).as_deref(), Some("chat_7"));
        let options = options.groups_by(|room| format!("room.{}-x", room.0 * 2));
        assert_eq!(name(&options.groups, 7).as_deref(), Some("room.14-x"));
        for wrong in ["a b", "", "é", "a!b"] {
            assert_eq!(name(&options.clone().groups_by(move |_| wrong.to_owned()).groups, 7), None, "{wrong:?}");
        }
        assert_eq!(name(&options.clone().groups_by(|_| "x".repeat(100)).groups, 7), None);
        assert_eq!(name(&options.groups_by(|_| panic!("the host's own fault")).groups, 7), None);
    }

    #[test]
    fn what_would_not_work_is_said_at_once() {
        let ok = || BridgeOptions::new(BridgeFormat::PubSub);
        assert!(ok().check().is_ok());
        assert!(ok().groups("a.{room}-b_c").check().is_ok());
        for bad in ["chat", "chat_%s", "{room}{room}", "chat {room}", &format!("{}{{room}}", "x".repeat(80))] {
            assert_eq!(ok().groups(bad).check().unwrap_err().code(), Code::Config, "{bad}");
        }
        for bad in [ok().capacity(0), ok().expiry(0), ok().group_expiry(0), ok().key("")] {
            assert_eq!(bad.check().unwrap_err().code(), Code::Config);
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let options = BridgeOptions::new(BridgeFormat::Core).host("redis://:hush@localhost").key("hush");
        assert!(!format!("{options:?}").contains("hush"));
    }
}

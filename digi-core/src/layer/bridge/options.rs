//! How a bridge is set up.

use std::fmt;
use std::time::Duration;

use crate::error::{Code, Error};

/// The format of the stock layer, which all processes of a fleet have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BridgeFormat {
    /// That of `channels_redis.pubsub.RedisPubSubChannelLayer`: publish and subscribe.
    PubSub,
    /// That of `channels_redis.core.RedisChannelLayer`: sorted sets.
    Core,
}

/// The stock layer that a bridge leads to. The names and defaults are those of `channels_redis` 4.3.
#[derive(Clone)]
#[non_exhaustive]
pub struct BridgeOptions {
    /// Which of the two layers.
    pub format: BridgeFormat,
    /// `redis://…` or `rediss://…`; with several, channels and groups are spread by the package's own hash.
    pub hosts: Vec<String>,
    /// What every Redis key begins with.
    pub prefix: String,
    /// `symmetric_encryption_keys`: the first encrypts, all decrypt. None: nothing is encrypted.
    pub encryption_keys: Vec<String>,
    /// The group of a room (the classic app's `room_group_name`): `{room}` stands for the room's id.
    pub group: String,
    /// Core only: how long a message waits for its consumer.
    pub expiry: Duration,
    /// Core only: after how long a group forgets a channel that wasn't added again.
    pub group_expiry: Duration,
    /// Core only: how many messages wait for one stock process. Beyond, it misses them.
    pub capacity: u32,
}

impl BridgeOptions {
    /// A bridge to a stock layer with default settings on these hosts.
    pub fn new(format: BridgeFormat, hosts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            format,
            hosts: hosts.into_iter().map(Into::into).collect(),
            prefix: "asgi".into(),
            encryption_keys: Vec::new(),
            group: "chat_{room}".into(),
            expiry: Duration::from_secs(60),
            group_expiry: Duration::from_secs(86_400),
            capacity: 100,
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let bad = |what: &str| Err(Code::Config.with(format!("bridge: {what}")));
        if self.hosts.is_empty() {
            return bad("there has to be at least one host, such as redis://127.0.0.1:6379");
        }
        if self.group.matches("{room}").count() != 1 {
            return bad("the group's name has to contain {room} once, where the room's id belongs");
        }
        // channels.layers.BaseChannelLayer.require_valid_group_name
        let longest = self.group.len() - "{room}".len() + "-9223372036854775808".len();
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if longest >= 100 || !self.group.replace("{room}", "").chars().all(allowed) {
            return bad("a group's name has less than 100 letters, digits, hyphens, underscores and periods");
        }
        if self.encryption_keys.iter().any(String::is_empty) {
            return bad("an encryption key is empty");
        }
        if self.group_expiry < Duration::from_secs(2) || self.expiry.is_zero() || self.capacity == 0 {
            return bad("expiry and capacity have to be above 0, and group_expiry at least two seconds");
        }
        Ok(())
    }
}

/// Hosts may contain passwords, and the keys are secrets.
impl fmt::Debug for BridgeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BridgeOptions")
            .field("format", &self.format)
            .field("hosts", &self.hosts.len())
            .field("prefix", &self.prefix)
            .field("encrypted", &!self.encryption_keys.is_empty())
            .field("group", &self.group)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let mut options = BridgeOptions::new(BridgeFormat::Core, ["redis://:hidden@host"]);
        options.encryption_keys = vec!["concealed".into()];
        let shown = format!("{options:?}");
        assert!(!shown.contains("hidden") && !shown.contains("concealed"), "{shown}");
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        let good = BridgeOptions::new(BridgeFormat::PubSub, ["redis://host"]);
        assert!(good.check().is_ok());
        let cases: [(&str, fn(&mut BridgeOptions)); 6] = [
            ("at least one host", |options| options.hosts.clear()),
            ("{room} once", |options| options.group = "chat".into()),
            ("letters, digits", |options| options.group = "chat {room}".into()),
            ("less than 100", |options| options.group = "x".repeat(90) + "{room}"),
            ("key is empty", |options| options.encryption_keys = vec![String::new()]),
            ("above 0", |options| options.capacity = 0),
        ];
        for (expected, spoil) in cases {
            let mut options = good.clone();
            spoil(&mut options);
            let error = options.check().unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}

//! How an engine is made.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::core::{Clock, Core, Parts};
use super::limits::Limits;
use super::writer::{Observer, WriterHandle};
use super::{Engine, presence, publisher, tasks, writer};
use crate::consumer::{Policy, Rules};
use crate::error::{Code, Error};
use crate::frame::Encoder;
use crate::id::{Millis, RoomId};
#[cfg(feature = "bridge")]
use crate::layer::bridge::{Bridge, BridgeOptions};
use crate::layer::{ChannelLayer, LocalLayer};
use crate::store::Store;
use crate::store::attempt::BatchIds;
use crate::store::memory::MemoryStore;
use crate::store::model::Outcome;
use crate::token::Keyring;

enum StoreChoice {
    Url(String),
    Object(Arc<dyn Store>),
}

enum LayerChoice {
    Url(String),
    Object(Arc<dyn ChannelLayer>),
}

/// Makes an [`Engine`]; see [`Engine::builder`].
#[must_use]
pub struct EngineBuilder {
    keys: Option<Keyring>,
    store: StoreChoice,
    layer: LayerChoice,
    #[cfg(feature = "bridge")]
    bridge: Option<BridgeOptions>,
    limits: Limits,
    strict: bool,
    presence: bool,
    policy: Option<Arc<dyn Policy>>,
    observer: Option<Observer>,
    clock: Clock,
}

impl EngineBuilder {
    pub(super) fn new() -> Self {
        Self {
            keys: None,
            store: StoreChoice::Url("memory:".into()),
            layer: LayerChoice::Url("local:".into()),
            #[cfg(feature = "bridge")]
            bridge: None,
            limits: Limits::default(),
            strict: false,
            presence: false,
            policy: None,
            observer: None,
            clock: Arc::new(system_clock),
        }
    }

    /// The keys that seal and open ids. There is no default.
    pub fn keys(mut self, keys: Keyring) -> Self {
        self.keys = Some(keys);
        self
    }

    /// The store by URL: `memory:` (the default); with feature `sqlite`, `sqlite:path`; with feature `mssql`,
    /// `mssql://user:password@host/database`.
    pub fn store(mut self, url: &str) -> Self {
        self.store = StoreChoice::Url(url.into());
        self
    }

    /// A store of the host's own.
    pub fn store_object(mut self, store: Arc<dyn Store>) -> Self {
        self.store = StoreChoice::Object(store);
        self
    }

    /// The channel layer by URL: `local:` (the default); with feature `redis`, `redis://…` and its kin, see
    /// `layer::RedisLayer`. Redis is not waited for.
    pub fn layer(mut self, url: &str) -> Self {
        self.layer = LayerChoice::Url(url.into());
        self
    }

    /// A channel layer of the host's own.
    pub fn layer_object(mut self, layer: Arc<dyn ChannelLayer>) -> Self {
        self.layer = LayerChoice::Object(layer);
        self
    }

    /// A bridge to stock Django Channels workers that serve the same rooms (feature `bridge`). Redis is not waited for.
    #[cfg(feature = "bridge")]
    pub fn bridge(mut self, options: BridgeOptions) -> Self {
        self.bridge = Some(options);
        self
    }

    /// The bounds.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Refuse frames that claim another user than the one logged in (`user_mismatch`) instead of ignoring the claim.
    pub fn strict(mut self, strict: bool) -> Self {
        self.strict = strict;
        self
    }

    /// Tell the members of a room who comes and goes (`presence`), on every node that the channel layer reaches. Off by
    /// default: it costs a frame to every member each time, and tells when people are at their screens. Of a room's
    /// users the first [`MOST_PRESENT`](crate::room::presence::MOST_PRESENT) of each node are shown.
    pub fn presence(mut self, presence: bool) -> Self {
        self.presence = presence;
        self
    }

    /// The host's own say, asked before anything is stored.
    pub fn policy(mut self, policy: impl Policy + 'static) -> Self {
        self.policy = Some(Arc::new(policy));
        self
    }

    /// Hears what this engine has stored: once per batch that changed something, after its commit and before whoever asked
    /// for it, the rooms with what became of a command in each. A room's changes come in their order. It runs where
    /// batches are handed out and must not block: what takes time belongs into a bounded queue. If it panics, that is
    /// logged.
    pub fn observer(mut self, observer: impl Fn(&[(RoomId, &Outcome)]) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// What time it is; by default the system says so. Must not block. A clock that is set back does no harm: times of a
    /// room never go back.
    pub fn clock(mut self, clock: impl Fn() -> Millis + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Opens the store, migrates it, and starts the engine on the present tokio runtime.
    ///
    /// # Errors
    /// `config` (no keys, no runtime, a bridge's options), `bad_url`, and whatever the store says when it is opened.
    pub async fn build(self) -> Result<Engine, Error> {
        let Some(keys) = self.keys else {
            return Err(Code::Config.with("An engine needs keys: EngineBuilder::keys(Keyring::new(secret)?)."));
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return Err(Code::Config.with("An engine is built on a tokio runtime with time enabled."));
        };
        let store = match self.store {
            StoreChoice::Object(store) => store,
            StoreChoice::Url(url) => open_store(&url).await?,
        };
        store.migrate().await?;
        let layer = match self.layer {
            LayerChoice::Object(layer) => layer,
            LayerChoice::Url(url) => open_layer(&url)?,
        };
        let rules = Rules {
            limits: self.limits.consumer,
            strict: self.strict,
            policy: self.policy,
            ..Rules::new(Encoder::new(keys))
        };
        let (writer, queues) = WriterHandle::new(self.limits.queued, store.lanes());
        let (subscriptions, wanted) = tokio::sync::mpsc::unbounded_channel();
        let limits = self.limits;
        let (publisher, outgoing) = publisher::publisher();
        #[cfg(feature = "bridge")]
        let bridge = self.bridge.as_ref().map(Bridge::open).transpose()?.map(Arc::new);
        let parts = Parts {
            rules: Arc::new(rules),
            limits,
            store,
            layer: layer.clone(),
            writer,
            subscriptions,
            publisher,
            presence: if self.presence { Some(presence::Rooms::new(random()?)) } else { None },
            #[cfg(feature = "bridge")]
            bridge: bridge.clone(),
            runtime,
            observer: self.observer,
            clock: self.clock,
        };
        let core = Arc::new(Core::new(parts));
        let weak = || Arc::downgrade(&core);
        for queue in queues {
            // Each lane under a number of its own, so that under one number a batch never comes beside another.
            core.spawn(writer::run(weak(), queue, BatchIds::new(random()?), limits.batch.max(1)));
        }
        if self.presence {
            core.spawn(presence::run(weak()));
        }
        core.spawn(tasks::timers(weak()));
        core.spawn(tasks::layer(weak()));
        core.spawn(publisher::run(layer, outgoing));
        core.spawn(tasks::subscriptions(weak(), wanted));
        core.spawn(tasks::compare(weak()));
        #[cfg(feature = "bridge")]
        if let Some(bridge) = bridge {
            core.spawn(super::bridge::run(weak(), bridge));
        }
        Ok(Engine { core })
    }
}

fn system_clock() -> Millis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

fn random() -> Result<u64, Error> {
    getrandom::u64().map_err(|error| Code::Config.with(format!("no random numbers: {error}")))
}

async fn open_store(url: &str) -> Result<Arc<dyn Store>, Error> {
    match url.split_once(':') {
        Some(("memory", "")) => Ok(Arc::new(MemoryStore::new())),
        #[cfg(feature = "sqlite")]
        Some(("sqlite", _)) => Ok(Arc::new(crate::store::sqlite::SqliteStore::from_url(url)?)),
        #[cfg(feature = "mssql")]
        Some(("mssql", _)) => Ok(Arc::new(crate::store::mssql::MssqlStore::from_url(url)?)),
        _ => Err(Code::BadUrl.with(
            "A store's URL is `memory:`, `sqlite:path` (with feature `sqlite`) or `mssql://…` (with feature `mssql`).",
        )),
    }
}

fn open_layer(url: &str) -> Result<Arc<dyn ChannelLayer>, Error> {
    match url.split_once(':') {
        Some(("local", "")) => Ok(Arc::new(LocalLayer::new())),
        #[cfg(feature = "redis")]
        Some((scheme, _)) if scheme.starts_with("redis") => Ok(Arc::new(crate::layer::RedisLayer::from_url(url)?)),
        _ => Err(Code::BadUrl.with("A layer's URL is `local:` or (with feature `redis`) `redis://…`.")),
    }
}

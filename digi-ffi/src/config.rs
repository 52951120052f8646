//! `digi_config`.

use std::ffi::c_char;
use std::sync::Arc;

use digi_core::consumer::{Policy, Rules};
use digi_core::engine::{Engine, EngineBuilder, Limits};
use digi_core::frame::Encoder;
#[cfg(feature = "redis")]
use digi_core::layer::{BridgeFormat, BridgeOptions};
use digi_core::store::model::{Command, Membership};
use digi_core::token::Keyring;
use digi_core::{Code, Error};
use parking_lot::Mutex;

use crate::cipher::digi_cipher;
use crate::handle::{Out, borrow, free, sized, text};
use crate::host::{Clock, HostPolicy, digi_clock, digi_policy};
use crate::result::{DIGI_OK, digi_error, digi_result, guard, guard_value};
use crate::store::{HostStore, digi_store};

/// How an engine is to be: keys, store, channel layer, bounds, and the host's own parts. Any thread may use one; an engine
/// keeps nothing of it that later changes would reach.
pub struct digi_config(pub(crate) Mutex<Settings>);

/// What has been set.
pub(crate) struct Settings {
    keys: Keyring,
    store: Store,
    layer: String,
    #[cfg(feature = "redis")]
    bridge: Option<BridgeOptions>,
    strict: bool,
    presence: bool,
    pub(crate) threads: usize,
    limits: Limits,
    policy: Option<Arc<HostPolicy>>,
    clock: Option<Arc<Clock>>,
}

#[derive(Clone)]
enum Store {
    Url(String),
    Host(Arc<HostStore>),
}

/// More would only take turns with the host's own.
const MOST_THREADS: usize = 4;

impl Settings {
    fn set(&mut self, name: &str, value: &str) -> Result<(), Error> {
        let flag = || match value {
            "0" | "false" => Ok(false),
            "1" | "true" => Ok(true),
            other => Err(Code::Config.with(format!("{name}: true or false, not {other:?}"))),
        };
        let whole = || {
            let number = value.parse::<u64>();
            number.map_err(|_| Code::Config.with(format!("{name}: a whole number, not {value:?}")))
        };
        match name {
            "store" => self.store = Store::Url(value.to_owned()),
            "layer" => value.clone_into(&mut self.layer),
            #[cfg(feature = "redis")]
            "bridge" => {
                let mut words = value.split_whitespace();
                let format = match words.next() {
                    Some("pubsub") => BridgeFormat::PubSub,
                    Some("core") => BridgeFormat::Core,
                    _ => return Err(Code::Config.with("bridge: \"pubsub redis://…\" or \"core redis://…\"")),
                };
                self.bridge = Some(words.fold(BridgeOptions::new(format), BridgeOptions::host));
            }
            "strict" => self.strict = flag()?,
            "presence" => self.presence = flag()?,
            "threads" => match usize::try_from(whole()?) {
                Ok(threads @ 1..=1024) => self.threads = threads,
                _ => return Err(Code::Config.with("threads: 1 to 1024")),
            },
            limit if Limits::NAMES.contains(&limit) => self.limits.set(limit, whole()?)?,
            other => {
                return Err(Code::Config.with(format!(
                    "there is no setting {other:?}; there are store, layer, bridge, strict, presence, threads, {}",
                    Limits::NAMES.join(", ")
                )));
            }
        }
        Ok(())
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        let builder = Engine::builder().keys(self.keys.clone()).layer(&self.layer).limits(self.limits);
        let builder = builder.strict(self.strict).presence(self.presence);
        let builder = match &self.store {
            Store::Url(url) => builder.store(url),
            Store::Host(store) => builder.store_object(store.clone()),
        };
        #[cfg(feature = "redis")]
        let builder = match &self.bridge {
            Some(options) => builder.bridge(options.clone()),
            None => builder,
        };
        let builder = match &self.policy {
            Some(policy) => {
                let policy = policy.clone();
                builder.policy(move |command: &Command, membership: &Membership| policy.judge(command, membership))
            }
            None => builder,
        };
        match self.clock.clone() {
            Some(clock) => builder.clock(move || clock.now()),
            None => builder,
        }
    }

    /// For a consumer of the host's own.
    pub(crate) fn rules(&self) -> Rules {
        let mut rules = Rules::new(Encoder::new(self.keys.clone()));
        rules.limits = self.limits.consumer;
        rules.strict = self.strict;
        rules.policy = self.policy.clone().map(|policy| policy as _);
        rules
    }
}

/// Makes a configuration with these keys and the defaults for everything else: messages in memory, no other nodes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_new(
    cipher: *const digi_cipher,
    config: *mut *mut digi_config,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (cipher, out) = unsafe { (borrow(cipher, "cipher")?, Out::new(config, "config")?) };
        out.give(digi_config(Mutex::new(Settings {
            keys: cipher.0.clone(),
            store: Store::Url("memory:".to_owned()),
            layer: "local:".to_owned(),
            #[cfg(feature = "redis")]
            bridge: None,
            strict: false,
            presence: false,
            threads: std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS),
            limits: Limits::default(),
            policy: None,
            clock: None,
        })));
        Ok(DIGI_OK)
    })
}

/// Sets what has a name, as text:
///
/// | name | value |
/// |---|---|
/// | `store` | `memory:`, `sqlite:path`, `mssql://user:password@host/database` |
/// | `layer` | `local:`, `redis://host:6379/0` and its kin, for several nodes |
/// | `bridge` | `pubsub redis://…` or `core redis://…`: to stock Django Channels workers |
/// | `strict` | `true`: refuse frames that claim another user instead of ignoring the claim |
/// | `presence` | `true`: tell members who comes and goes |
/// | `threads` | of the engine's own; by default as many as the machine has cores, up to 4 |
/// | a bound, see below | a whole number |
///
/// What is not set: `memory:`, `local:`, no bridge, `false`. A path of `sqlite:` is relative to the directory that the
/// process is in when `digi_engine_new` is called, and ends at the first `?`. `?max_mb=500&readers=4&busy_ms=5000` may
/// follow, all or some: the file's bound in MiB (left out: none), reads at once, milliseconds to wait for another
/// process that writes. The file is made if it is not there; its directory is not (`DIGI_ERR_BAD_URL`). Several engines
/// may have it open, in one process or in several on the same machine; but no other copy of SQLite in the same process
/// (`DIGI_ERR_FILE_IN_USE`), and it belongs on a local disk. The files `-wal` and `-shm` beside it are part of it.
///
/// The bounds with their defaults (docs/deployment.md says what happens at each): `frame_bytes` 131072, `body_bytes`
/// 16384, `in_flight` 256, `history` 50, `replay_bytes` 1048576, `frames_per_second` 50, `frames_burst` 200,
/// `refusals_per_second` 2, `refusals_burst` 100, `outbox_frames` 4096, `outbox_bytes` 4194304, `room_sessions` 100000,
/// `sessions` 100000, `sessions_per_user` 100, `queued` 10000, `batch` 1000, `close_spread_ms` 3000.
///
/// Errors: `DIGI_ERR_CONFIG` for an unknown name or a wrong value. URLs are looked at by `digi_engine_new`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_set(
    config: *mut digi_config,
    name: *const c_char,
    name_length: usize,
    value: *const c_char,
    value_length: usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (config, name, value) = unsafe {
            (borrow(config, "config")?, text(name, name_length, "name")?, text(value, value_length, "value")?)
        };
        config.0.lock().set(name, value)?;
        Ok(DIGI_OK)
    })
}

/// Lets the host keep the rooms: see `digi_store`. The struct is copied, and its `ctx` belongs to Digi once this has
/// succeeded; if it fails, it stays the host's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_set_store(
    config: *mut digi_config,
    store: *const digi_store,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (config, store) = unsafe { (borrow(config, "config")?, sized(store, "store")?) };
        let store = HostStore::new(store)?;
        config.0.lock().store = Store::Host(Arc::new(store));
        Ok(DIGI_OK)
    })
}

/// Asks the host before anything is stored: see `digi_policy`. The struct is copied, and its `ctx` belongs to Digi from
/// here on, as with `digi_config_set_store`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_set_policy(
    config: *mut digi_config,
    policy: *const digi_policy,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (config, policy) = unsafe { (borrow(config, "config")?, sized(policy, "policy")?) };
        let policy = HostPolicy::new(policy)?;
        config.0.lock().policy = Some(Arc::new(policy));
        Ok(DIGI_OK)
    })
}

/// Lets the host say what time it is: see `digi_clock`. The struct is copied, and its `ctx` belongs to Digi from here on,
/// as with `digi_config_set_store`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_set_clock(
    config: *mut digi_config,
    clock: *const digi_clock,
    error: *mut *mut digi_error,
) -> digi_result {
    guard(error, || {
        // SAFETY: the header's conventions.
        let (config, clock) = unsafe { (borrow(config, "config")?, sized(clock, "clock")?) };
        let clock = Clock::new(clock)?;
        config.0.lock().clock = Some(Arc::new(clock));
        Ok(DIGI_OK)
    })
}

/// Frees a configuration; engines and consumers made with it stay. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_config_free(config: *mut digi_config) {
    // SAFETY: the header's conventions.
    guard_value((), || unsafe { free(config) });
}

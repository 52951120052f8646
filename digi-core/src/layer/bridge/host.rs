//! One Redis host of a stock layer.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisResult};

use crate::error::{Code, Error};

/// How long Redis may take to connect, and for an answer.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Between two attempts to connect: the first pause, doubled with a random part up to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// How many attempts belong together. Every use begins them anew.
const ATTEMPTS: usize = 3;

pub(super) struct Host {
    /// For the log.
    pub(super) name: String,
    pub(super) client: Client,
    pub(super) commands: ConnectionManager,
    is_up: AtomicBool,
}

impl Host {
    /// Connects when it is first used. `number` tells hosts apart where there are several.
    pub(super) fn open(
        url: &str,
        number: usize,
        push: Option<impl Fn(PushInfo) + Send + Sync + 'static>,
    ) -> Result<Self, Error> {
        let bad = |why: &str| Code::BadUrl.with(format!("bridge: host {number}: {why}"));
        let info = url.into_connection_info().map_err(|_| bad("it is no redis:// or rediss:// URL"))?;
        let name = match info.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => format!("{host}:{port}"),
            _ => return Err(bad("only redis:// and rediss:// are supported")),
        };
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(|_| bad("it cannot be used"))?;
        let mut config = ConnectionManagerConfig::new()
            .set_min_delay(BACKOFF.0)
            .set_max_delay(BACKOFF.1)
            .set_number_of_retries(ATTEMPTS)
            .set_connection_timeout(Some(TIMEOUT))
            .set_response_timeout(Some(TIMEOUT));
        if let Some(push) = push {
            config = config.set_push_sender(move |info| {
                push(info);
                Ok::<(), redis::aio::SendError>(())
            });
        }
        let commands = ConnectionManager::new_lazy_with_config(client.clone(), config)
            .map_err(|error| bad(&format!("no connection can be made: {}", error.category())))?;
        Ok(Self { name, client, commands, is_up: AtomicBool::new(true) })
    }

    /// Notes how an attempt went, and gives its value. A change is logged.
    pub(super) fn noted<T>(&self, result: RedisResult<T>) -> Option<T> {
        let was_up = self.is_up.swap(result.is_ok(), Ordering::AcqRel);
        match result {
            Ok(value) => {
                if !was_up {
                    tracing::info!(host = %self.name, "the bridge's Redis is back");
                }
                Some(value)
            }
            Err(error) => {
                if was_up {
                    let why = error.category();
                    tracing::warn!(host = %self.name, why, "the bridge's Redis is away; stock consumers miss what happens");
                }
                None
            }
        }
    }
}

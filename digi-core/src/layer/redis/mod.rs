//! The layer on Redis.
//!
//! A group is the channel `<prefix>__digi__<group>`; what travels on it is described in `wire.rs`. For each server there
//! is one connection to publish on and one to subscribe on, in RESP3, so that Redis 6 is the oldest that works.

pub(super) mod backoff;
mod cluster;
pub(super) mod connect;
mod health;
mod host;
mod inbox;
pub(super) mod ring;
mod target;
pub(super) mod url;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;

use self::cluster::Cluster;
use self::connect::Connector;
use self::host::{Common, Host};
use self::inbox::Inbox;
use self::target::Target;
use self::url::Servers;
use super::{ChannelLayer, Incoming, LayerError, LayerStatus, wire};
use crate::event::{Envelope, Group};

/// One node's end of a layer on Redis (6 or newer).
///
/// # URLs
///
/// | URL | |
/// |---|---|
/// | `redis://[user:password@]host[:6379][/db]` | one server |
/// | `redis://host1,host2:6380` or `redis://host1,redis://host2:6380` | several; groups are distributed over them by the consistent hash of `channels_redis`, so every node must name them in the same order. In the second form each has its own user, password and database |
/// | `redis+sentinel://[user:password@]host1[:26379],host2/<master>[/db]` | the master that these Sentinels name so; user and password are Redis's |
/// | `redis+cluster://[user:password@]host1[:6379],host2` | a Redis Cluster (7.0 or newer) with sharded pub/sub; any of its nodes |
/// | `rediss://…`, `rediss+sentinel://…`, `rediss+cluster://…` | the same with TLS |
///
/// The option `?prefix=…` (default `asgi`) begins the names of all channels. `sentinel_user` and `sentinel_password` are
/// for the Sentinels themselves. With TLS, `ca` names a file with the
/// certificates to trust instead of the system's, `cert` and `key` files with a client certificate; all in PEM. In user,
/// password and names, `@ : / ? #` are written percent-encoded.
pub struct RedisLayer {
    node: u64,
    inbox: Arc<Inbox>,
    servers: Running,
}

enum Running {
    /// One or several, each with its share of the groups.
    Hosts(Vec<Host>),
    Cluster(Cluster),
}

impl fmt::Debug for RedisLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = match &self.servers {
            Running::Hosts(hosts) => hosts.iter().map(Host::name).collect(),
            Running::Cluster(cluster) => vec![cluster.name()],
        };
        f.debug_struct("RedisLayer").field("hosts", &hosts).field("status", &self.status()).finish_non_exhaustive()
    }
}

impl RedisLayer {
    /// A node's end of the layer. Does not wait for Redis: until it is there, and while it is away, every call fails at
    /// once.
    ///
    /// # Errors
    /// The URL is wrong, a file that it names cannot be used, there is no tokio runtime, or no random number.
    pub fn from_url(url: &str) -> Result<Self, LayerError> {
        let options = url::parse(url)?;
        let connector = Connector::new(options.tls.as_ref())?;
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(LayerError("a layer on Redis needs a tokio runtime with time and I/O enabled".to_owned()));
        }
        let node = getrandom::u64().map_err(|error| LayerError(format!("no random numbers: {error}")))?;
        let inbox = Inbox::new(node);
        let channels = format!("{}__digi__", options.prefix).into();
        let common = Common { connector, inbox: inbox.clone(), channels, moved: None };
        let servers = match options.servers {
            Servers::Hosts(hosts) => Running::Hosts(
                hosts
                    .into_iter()
                    .map(|(address, login)| Host::start(common.clone(), Target::Fixed(address, login)))
                    .collect(),
            ),
            Servers::Sentinel { sentinels, sentinel_login, service, login } => Running::Hosts(vec![Host::start(
                common,
                Target::Sentinel { sentinels, sentinel_login, service, login },
            )]),
            Servers::Cluster { seeds, login } => Running::Cluster(Cluster::start(common, seeds, login)),
        };
        Ok(Self { node, inbox, servers })
    }
}

/// What belongs to each host, with that host.
fn by_host<T>(hosts: &[Host], items: impl IntoIterator<Item = T>, group: impl Fn(&T) -> Group) -> Vec<(&Host, Vec<T>)> {
    let mut of_host: Vec<_> = hosts.iter().map(|host| (host, Vec::new())).collect();
    for item in items {
        let at = match of_host.len() {
            1 => 0,
            size => ring::host_of(&group(&item).to_string(), size),
        };
        of_host[at].1.push(item);
    }
    of_host.retain(|(_, items)| !items.is_empty());
    of_host
}

#[async_trait]
impl ChannelLayer for RedisLayer {
    async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        match &self.servers {
            Running::Hosts(hosts) => {
                let of_host = by_host(hosts, groups.iter().copied(), |group| *group);
                join_all(of_host.iter().map(|(host, groups)| host.subscribe(groups))).await.into_iter().collect()
            }
            Running::Cluster(cluster) => cluster.subscribe(groups).await,
        }
    }

    async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        match &self.servers {
            Running::Hosts(hosts) => {
                let of_host = by_host(hosts, groups.iter().copied(), |group| *group);
                join_all(of_host.iter().map(|(host, groups)| host.unsubscribe(groups))).await.into_iter().collect()
            }
            Running::Cluster(cluster) => cluster.unsubscribe(groups).await,
        }
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
        let payloads = wire::encode(self.node, envelopes);
        match &self.servers {
            Running::Hosts(hosts) => {
                let of_host = by_host(hosts, payloads, |(group, _)| *group);
                join_all(of_host.iter().map(|(host, payloads)| host.publish(payloads))).await.into_iter().collect()
            }
            Running::Cluster(cluster) => cluster.publish(payloads).await,
        }
    }

    async fn next(&self) -> Option<Incoming> {
        Some(self.inbox.next().await)
    }

    fn status(&self) -> LayerStatus {
        let is_up = match &self.servers {
            Running::Hosts(hosts) => hosts.iter().all(Host::is_up),
            Running::Cluster(cluster) => cluster.is_up(),
        };
        LayerStatus { is_up, undecodable: self.inbox.undecodable() }
    }
}

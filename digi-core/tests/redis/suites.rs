//! The suite of all layers over every way to have Redis.

use std::sync::Arc;

use async_trait::async_trait;
use digi_core::event::{Envelope, Group};
use digi_core::layer::{ChannelLayer, Incoming, LayerError, LayerStatus, RedisLayer};

use crate::fleet::{ClusterSet, SentinelSet};
use crate::server::RedisServer;
use crate::support::up;
use crate::tls::Authority;

/// A layer, and what has to live as long as it does.
struct With<T> {
    layer: RedisLayer,
    _servers: Arc<T>,
}

#[async_trait]
impl<T: Send + Sync + 'static> ChannelLayer for With<T> {
    async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.layer.subscribe(groups).await
    }

    async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.layer.unsubscribe(groups).await
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
        self.layer.publish(envelopes).await
    }

    async fn next(&self) -> Option<Incoming> {
        self.layer.next().await
    }

    fn status(&self) -> LayerStatus {
        self.layer.status()
    }
}

async fn three<T>(url: &str, servers: T) -> [With<T>; 3] {
    let servers = Arc::new(servers);
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(With { layer: up(url).await, _servers: servers.clone() });
    }
    nodes.try_into().ok().unwrap()
}

digi_core::layer_suite!(plain, || async {
    let server = RedisServer::start(&[]);
    three(&server.url(), server).await
});

digi_core::layer_suite!(user_password_and_database, || async {
    let server = RedisServer::start(&["user chat on >pa:ss/w@rd ~* &mine__digi__* +@all"]);
    let url = format!("redis://chat:pa%3Ass%2Fw%40rd@{}/3?prefix=mine", server.address());
    three(&url, server).await
});

digi_core::layer_suite!(tls, || async {
    let authority = Authority::new();
    let server = authority.server("no");
    let url = format!("rediss://localhost:{}?ca={}", server.port, authority.file("ca.pem"));
    three(&url, (server, authority)).await
});

digi_core::layer_suite!(tls_with_a_client_certificate, || async {
    let authority = Authority::new();
    let server = authority.server("yes");
    let file = |name| authority.file(name);
    let files = format!("ca={}&cert={}&key={}", file("ca.pem"), file("client.pem"), file("client.key"));
    three(&format!("rediss://{}?{files}", server.address()), (server, authority)).await
});

digi_core::layer_suite!(two_hosts, || async {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[])];
    three(&format!("redis://{},{}", servers[0].address(), servers[1].address()), servers).await
});

digi_core::layer_suite!(two_urls, || async {
    let servers = [RedisServer::start(&["requirepass one"]), RedisServer::start(&[])];
    three(&format!("redis://:one@{},redis://{}/2", servers[0].address(), servers[1].address()), servers).await
});

digi_core::layer_suite!(sentinels, || async {
    let set = SentinelSet::start().await;
    three(&set.url(), set).await
});

digi_core::layer_suite!(three_node_cluster, || async {
    let set = ClusterSet::start(0).await;
    three(&set.url(), set).await
});

digi_core::layer_suite!(sentinels_with_tls, || async {
    let authority = Authority::new();
    let set = SentinelSet::start_with(Some(&authority)).await;
    three(&set.tls_url(&authority), (set, authority)).await
});

digi_core::layer_suite!(cluster_with_tls_and_a_password, || async {
    let authority = Authority::new();
    let set = ClusterSet::start_with_tls(&authority).await;
    three(&set.tls_url(&authority), (set, authority)).await
});

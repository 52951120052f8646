//! The suite of all layers over every way to have Redis.

use std::ops::Deref;

use async_trait::async_trait;
use digi_core::event::{Envelope, Group};
use digi_core::layer::{ChannelLayer, Incoming, LayerError, LayerStatus, RedisLayer};

use crate::server::RedisServer;
use crate::support::up;

/// A layer, and what has to live as long as it does.
struct With<T> {
    layer: RedisLayer,
    _servers: std::sync::Arc<T>,
}

impl<T> Deref for With<T> {
    type Target = RedisLayer;

    fn deref(&self) -> &RedisLayer {
        &self.layer
    }
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
    let servers = std::sync::Arc::new(servers);
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
    let server = RedisServer::start(&["--user", "chat", "on", ">pa:ss/w@rd", "~*", "&mine__digi__*", "+@all"]);
    let url = format!("redis://chat:pa%3Ass%2Fw%40rd@127.0.0.1:{}/3?prefix=mine", server.port);
    three(&url, server).await
});

digi_core::layer_suite!(two_hosts, || async {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[])];
    three(&format!("redis://127.0.0.1:{},127.0.0.1:{}", servers[0].port, servers[1].port), servers).await
});

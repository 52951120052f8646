//! Layers that are up, and waiting for what is to come.

use std::time::{Duration, Instant};

use digi_core::layer::{ChannelLayer, RedisLayer};

use crate::server::PATIENCE;

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < PATIENCE, "not within {} s: {what}", PATIENCE.as_secs());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A layer that has reached its servers.
pub(crate) async fn up(url: &str) -> RedisLayer {
    let layer = RedisLayer::from_url(url).unwrap();
    until("the layer is up", || layer.status().is_up).await;
    layer
}

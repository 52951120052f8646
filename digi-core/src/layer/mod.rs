//! What carries events between the nodes of a fleet: the trait [`ChannelLayer`] and its backends, one file each.
//!
//! The store is the truth, a layer is a hint. It may lose, double and reorder; rooms put that right from the log. So a
//! backend has few promises to keep, and every one of them passes one suite (`layer_suite!`, feature `testing`).

#[cfg(feature = "bridge")]
pub(crate) mod bridge;
mod local;
#[cfg(feature = "redis")]
mod redis;
#[cfg(feature = "redis")]
mod wire;

use async_trait::async_trait;

#[cfg(feature = "redis")]
pub use self::redis::RedisLayer;
#[cfg(feature = "bridge")]
pub use bridge::{BridgeFormat, BridgeOptions};
pub use local::LocalLayer;

use crate::error::{Code, Error};
use crate::event::{Envelope, Group};

/// A way for the nodes to hear of each other's changes soon. A value is one node's end of it. The promises:
///
/// 1. What is published while another node is subscribed to its group mostly arrives there, in any order, once or
///    more. What the publishing node sent itself need not arrive, and may.
/// 2. When something may have been lost, [`next`](ChannelLayer::next) says [`Incoming::Lagged`] once the layer knows.
/// 3. [`publish`](ChannelLayer::publish) does not wait for slow nodes: it loses, and the losers get `Lagged`.
/// 4. While the layer cannot be reached, every call fails soon, and [`status`](ChannelLayer::status) says so. The layer
///    looks for its way back by itself, subscribes anew, and then says `Lagged`.
#[async_trait]
pub trait ChannelLayer: Send + Sync + 'static {
    /// Once this has returned without an error, what others publish to the groups arrives. Subscribing twice is as
    /// once.
    ///
    /// # Errors
    /// The layer cannot be reached; it subscribes by itself when it is back, and then reports `Lagged`.
    async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError>;

    /// From now on, it does not.
    ///
    /// # Errors
    /// The layer cannot be reached; the subscriptions are gone all the same.
    async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError>;

    /// Sends to the other nodes that are subscribed to each envelope's group; those of one group in their order, as far
    /// as the layer keeps one.
    ///
    /// # Errors
    /// Some of the envelopes, or all, may not have been sent. Events need not be repeated, because the others read the
    /// log; that there is something to read can be said later ([`Signal::Missed`](crate::event::Signal::Missed)).
    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError>;

    /// What comes in next; none when the layer has been closed. Called by one task only, which may drop the future while
    /// it waits: that must lose nothing.
    async fn next(&self) -> Option<Incoming>;

    /// Whether there can be no other node, so that publishing is pointless.
    fn is_alone(&self) -> bool {
        false
    }

    /// How the layer is.
    fn status(&self) -> LayerStatus {
        LayerStatus::default()
    }
}

/// How a layer is, now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LayerStatus {
    /// Whether all of it can be reached.
    pub is_up: bool,
    /// What came in so far that could not be read, and was dropped.
    pub undecodable: u64,
}

impl Default for LayerStatus {
    fn default() -> Self {
        Self { is_up: true, undecodable: 0 }
    }
}

/// What a layer hands to its node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// Other nodes published these, in this order.
    Arrived(Vec<Envelope>),
    /// Something may have been lost: compare with the store.
    Lagged,
}

/// The layer cannot be reached, or its URL is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the channel layer is unavailable: {0}")]
pub struct LayerError(pub String);

impl From<LayerError> for Error {
    fn from(error: LayerError) -> Self {
        Code::BadUrl.with(error.to_string())
    }
}

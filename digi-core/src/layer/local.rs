//! The layer inside one process: for a single node, and for several engines that share a process.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{ChannelLayer, Incoming, LayerError};
use crate::event::{Envelope, Group};

/// How many pieces wait for a node before it starts to lose some.
const WAITING: usize = 256;

/// How many envelopes a piece has at the most.
const PIECE: usize = 64;

/// One node's end of a layer in this process.
#[derive(Debug)]
pub struct LocalLayer {
    hub: Arc<Hub>,
    node: u64,
    incoming: tokio::sync::Mutex<mpsc::Receiver<Vec<Envelope>>>,
    lagged: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Hub {
    next_node: AtomicU64,
    state: Mutex<HubState>,
}

#[derive(Debug, Default)]
struct HubState {
    nodes: HashMap<u64, Peer>,
    groups: HashMap<Group, HashSet<u64>>,
}

#[derive(Debug)]
struct Peer {
    queue: mpsc::Sender<Vec<Envelope>>,
    lagged: Arc<AtomicBool>,
}

impl LocalLayer {
    /// A layer of its own with one node.
    pub fn new() -> Self {
        Self::on(Arc::new(Hub::default()))
    }

    /// Another node on the same layer.
    pub fn another_node(&self) -> Self {
        Self::on(self.hub.clone())
    }

    fn on(hub: Arc<Hub>) -> Self {
        let node = hub.next_node.fetch_add(1, Ordering::Relaxed);
        let (queue, incoming) = mpsc::channel(WAITING);
        let lagged = Arc::new(AtomicBool::new(false));
        hub.state.lock().nodes.insert(node, Peer { queue, lagged: lagged.clone() });
        Self { hub, node, incoming: tokio::sync::Mutex::new(incoming), lagged }
    }
}

impl Default for LocalLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for LocalLayer {
    fn drop(&mut self) {
        let mut state = self.hub.state.lock();
        state.nodes.remove(&self.node);
        state.groups.retain(|_, nodes| {
            nodes.remove(&self.node);
            !nodes.is_empty()
        });
    }
}

#[async_trait]
impl ChannelLayer for LocalLayer {
    async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        let mut state = self.hub.state.lock();
        for group in groups {
            state.groups.entry(*group).or_default().insert(self.node);
        }
        Ok(())
    }

    async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        let mut state = self.hub.state.lock();
        for group in groups {
            if let Some(nodes) = state.groups.get_mut(group) {
                nodes.remove(&self.node);
                if nodes.is_empty() {
                    state.groups.remove(group);
                }
            }
        }
        Ok(())
    }

    async fn publish(&self, envelopes: &[Envelope]) -> Result<(), LayerError> {
        let state = self.hub.state.lock();
        for piece in envelopes.chunks(PIECE) {
            let mut of_node: HashMap<u64, Vec<Envelope>> = HashMap::new();
            for envelope in piece {
                let Some(subscribed) = state.groups.get(&envelope.group()) else { continue };
                for node in subscribed.iter().filter(|node| **node != self.node) {
                    of_node.entry(*node).or_default().push(envelope.clone());
                }
            }
            for (node, envelopes) in of_node {
                let Some(peer) = state.nodes.get(&node) else { continue };
                if peer.queue.try_send(envelopes).is_err() {
                    // The queue is full, so its reader will come by and see this.
                    peer.lagged.store(true, Ordering::Release);
                }
            }
        }
        Ok(())
    }

    async fn next(&self) -> Option<Incoming> {
        let mut incoming = self.incoming.lock().await;
        if self.lagged.swap(false, Ordering::AcqRel) {
            return Some(Incoming::Lagged);
        }
        incoming.recv().await.map(Incoming::Arrived)
    }

    fn is_alone(&self) -> bool {
        self.hub.state.lock().nodes.len() == 1
    }
}

//! What stock Channels workers send.

use std::sync::{Arc, Weak};
use std::time::Duration;

use super::core::{Core, Wakes};
use crate::layer::bridge::Bridge;

/// Shows what comes over the bridge to the sessions of this node, the sender's own too, as stock workers do.
pub(super) async fn run(core: Weak<Core>, bridge: Arc<Bridge>) {
    loop {
        let inbound = match tokio::time::timeout(Duration::from_secs(1), bridge.next()).await {
            Ok(inbound) => inbound,
            Err(_) if core.strong_count() == 0 => return,
            Err(_) => continue,
        };
        let Some(core) = core.upgrade() else { return };
        let mut wakes = Wakes::default();
        for message in inbound {
            let frame = message.frame(&core.rules.encoder);
            core.with_room(message.room, &mut wakes, |room, wakes| room.signal(None, &frame, wakes));
        }
        wakes.wake();
        core.counters.delivered(wakes.delivered);
    }
}

//! What an engine does in the background: timers, the layer's news, comparing with the store, unloading.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::core::{Core, Wakes};
use super::stats::add;
use crate::event::{Envelope, Group};
use crate::id::RoomId;
use crate::layer::Incoming;
use crate::store::StoreError;

/// Between two comparisons of all heads with the store: the least, doubled while nothing is found, and the most.
const COMPARE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(30));

/// Between two looks at the store's change marker, where it has one.
const MARKER: Duration = Duration::from_millis(100);

/// How many heads are asked for at once.
const CHUNK: usize = 500;

/// How many subscriptions are changed at once.
const SUBSCRIPTIONS: usize = 1_000;

/// How long a room without sessions stays loaded, at least.
const IDLE: Duration = Duration::from_secs(10);

/// Wakes rooms that wait for a missing number.
pub(super) async fn timers(core: Weak<Core>) {
    let Some(earlier) = core.upgrade().map(|core| core.timers.earlier.clone()) else { return };
    loop {
        let Some(here) = core.upgrade() else { return };
        let now = here.now();
        let (due, next) = here.timers.due(now);
        for room in due {
            here.at_room(room, |room, _| room.handle_tick(now));
        }
        // Nothing here keeps the engine alive while it waits.
        drop(here);
        match next {
            Some(next) => {
                let pause = Duration::from_millis(next.0.saturating_sub(now.0).max(1));
                let _ = tokio::time::timeout(pause, earlier.notified()).await;
            }
            None => earlier.notified().await,
        }
    }
}

/// Takes in what other nodes publish.
pub(super) async fn layer(core: Weak<Core>) {
    let Some(layer) = core.upgrade().map(|core| core.layer.clone()) else { return };
    if let Err(error) = layer.subscribe(&[Group::Nodes]).await {
        debug!(%error, "not subscribed yet");
    }
    loop {
        let incoming = match tokio::time::timeout(Duration::from_secs(1), layer.next()).await {
            Ok(incoming) => incoming,
            Err(_) if core.strong_count() == 0 => return,
            Err(_) => continue,
        };
        let (Some(core), Some(incoming)) = (core.upgrade(), incoming) else { return };
        match incoming {
            Incoming::Arrived(envelopes) => arrived(&core, envelopes),
            Incoming::Lagged => {
                add(&core.counters.layer_lagged, 1);
                core.compare.notify_one();
            }
        }
    }
}

fn arrived(core: &Arc<Core>, envelopes: Vec<Envelope>) {
    let mut wakes = Wakes::default();
    let mut envelopes = envelopes.into_iter().peekable();
    while let Some(envelope) = envelopes.next() {
        match envelope {
            Envelope::Event(event) => {
                let (room, mut events) = (event.room, vec![event]);
                let is_next = |next: &Envelope| matches!(next, Envelope::Event(event) if event.room == room);
                while let Some(Envelope::Event(event)) = envelopes.next_if(is_next) {
                    events.push(event);
                }
                core.events(room, events, &mut wakes);
            }
            Envelope::Signal(signal) => core.signal(&signal),
        }
    }
    wakes.wake();
    core.counters.delivered(wakes.delivered);
}

/// Keeps the layer's subscriptions equal to the loaded rooms.
pub(super) async fn subscriptions(core: Weak<Core>, mut rooms: mpsc::UnboundedReceiver<RoomId>) {
    let mut changed = Vec::new();
    while rooms.recv_many(&mut changed, SUBSCRIPTIONS).await > 0 {
        let Some(core) = core.upgrade() else { return };
        changed.sort_unstable();
        changed.dedup();
        let (loaded, unloaded): (Vec<_>, Vec<_>) = changed.drain(..).partition(|room| core.is_loaded(*room));
        #[cfg(feature = "bridge")]
        if let Some(bridge) = &core.bridge {
            bridge.unsubscribe(&unloaded);
            bridge.subscribe(&loaded);
        }
        let groups = |rooms: &[RoomId]| rooms.iter().copied().map(Group::Room).collect::<Vec<_>>();
        let results = [core.layer.unsubscribe(&groups(&unloaded)).await, core.layer.subscribe(&groups(&loaded)).await];
        for error in results.into_iter().filter_map(Result::err) {
            debug!(%error, "subscriptions follow when the layer is back");
        }
        // Also when there is no other node: what was committed here between the reading of the head and the loading of
        // the room was told to nobody.
        let now = core.now();
        for room in loaded {
            core.at_room(room, |room, _| room.handle_lagged(now));
            if let Some(presence) = &core.presence {
                presence.heard_of(&core, room);
            }
        }
    }
}

/// Compares the loaded rooms with the store, so that what the layer lost, or other processes wrote, shows.
pub(super) async fn compare(core: Weak<Core>) {
    let mut pause = COMPARE.0;
    let mut marker = None;
    let mut idle = HashSet::new();
    let mut since_unload = tokio::time::Instant::now();
    let mut since_compare = tokio::time::Instant::now();
    let Some(wanted) = core.upgrade().map(|core| core.compare.clone()) else { return };
    loop {
        let Some(here) = core.upgrade() else { return };
        if since_unload.elapsed() >= IDLE {
            since_unload = tokio::time::Instant::now();
            here.unload_idle(&mut idle);
        }
        let has_rooms = here.room_count() > 0;
        let look = if marker.is_some() && has_rooms { MARKER } else { pause.min(Duration::from_secs(1)) };
        drop(here);
        let asked = tokio::time::timeout(look, wanted.notified()).await.is_ok();
        if asked {
            // However often the store comes and goes.
            tokio::time::sleep_until(since_compare + MARKER).await;
        }
        let Some(here) = core.upgrade() else { return };
        if !has_rooms && !asked {
            continue;
        }
        let changed = match here.change_marker().await {
            Ok(None) => false,
            Ok(found) => std::mem::replace(&mut marker, found) != found,
            Err(_) => false,
        };
        if !(asked || changed || since_compare.elapsed() >= pause) {
            continue;
        }
        since_compare = tokio::time::Instant::now();
        match compare_once(&here).await {
            // While the layer is away, this is how other nodes are heard of.
            Ok(found) if found || !here.layer.status().is_up => pause = COMPARE.0,
            Ok(_) => pause = (pause * 2).min(COMPARE.1),
            Err(error) => {
                warn!(%error, "heads could not be compared");
                pause = COMPARE.0;
                drop(here);
                // Whatever asks for comparisons meanwhile: a store in trouble is not asked without a pause.
                tokio::time::sleep(COMPARE.0).await;
            }
        }
    }
}

/// Whether anything was found that this node had not heard of.
async fn compare_once(core: &Arc<Core>) -> Result<bool, StoreError> {
    let mut found = false;
    for chunk in core.loaded_rooms().chunks(CHUNK) {
        let seen: HashMap<_, _> = chunk.iter().copied().collect();
        let ids: Vec<_> = chunk.iter().map(|(id, _)| *id).collect();
        for (room, head) in core.ask(core.store.heads(&ids)).await? {
            let before = seen.get(&room).copied().unwrap_or_default();
            found |= head.cursor() != before;
            core.observe(room, head, before);
        }
    }
    Ok(found)
}

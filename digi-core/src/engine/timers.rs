//! When which room wants to be woken.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::id::{Millis, RoomId};

#[derive(Debug, Default)]
pub(super) struct Timers {
    state: Mutex<State>,
    pub(super) earlier: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    heap: BinaryHeap<Reverse<(Millis, RoomId)>>,
    /// The earliest entry of each room; later ones for it are not planned.
    planned: HashMap<RoomId, Millis>,
}

impl Timers {
    pub(super) fn plan(&self, room: RoomId, at: Millis) {
        let mut state = self.state.lock();
        if state.planned.get(&room).is_some_and(|planned| *planned <= at) {
            return;
        }
        state.planned.insert(room, at);
        let is_first = state.heap.peek().is_none_or(|Reverse((first, _))| at < *first);
        state.heap.push(Reverse((at, room)));
        drop(state);
        if is_first {
            self.earlier.notify_one();
        }
    }

    /// The rooms whose time has come, and when the next one's does.
    pub(super) fn due(&self, now: Millis) -> (Vec<RoomId>, Option<Millis>) {
        let mut state = self.state.lock();
        let mut due = Vec::new();
        while let Some(Reverse((at, room))) = state.heap.peek().copied() {
            if at > now {
                return (due, Some(at));
            }
            state.heap.pop();
            if state.planned.get(&room) == Some(&at) {
                state.planned.remove(&room);
                due.push(room);
            }
        }
        (due, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_due_once_at_their_earliest_time() {
        let timers = Timers::default();
        timers.plan(RoomId(1), Millis(30));
        timers.plan(RoomId(2), Millis(10));
        timers.plan(RoomId(1), Millis(20));
        timers.plan(RoomId(1), Millis(25));
        assert_eq!(timers.due(Millis(5)), (vec![], Some(Millis(10))));
        assert_eq!(timers.due(Millis(20)), (vec![RoomId(2), RoomId(1)], Some(Millis(30))));
        assert_eq!(timers.due(Millis(30)), (vec![], None));
    }
}

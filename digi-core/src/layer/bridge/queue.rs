//! A queue that forgets its oldest entries when it is full.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many entries wait at the most, and how many bytes.
const WAITING: (usize, usize) = (10_000, 32 * 1024 * 1024);

pub(super) struct Queue<T> {
    waiting: Mutex<Waiting<T>>,
    /// Told of every entry; anybody may tell it of more.
    pub(super) filled: Notify,
}

struct Waiting<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self { waiting: Mutex::new(Waiting { entries: VecDeque::new(), bytes: 0 }), filled: Notify::new() }
    }

    /// Never waits. Gives how many were forgotten for it.
    #[must_use]
    pub(super) fn push(&self, entry: T, bytes: usize) -> u64 {
        let mut waiting = self.waiting.lock();
        let mut forgotten = 0;
        while waiting.entries.len() >= WAITING.0 || waiting.bytes + bytes > WAITING.1 {
            let Some((_, bytes)) = waiting.entries.pop_front() else { break };
            waiting.bytes -= bytes;
            forgotten += 1;
        }
        waiting.bytes += bytes;
        waiting.entries.push_back((entry, bytes));
        drop(waiting);
        self.filled.notify_one();
        forgotten
    }

    /// The oldest, at most so many.
    pub(super) fn take(&self, most: usize) -> Vec<T> {
        let mut waiting = self.waiting.lock();
        let count = most.min(waiting.entries.len());
        let taken: Vec<_> = waiting.entries.drain(..count).collect();
        waiting.bytes -= taken.iter().map(|(_, bytes)| bytes).sum::<usize>();
        taken.into_iter().map(|(entry, _)| entry).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.lock().entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_make_room() {
        let queue = Queue::new();
        let forgotten: u64 = (0..WAITING.0 + 3).map(|n| queue.push(n, 1)).sum();
        assert_eq!((forgotten, queue.take(2)), (3, vec![3, 4]));
        assert_eq!(queue.push(0, WAITING.1 - 1), WAITING.0 as u64 - 3, "all but one byte");
        assert_eq!(queue.take(9), [WAITING.0 + 2, 0]);
        assert!(queue.is_empty());
        assert_eq!(queue.push(1, WAITING.1 * 2), 0, "an empty queue takes anything");
        assert_eq!(queue.push(2, 1), 1);
        assert_eq!(queue.take(9), [2]);
        assert_eq!(queue.waiting.lock().bytes, 0);
    }
}

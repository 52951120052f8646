//! The bounded queue of encoded frames of one session.

use std::collections::VecDeque;
use std::task::{Context, Poll};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

use crate::error::CloseCode;
use crate::frame::{Frame, Run};

/// Up to so many runs keep their list when nothing waits.
const KEPT: usize = 8;

/// How much may wait for one session. Beyond it the session is closed as too slow.
#[derive(Clone, Copy, Debug)]
pub struct OutboxLimits {
    /// Frames. A replay of 1,000 changes and what came in meanwhile have to fit.
    pub frames: usize,
    /// Bytes of all frames together.
    pub bytes: usize,
}

impl Default for OutboxLimits {
    fn default() -> Self {
        Self { frames: 4_096, bytes: 4 * 1024 * 1024 }
    }
}

#[derive(Debug)]
pub(super) struct Outbox {
    limits: OutboxLimits,
    state: Mutex<State>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct State {
    runs: VecDeque<Run>,
    /// So many frames of the first run have been handed out.
    taken: usize,
    frames: usize,
    bytes: usize,
    closed: Option<CloseCode>,
}

impl State {
    /// The first run, or what is left of it.
    fn next_run(&mut self) -> Option<Run> {
        let run = self.runs.pop_front()?;
        let run = match std::mem::take(&mut self.taken) {
            0 => run,
            taken => Run::new(run.frames()[taken..].to_vec()),
        };
        self.frames -= run.frames().len();
        self.bytes -= run.bytes();
        Some(run)
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let run = self.runs.front()?;
        let frame = run.frames()[self.taken].clone();
        self.taken += 1;
        if self.taken == run.frames().len() {
            self.taken = 0;
            self.runs.pop_front();
        }
        self.frames -= 1;
        self.bytes -= frame.as_bytes().len();
        Some(frame)
    }
}

/// What became of a run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Push {
    /// It is the only one: the reader has to be woken.
    First,
    /// Others wait already, so the reader has been woken.
    Queued,
    /// There is no space.
    Full,
    /// The session is closed: nobody will read it.
    Closed,
}

impl Outbox {
    pub(super) fn new(limits: OutboxLimits) -> Self {
        Self { limits, state: Mutex::new(State::default()), waker: AtomicWaker::new() }
    }

    /// Adds a run, which has frames, without waking the reader.
    pub(super) fn push(&self, run: Run) -> Push {
        let mut state = self.state.lock();
        if state.closed.is_some() {
            return Push::Closed;
        }
        let (frames, bytes) = (state.frames + run.frames().len(), state.bytes + run.bytes());
        // A single run always fits: what a client may ask for and what a batch brings is bounded elsewhere.
        if !state.runs.is_empty() && (frames > self.limits.frames || bytes > self.limits.bytes) {
            return Push::Full;
        }
        (state.frames, state.bytes) = (frames, bytes);
        state.runs.push_back(run);
        if state.runs.len() == 1 { Push::First } else { Push::Queued }
    }

    pub(super) fn wake(&self) {
        self.waker.wake();
    }

    /// Nothing more will come. What waits is still handed out, unless the reader is too slow for it.
    pub(super) fn close(&self, code: CloseCode) {
        let mut state = self.state.lock();
        if state.closed.is_none() {
            state.closed = Some(code);
            if code == CloseCode::TooSlow {
                *state = State { closed: state.closed, ..State::default() };
            }
        }
        drop(state);
        self.wake();
    }

    pub(super) fn closed(&self) -> Option<CloseCode> {
        self.state.lock().closed
    }

    /// Hands out everything that waits; the close code once nothing does.
    pub(super) fn poll_all(&self, cx: &mut Context<'_>, out: &mut Vec<Frame>) -> Poll<Result<(), CloseCode>> {
        self.poll(cx, |state| {
            while let Some(run) = state.next_run() {
                out.extend_from_slice(run.frames());
            }
            Some(())
        })
    }

    /// The same, in the runs in which it came.
    #[cfg(feature = "server")]
    pub(super) fn poll_runs(&self, cx: &mut Context<'_>, out: &mut Vec<Run>) -> Poll<Result<(), CloseCode>> {
        self.poll(cx, |state| {
            out.extend(std::iter::from_fn(|| state.next_run()));
            Some(())
        })
    }

    /// Hands out the first frame that waits; the close code once nothing does.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Result<Frame, CloseCode>> {
        self.poll(cx, State::next_frame)
    }

    fn poll<T>(
        &self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(&mut State) -> Option<T>,
    ) -> Poll<Result<T, CloseCode>> {
        if let Some(ready) = self.look(&mut take) {
            return Poll::Ready(ready);
        }
        self.waker.register(cx.waker());
        // Something may have come between the look and the registration.
        self.look(&mut take).map_or(Poll::Pending, Poll::Ready)
    }

    fn look<T>(&self, take: &mut impl FnMut(&mut State) -> Option<T>) -> Option<Result<T, CloseCode>> {
        let mut state = self.state.lock();
        if state.runs.is_empty() {
            return state.closed.map(Err);
        }
        let taken = take(&mut state)?;
        if state.runs.is_empty() && state.runs.capacity() > KEPT {
            // An idle session gives back what a burst took.
            state.runs = VecDeque::new();
        }
        Some(Ok(taken))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};

    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn frame(text: &str) -> Frame {
        Frame::from_text(text.into())
    }

    fn run(texts: &[&str]) -> Run {
        Run::new(texts.iter().map(|text| frame(text)).collect())
    }

    #[test]
    fn frames_come_out_in_order_and_then_the_close_code() {
        let outbox = Outbox::new(OutboxLimits { frames: 2, bytes: 100 });
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let mut out = Vec::new();
        assert!(outbox.poll_all(&mut cx, &mut out).is_pending());
        assert_eq!(outbox.push(run(&["a"])), Push::First);
        assert_eq!(outbox.push(run(&["b"])), Push::Queued);
        assert_eq!(outbox.push(run(&["c"])), Push::Full);
        outbox.wake();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        outbox.close(CloseCode::Restart);
        assert_eq!(outbox.push(run(&["d"])), Push::Closed);
        assert_eq!(outbox.poll_all(&mut cx, &mut out), Poll::Ready(Ok(())));
        assert_eq!(out, [frame("a"), frame("b")]);
        assert_eq!(outbox.poll_all(&mut cx, &mut out), Poll::Ready(Err(CloseCode::Restart)));
    }

    #[test]
    fn bytes_are_bounded_but_one_frame_always_fits() {
        let outbox = Outbox::new(OutboxLimits { frames: 10, bytes: 4 });
        assert_eq!(outbox.push(run(&["too long by far"])), Push::First);
        assert_eq!(outbox.push(run(&["x"])), Push::Full);
    }

    #[test]
    fn a_run_comes_out_frame_by_frame_or_what_is_left_of_it_at_once() {
        let outbox = Outbox::new(OutboxLimits { frames: 5, bytes: 100 });
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.push(run(&["a", "b", "c"])), Push::First);
        assert_eq!(outbox.push(run(&["d", "e"])), Push::Queued);
        assert_eq!(outbox.push(run(&["f"])), Push::Full);
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Ok(frame("a"))));
        assert_eq!(outbox.push(run(&["f"])), Push::Queued);
        let mut out = Vec::new();
        assert_eq!(outbox.poll_all(&mut cx, &mut out), Poll::Ready(Ok(())));
        assert_eq!(out, ["b", "c", "d", "e", "f"].map(frame));
        assert!(outbox.poll_next(&mut cx).is_pending());
        assert_eq!(outbox.push(run(&["g"])), Push::First);
        assert_eq!(outbox.poll_next(&mut cx), Poll::Ready(Ok(frame("g"))));
    }

    #[test]
    fn who_is_too_slow_gets_nothing_more() {
        let outbox = Outbox::new(OutboxLimits::default());
        assert_eq!(outbox.push(run(&["a"])), Push::First);
        outbox.close(CloseCode::TooSlow);
        let mut out = Vec::new();
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(outbox.poll_all(&mut cx, &mut out), Poll::Ready(Err(CloseCode::TooSlow)));
    }
}

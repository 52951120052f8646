//! The engine's handle to one connection.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::core::Core;
use super::outbox::{Outbox, OutboxLimits, Push};
use crate::consumer::{Consumer, Scope};
use crate::error::{CloseCode, Code, Error};
use crate::frame::Frame;
#[cfg(feature = "server")]
use crate::frame::Run;
use crate::id::UserKey;
use crate::room::SessionId;

/// One connection to the engine, made by [`Engine::connect`](super::Engine::connect). Dropping it takes it out of its
/// room. All methods may be called from several tasks at once; frames are for one reader.
pub struct Session {
    pub(super) core: Arc<Core>,
    pub(super) inner: Arc<SessionCore>,
}

pub(super) struct SessionCore {
    pub(super) id: SessionId,
    pub(super) user: UserKey,
    pub(super) user_name: Arc<str>,
    pub(super) login: Option<Arc<str>>,
    pub(super) outbox: Outbox,
    /// Whether it counts among those who are in its room.
    present: AtomicBool,
    state: Mutex<State>,
}

struct State {
    consumer: Consumer,
    /// Somebody is carrying out the consumer's outputs; whoever adds some meanwhile leaves them to that one, so that
    /// they are carried out in order.
    driving: bool,
    accepted: Option<oneshot::Sender<Result<(), CloseCode>>>,
}

impl SessionCore {
    pub(super) fn new(
        id: SessionId,
        consumer: Consumer,
        limits: OutboxLimits,
        accepted: oneshot::Sender<Result<(), CloseCode>>,
    ) -> Self {
        let Scope { user, user_name, login, .. } = consumer.scope().clone();
        let state = State { consumer, driving: false, accepted: Some(accepted) };
        let outbox = Outbox::new(limits);
        Self { id, user, user_name, login, outbox, present: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Whether that is a change.
    pub(super) fn set_present(&self, present: bool) -> bool {
        self.present.swap(present, Ordering::AcqRel) != present
    }

    /// Tells the consumer something and carries out what it wants done.
    pub(super) fn tell(self: &Arc<Self>, core: &Arc<Core>, tell: impl FnOnce(&mut Consumer)) {
        let mut state = self.state.lock();
        tell(&mut state.consumer);
        if std::mem::replace(&mut state.driving, true) {
            return;
        }
        while let Some(output) = state.consumer.poll_output() {
            drop(state);
            core.carry_out(self, output);
            state = self.state.lock();
        }
        state.driving = false;
    }

    pub(super) fn accept(&self) {
        if let Some(accepted) = self.state.lock().accepted.take() {
            // Nobody listens when the connecting future was dropped; the session is then dropped, too.
            let _ = accepted.send(Ok(()));
        }
    }

    pub(super) fn closed(&self, code: CloseCode) {
        self.outbox.close(code);
        if let Some(accepted) = self.state.lock().accepted.take() {
            let _ = accepted.send(Err(code));
        }
    }

    pub(super) fn ignored_claims(&self) -> u64 {
        self.state.lock().consumer.ignored_claims()
    }

    /// Puts a frame of this session's own into its outbox; false when it is too slow. Then the outbox is closed at once:
    /// a `resumed` behind a missing frame would move the client's cursor past it.
    pub(super) fn send(&self, frame: Frame) -> bool {
        match self.outbox.push(frame.into()) {
            Push::First => {
                self.outbox.wake();
                true
            }
            Push::Queued | Push::Closed => true,
            Push::Full => {
                self.outbox.close(CloseCode::TooSlow);
                false
            }
        }
    }
}

impl Session {
    /// Takes in a text frame of the client. Waits while the engine has too much to store already. Whatever is wrong
    /// with the frame, the client is told; an error here is only that nothing can be received any more.
    ///
    /// # Errors
    /// `session_closed`, `engine_closed`, `engine_forked`.
    pub async fn receive(&self, text: &str) -> Result<(), Error> {
        if self.core.is_forked() {
            return Err(Code::EngineForked.into());
        }
        self.receive_unforked(text).await
    }

    /// The same for whoever knows that the process was not forked, and saves asking the system: tasks of a runtime, of
    /// whose threads a forked process has none; bindings that watch for forks.
    ///
    /// # Errors
    /// `session_closed`, `engine_closed`.
    pub async fn receive_unforked(&self, text: &str) -> Result<(), Error> {
        self.core.writer.wait_for_space().await;
        let _taking = self.core.writer.hold();
        if self.core.is_closing() {
            self.inner.tell(&self.core, |consumer| consumer.handle_unwanted(text, Code::EngineClosed));
            return Err(Code::EngineClosed.into());
        }
        if self.closed().is_some() {
            return Err(Code::SessionClosed.into());
        }
        let now = self.core.now();
        self.inner.tell(&self.core, |consumer| consumer.handle_frame(text, now));
        Ok(())
    }

    /// The client sent what is no readable text frame: it gets an `error` frame with this code.
    pub fn receive_unreadable(&self, code: Code) {
        let now = self.core.now();
        self.inner.tell(&self.core, |consumer| consumer.handle_unreadable(code, now));
    }

    /// Appends all frames that wait for the client to `out`.
    ///
    /// # Errors
    /// The close code, once the session is closed and every frame has been handed out.
    pub fn poll_frames(&self, cx: &mut Context<'_>, out: &mut Vec<Frame>) -> Poll<Result<(), CloseCode>> {
        self.inner.outbox.poll_all(cx, out)
    }

    /// The same in runs, for whoever writes a run as it is.
    #[cfg(feature = "server")]
    pub(crate) fn poll_runs(&self, cx: &mut Context<'_>, out: &mut Vec<Run>) -> Poll<Result<(), CloseCode>> {
        self.inner.outbox.poll_runs(cx, out)
    }

    /// Waits for frames and appends all of them to `out`.
    ///
    /// # Errors
    /// As [`Session::poll_frames`].
    pub async fn next_many(&self, out: &mut Vec<Frame>) -> Result<(), CloseCode> {
        poll_fn(|cx| self.poll_frames(cx, out)).await
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// As [`Session::poll_frames`].
    pub async fn next(&self) -> Result<Frame, CloseCode> {
        poll_fn(|cx| self.inner.outbox.poll_next(cx)).await
    }

    /// Closes the session; frames that wait are still handed out.
    pub fn close(&self, code: CloseCode) {
        self.inner.tell(&self.core, |consumer| consumer.handle_closed(code));
    }

    /// The code with which the session was closed, if it was.
    pub fn closed(&self) -> Option<CloseCode> {
        self.inner.outbox.closed()
    }

    /// The number of this session in its engine.
    pub fn id(&self) -> SessionId {
        self.inner.id
    }

    /// The token, user and addresses that the connection started with.
    pub fn scope(&self) -> Scope {
        self.inner.state.lock().consumer.scope().clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.core.forget(&self.inner);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).field("closed", &self.closed()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::Rules;
    use crate::frame::Encoder;
    use crate::token::Keyring;

    #[test]
    fn nothing_gets_through_behind_a_frame_that_found_no_space() {
        let rules = Rules::new(Encoder::new(Keyring::new([9; 32]).unwrap()));
        let scope = Scope {
            token: String::new(),
            user: "bob".into(),
            user_name: "bob".into(),
            after: None,
            origin: None,
            remote: None,
            login: None,
        };
        let (accepted, _) = oneshot::channel();
        let limits = OutboxLimits { frames: 10, bytes: 8 };
        let session = SessionCore::new(SessionId(1), Consumer::new(Arc::new(rules), scope), limits, accepted);
        assert!(session.send(Frame::from_text("first".into())));
        assert!(!session.send(Frame::from_text("too long".into())));
        assert!(session.send(Frame::from_text("x".into())));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert_eq!(session.outbox.poll_next(&mut cx), Poll::Ready(Err(CloseCode::TooSlow)));
    }
}

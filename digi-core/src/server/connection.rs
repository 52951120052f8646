//! One open WebSocket: one task, in which a reading and a writing half take turns.
//!
//! They are two futures under one `select!`, so that reading may wait for the engine to take a frame while frames to
//! the client, pings among them, still go out. Both need the [`Socket`]; as they are never polled at the same time, its
//! lock is always free, and it is never held across an `await`.

use std::fmt;
use std::future::{pending, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Utf8Bytes;
use tokio_tungstenite::tungstenite::error::{CapacityError, Error as WsError, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};

use super::http::{Upgraded, Visit};
use super::limits::ServerLimits;
use super::socket::Socket;
use super::{Shared, log};
use crate::engine::Session;
use crate::error::{CloseCode, Code};

/// Up to so many runs of frames keep their list between two writes: the idle should own little.
const KEPT_RUNS: usize = 4;
/// How much of what a cut-off client still sends is read, so that it gets to see why.
const LINGER_BYTES: u64 = 8 * 1024 * 1024;

/// RFC 6455 §7.4.1: a close frame without a code; text that is not UTF-8; a message too big.
const NO_STATUS: u16 = 1005;
const NOT_UTF8: u16 = 1007;
const TOO_BIG: u16 = 1009;

/// How an open connection came to its end.
enum Ended {
    /// The engine closed the session.
    Closed(CloseCode),
    /// The client said goodbye, or vanished.
    Left(Option<u16>),
    /// The client sent what cannot be read on. With the RFC 6455 §7.4.1 or own code and reason.
    Unreadable(u16, &'static str),
    /// The client took nothing for too long.
    Stuck,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => code.fmt(f),
            Self::Left(Some(code)) => write!(f, "{code} by the client"),
            // RFC 6455 §7.4.1: what stands for "without a close frame".
            Self::Left(None) => f.write_str("1006 lost"),
            Self::Unreadable(code, reason) => write!(f, "{code} {reason}"),
            Self::Stuck => f.write_str("write timeout"),
        }
    }
}

/// Lets a WebSocket into the engine, or tells it why not. Boxed, because a task that a value moves through keeps a
/// place for every step of its way.
pub(super) async fn open(shared: &Shared, upgraded: Upgraded) -> Option<Box<Connection>> {
    let limits = &shared.limits;
    let Upgraded { stream, early, visit: Visit { label, scope } } = upgraded;
    // A copy, so that HTTP's buffer of 8 KiB is still held while what stays is allocated: freed before, it would be cut
    // up for that, and the next connection would need another.
    let socket = Socket::new(stream, &early, limits.frame_bytes);
    let session = match scope {
        Ok(scope) => match timeout(limits.handshake_timeout, shared.engine.connect(scope)).await {
            Ok(session) => session,
            Err(_) => Err(CloseCode::Unavailable),
        },
        Err(code) => Err(code),
    };
    match session {
        Ok(session) => {
            log::connect(&label);
            Some(Box::new(Connection { session, wire: Mutex::new(Wire { socket, heard: Instant::now() }), label }))
        }
        Err(code) => {
            log::reject(&label, code);
            close(socket, code.number(), code.name(), limits).await;
            None
        }
    }
}

/// An open WebSocket with its session.
pub(super) struct Connection {
    session: Session,
    wire: Mutex<Wire>,
    label: log::Label,
}

struct Wire {
    socket: Socket,
    /// When the client last sent anything.
    heard: Instant,
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn serve(self: Box<Self>, limits: &ServerLimits) {
        let ended = self.run(limits).await;
        // Boxed, because an idle connection would hold the space for it.
        Box::pin(self.end(ended, limits)).await;
    }

    async fn end(self: Box<Self>, ended: Ended, limits: &ServerLimits) {
        let Self { session, wire, label } = *self;
        // The room need not wait for this client's goodbye.
        drop(session);
        log::disconnect(&label, &ended);
        let (code, reason) = match ended {
            Ended::Closed(code) => (code.number(), code.name()),
            Ended::Unreadable(code, reason) => (code, reason),
            Ended::Left(_) | Ended::Stuck => return,
        };
        close(wire.into_inner().socket, code, reason, limits).await;
    }

    async fn run(&self, limits: &ServerLimits) -> Ended {
        let mut write = pin!(self.write(limits));
        let ended = tokio::select! {
            // Writing first: a client that sends without pause must not keep its own frames from going out.
            biased;
            ended = &mut write => ended,
            ended = self.read() => ended,
        };
        if let Ended::Unreadable(..) = ended {
            // What is on its way to the client, the `error` frame last, still goes out.
            self.session.close(CloseCode::ProtocolViolation);
            write.await;
        }
        ended
    }

    /// Hands frames to the session until the client leaves or cannot be read any more.
    async fn read(&self) -> Ended {
        let mut said = None;
        loop {
            match poll_fn(|cx| self.poll_message(cx)).await {
                Some(Ok(Message::Text(text))) => {
                    // While the engine closes, the client is told of each frame that it is not taken. A closed session
                    // takes nothing; the writing half learns its code.
                    if self.session.receive_unforked(&text).await.is_err() && self.session.closed().is_some() {
                        return pending().await;
                    }
                }
                Some(Ok(Message::Binary(_))) => self.session.receive_unreadable(Code::NotText),
                // Reading on sends the answer to it and ends.
                Some(Ok(Message::Close(frame))) => said = frame.map(|frame| frame.code.into()),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return self.unreadable(&error),
                None => return Ended::Left(said.or(Some(NO_STATUS))),
            }
        }
    }

    fn poll_message(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WsError>>> {
        let mut wire = self.wire.lock();
        let message = ready!(wire.socket.poll_message(cx));
        wire.heard = Instant::now();
        Poll::Ready(message)
    }

    fn unreadable(&self, error: &WsError) -> Ended {
        match error {
            WsError::Capacity(CapacityError::MessageTooLong { .. }) => {
                self.session.receive_unreadable(Code::FrameTooLarge);
                Ended::Unreadable(TOO_BIG, Code::FrameTooLarge.name())
            }
            WsError::Utf8(_) => {
                self.session.receive_unreadable(Code::NotText);
                Ended::Unreadable(NOT_UTF8, Code::NotText.name())
            }
            WsError::Io(_) | WsError::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Ended::Left(None),
            _ => {
                let code = CloseCode::ProtocolViolation;
                Ended::Unreadable(code.number(), code.name())
            }
        }
    }

    /// Hands the session's frames to the client and pings a silent one, until the session is closed.
    async fn write(&self, limits: &ServerLimits) -> Ended {
        let mut runs = Vec::new();
        let mut keep_alive = KeepAlive { pinged: None };
        let mut alarm = pin!(sleep_until(Instant::now() + limits.ping_interval));
        loop {
            let woken = poll_fn(|cx| match self.session.poll_runs(cx, &mut runs) {
                Poll::Ready(session) => Poll::Ready(Some(session)),
                Poll::Pending => alarm.as_mut().poll(cx).map(|()| None),
            });
            match woken.await {
                Some(Ok(())) => {
                    let mut wire = self.wire.lock();
                    runs.drain(..).for_each(|run| wire.socket.push(&run));
                }
                Some(Err(code)) => return Ended::Closed(code),
                None => {
                    let mut wire = self.wire.lock();
                    match keep_alive.check(wire.heard, Instant::now(), limits) {
                        Check::Wait { until } => {
                            alarm.as_mut().reset(until);
                            continue;
                        }
                        Check::Ping { until } => {
                            alarm.as_mut().reset(until);
                            wire.socket.push_ping();
                        }
                        Check::Gone => return Ended::Closed(CloseCode::PingTimeout),
                    }
                }
            }
            // The time counts from the last write: who takes a long backlog slowly is not stuck.
            let sent = loop {
                match timeout(limits.write_timeout, poll_fn(|cx| self.wire.lock().socket.poll_write(cx))).await {
                    Ok(Ok(false)) => {}
                    last => break last,
                }
            };
            match sent {
                Ok(Ok(_)) => {}
                Ok(Err(_)) => return Ended::Left(None),
                Err(_) => return Ended::Stuck,
            }
            if runs.capacity() > KEPT_RUNS {
                runs = Vec::new();
            }
        }
    }
}

/// When a client is pinged and when given up. One alarm per connection, set again only when it rings: what a client
/// sends costs no timer.
struct KeepAlive {
    pinged: Option<Instant>,
}

#[derive(PartialEq, Eq, Debug)]
enum Check {
    /// Look again then.
    Wait { until: Instant },
    /// Ping, and look again then.
    Ping { until: Instant },
    /// No answer.
    Gone,
}

impl KeepAlive {
    fn check(&mut self, heard: Instant, now: Instant, limits: &ServerLimits) -> Check {
        if let Some(pinged) = self.pinged.filter(|pinged| heard < *pinged) {
            let until = pinged + limits.ping_timeout;
            return if now < until { Check::Wait { until } } else { Check::Gone };
        }
        let due = heard + limits.ping_interval;
        if now < due {
            self.pinged = None;
            return Check::Wait { until: due };
        }
        self.pinged = Some(now);
        // Not only when its time is up: if it answers soon, the next ping may be due before that.
        Check::Ping { until: now + limits.ping_timeout.min(limits.ping_interval) }
    }
}

/// Says goodbye and waits for the answer, but not for long.
async fn close(mut socket: Socket, code: u16, reason: &'static str, limits: &ServerLimits) {
    let goodbye = async {
        let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::from_static(reason) };
        if socket.send(Message::Close(Some(frame))).await.is_err() {
            return;
        }
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                return;
            }
        }
        // A socket that is dropped with something unread in it is reset, and the client may never see the code.
        socket.linger(LINGER_BYTES).await;
    };
    let _ = timeout(limits.close_timeout, goodbye).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[tokio::test]
    async fn the_silent_are_pinged_and_the_mute_given_up() {
        let limits = ServerLimits {
            ping_interval: Duration::from_secs(30),
            ping_timeout: Duration::from_secs(20),
            ..ServerLimits::default()
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut keep_alive = KeepAlive { pinged: None };
        assert_eq!(keep_alive.check(at(10), at(30), &limits), Check::Wait { until: at(40) });
        assert_eq!(keep_alive.check(at(10), at(40), &limits), Check::Ping { until: at(60) });
        // It answers.
        assert_eq!(keep_alive.check(at(41), at(60), &limits), Check::Wait { until: at(71) });
        assert_eq!(keep_alive.check(at(41), at(71), &limits), Check::Ping { until: at(91) });
        // It does not.
        assert_eq!(keep_alive.check(at(41), at(91), &limits), Check::Gone);

        let patient = ServerLimits { ping_timeout: Duration::from_secs(100), ..limits };
        let mut keep_alive = KeepAlive { pinged: None };
        assert_eq!(keep_alive.check(at(0), at(30), &patient), Check::Ping { until: at(60) });
        assert_eq!(keep_alive.check(at(0), at(60), &patient), Check::Wait { until: at(130) });
        assert_eq!(keep_alive.check(at(0), at(130), &patient), Check::Gone);
    }
}

//! A WebSocket over TCP that owns next to nothing while it is idle.
//!
//! tungstenite speaks the protocol: it takes messages apart, answers pings and says goodbye. What goes between it and
//! the kernel is ours. Bytes are read into a buffer that all sockets of a thread share, and frames to the client are
//! written out of the one copy that all recipients share, many of them with one call.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::error::Error as WsError;
use tokio_tungstenite::tungstenite::protocol::frame::FrameHeader;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig, WebSocketContext};

use crate::frame::{Frame, Run};

/// What is read at once. One such buffer per thread.
const SCRATCH: usize = 16 * 1024;
/// What every socket holds for what it reads; a longer message takes its own length while it comes in.
const READ_BUFFER: usize = 256;
/// Pongs that wait while the client takes nothing. Beyond it only the newest is kept.
const WAITING_PONGS: usize = 512;
/// So many pieces are written at once.
const PIECES: usize = 32;

/// RFC 6455 §5.5.2: final, opcode 9, no payload.
const PING: &[u8] = &[0x89, 0];

thread_local! {
    static SHARED: RefCell<Box<[u8]>> = RefCell::new(vec![0; SCRATCH].into());
}

pub(super) struct Socket {
    protocol: WebSocketContext,
    link: Link,
    /// What came last could not be read, and so nothing behind it can.
    ended: bool,
}

/// The bytes on their way in and out.
struct Link {
    stream: TcpStream,
    /// Was read and not yet taken by the protocol.
    unread: Bytes,
    /// Whole frames, of which the first may have been written in part. Whoever adds to it waits until it is empty
    /// again, and so bounds it.
    outgoing: VecDeque<Bytes>,
}

impl Socket {
    /// `early` is what the client sent behind its handshake.
    pub(super) fn new(stream: TcpStream, early: &[u8], frame_bytes: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_write_buffer_size(WAITING_PONGS)
            .max_message_size(Some(frame_bytes))
            .max_frame_size(Some(frame_bytes));
        Self {
            protocol: WebSocketContext::new(Role::Server, Some(config)),
            link: Link { stream, unread: Bytes::copy_from_slice(early), outgoing: VecDeque::new() },
            ended: false,
        }
    }

    /// The next message; none once both sides have said goodbye, or behind an error.
    pub(super) fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Message, WsError>>> {
        if !self.ended {
            match ready!(self.poll_protocol(cx)) {
                Err(WsError::ConnectionClosed | WsError::AlreadyClosed) => self.ended = true,
                message => {
                    self.ended = message.is_err();
                    return Poll::Ready(Some(message));
                }
            }
        }
        // The rest of a goodbye.
        let _ = ready!(self.link.poll_write_all(cx));
        Poll::Ready(None)
    }

    fn poll_protocol(&mut self, cx: &mut Context<'_>) -> Poll<Result<Message, WsError>> {
        let mut io = Io { link: &mut self.link, cx };
        if let Poll::Ready(message) = blocking(self.protocol.read(&mut io)) {
            return Poll::Ready(message);
        }
        // The pong that was kept while others waited goes out behind them, and the rest of one that was written in part:
        // nothing else would see to that.
        if let Poll::Ready(Err(error)) = blocking(self.protocol.flush(&mut io)) {
            return Poll::Ready(Err(error));
        }
        match self.link.poll_write_all(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Pending,
        }
    }

    /// Frames that are to be written, unless the client has said goodbye.
    pub(super) fn push(&mut self, run: &Run) {
        if self.protocol.can_write() {
            self.link.outgoing.push_back(run.wire(encode).clone());
        }
    }

    /// A ping that is to be written.
    pub(super) fn push_ping(&mut self) {
        if self.protocol.can_write() {
            self.link.outgoing.push_back(Bytes::from_static(PING));
        }
    }

    /// Writes once: true when nothing is left.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, WsError>> {
        if !ready!(self.link.poll_write_once(cx))? {
            return Poll::Ready(Ok(false));
        }
        match ready!(blocking(self.protocol.flush(&mut Io { link: &mut self.link, cx }))) {
            // Both sides have said goodbye: whoever reads hears of it.
            Ok(()) | Err(WsError::ConnectionClosed) => Poll::Ready(Ok(self.link.outgoing.is_empty())),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Writes a message behind all that waits.
    pub(super) async fn send(&mut self, message: Message) -> Result<(), WsError> {
        let mut message = Some(message);
        poll_fn(|cx| {
            loop {
                ready!(self.link.poll_write_all(cx))?;
                let mut io = Io { link: &mut self.link, cx };
                ready!(blocking(self.protocol.flush(&mut io)))?;
                match message.take() {
                    // Where it has to wait, it is the protocol's, and flushed.
                    Some(message) => {
                        if let Poll::Ready(Err(error)) = blocking(self.protocol.write(&mut io, message)) {
                            return Poll::Ready(Err(error));
                        }
                    }
                    None if self.link.outgoing.is_empty() => return Poll::Ready(Ok(())),
                    None => {}
                }
            }
        })
        .await
    }

    pub(super) async fn next(&mut self) -> Option<Result<Message, WsError>> {
        poll_fn(|cx| self.poll_message(cx)).await
    }

    /// Ends what goes out, and reads on for so many bytes at most.
    pub(super) async fn linger(&mut self, bytes: u64) {
        let stream = &mut self.link.stream;
        if stream.shutdown().await.is_ok() {
            let _ = tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await;
        }
    }
}

/// Text frames as they go over the wire.
fn encode(frames: &[Frame]) -> Bytes {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let lengths = frames.iter().map(|frame| frame.as_bytes().len());
    let mut out = Vec::with_capacity(lengths.map(|length| header.len(length as u64) + length).sum());
    for frame in frames {
        let text = frame.as_bytes();
        // Writing into memory cannot fail.
        let _ = header.format(text.len() as u64, &mut out);
        out.extend_from_slice(text);
    }
    out.into()
}

/// What the protocol says when it would have to wait, as what it is.
fn blocking<T>(result: Result<T, WsError>) -> Poll<Result<T, WsError>> {
    match result {
        Err(WsError::Io(error)) if error.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl Link {
    /// Writes once: true when nothing is left.
    fn poll_write_once(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let stream = Pin::new(&mut self.stream);
        let written = match self.outgoing.len() {
            0 => return Poll::Ready(Ok(true)),
            1 => ready!(stream.poll_write(cx, &self.outgoing[0]))?,
            _ => {
                let mut pieces = [IoSlice::new(&[]); PIECES];
                let count = self.outgoing.len().min(PIECES);
                for (piece, bytes) in pieces.iter_mut().zip(&self.outgoing) {
                    *piece = IoSlice::new(bytes);
                }
                ready!(stream.poll_write_vectored(cx, &pieces[..count]))?
            }
        };
        if written == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.wrote(written);
        Poll::Ready(Ok(self.outgoing.is_empty()))
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !ready!(self.poll_write_once(cx))? {}
        Poll::Ready(Ok(()))
    }

    fn wrote(&mut self, mut written: usize) {
        while let Some(first) = self.outgoing.front_mut() {
            if written < first.len() {
                first.advance(written);
                return;
            }
            written -= first.len();
            self.outgoing.pop_front();
        }
        // What a burst took is given back.
        if self.outgoing.capacity() > PIECES {
            self.outgoing = VecDeque::new();
        }
    }
}

/// The link as the protocol wants it, while it is polled.
struct Io<'a, 'c> {
    link: &'a mut Link,
    cx: &'a mut Context<'c>,
}

impl Read for Io<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let link = &mut *self.link;
        if link.unread.is_empty() {
            let stream = Pin::new(&mut link.stream);
            return SHARED.with_borrow_mut(|shared| {
                let mut read = ReadBuf::new(shared);
                match stream.poll_read(self.cx, &mut read) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Err(error),
                    Poll::Pending => return Err(ErrorKind::WouldBlock.into()),
                }
                let read = read.filled();
                let count = read.len().min(buffer.len());
                buffer[..count].copy_from_slice(&read[..count]);
                if count < read.len() {
                    link.unread = Bytes::copy_from_slice(&read[count..]);
                }
                Ok(count)
            });
        }
        let count = link.unread.len().min(buffer.len());
        buffer[..count].copy_from_slice(&link.unread[..count]);
        link.unread.advance(count);
        if link.unread.is_empty() {
            link.unread = Bytes::new();
        }
        Ok(count)
    }
}

/// A frame of the protocol's own goes out whole, or not yet: never in the middle of another.
impl Write for Io<'_, '_> {
    fn write(&mut self, frame: &[u8]) -> io::Result<usize> {
        let blocked = || Err(ErrorKind::WouldBlock.into());
        match self.link.poll_write_all(self.cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return blocked(),
        }
        match Pin::new(&mut self.link.stream).poll_write(self.cx, frame) {
            Poll::Ready(Ok(written)) => {
                if written < frame.len() {
                    self.link.outgoing.push_back(Bytes::copy_from_slice(&frame[written..]));
                }
                Ok(frame.len())
            }
            Poll::Ready(Err(error)) => Err(error),
            Poll::Pending => blocked(),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

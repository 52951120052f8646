//! The floor: one thread over epoll, with WebSocket frames made by hand. A text goes as it came to everybody who has
//! connected with the same path; what a wake-up brings goes out with one write for each who gets something. No storage, no tokens, no limits.

use std::collections::{BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::{Result, peer};

const LISTENER: Token = Token(usize::MAX);
const END: Token = Token(usize::MAX - 1);
/// What one read takes at most.
const BUFFER: usize = 64 * 1024;

/// RFC 6455 §5.2: a whole text, a close frame, a pong; the lower half of the first byte is the opcode.
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8A;

struct Client {
    stream: TcpStream,
    /// None: has not asked for a WebSocket yet.
    room: Option<usize>,
    /// What has come and is not a whole frame yet.
    tail: Vec<u8>,
    /// What is to go out.
    out: Vec<u8>,
}

/// Serves until the parent goes.
pub(crate) fn serve() -> Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind("127.0.0.1:0".parse()?)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    // Kept here, too: what is closed before it is seen wakes nobody.
    let waker = Arc::new(Waker::new(poll.registry(), END)?);
    let ender = waker.clone();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        ender.wake()
    });
    peer::announce(listener.local_addr()?);
    let mut server = Server::default();
    let mut events = Events::with_capacity(1024);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result?,
        }
        for event in &events {
            match event.token() {
                END => return Ok(()),
                LISTENER => server.accept(&listener, &poll)?,
                Token(index) => server.look(index, event.is_readable()),
            }
        }
        server.flush();
    }
}

#[derive(Default)]
struct Server {
    clients: Vec<Option<Client>>,
    /// Places in `clients` that are free again.
    free: Vec<usize>,
    rooms: Vec<Vec<usize>>,
    room_of: HashMap<String, usize>,
    /// Who has something to send since the last flush.
    dirty: BTreeSet<usize>,
    buffer: Vec<u8>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let index = self.free.pop().unwrap_or_else(|| {
                self.clients.push(None);
                self.clients.len() - 1
            });
            poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
            self.clients[index] = Some(Client { stream, room: None, tail: Vec::new(), out: Vec::new() });
        }
    }

    fn look(&mut self, index: usize, readable: bool) {
        self.dirty.insert(index);
        if readable && self.read(index).is_none() {
            self.leave(index);
        }
    }

    /// Reads all that is there. None: the client has gone.
    fn read(&mut self, index: usize) -> Option<()> {
        loop {
            let client = self.clients.get_mut(index)?.as_mut()?;
            self.buffer.resize(BUFFER, 0);
            match client.stream.read(&mut self.buffer) {
                Ok(0) => return None,
                Ok(length) => client.tail.extend_from_slice(&self.buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Some(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return None,
            }
            let mut tail = std::mem::take(&mut client.tail);
            let rest = self.take(index, &mut tail)?;
            tail.drain(..tail.len() - rest);
            self.clients[index].as_mut()?.tail = tail;
        }
    }

    /// Does what whole frames say; how many bytes are left behind them.
    fn take(&mut self, index: usize, bytes: &mut [u8]) -> Option<usize> {
        let client = self.clients[index].as_mut()?;
        let Some(room) = client.room else { return self.greet(index, bytes) };
        let mut done = 0;
        while let Some((first, payload)) = unmask(&mut bytes[done..]) {
            let payload = done + payload.start..done + payload.end;
            done = payload.end;
            match first {
                TEXT => {
                    let frame = header(TEXT, payload.len());
                    for member in &self.rooms[room] {
                        let Some(Some(client)) = self.clients.get_mut(*member) else { continue };
                        client.out.extend_from_slice(&frame);
                        client.out.extend_from_slice(&bytes[payload.clone()]);
                        self.dirty.insert(*member);
                    }
                }
                CLOSE => {
                    let client = self.clients[index].as_mut()?;
                    client.out.extend_from_slice(&[CLOSE, 0]);
                    client.flush().ok()?;
                    return None;
                }
                PING => self.clients[index].as_mut()?.out.extend_from_slice(&[PONG, 0]),
                _ => {}
            }
        }
        Some(bytes.len() - done)
    }

    /// Answers the request for a WebSocket, once it is there.
    fn greet(&mut self, index: usize, bytes: &[u8]) -> Option<usize> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let Some(end) = end else { return Some(bytes.len()) };
        let request = std::str::from_utf8(&bytes[..end]).ok()?;
        let path = request.split(' ').nth(1)?;
        let header = |line: &&str| line.to_ascii_lowercase().starts_with("sec-websocket-key:");
        let key = request.lines().find(header)?.split_once(':')?.1.trim();
        let room = *self.room_of.entry(path.to_owned()).or_insert_with(|| {
            self.rooms.push(Vec::new());
            self.rooms.len() - 1
        });
        self.rooms[room].push(index);
        let client = self.clients[index].as_mut()?;
        client.room = Some(room);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        );
        client.out.extend_from_slice(answer.as_bytes());
        // The generator waits for it, as it does for Digi's: from here on nothing is missed.
        let resumed = br#"{"type":"resumed"}"#;
        client.out.extend_from_slice(&self::header(TEXT, resumed.len()));
        client.out.extend_from_slice(resumed);
        Some(bytes.len() - end - 4)
    }

    fn flush(&mut self) {
        for index in std::mem::take(&mut self.dirty) {
            let client = self.clients.get_mut(index).and_then(Option::as_mut);
            if client.is_some_and(|client| client.flush().is_err()) {
                self.leave(index);
            }
        }
    }

    fn leave(&mut self, index: usize) {
        let Some(client) = self.clients[index].take() else { return };
        if let Some(room) = client.room {
            self.rooms[room].retain(|member| *member != index);
        }
        self.free.push(index);
    }
}

impl Client {
    /// Sends what is to go out, as far as the socket takes it.
    fn flush(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.out.len() {
            match self.stream.write(&self.out[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.drain(..sent);
        Ok(())
    }
}

/// The beginning of a frame from a server.
fn header(first: u8, length: usize) -> Vec<u8> {
    match length {
        0..126 => vec![first, length as u8],
        length => [&[first, 126], &(length as u16).to_be_bytes()[..]].concat(),
    }
}

/// Takes the mask off the first frame of a client, if it is whole: its first byte, and where its payload stands, up to
/// the end of the frame.
fn unmask(bytes: &mut [u8]) -> Option<(u8, Range<usize>)> {
    let (start, length) = match *bytes {
        // A client's second byte has the highest bit set: masked.
        [_, 0xFE, a, b, ..] => (4, usize::from(u16::from_be_bytes([a, b]))),
        [_, second @ 0x80..0xFE, ..] => (2, usize::from(second & 0x7F)),
        _ => return None,
    };
    let (mask, rest) = bytes[start..].split_first_chunk_mut::<4>()?;
    let payload = rest.get_mut(..length)?;
    // RFC 6455 allows a mask of zeros, and the generator's is.
    if *mask != [0; 4] {
        payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
    }
    Some((bytes[0], start + 4..start + 4 + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_unmasked_once_they_are_whole() {
        let long: Vec<u8> = [&[TEXT, 0xFE, 1, 0, 0, 0, 0, 0][..], &[b'x'; 256]].concat();
        // The example of RFC 6455 §5.7.
        let hello = [TEXT, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let bytes = [&hello[..], &long, &[CLOSE, 0x80, 0, 0, 0, 0]].concat();
        for cut in 0..bytes.len() {
            let mut bytes = bytes[..cut].to_vec();
            let (mut done, mut lengths) = (0, Vec::new());
            while let Some((first, payload)) = unmask(&mut bytes[done..]) {
                lengths.push((first, payload.len()));
                done += payload.end;
            }
            let whole: &[_] = if cut < 11 {
                &[]
            } else if cut < 11 + 264 {
                &[(TEXT, 5)]
            } else {
                &[(TEXT, 5), (TEXT, 256)]
            };
            assert_eq!(lengths, whole, "{cut}");
        }
        let mut hello = hello;
        let (_, payload) = unmask(&mut hello).unwrap();
        assert_eq!(&hello[payload], b"Hello");
    }

    #[test]
    fn lengths_are_written_as_they_are_read() {
        assert_eq!(header(TEXT, 125), [TEXT, 125]);
        assert_eq!(header(TEXT, 300), [TEXT, 126, 1, 44]);
    }
}

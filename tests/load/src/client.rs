//! One WebSocket of the load, at the least cost: its frames are made beforehand and masked with zeros, which RFC 6455
//! allows, and of what comes only the tag is read.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::Result;
use crate::check::Tag;

/// How every `add` begins, to the server and from it.
const ADD: &[u8] = br#"{"type":"add","message":""#;
/// How the frame begins that says that nothing is missed from here on.
pub(crate) const RESUMED: &[u8] = br#"{"type":"resumed""#;
/// The name is what a classic page sends along. Digi does not believe it, a classic Channels consumer does.
const END: &[u8] = br#"","user":"load"}"#;
/// The message's text, in bytes: room, sender and number, then filled up.
const BODY: usize = 64;
const ROOM: usize = 6;
const SENDER: usize = 6;
const NUMBER: usize = 12;
/// RFC 6455 §5.2: two bytes and a masking key.
const HEADER: usize = 6;

/// RFC 6455 §5.2: a whole message of this opcode.
const FIN: u8 = 0x80;
const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
/// The client's side is masked.
const MASKED: u8 = 0x80;

/// How long the way in may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What asks for a WebSocket.
pub(crate) fn request(address: SocketAddr, path: &str, jwt: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nAuthorization: Bearer {jwt}\r\n\r\n"
    )
}

/// Connects, and waits until the server says that nothing is missed from here on.
pub(crate) fn connect(address: SocketAddr, path: &str, jwt: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request(address, path, jwt).as_bytes())?;
    let mut got = Vec::new();
    let mut chunk = [0; 1024];
    loop {
        let length = stream.read(&mut chunk)?;
        got.extend_from_slice(&chunk[..length]);
        if length == 0 {
            return Err(format!("closed during the handshake: {}", String::from_utf8_lossy(&got)).into());
        }
        let Some(end) = got.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        if !got.starts_with(b"HTTP/1.1 101") {
            return Err(format!("refused: {}", String::from_utf8_lossy(&got)).into());
        }
        let (frames, rest) = split(&got[end + 4..])?;
        match frames.first() {
            None => continue,
            Some((TEXT, text)) if text.starts_with(RESUMED) && frames.len() == 1 && rest.is_empty() => {
                stream.set_read_timeout(None)?;
                stream.set_nonblocking(true)?;
                return Ok(stream);
            }
            Some(_) => return Err(format!("not let in: {}", String::from_utf8_lossy(&got[end..])).into()),
        }
    }
}

/// The opcode and payload of a frame.
type Frame<'a> = (u8, &'a [u8]);

/// The next whole frame, and what follows it.
fn next_frame(bytes: &[u8]) -> Result<Option<(Frame<'_>, &[u8])>> {
    let [first, second, rest @ ..] = bytes else { return Ok(None) };
    if first & FIN == 0 || second & MASKED != 0 {
        return Err("a frame in pieces, or masked by the server".into());
    }
    let (length, rest) = match second {
        126 => match rest {
            [a, b, rest @ ..] => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            _ => return Ok(None),
        },
        127 => return Err("a frame above 64 KiB".into()),
        length => (usize::from(*length), rest),
    };
    Ok(rest.split_at_checked(length).map(|(payload, rest)| ((first & 0xF, payload), rest)))
}

fn split(mut bytes: &[u8]) -> Result<(Vec<Frame<'_>>, &[u8])> {
    let mut frames = Vec::new();
    while let Some((frame, rest)) = next_frame(bytes)? {
        frames.push(frame);
        bytes = rest;
    }
    Ok((frames, bytes))
}

/// What a server said.
pub(crate) enum Said<'a> {
    /// An `add` of the client's room.
    Message(Tag),
    /// A ping, to be answered.
    Ping,
    /// Any other text.
    Other(&'a [u8]),
}

/// An open connection.
pub(crate) struct Client {
    pub(crate) stream: mio::net::TcpStream,
    room: usize,
    /// The beginning of a frame whose rest is still to come.
    tail: Vec<u8>,
    /// What the socket did not take yet.
    unsent: Vec<u8>,
}

impl Client {
    pub(crate) fn new(stream: TcpStream, room: usize) -> Self {
        Self { stream: mio::net::TcpStream::from_std(stream), room, tail: Vec::new(), unsent: Vec::new() }
    }

    /// Reads what is there and calls `say` for each frame. `buffer` is anybody's.
    pub(crate) fn read(&mut self, buffer: &mut [u8], mut say: impl FnMut(Said<'_>)) -> Result<()> {
        loop {
            let kept = self.tail.len();
            buffer[..kept].copy_from_slice(&self.tail);
            let length = match self.stream.read(&mut buffer[kept..]) {
                Ok(0) => return Err("the server has closed a connection".into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let mut rest = &buffer[..kept + length];
            while let Some(((opcode, payload), after)) = next_frame(rest)? {
                rest = after;
                match opcode {
                    TEXT => say(self.understand(payload)),
                    PING => say(Said::Ping),
                    CLOSE => {
                        let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                        return Err(format!("the server has closed a connection with {code}").into());
                    }
                    _ => say(Said::Other(payload)),
                }
            }
            self.tail.clear();
            self.tail.extend_from_slice(rest);
            // epoll(7): a read that does not fill the space has emptied the socket.
            if kept + length < buffer.len() {
                return Ok(());
            }
        }
    }

    fn understand<'a>(&self, text: &'a [u8]) -> Said<'a> {
        let tag = || {
            let body = text.strip_prefix(ADD)?;
            let (room, rest) = body.split_at_checked(ROOM)?;
            let (sender, rest) = rest.split_at_checked(SENDER)?;
            let (number, _) = rest.split_at_checked(NUMBER)?;
            let is_ours = decimal(room)? == self.room as u64;
            is_ours.then_some(Tag { sender: usize::try_from(decimal(sender)?).ok()?, number: decimal(number)? })
        };
        tag().map_or(Said::Other(text), Said::Message)
    }

    /// Sends bytes, now or when the socket takes them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.unsent.extend_from_slice(bytes);
        self.flush()
    }

    /// Sends what is unsent, as far as the socket takes it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let mut sent = 0;
        while sent < self.unsent.len() {
            match self.stream.write(&self.unsent[sent..]) {
                Ok(length) => sent += length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.unsent.drain(..sent);
        Ok(())
    }

    pub(crate) fn pong(&mut self) -> Result<()> {
        self.write(&[FIN | PONG, MASKED, 0, 0, 0, 0])
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + u64::from(digit - b'0')))
}

/// The frames that one sender sends.
pub(crate) struct Script {
    frame: Vec<u8>,
}

impl Script {
    pub(crate) fn new(room: usize, sender: usize) -> Self {
        let length = ADD.len() + BODY + END.len();
        let mut frame = vec![FIN | TEXT, MASKED | length as u8, 0, 0, 0, 0];
        frame.extend_from_slice(ADD);
        frame.extend_from_slice(format!("{room:06}{sender:06}").as_bytes());
        frame.resize(HEADER + ADD.len() + BODY, b'.');
        frame.extend_from_slice(END);
        Self { frame }
    }

    /// Appends the frame with that number.
    pub(crate) fn append(&mut self, mut number: u64, out: &mut Vec<u8>) {
        let start = HEADER + ADD.len() + ROOM + SENDER;
        for digit in self.frame[start..start + NUMBER].iter_mut().rev() {
            *digit = b'0' + (number % 10) as u8;
            number /= 10;
        }
        out.extend_from_slice(&self.frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_in_whatever_pieces_they_come() {
        let long = [b"\x81\x7e\x01\x00".as_slice(), &[b'x'; 256]].concat();
        let bytes = [b"\x81\x02hi".as_slice(), &long, b"\x89\x00"].concat();
        for cut in 0..=bytes.len() {
            let (mut frames, rest) = split(&bytes[..cut]).unwrap();
            let whole = [rest, &bytes[cut..]].concat();
            let (more, rest) = split(&whole).unwrap();
            frames.extend(more);
            assert!(rest.is_empty());
            assert_eq!(frames, [(TEXT, b"hi".as_slice()), (TEXT, &[b'x'; 256]), (PING, b"")]);
        }
        assert!(split(b"\x01\x02hi").is_err());
    }

    #[test]
    fn a_script_is_understood() {
        let mut out = Vec::new();
        let mut script = Script::new(7, 3);
        script.append(41, &mut out);
        script.append(42, &mut out);
        assert_eq!(out.len() % 2, 0);
        let second = &out[out.len() / 2..];
        assert_eq!(usize::from(second[1] & !MASKED), second.len() - HEADER);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let client = Client::new(stream, 7);
        let tag = Tag { sender: 3, number: 42 };
        assert!(matches!(client.understand(&second[HEADER..]), Said::Message(found) if found == tag));
        assert!(matches!(client.understand(br#"{"type":"error"}"#), Said::Other(_)));
    }
}

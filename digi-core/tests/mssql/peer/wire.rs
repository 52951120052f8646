//! Packets: how one gets in, and what is asked.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

use super::tls::Certificate;

const BATCH: u8 = 0x01;
const RPC: u8 = 0x03;
const ANSWER: u8 = 0x04;
const LOGIN: u8 = 0x10;
const PRELOGIN: u8 = 0x12;

const HEADER: usize = 8;
const LAST: u8 = 1;

/// The size of packets until another one is agreed on, which the peer doesn't do.
const PACKET: usize = 4_096;

/// What a server says about encryption before the login.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Encryption {
    /// It has no certificate.
    None,
    /// The login is encrypted, the rest if the client wants it.
    Optional,
    /// All or nothing.
    Required,
    /// TDS 8.0 only: TLS comes first.
    Strict,
}

/// A connection, whatever is between.
pub(super) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A request, as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The connection's number, from 0.
    pub(crate) connection: usize,
    pub(crate) text: String,
    /// What was bound to @P1, @P2 and so on.
    pub(crate) values: Vec<Value>,
}

/// A bound value.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Value {
    Null,
    Int(i64),
    Text(String),
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

/// Up to the login's request. What follows is as encrypted as both sides want it.
pub(super) async fn handshake(
    mut tcp: TcpStream,
    encryption: Encryption,
    certificate: &Certificate,
) -> io::Result<Box<dyn Io>> {
    if encryption == Encryption::Strict {
        // A client of another kind begins with a packet, which TLS doesn't take for its own.
        let mut io: Box<dyn Io> = Box::new(certificate.acceptor_strict().accept(tcp).await?);
        prelogin(&mut io, encryption).await?;
        expect(&mut io, LOGIN).await?;
        return Ok(io);
    }
    let is_whole = match (encryption, prelogin(&mut tcp, encryption).await?) {
        (Encryption::None, _) => {
            expect(&mut tcp, LOGIN).await?;
            return Ok(Box::new(tcp));
        }
        (Encryption::Optional, wanted) => wanted != OFF,
        _ => true,
    };
    let within = WithinPackets { tcp, read: Vec::new(), written: Vec::new(), is_over: false };
    let mut tls = certificate.acceptor_within_packets().accept(within).await?;
    tls.get_mut().0.is_over = true;
    expect(&mut tls, LOGIN).await?;
    Ok(if is_whole { Box::new(tls) } else { Box::new(tls.into_inner().0.tcp) })
}

const OFF: u8 = 0;
const ON: u8 = 1;
const NOT_SUPPORTED: u8 = 2;
const REQUIRED: u8 = 3;

/// Gives what the client wants of encryption.
async fn prelogin(io: &mut (impl Io + ?Sized), encryption: Encryption) -> io::Result<u8> {
    let asked = expect(io, PRELOGIN).await?;
    let mut options = asked.chunks_exact(5).take_while(|option| option[0] != 0xFF);
    let place = options.find(|option| option[0] == 1).ok_or_else(|| nonsense("no option for encryption"))?;
    let place = usize::from(u16::from_be_bytes([place[1], place[2]]));
    let wanted = *asked.get(place).ok_or_else(|| nonsense("no value for encryption"))?;
    let answer = match encryption {
        Encryption::None => NOT_SUPPORTED,
        Encryption::Optional if wanted == OFF => OFF,
        Encryption::Optional => ON,
        Encryption::Required | Encryption::Strict => REQUIRED,
    };
    // Version, encryption; then their values.
    let mut body = vec![0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xFF, 16, 0, 0, 0, 0, 0];
    body.push(answer);
    write(io, &body).await?;
    Ok(wanted)
}

/// A message of this type.
async fn expect(io: &mut (impl Io + ?Sized), kind: u8) -> io::Result<Vec<u8>> {
    match read_message(io).await? {
        Some((found, body)) if found == kind => Ok(body),
        _ => Err(nonsense("another type of message was expected")),
    }
}

/// A whole message; none when the other side has closed.
async fn read_message(io: &mut (impl Io + ?Sized)) -> io::Result<Option<(u8, Vec<u8>)>> {
    let mut body = Vec::new();
    loop {
        let mut header = [0; HEADER];
        match io.read_exact(&mut header).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let length = length.checked_sub(HEADER).ok_or_else(|| nonsense("a packet's length"))?;
        let begin = body.len();
        body.resize(begin + length, 0);
        io.read_exact(&mut body[begin..]).await?;
        if header[1] & LAST != 0 {
            return Ok(Some((header[0], body)));
        }
    }
}

/// An answer in packets.
pub(super) async fn write(io: &mut (impl Io + ?Sized), body: &[u8]) -> io::Result<()> {
    let chunks = body.chunks(PACKET - HEADER);
    let last = chunks.len().saturating_sub(1);
    for (number, chunk) in chunks.enumerate() {
        io.write_all(&packet(ANSWER, if number == last { LAST } else { 0 }, chunk)).await?;
    }
    io.flush().await
}

/// Half of an answer.
pub(super) async fn write_half(io: &mut (impl Io + ?Sized), body: &[u8]) -> io::Result<()> {
    let whole = packet(ANSWER, LAST, body);
    io.write_all(&whole[..whole.len() / 2]).await?;
    io.flush().await
}

fn packet(kind: u8, status: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len() + HEADER).unwrap().to_be_bytes();
    let mut packet = vec![kind, status, length[0], length[1], 0, 0, 1, 0];
    packet.extend(body);
    packet
}

/// The next request; none when the other side has closed.
pub(super) async fn read_request(io: &mut (impl Io + ?Sized), connection: usize) -> io::Result<Option<Request>> {
    let Some((kind, body)) = read_message(io).await? else { return Ok(None) };
    let mut reader = Reader(&body);
    let headers = reader.u32()? as usize;
    reader.take(headers.checked_sub(4).ok_or_else(|| nonsense("headers"))?)?;
    let (text, values) = match kind {
        BATCH => (text(reader.0), Vec::new()),
        RPC => call(&mut reader)?,
        _ => return Err(nonsense("neither a batch nor a call")),
    };
    Ok(Some(Request { connection, text, values }))
}

/// A call of `sp_executesql`: the statement, the declarations of its parameters, the parameters.
fn call(reader: &mut Reader<'_>) -> io::Result<(String, Vec<Value>)> {
    const EXECUTE_SQL: u16 = 10;
    let (by_number, number, _flags) = (reader.u16()?, reader.u16()?, reader.u16()?);
    if (by_number, number) != (0xFFFF, EXECUTE_SQL) {
        return Err(nonsense("another procedure than sp_executesql"));
    }
    let mut values = Vec::new();
    while !reader.0.is_empty() {
        let name = reader.u8()?;
        reader.take(usize::from(name) * 2)?;
        let _by_reference = reader.u8()?;
        values.push(reader.value()?);
    }
    let mut values = values.into_iter();
    match (values.next(), values.next()) {
        (Some(Value::Text(text)), Some(Value::Text(_) | Value::Int(_))) => Ok((text, values.collect())),
        _ => Err(nonsense("a call without a statement")),
    }
}

fn text(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    String::from_utf16(&units).expect("the statement and its values are valid UTF-16")
}

/// Takes a message apart.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> io::Result<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or_else(|| nonsense("a message that is too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn u8(&mut self) -> io::Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u16(&mut self) -> io::Result<u16> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().unwrap()))
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().unwrap()))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().unwrap()))
    }

    /// A type and a value of it. Only what the store binds is known.
    fn value(&mut self) -> io::Result<Value> {
        match self.u8()? {
            0x26 => {
                let _declared = self.u8()?;
                let length = self.u8()?;
                let bytes = self.take(length.into())?;
                Ok(match length {
                    0 => Value::Null,
                    4 => Value::Int(i32::from_le_bytes(bytes.try_into().unwrap()).into()),
                    8 => Value::Int(i64::from_le_bytes(bytes.try_into().unwrap())),
                    _ => return Err(nonsense("an integer of another size")),
                })
            }
            0xE7 => {
                let declared = self.u16()?;
                let _collation = self.take(5)?;
                if declared != 0xFFFF {
                    return Ok(match self.u16()? {
                        0xFFFF => Value::Null,
                        length => Value::Text(text(self.take(length.into())?)),
                    });
                }
                if self.u64()? == u64::MAX {
                    return Ok(Value::Null);
                }
                let mut bytes = Vec::new();
                loop {
                    match self.u32()? as usize {
                        0 => return Ok(Value::Text(text(&bytes))),
                        length => bytes.extend(self.take(length)?),
                    }
                }
            }
            other => Err(nonsense(&format!("a value of the type {other:#x}"))),
        }
    }
}

/// TLS inside of packets, as long as it isn't agreed on.
struct WithinPackets {
    tcp: TcpStream,
    /// What came and isn't taken: packets, the first one perhaps in part.
    read: Vec<u8>,
    /// What is to be written when it is flushed.
    written: Vec<u8>,
    is_over: bool,
}

impl AsyncRead for WithinPackets {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.is_over {
            return Pin::new(&mut this.tcp).poll_read(context, buffer);
        }
        loop {
            if this.read.len() >= HEADER {
                let length = usize::from(u16::from_be_bytes([this.read[2], this.read[3]]));
                if length <= HEADER || this.read[0] != PRELOGIN {
                    return Poll::Ready(Err(nonsense("no TLS in the packet")));
                }
                if this.read.len() >= length {
                    let count = (length - HEADER).min(buffer.remaining());
                    buffer.put_slice(&this.read[HEADER..HEADER + count]);
                    let rest = length - count;
                    this.read.drain(HEADER..HEADER + count);
                    if rest == HEADER {
                        this.read.drain(..HEADER);
                    } else {
                        this.read[2..4].copy_from_slice(&u16::try_from(rest).unwrap().to_be_bytes());
                    }
                    return Poll::Ready(Ok(()));
                }
            }
            let mut bytes = [0; PACKET];
            let mut more = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.tcp).poll_read(context, &mut more))?;
            if more.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.read.extend(more.filled());
        }
    }
}

impl AsyncWrite for WithinPackets {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.is_over {
            return Pin::new(&mut this.tcp).poll_write(context, bytes);
        }
        this.written.extend(bytes.chunks(PACKET - HEADER).flat_map(|chunk| packet(PRELOGIN, LAST, chunk)));
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while !this.written.is_empty() {
            let count = ready!(Pin::new(&mut this.tcp).poll_write(context, &this.written))?;
            this.written.drain(..count);
        }
        Pin::new(&mut this.tcp).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().tcp).poll_shutdown(context)
    }
}

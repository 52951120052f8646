//! New connections: so many at a time get into a room, say goodbye, and make place for the next.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::client::{RESUMED, request};
use crate::digi::Doorman;
use crate::generator::Round;
use crate::peer::{Peer, cpu_of};
use crate::scenario::Shape;

/// Under way at a time.
const AT_A_TIME: usize = 32;
/// Before measuring, so that everything is warm.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long one connection may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// A poll returns at least this often, to look at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// What one read takes at most.
const BUFFER: usize = 4096;
/// RFC 6455 §5.5.1: how a server's close frame begins; no text in ASCII has this byte.
const CLOSE: u8 = 0x88;
/// And a client's: close, masked with zeros, code 1000.
const GOODBYE: [u8; 8] = [CLOSE, 0x82, 0, 0, 0, 0, 0x03, 0xE8];

/// Who comes next.
struct Guests {
    doorman: Doorman,
    shape: Shape,
    /// One after the other, each once; else always the same few, who all are known to the server.
    each_once: bool,
    came: usize,
}

impl Guests {
    fn next(&mut self, address: SocketAddr) -> Result<Vec<u8>> {
        let Shape { rooms, members, .. } = self.shape;
        if self.each_once && self.came >= rooms * members {
            return Err(format!("all {} members have come: measure fewer seconds", rooms * members).into());
        }
        let (room, member) = (self.came % rooms, self.came / rooms % members);
        self.came += 1;
        Ok(request(address, &self.doorman.path(room)?, &self.doorman.jwt(room, member)?).into_bytes())
    }
}

/// The clients of a peer.
pub(crate) struct Arrivals {
    guests: Guests,
    poll: Poll,
    slots: Vec<Option<Slot>>,
}

/// A place for one connection after the other.
struct Slot {
    stream: TcpStream,
    /// What is to be sent once it is connected.
    request: Option<Vec<u8>>,
    in_the_room: bool,
    since: Instant,
    got: Vec<u8>,
}

impl Arrivals {
    pub(crate) fn new(shape: &Shape, each_once: bool) -> Result<Self> {
        let guests = Guests { doorman: Doorman::new()?, shape: shape.clone(), each_once, came: 0 };
        Ok(Self { guests, poll: Poll::new()?, slots: (0..AT_A_TIME).map(|_| None).collect() })
    }

    pub(crate) fn round(&mut self, peer: &Peer, measure: Duration) -> Result<Round> {
        let mut round = Round::default();
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        let mut measuring: Option<(Instant, Duration, Duration)> = None;
        let start = Instant::now();
        for index in 0..AT_A_TIME {
            self.slots[index] = Some(self.arrive(peer, index)?);
        }
        // Until nobody is left: those under way at the end say goodbye, too.
        while self.slots.iter().any(Option::is_some) {
            if let Err(error) = self.poll.poll(&mut events, Some(LOOK))
                && error.kind() != io::ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            for event in &events {
                let Token(index) = event.token();
                let Some(slot) = &mut self.slots[index] else { continue };
                let Went { in_the_room, gone } = slot.go_on(&mut buffer)?;
                let is_over = !round.elapsed.is_zero();
                if let Some(took) = in_the_room
                    && measuring.is_some()
                    && !is_over
                {
                    round.count += 1;
                    round.latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                }
                if gone {
                    self.slots[index] = if is_over { None } else { Some(self.arrive(peer, index)?) };
                }
            }
            let now = Instant::now();
            if self.slots.iter().flatten().any(|slot| now - slot.since > PATIENCE) {
                return Err(format!("a connection took more than {} s", PATIENCE.as_secs()).into());
            }
            match measuring {
                None if now >= start + WARM_UP => measuring = Some((now, peer.cpu()?, cpu_of("self")?)),
                Some((since, cpu, own_cpu)) if now >= since + measure && round.elapsed.is_zero() => {
                    round.elapsed = now - since;
                    round.cpu = peer.cpu()?.saturating_sub(cpu);
                    round.own_cpu = cpu_of("self")?.saturating_sub(own_cpu);
                }
                None | Some(_) => {}
            }
        }
        round.latencies.sort_unstable();
        Ok(round)
    }

    fn arrive(&mut self, peer: &Peer, index: usize) -> Result<Slot> {
        let request = self.guests.next(peer.address)?;
        let since = Instant::now();
        let mut stream = TcpStream::connect(peer.address)?;
        stream.set_nodelay(true)?;
        self.poll.registry().register(&mut stream, Token(index), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Slot { stream, request: Some(request), in_the_room: false, since, got: Vec::new() })
    }
}

/// How far a connection has come with an event.
#[derive(Default)]
struct Went {
    /// It has got in, after so long.
    in_the_room: Option<Duration>,
    gone: bool,
}

impl Slot {
    fn go_on(&mut self, buffer: &mut [u8]) -> Result<Went> {
        let mut went = Went::default();
        if let Some(request) = self.request.take_if(|_| self.stream.peer_addr().is_ok()) {
            self.stream.write_all(&request)?;
        }
        while self.request.is_none() {
            let length = match self.stream.read(buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) if self.in_the_room => 0,
                Err(error) => return Err(error.into()),
            };
            if self.in_the_room {
                went.gone |= length == 0 || buffer[..length].contains(&CLOSE);
            } else if length == 0 {
                return Err(format!("not let in: {}", String::from_utf8_lossy(&self.got)).into());
            } else {
                self.got.extend_from_slice(&buffer[..length]);
                if self.got.windows(RESUMED.len()).any(|some| some == RESUMED) {
                    self.in_the_room = true;
                    went.in_the_room = Some(self.since.elapsed());
                    // A full socket is out of the question: this is the first that it gets.
                    went.gone |= self.stream.write_all(&GOODBYE).is_err();
                }
            }
            if went.gone {
                break;
            }
        }
        Ok(went)
    }
}

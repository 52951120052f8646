//! All clients of one peer, on one thread.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use fastrand::Rng;
use mio::{Events, Interest, Poll, Token};

use crate::Result;
use crate::check::{Faults, Order, Seen};
use crate::client::{Client, Said, Script, connect};
use crate::digi::Doorman;
use crate::peer::{Peer, cpu_of};
use crate::scenario::Shape;

/// Before measuring, so that everything is warm. Longer where the first messages take longer.
const WARM_UP: Duration = Duration::from_millis(500);
/// How long the first messages may take, before measuring.
const FIRST: Duration = Duration::from_secs(20);
/// What was sent may take as long as something comes, up to so long. What then has not come is lost.
const DRAIN: Duration = Duration::from_secs(60);
/// Nothing comes any more when nothing has come for so long.
const QUIET: Duration = Duration::from_secs(5);
/// A poll returns at least this often, to look at the clock.
const LOOK: Duration = Duration::from_millis(20);
/// What one read takes at most.
const BUFFER: usize = 256 * 1024;

/// What a round measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Round {
    pub(crate) elapsed: Duration,
    /// Messages that members got; of arrivals, connections.
    pub(crate) count: u64,
    /// Used by the peer.
    pub(crate) cpu: Duration,
    /// Used by this process.
    pub(crate) own_cpu: Duration,
    /// From sending to the sender's own copy, or from connecting to being in the room; in nanoseconds, ascending.
    pub(crate) latencies: Vec<u64>,
    pub(crate) faults: Faults,
}

/// How many messages are under way at any time.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flow {
    /// So many of each sender: the next goes out when the sender's own copy of one has come.
    OfEach(usize),
    /// So many in all, one at most of a sender: when a sender's own copy has come, the sender that has waited longest
    /// sends. At the beginning they stand in a random order.
    InAll(usize),
}

struct Member {
    client: Client,
    room: usize,
    seen: Seen,
    /// None: it only listens.
    sender: Option<Sender>,
}

struct Sender {
    index: usize,
    script: Script,
    sent: u64,
    /// When the last messages were sent, as many as are outstanding.
    sent_at: Vec<Instant>,
}

impl Sender {
    fn send(&mut self, count: u64, client: &mut Client, buffer: &mut Vec<u8>) -> Result<()> {
        buffer.clear();
        let now = Instant::now();
        let outstanding = self.sent_at.len() as u64;
        for _ in 0..count {
            self.script.append(self.sent, buffer);
            self.sent_at[(self.sent % outstanding) as usize] = now;
            self.sent += 1;
        }
        client.write(buffer)
    }
}

enum Phase {
    WarmUp,
    Measuring { since: Instant, cpu: Duration, own_cpu: Duration, deliveries: u64 },
    Draining,
}

/// The clients of a peer, connected and in their rooms.
pub(crate) struct Generator {
    poll: Poll,
    members: Vec<Member>,
    orders: Vec<Order>,
    /// Members of each room.
    room_size: usize,
    flow: Flow,
    /// Of [`Flow::InAll`], the senders that have no message under way.
    waiting: VecDeque<usize>,
    /// A strange frame, to be shown.
    strange: Option<String>,
}

impl Generator {
    pub(crate) fn connect(peer: &Peer, shape: &Shape, flow: Flow) -> Result<Self> {
        let poll = Poll::new()?;
        let doorman = Doorman::new()?;
        let outstanding = if let Flow::OfEach(count) = flow { count } else { 1 };
        let mut members = Vec::with_capacity(shape.rooms * shape.members);
        let mut waiting = VecDeque::new();
        for room in 0..shape.rooms {
            let path = doorman.path(room)?;
            for member in 0..shape.members {
                let stream = connect(peer.address, &path, &doorman.jwt(room, member)?)?;
                let mut client = Client::new(stream, room);
                let interest = Interest::READABLE | Interest::WRITABLE;
                poll.registry().register(&mut client.stream, Token(members.len()), interest)?;
                let sender = (member < shape.senders).then(|| Sender {
                    index: member,
                    script: Script::new(room, member),
                    sent: 0,
                    sent_at: vec![Instant::now(); outstanding],
                });
                if sender.is_some() && matches!(flow, Flow::InAll(_)) {
                    waiting.push_back(members.len());
                }
                members.push(Member { client, room, seen: Seen::new(shape.senders), sender });
            }
        }
        let orders = (0..shape.rooms).map(|_| Order::default()).collect();
        Rng::with_seed(1).shuffle(waiting.make_contiguous());
        Ok(Self { poll, members, orders, room_size: shape.members, flow, waiting, strange: None })
    }

    /// Lets the senders send, and everybody read, for so long.
    pub(crate) fn round(&mut self, peer: &Peer, measure: Duration) -> Result<Round> {
        let mut events = Events::with_capacity(1024);
        let mut buffer = vec![0; BUFFER];
        let mut out = Vec::new();
        let mut round = Round::default();
        let mut deliveries = 0;
        let mut phase = Phase::WarmUp;
        let start = Instant::now();
        let (mut deadline, mut heard) = (start, start);
        // Until the first messages have come the peer digests a burst, which is not what the round is about.
        let first = self.begin(&mut out)?;
        loop {
            if let Err(error) = self.poll.poll(&mut events, Some(LOOK))
                && error.kind() != std::io::ErrorKind::Interrupted
            {
                return Err(error.into());
            }
            let before = deliveries;
            for event in &events {
                let Token(index) = event.token();
                if event.is_writable() {
                    self.members[index].client.flush()?;
                }
                if event.is_readable() {
                    deliveries += self.take(index, &phase, &mut round.latencies, &mut buffer, &mut out)?;
                }
            }
            let now = Instant::now();
            if deliveries > before {
                heard = now;
            }
            match phase {
                Phase::WarmUp if now >= start + WARM_UP && (deliveries >= first || now >= start + FIRST) => {
                    phase = Phase::Measuring { since: now, cpu: peer.cpu()?, own_cpu: cpu_of("self")?, deliveries };
                }
                // A measurement in which nothing came, because the disk stood still, is none.
                Phase::Measuring { since, cpu, own_cpu, deliveries: before }
                    if now >= since + measure && (deliveries > before || now >= since + FIRST) =>
                {
                    round.elapsed = now - since;
                    round.count = deliveries - before;
                    round.cpu = peer.cpu()?.saturating_sub(cpu);
                    round.own_cpu = cpu_of("self")?.saturating_sub(own_cpu);
                    phase = Phase::Draining;
                    deadline = now + DRAIN;
                }
                Phase::Draining if now >= deadline || now >= heard + QUIET || self.has_all() => break,
                Phase::WarmUp | Phase::Measuring { .. } | Phase::Draining => {}
            }
        }
        round.faults = self.settle();
        round.latencies.sort_unstable();
        Ok(round)
    }

    /// Sends the first messages; how many deliveries they will be.
    fn begin(&mut self, out: &mut Vec<u8>) -> Result<u64> {
        let starters = match self.flow {
            Flow::OfEach(_) => (0..self.members.len()).collect(),
            Flow::InAll(count) => self.waiting.drain(..count.min(self.waiting.len())).collect::<Vec<_>>(),
        };
        let mut first = 0;
        for starter in starters {
            let Member { client, sender, .. } = &mut self.members[starter];
            if let Some(sender) = sender {
                first += (sender.sent_at.len() * self.room_size) as u64;
                sender.send(sender.sent_at.len() as u64, client, out)?;
            }
        }
        Ok(first)
    }

    /// Reads what came for a member and, unless the round is over, sends as many messages as own copies came.
    fn take(
        &mut self,
        index: usize,
        phase: &Phase,
        latencies: &mut Vec<u64>,
        buffer: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<u64> {
        let Member { client, room, seen, sender } = &mut self.members[index];
        let order = &mut self.orders[*room];
        let measuring = matches!(phase, Phase::Measuring { .. });
        let (mut deliveries, mut own, mut pinged) = (0, 0, false);
        let mut now = None;
        client.read(buffer, |said| match said {
            Said::Message(tag) => {
                deliveries += 1;
                seen.note(tag, order);
                if let Some(sender) = sender
                    && sender.index == tag.sender
                {
                    own += 1;
                    if measuring {
                        let sent_at = sender.sent_at[(tag.number % sender.sent_at.len() as u64) as usize];
                        let took = now.get_or_insert_with(Instant::now).duration_since(sent_at);
                        latencies.push(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
                    }
                }
            }
            Said::Ping => pinged = true,
            Said::Other(text) => {
                seen.faults.strange += 1;
                self.strange.get_or_insert_with(|| String::from_utf8_lossy(text).into_owned());
            }
        })?;
        if pinged {
            client.pong()?;
        }
        let mut next = index;
        if own > 0 && matches!(self.flow, Flow::InAll(_)) {
            self.waiting.push_back(index);
            if matches!(phase, Phase::Draining) {
                return Ok(deliveries);
            }
            next = self.waiting.pop_front().unwrap_or(index);
        }
        let Member { client, sender: Some(sender), .. } = &mut self.members[next] else { return Ok(deliveries) };
        if own > 0 && !matches!(phase, Phase::Draining) {
            sender.send(own, client, out)?;
        }
        Ok(deliveries)
    }

    /// How many messages each sender of a room has sent: its first members are its senders.
    fn sent(room: &[Member]) -> Vec<u64> {
        room.iter().map_while(|member| Some(member.sender.as_ref()?.sent)).collect()
    }

    fn has_all(&self) -> bool {
        self.members.chunk_by(|a, b| a.room == b.room).all(|room| {
            let sent = Self::sent(room);
            room.iter().all(|member| member.seen.has_all(&sent))
        })
    }

    fn settle(&mut self) -> Faults {
        let mut faults = Faults::default();
        for room in self.members.chunk_by_mut(|a, b| a.room == b.room) {
            let sent = Self::sent(room);
            for member in room {
                faults += member.seen.settle(&sent);
            }
        }
        self.orders.iter_mut().for_each(Order::clear);
        if let Some(text) = self.strange.take() {
            eprintln!("a strange frame: {text}");
        }
        faults
    }
}

//! What is run.

use std::time::Duration;

use rustix::process::{Resource, getrlimit};

use crate::Result;
use crate::arrivals::Arrivals;
use crate::generator::{Flow, Generator, Round};
use crate::kind::Kind;
use crate::kind::Kind::{
    AsgiBare, AsgiDigi, AsgiOrm, Bare, Channels, Channels2, Classic, Digi, Epoll, Picows, Socketify, Webrockets, Ws,
};
use crate::options::Options;
use crate::peer::Peer;

/// Rooms and who is in them.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    pub(crate) rooms: usize,
    /// Of each room, each with one connection.
    pub(crate) members: usize,
    /// Of the members.
    pub(crate) senders: usize,
}

/// A kind of load.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    shape: Shape,
    work: Work,
    /// Who runs it, unless peers are named.
    peers: &'static [Kind],
}

/// What the clients do.
#[derive(Clone, Copy, Debug)]
enum Work {
    Chat(Flow),
    /// As many messages under way in few rooms as in many.
    Rooms(&'static [usize]),
    Idle,
    /// They come and go; each once, or always the same.
    Arrivals {
        each_once: bool,
    },
}

/// Messages under way in all, over whatever number of rooms: one at most in each of ten, so that nobody gets two with
/// one write, however few rooms there are.
const UNDER_WAY: usize = 10;
/// Descriptors that this process needs for other things than connections.
const SPARE: usize = 200;

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "S0",
        text: "1 room x 2, one sends, 1 outstanding",
        shape: Shape { rooms: 1, members: 2, senders: 1 },
        work: Work::Chat(Flow::OfEach(1)),
        peers: &[Digi, Epoll, Bare, Ws, AsgiDigi, Channels, Classic],
    },
    Scenario {
        name: "S1",
        text: "100 rooms x 2, both send, 1 outstanding each",
        shape: Shape { rooms: 100, members: 2, senders: 2 },
        work: Work::Chat(Flow::OfEach(1)),
        peers: &Kind::ALL,
    },
    Scenario {
        name: "S2",
        text: "100 rooms x 2, both send, 8 outstanding each",
        shape: Shape { rooms: 100, members: 2, senders: 2 },
        work: Work::Chat(Flow::OfEach(8)),
        peers: &[
            Digi, Epoll, Bare, Ws, Socketify, Picows, Webrockets, AsgiDigi, AsgiOrm, AsgiBare, Channels, Channels2,
        ],
    },
    Scenario {
        name: "S3",
        text: "1 room x 1000, ten send, 1 outstanding each",
        shape: Shape { rooms: 1, members: 1000, senders: 10 },
        work: Work::Chat(Flow::OfEach(1)),
        peers: &[
            Digi, Epoll, Bare, Ws, Socketify, Picows, Webrockets, AsgiDigi, AsgiOrm, AsgiBare, Channels, Channels2,
        ],
    },
    Scenario {
        name: "S3p",
        text: "1 room x 1000, ten send, 8 outstanding each",
        shape: Shape { rooms: 1, members: 1000, senders: 10 },
        work: Work::Chat(Flow::OfEach(8)),
        peers: &[Digi, Epoll, Bare, Ws, Socketify, Picows, Webrockets, AsgiDigi, Channels],
    },
    Scenario {
        name: "S4",
        text: "5000 rooms x 2, idle",
        shape: Shape { rooms: 5000, members: 2, senders: 0 },
        work: Work::Idle,
        peers: &[Digi, Epoll, Bare, Ws, AsgiDigi, Channels],
    },
    Scenario {
        name: "S5",
        text: "new connections, 32 at a time: 200 members of 100 rooms by turns",
        shape: Shape { rooms: 100, members: 2, senders: 0 },
        work: Work::Arrivals { each_once: false },
        peers: &[Digi, Epoll, Bare, Ws, AsgiDigi, AsgiBare, Channels],
    },
    Scenario {
        name: "S5u",
        text: "new connections, 32 at a time: each another member, of 2500 rooms by turns",
        shape: Shape { rooms: 2500, members: 40, senders: 0 },
        work: Work::Arrivals { each_once: true },
        peers: &[Digi, AsgiDigi],
    },
    Scenario {
        name: "rooms",
        text: "more and more rooms x 2, one of each sends, by turns, 10 outstanding in all",
        shape: Shape { rooms: 10_000, members: 2, senders: 1 },
        work: Work::Rooms(&[10, 100, 1000, 10_000]),
        peers: &[Digi, Epoll],
    },
];

/// What a peer showed while nobody said anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    pub(crate) connections: usize,
    /// Per connection, in KiB.
    pub(crate) memory: f64,
    /// Of one core.
    pub(crate) cpu_share: f64,
}

/// What came out of a scenario.
pub(crate) struct Results {
    pub(crate) scenario: &'static Scenario,
    pub(crate) rows: Vec<Row>,
}

/// What came out for a peer.
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// Where their number differs within the scenario.
    pub(crate) rooms: Option<usize>,
    pub(crate) measured: Measured,
}

pub(crate) enum Measured {
    Rounds {
        rounds: Vec<Round>,
        /// Resident, in KiB, after them.
        memory: u64,
    },
    Idle(Idle),
    /// It did not come through, and need not.
    Failed(String),
}

impl Scenario {
    /// What is counted.
    pub(crate) fn unit(&self) -> &'static str {
        match self.work {
            Work::Arrivals { .. } => "connection",
            _ => "delivery",
        }
    }
}

pub(crate) fn run(scenario: &'static Scenario, options: &Options) -> Result<Results> {
    let shape = Shape { rooms: options.rooms.unwrap_or(scenario.shape.rooms), ..scenario.shape.clone() };
    eprintln!("{}: {}", scenario.name, scenario.text);
    let kinds = options.peers(scenario.peers);
    let rows = match scenario.work {
        Work::Idle => kinds.iter().map(|kind| idle(*kind, &shape, options)).collect::<Result<_>>()?,
        Work::Chat(_) | Work::Arrivals { .. } => {
            let beds = kinds.iter().map(|kind| Bed::make(*kind, shape.clone(), scenario.work, options));
            rounds(scenario, beds.collect::<Result<_>>()?, options)?
        }
        // One peer after the other, because of the descriptors.
        Work::Rooms(numbers) => {
            let numbers = that_fit(options.rooms.map_or(numbers.to_vec(), |rooms| vec![rooms.div_ceil(10), rooms]));
            let mut rows = Vec::new();
            for kind in kinds {
                let shape = |rooms: &usize| Shape { rooms: *rooms, ..shape.clone() };
                let beds = numbers.iter().map(|rooms| Bed::make(kind, shape(rooms), scenario.work, options));
                let some = rounds(scenario, beds.collect::<Result<_>>()?, options)?;
                rows.extend(some.into_iter().zip(&numbers).map(|(row, rooms)| Row { rooms: Some(*rooms), ..row }));
            }
            rows
        }
    };
    Ok(Results { scenario, rows })
}

/// The last number, made so small that the connections to all rooms at once, two to each, fit into this process's
/// descriptors.
fn that_fit(mut numbers: Vec<usize>) -> Vec<usize> {
    let files = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |files| files as usize);
    if let Some(last) = numbers.pop() {
        let others: usize = numbers.iter().sum();
        let fit = (files.saturating_sub(SPARE) / 2).saturating_sub(others);
        if fit < last {
            eprintln!("{fit} rooms instead of {last}: no more than {files} files may be open here");
        }
        numbers.push(last.min(fit));
    }
    numbers
}

/// A running peer and its clients. In this order: the connections are dropped before the peer.
struct Bed {
    clients: Option<Clients>,
    kind: Kind,
    peer: Option<Peer>,
    rounds: Vec<Round>,
    failed: Option<String>,
}

enum Clients {
    Chat(Generator),
    Arrivals(Arrivals),
}

impl Bed {
    fn make(kind: Kind, shape: Shape, work: Work, options: &Options) -> Result<Self> {
        let mut bed = Self { clients: None, kind, peer: None, rounds: Vec::new(), failed: None };
        let made = bed.set_up(&shape, work, options);
        bed.note(made)?;
        Ok(bed)
    }

    fn set_up(&mut self, shape: &Shape, work: Work, options: &Options) -> Result<()> {
        eprintln!("  {}", self.kind.name());
        let peer = self.peer.insert(Peer::start(self.kind, shape, options)?);
        self.clients = Some(match work {
            Work::Arrivals { each_once } => Clients::Arrivals(Arrivals::new(shape, each_once)?),
            Work::Chat(flow) => Clients::Chat(Generator::connect(peer, shape, flow)?),
            Work::Rooms(_) | Work::Idle => Clients::Chat(Generator::connect(peer, shape, Flow::InAll(UNDER_WAY))?),
        });
        Ok(())
    }

    fn round(&mut self, measure: Duration) -> Result<()> {
        if let (Some(clients), Some(peer), None) = (&mut self.clients, &self.peer, &self.failed) {
            self.rounds.push(match clients {
                Clients::Chat(generator) => generator.round(peer, measure)?,
                Clients::Arrivals(arrivals) => arrivals.round(peer, measure)?,
            });
        }
        Ok(())
    }

    /// What goes wrong with a peer of other people's is a result too.
    fn note(&mut self, result: Result<()>) -> Result<()> {
        match result {
            Err(error) if self.kind.has_to_be_right() => Err(format!("{}: {error}", self.kind.name()).into()),
            Err(error) => {
                eprintln!("{}: {error}", self.kind.name());
                self.failed = Some(error.to_string());
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn finish(self) -> Result<Row> {
        let measured = match (self.failed, &self.peer) {
            (None, Some(peer)) => Measured::Rounds { memory: peer.memory()?, rounds: self.rounds },
            (failed, _) => Measured::Failed(failed.unwrap_or_default()),
        };
        Ok(Row { kind: self.kind, rooms: None, measured })
    }
}

/// All run all the time; one after the other is put under load.
fn rounds(scenario: &Scenario, mut beds: Vec<Bed>, options: &Options) -> Result<Vec<Row>> {
    for round in 1..=options.rounds {
        eprintln!("  round {round}");
        for bed in &mut beds {
            let result = bed.round(options.measure);
            bed.note(result).map_err(|error| format!("{}, {error}", scenario.name))?;
        }
    }
    beds.into_iter().map(Bed::finish).collect()
}

/// Connections that only are there. What a few cost first is the process's own and not counted.
fn idle(kind: Kind, shape: &Shape, options: &Options) -> Result<Row> {
    let measured = match watch(kind, shape, options) {
        Ok(idle) => Measured::Idle(idle),
        Err(error) if kind.has_to_be_right() => return Err(format!("{}: {error}", kind.name()).into()),
        Err(error) => Measured::Failed(error.to_string()),
    };
    Ok(Row { kind, rooms: None, measured })
}

fn watch(kind: Kind, shape: &Shape, options: &Options) -> Result<Idle> {
    eprintln!("  {}", kind.name());
    let peer = Peer::start(kind, shape, options)?;
    let first = Shape { rooms: shape.rooms.min(10), ..*shape };
    let _first = Generator::connect(&peer, &first, Flow::OfEach(0))?;
    let before = peer.memory()?;
    let _all = Generator::connect(&peer, shape, Flow::OfEach(0))?;
    let connections = shape.rooms * shape.members;
    let memory = (peer.memory()?.saturating_sub(before)) as f64 / connections as f64;
    let cpu = peer.cpu()?;
    // Not to wait for anything: this is the time over which it is measured.
    let long = options.measure * 3;
    std::thread::sleep(long);
    let used = peer.cpu()?.saturating_sub(cpu);
    Ok(Idle { connections, memory, cpu_share: used.as_secs_f64() / long.as_secs_f64() })
}

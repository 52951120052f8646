//! What is run.

use std::time::Duration;

use crate::Result;
use crate::generator::{Generator, Round};
use crate::options::Options;
use crate::peer::{Kind, Peer};

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
    /// Messages that a sender has under way at any time; 0: nobody sends anything.
    outstanding: usize,
    /// Whether the peers under Uvicorn run it, unless peers are named.
    under_uvicorn: bool,
}

pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "S0",
        text: "1 room x 2, one sends, 1 outstanding",
        shape: Shape { rooms: 1, members: 2, senders: 1 },
        outstanding: 1,
        under_uvicorn: false,
    },
    Scenario {
        name: "S1",
        text: "100 rooms x 2, both send, 1 outstanding each",
        shape: Shape { rooms: 100, members: 2, senders: 2 },
        outstanding: 1,
        under_uvicorn: true,
    },
    Scenario {
        name: "S2",
        text: "100 rooms x 2, both send, 8 outstanding each",
        shape: Shape { rooms: 100, members: 2, senders: 2 },
        outstanding: 8,
        under_uvicorn: true,
    },
    Scenario {
        name: "S3",
        text: "1 room x 1000, ten send, 1 outstanding each",
        shape: Shape { rooms: 1, members: 1000, senders: 10 },
        outstanding: 1,
        under_uvicorn: true,
    },
    Scenario {
        name: "S4",
        text: "1000 rooms x 2, idle",
        shape: Shape { rooms: 1000, members: 2, senders: 0 },
        outstanding: 0,
        under_uvicorn: false,
    },
];

/// What a peer showed while nobody said anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Idle {
    /// Per connection, in KiB.
    pub(crate) memory: f64,
    /// Of one core.
    pub(crate) cpu_share: f64,
}

/// What came out of a scenario.
pub(crate) struct Results {
    pub(crate) scenario: &'static Scenario,
    pub(crate) peers: Vec<(Kind, Measured)>,
}

/// What came out for a peer.
pub(crate) enum Measured {
    Rounds(Vec<Round>),
    Idle(Idle),
}

pub(crate) fn run(scenario: &'static Scenario, options: &Options) -> Result<Results> {
    let shape = Shape { rooms: options.rooms.unwrap_or(scenario.shape.rooms), ..scenario.shape.clone() };
    eprintln!("{}: {}", scenario.name, scenario.text);
    let kinds = options.peers(scenario.under_uvicorn);
    let peers = if scenario.outstanding == 0 {
        let idle = |kind: &Kind| Ok((*kind, Measured::Idle(idle(*kind, &shape, options)?)));
        kinds.iter().map(idle).collect::<Result<_>>()?
    } else {
        rounds(scenario, &shape, &kinds, options)?
    };
    Ok(Results { scenario, peers })
}

/// All peers run all the time; one after the other is put under load.
fn rounds(scenario: &Scenario, shape: &Shape, kinds: &[Kind], options: &Options) -> Result<Vec<(Kind, Measured)>> {
    let mut beds = Vec::new();
    for kind in kinds {
        let peer = Peer::start(*kind, shape, options)?;
        let generator = Generator::connect(&peer, shape, scenario.outstanding)?;
        // In this order: the connections are dropped before the peer.
        beds.push((*kind, generator, peer, Vec::new()));
    }
    for _ in 0..options.rounds {
        for (kind, generator, peer, rounds) in &mut beds {
            let round = generator.round(peer, options.measure);
            rounds.push(round.map_err(|error| format!("{}, {}: {error}", scenario.name, kind.name()))?);
        }
    }
    Ok(beds.into_iter().map(|(kind, _, _, rounds)| (kind, Measured::Rounds(rounds))).collect())
}

/// Connections that only are there. What a few cost first is the process's own and not counted.
fn idle(kind: Kind, shape: &Shape, options: &Options) -> Result<Idle> {
    let peer = Peer::start(kind, shape, options)?;
    let first = Shape { rooms: shape.rooms.min(10), ..*shape };
    let _first = Generator::connect(&peer, &first, 0)?;
    let before = peer.memory()?;
    let _all = Generator::connect(&peer, shape, 0)?;
    let memory = (peer.memory()?.saturating_sub(before)) as f64 / (shape.rooms * shape.members) as f64;
    let cpu = peer.cpu()?;
    // Not to wait for anything: this is the time over which it is measured.
    std::thread::sleep(options.measure);
    let used = peer.cpu()?.saturating_sub(cpu);
    Ok(Idle { memory, cpu_share: share(used, options.measure) })
}

fn share(part: Duration, whole: Duration) -> f64 {
    part.as_secs_f64() / whole.as_secs_f64()
}

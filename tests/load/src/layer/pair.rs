//! One publishing and one subscribing process.

use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use super::{AHEAD, TOGETHER, bare, node, soon};
use crate::{Result, peer};

/// What carries the events.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    /// Two connections of redis-rs and nothing else.
    Bare,
    /// Digi's layer, all events in one room.
    OneRoom,
    /// Digi's layer, each of the events published together in another room.
    ManyRooms,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Bare, Self::OneRoom, Self::ManyRooms];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare redis-rs",
            Self::OneRoom => "digi, one room",
            Self::ManyRooms => "digi, 1,000 rooms",
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::OneRoom => "one-room",
            Self::ManyRooms => "many-rooms",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        let way = Self::ALL.into_iter().find(|way| way.word() == name);
        way.ok_or_else(|| format!("{name:?} is no way to carry events").into())
    }
}

/// What a round gave.
pub(crate) struct Figures {
    /// Microseconds for one event there and its answer back.
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) rate: f64,
    /// Microseconds of both processes' CPU time.
    pub(crate) cpu_each: f64,
}

/// This process's end of a way.
enum End {
    Bare(bare::End),
    Digi(node::End),
}

impl End {
    async fn ask(&mut self) -> Result<()> {
        match self {
            Self::Bare(end) => end.ask().await,
            Self::Digi(end) => end.ask().await,
        }
    }

    async fn publish(&mut self) -> Result<()> {
        match self {
            Self::Bare(end) => end.publish().await,
            Self::Digi(end) => end.publish().await,
        }
    }

    /// How many more have arrived: waits for a report.
    async fn reported(&mut self) -> Result<u64> {
        match self {
            Self::Bare(end) => end.reported().await,
            Self::Digi(end) => end.reported().await,
        }
    }
}

pub(crate) struct Pair {
    end: End,
    /// Killed when it is dropped.
    other: Child,
}

impl Pair {
    pub(crate) async fn start(way: Way, url: &str) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("layer-peer").arg(way.word()).arg(url).kill_on_drop(true);
        let mut other = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(other.stdout.take().ok_or("no output")?).lines();
        let ready = soon("the other process's word", async { Ok(lines.next_line().await?) }).await?;
        if ready.as_deref() != Some("ready") {
            return Err("the other process did not start".into());
        }
        let end = match way {
            Way::Bare => End::Bare(bare::End::connect(url).await?),
            Way::OneRoom => End::Digi(node::End::connect(url, 1).await?),
            Way::ManyRooms => End::Digi(node::End::connect(url, TOGETHER).await?),
        };
        Ok(Self { end, other })
    }

    pub(crate) async fn measure(&mut self, measure: Duration) -> Result<Figures> {
        let mut times = Vec::new();
        let began = Instant::now();
        while began.elapsed() < measure / 2 {
            let sent = Instant::now();
            soon("an answer", self.end.ask()).await?;
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        let at = |part: f64| {
            times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |time| time.as_secs_f64() * 1e6)
        };
        let (p50, p99) = (at(0.5), at(0.99));

        let process = self.other.id().ok_or("the other process has ended")?.to_string();
        let cpu = || -> Result<Duration> { Ok(peer::cpu_of("self")? + peer::cpu_of(&process)?) };
        let (before, began) = (cpu()?, Instant::now());
        let (mut sent, mut arrived) = (0, 0);
        while began.elapsed() < measure / 2 {
            self.end.publish().await?;
            sent += TOGETHER as u64;
            while sent - arrived > AHEAD {
                arrived += soon("a report", self.end.reported()).await?;
            }
        }
        // The last of them are not reported: only whole reports count, on both sides alike.
        while sent - arrived >= super::REPORT {
            arrived += soon("a report", self.end.reported()).await?;
        }
        let elapsed = began.elapsed();
        let used = cpu()?.saturating_sub(before);
        // What is on its way still belongs to this round, not to the next.
        while sent % super::REPORT != 0 {
            self.end.publish().await?;
            sent += TOGETHER as u64;
        }
        while arrived < sent {
            arrived += soon("a report", self.end.reported()).await?;
        }
        let counted = arrived as f64;
        Ok(Figures { p50, p99, rate: counted / elapsed.as_secs_f64(), cpu_each: used.as_secs_f64() * 1e6 / counted })
    }
}

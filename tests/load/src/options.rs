//! The command line.

use std::env::VarError;
use std::error::Error;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Result;
use crate::kind::{Host, Kind};
use crate::layer::rooms::NodeOptions;

pub(crate) const USAGE: &str = "\
digi-load [options]
  --only S1,S2      these scenarios: S0 to S4, S3p, S5, S5u, rooms, history (default: all)
  --peers NAME,...  these peers: digi, epoll, bare; with --node ws; with --python socketify, picows, webrockets,
                    asgi-digi, asgi-orm, asgi-bare, channels, channels-2, classic
                    (default: those that can run, in each scenario those that docs/performance.md names)
  --python PATH     the interpreter for those; it has tests/load/python/requirements.txt, and digi for asgi-digi,
                    asgi-orm and classic; channels, channels-2 and classic need redis-server
  --node PATH       Node, with `npm ci` done in tests/load/node
  --rounds N        rounds of each peer in each scenario (default: 3)
  --seconds N       measured seconds of a round (default: 2)
  --rooms N         rooms, instead of the scenario's own number
  --history N       messages of the long history (default: 1000000)
  --out DIR         where table.md, the charts and load.json go, and databases live meanwhile (default: target/bench)

digi-load c PROGRAM: what the C ABI costs beside Rust; PROGRAM is tests/load/c/session.c, compiled

digi-load store [options]: messages/s and latencies of the store whose URL stands in the environment variable
DIGI_BENCH_STORE (a command line, with the password in it, could be read by others), or of SQLite on a temporary file
  --senders N,...   numbers of concurrent senders (default: 1,16,256,2000)
  --single N,...    the same for the comparison, one message per transaction (default: 1,50)
  --seconds N       measured seconds of each (default: 5)
  --rooms N         rooms over which senders are spread (default: 100)
  --out DIR         where the temporary file lives (default: target/bench)

digi-load layer [options]: the channel layer on Redis beside a bare pair of connections, and a node with many rooms;
needs redis-server
  --rounds N        rounds of each (default: 5)
  --seconds N       measured seconds of a round (default: 4)
  --rooms N         rooms of that node (default: 10000)
  --idle N          seconds for which that node is watched idle (default: 60)
  --out DIR         where the database lives meanwhile (default: target/bench)";

/// The environment variable that names the store to measure.
const STORE_URL: &str = "DIGI_BENCH_STORE";

/// The default for `--out`.
const OUT: &str = "target/bench";

/// What this process is to be.
pub(crate) enum Job {
    Help,
    Run(Options),
    /// Measure a store.
    Store(StoreOptions),
    /// What the C ABI costs, by a program that uses it.
    C {
        /// `c/session.c`, compiled.
        program: PathBuf,
    },
    /// Measure the channel layer.
    Layer(LayerOptions),
    /// The node with many rooms of it.
    LayerNode(NodeOptions),
    /// The other end of what is measured there.
    LayerPeer {
        way: String,
        url: String,
    },
    /// Digi's server.
    Serve {
        dir: PathBuf,
        rooms: usize,
        members: usize,
    },
    /// The fan-out on tokio-tungstenite.
    Bare,
    /// The one on epoll.
    Epoll,
}

/// What to measure of a store. Not `Debug`: the URL may hold a password.
pub(crate) struct StoreOptions {
    /// None: a temporary SQLite file.
    pub(crate) url: Option<String>,
    /// Numbers of concurrent senders.
    pub(crate) senders: Vec<usize>,
    /// The same where a transaction holds one message.
    pub(crate) single: Vec<usize>,
    pub(crate) measure: Duration,
    pub(crate) rooms: usize,
    pub(crate) out: PathBuf,
}

/// What to measure of the channel layer.
pub(crate) struct LayerOptions {
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) rooms: usize,
    /// How long the rooms are watched.
    pub(crate) idle: Duration,
    pub(crate) out: PathBuf,
}

/// How to run the load.
pub(crate) struct Options {
    only: Option<Vec<String>>,
    /// None: those that can run.
    peers: Option<Vec<Kind>>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) node: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) rooms: Option<usize>,
    /// Messages of a long history.
    pub(crate) history: u64,
    pub(crate) out: PathBuf,
}

impl Options {
    /// Those that were named, or those of a scenario that can run.
    pub(crate) fn peers(&self, of_scenario: &[Kind]) -> Vec<Kind> {
        let can_run = |kind: &&Kind| match kind.host() {
            Host::Own => true,
            Host::Python => self.python.is_some(),
            Host::Node => self.node.is_some(),
        };
        self.peers.clone().unwrap_or_else(|| of_scenario.iter().filter(can_run).copied().collect())
    }

    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == scenario))
    }
}

impl Job {
    pub(crate) fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Options {
            only: None,
            peers: None,
            python: None,
            node: None,
            rounds: 3,
            measure: Duration::from_secs(2),
            rooms: None,
            history: 1_000_000,
            out: OUT.into(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "serve" => {
                    return Ok(Self::Serve {
                        dir: value()?.into(),
                        rooms: number("rooms", &value()?)?,
                        members: number("members", &value()?)?,
                    });
                }
                "bare" => return Ok(Self::Bare),
                "epoll" => return Ok(Self::Epoll),
                "c" => return Ok(Self::C { program: value()?.into() }),
                "store" => return Ok(Self::Store(StoreOptions::from_args(args)?)),
                "layer" => return Ok(Self::Layer(LayerOptions::from_args(args)?)),
                "layer-node" => {
                    return Ok(Self::LayerNode(NodeOptions {
                        redis: value()?,
                        redis_process: value()?,
                        database: value()?,
                        rooms: number("rooms", &value()?)?,
                        idle: number("idle", &value()?)?,
                    }));
                }
                "layer-peer" => return Ok(Self::LayerPeer { way: value()?, url: value()? }),
                "--help" => return Ok(Self::Help),
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--peers" => options.peers = Some(value()?.split(',').map(Kind::from_name).collect::<Result<_>>()?),
                "--python" => options.python = Some(value()?.into()),
                "--node" => options.node = Some(value()?.into()),
                "--history" => options.history = number(&arg, &value()?)?,
                "--rounds" => options.rounds = number(&arg, &value()?)?,
                "--seconds" => options.measure = Duration::from_secs(number(&arg, &value()?)?),
                "--rooms" => options.rooms = Some(number(&arg, &value()?)?),
                "--out" => options.out = value()?.into(),
                _ => return Err(no_option(&arg)),
            }
        }
        Ok(Self::Run(options))
    }
}

impl StoreOptions {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let url = match std::env::var(STORE_URL) {
            Ok(url) if url.is_empty() => None,
            Ok(url) => Some(url),
            Err(VarError::NotPresent) => None,
            Err(VarError::NotUnicode(_)) => return Err(format!("{STORE_URL} is not UTF-8").into()),
        };
        let mut options = Self {
            url,
            senders: vec![1, 16, 256, 2_000],
            single: vec![1, 50],
            measure: Duration::from_secs(5),
            rooms: 100,
            out: OUT.into(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            let numbers = |text: String| text.split(',').map(|text| number(&arg, text)).collect::<Result<_>>();
            match arg.as_str() {
                "--senders" => options.senders = numbers(value()?)?,
                "--single" => options.single = numbers(value()?)?,
                "--seconds" => options.measure = Duration::from_secs(number(&arg, &value()?)?),
                "--rooms" => options.rooms = number(&arg, &value()?)?,
                "--out" => options.out = value()?.into(),
                _ => return Err(no_option(&arg)),
            }
        }
        Ok(options)
    }
}

impl LayerOptions {
    fn from_args(mut args: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            rounds: 5,
            measure: Duration::from_secs(4),
            rooms: 10_000,
            idle: Duration::from_secs(60),
            out: OUT.into(),
        };
        while let Some(arg) = args.next() {
            let mut value = || args.next().ok_or(format!("{arg} needs a value"));
            match arg.as_str() {
                "--rounds" => options.rounds = number(&arg, &value()?)?,
                "--seconds" => options.measure = Duration::from_secs(number(&arg, &value()?)?),
                "--rooms" => options.rooms = number(&arg, &value()?)?,
                "--idle" => options.idle = Duration::from_secs(number(&arg, &value()?)?),
                "--out" => options.out = value()?.into(),
                _ => return Err(no_option(&arg)),
            }
        }
        Ok(options)
    }
}

fn no_option(arg: &str) -> Box<dyn Error + Send + Sync> {
    format!("{} is no option\n{USAGE}", shown(arg)).into()
}

/// An argument, unless it is a URL, in which a password may stand.
fn shown(arg: &str) -> &str {
    if arg.contains("//") { "a URL" } else { arg }
}

/// A number above 0.
fn number<T: FromStr + PartialOrd + Default>(name: &str, text: &str) -> Result<T> {
    match text.parse() {
        Ok(number) if number > T::default() => Ok(number),
        _ => Err(format!("{name}: {:?} is no number above 0", shown(text)).into()),
    }
}

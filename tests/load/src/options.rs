//! The command line.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::Result;
use crate::peer::Kind;

pub(crate) const USAGE: &str = "\
digi-load [options]
  --only S1,S2      these scenarios (default: all)
  --peers NAME,...  these peers: digi and bare; under Uvicorn asgi-digi, asgi-orm, channels and asgi-bare
                    (default: the first two, and with --python the others in S1, S2 and S3)
  --python PATH     the interpreter for those under Uvicorn; it has tests/load/python/requirements.txt, and digi for
                    asgi-digi and asgi-orm; channels needs redis-server
  --rounds N        rounds of each peer in each scenario (default: 3)
  --seconds N       measured seconds of a round (default: 3)
  --rooms N         rooms, instead of the scenario's own number
  --out DIR         where load.json goes and databases live meanwhile (default: target/bench)";

/// What this process is to be.
pub(crate) enum Job {
    Help,
    Run(Options),
    /// Digi's server.
    Serve {
        dir: PathBuf,
        rooms: usize,
        members: usize,
    },
    /// The bare fan-out.
    Bare,
}

/// How to run the load.
pub(crate) struct Options {
    only: Option<Vec<String>>,
    /// None: those that can run.
    peers: Option<Vec<Kind>>,
    pub(crate) python: Option<PathBuf>,
    pub(crate) rounds: usize,
    pub(crate) measure: Duration,
    pub(crate) rooms: Option<usize>,
    pub(crate) out: PathBuf,
}

impl Options {
    /// The peers of a scenario, which may be one for those under Uvicorn too.
    pub(crate) fn peers(&self, under_uvicorn: bool) -> Vec<Kind> {
        let can_run = |kind: &Kind| !kind.is_python() || (under_uvicorn && self.python.is_some());
        self.peers.clone().unwrap_or_else(|| Kind::ALL.into_iter().filter(can_run).collect())
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
            rounds: 3,
            measure: Duration::from_secs(3),
            rooms: None,
            out: "target/bench".into(),
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
                "--help" => return Ok(Self::Help),
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--peers" => options.peers = Some(value()?.split(',').map(Kind::from_name).collect::<Result<_>>()?),
                "--python" => options.python = Some(value()?.into()),
                "--rounds" => options.rounds = number(&arg, &value()?)?,
                "--seconds" => options.measure = Duration::from_secs(number(&arg, &value()?)?),
                "--rooms" => options.rooms = Some(number(&arg, &value()?)?),
                "--out" => options.out = value()?.into(),
                _ => return Err(format!("{arg} is no option\n{USAGE}").into()),
            }
        }
        Ok(Self::Run(options))
    }
}

/// A number above 0.
fn number<T: FromStr + PartialOrd + Default>(name: &str, text: &str) -> Result<T> {
    match text.parse() {
        Ok(number) if number > T::default() => Ok(number),
        _ => Err(format!("{name}: {text:?} is no number above 0").into()),
    }
}

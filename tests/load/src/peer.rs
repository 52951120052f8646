//! A server under load: a child process, and what the kernel says of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::options::Options;
use crate::scenario::Shape;
use crate::{Result, digi};

/// The clock ticks in which `/proc/<pid>/stat` counts: `USER_HZ`, which is 100 on every architecture that Linux's
/// user space knows (proc_pid_stat(5), sysconf(3)).
const TICK: Duration = Duration::from_millis(10);

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Digi,
    Bare,
    AsgiDigi,
    AsgiOrm,
    Channels,
    AsgiBare,
}

impl Kind {
    pub(crate) const ALL: [Self; 6] =
        [Self::Digi, Self::Bare, Self::AsgiDigi, Self::AsgiOrm, Self::Channels, Self::AsgiBare];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Digi => "digi",
            Self::Bare => "bare",
            Self::AsgiDigi => "asgi-digi",
            Self::AsgiOrm => "asgi-orm",
            Self::Channels => "channels",
            Self::AsgiBare => "asgi-bare",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        let names = || Self::ALL.map(Self::name).join(", ");
        let kind = Self::ALL.into_iter().find(|kind| kind.name() == name);
        kind.ok_or_else(|| format!("{name:?} is no peer: there are {}", names()).into())
    }

    /// Whether it is Python under Uvicorn.
    pub(crate) fn is_python(self) -> bool {
        !matches!(self, Self::Digi | Self::Bare)
    }

    /// Whether a message that goes astray fails the run. Channels promises nothing of the kind, and the bare ASGI
    /// application least of all: theirs are counted and shown.
    pub(crate) fn has_to_be_right(self) -> bool {
        !matches!(self, Self::Channels | Self::AsgiBare)
    }
}

/// A running server. Dropped, it ends.
pub(crate) struct Peer {
    child: Child,
    /// The child, and what works for it.
    processes: Vec<u32>,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn start(kind: Kind, shape: &Shape, options: &Options) -> Result<Self> {
        let mut command = match kind {
            Kind::Digi | Kind::Bare => Command::new(std::env::current_exe()?),
            _ => python(kind, options)?,
        };
        if kind == Kind::Digi {
            command.arg("serve");
        }
        if kind == Kind::Bare {
            command.arg("bare");
        } else {
            command.arg(&options.out).arg(shape.rooms.to_string()).arg(shape.members.to_string());
        }
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let announced = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match (announced, understood(&line)) {
            (Some(Ok(_)), Some((address, others))) => {
                let processes = [&[child.id()], &*others].concat();
                Ok(Self { child, processes, address })
            }
            _ => {
                // One that failed has ended, or will: it finds its input ended.
                drop(child.stdin.take());
                Err(format!("the peer {} did not start: {}", kind.name(), child.wait()?).into())
            }
        }
    }

    /// The CPU time that it has used, in user and kernel mode, all threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        self.processes.iter().map(|process| cpu_of(&process.to_string())).sum()
    }

    /// Its resident memory, in KiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        self.processes.iter().map(|process| memory_of(*process)).sum()
    }
}

/// The command for a peer in Python, up to what it is to serve.
fn python(kind: Kind, options: &Options) -> Result<Command> {
    let python = options.python.as_ref().ok_or_else(|| format!("the peer {} needs --python", kind.name()))?;
    let mut command = Command::new(python);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("python/peers.py")).arg(kind.name());
    command.env("DIGI_LOAD_ID_SECRET", digi::ID_SECRET).env("DIGI_LOAD_LOGIN_SECRET", digi::LOGIN_SECRET);
    // Ctrl-C does not reach it, nor its Redis: like everything else it is told by the end of its input.
    command.process_group(0);
    Ok(command)
}

/// What a peer announced: its address, and the processes that work for it.
fn understood(line: &str) -> Option<(SocketAddr, Vec<u32>)> {
    let mut words = line.split_whitespace();
    let address = words.next()?.parse().ok()?;
    Some((address, words.map(str::parse).collect::<std::result::Result<_, _>>().ok()?))
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input tells it to end, and its own limits bound how long that takes.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// The CPU time of a process of that name in `/proc`.
pub(crate) fn cpu_of(process: &str) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The second field, the program's name, may itself contain spaces and brackets.
    let fields = stat.rsplit_once(')').ok_or("/proc/<pid>/stat is malformed")?.1;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || -> Result<u32> { Ok(times.next().ok_or("/proc/<pid>/stat is too short")?.parse()?) };
    Ok(TICK * (ticks()? + ticks()?))
}

pub(crate) fn memory_of(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.ok_or("no VmRSS in /proc")?.parse()?)
}

/// Tells the parent where this peer listens.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
}

/// Waits until the parent wants this peer to end, or has ended itself.
pub(crate) async fn parent_gone() {
    let mut input = tokio::io::stdin();
    let ended = async { while matches!(input.read(&mut [0; 64]).await, Ok(1..)) {} };
    tokio::select! {
        () = ended => {}
        // Sent to parent and peers alike by Ctrl-C: the database is still to be removed.
        _ = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_announcement_names_the_address_and_who_works_for_it() {
        let address = "127.0.0.1:9".parse().unwrap();
        assert_eq!(understood("127.0.0.1:9\n"), Some((address, vec![])));
        assert_eq!(understood("127.0.0.1:9 12 13\n"), Some((address, vec![12, 13])));
        for line in ["", "12", "127.0.0.1:9 x"] {
            assert_eq!(understood(line), None, "{line}");
        }
    }

    #[test]
    fn peers_are_known_by_their_names() {
        for kind in Kind::ALL {
            assert_eq!(Kind::from_name(kind.name()).unwrap(), kind);
        }
        assert!(Kind::from_name("daphne").unwrap_err().to_string().contains("asgi-digi, asgi-orm, channels"));
    }
}

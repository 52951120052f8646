//! A server under load: a child process, and what the kernel says of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::Result;
use crate::scenario::Shape;

/// The clock ticks in which `/proc/<pid>/stat` counts: `USER_HZ`, which is 100 on every architecture that Linux's
/// user space knows (proc_pid_stat(5), sysconf(3)).
const TICK: Duration = Duration::from_millis(10);

/// Which server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Digi,
    Bare,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Digi => "digi",
            Self::Bare => "bare",
        }
    }

    pub(crate) fn from_name(name: &str) -> Result<Self> {
        match name {
            "digi" => Ok(Self::Digi),
            "bare" => Ok(Self::Bare),
            _ => Err(format!("{name:?} is no peer: there are digi and bare").into()),
        }
    }
}

/// A running server. Dropped, it ends.
pub(crate) struct Peer {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn start(kind: Kind, shape: &Shape, dir: &Path) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        match kind {
            Kind::Digi => command.arg("serve").arg(dir).arg(shape.rooms.to_string()).arg(shape.members.to_string()),
            Kind::Bare => command.arg("bare"),
        };
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        let announced = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        match (announced, line.trim().parse()) {
            (Some(Ok(_)), Ok(address)) => Ok(Self { child, address }),
            _ => {
                child.kill()?;
                Err(format!("the peer {} did not start: {}", kind.name(), child.wait()?).into())
            }
        }
    }

    /// The CPU time that it has used, in user and kernel mode, all threads.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        cpu_of(&self.child.id().to_string())
    }

    /// Its resident memory, in KiB.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next());
        Ok(number.ok_or("no VmRSS in /proc")?.parse()?)
    }
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

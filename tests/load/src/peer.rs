//! A server under load: a child process, and what the kernel says of it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tokio::io::AsyncReadExt;

use crate::kind::{Host, Kind};
use crate::options::Options;
use crate::scenario::Shape;
use crate::{Result, digi};

/// The clock ticks in which `/proc/<pid>/stat` counts: `USER_HZ`, which is 100 on every architecture that Linux's
/// user space knows (proc_pid_stat(5), sysconf(3)).
const TICK: Duration = Duration::from_millis(10);

/// A running server. Dropped, it ends.
pub(crate) struct Peer {
    child: Child,
    /// The child, and what works for it.
    processes: Vec<u32>,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn start(kind: Kind, shape: &Shape, options: &Options) -> Result<Self> {
        let mut command = match kind.host() {
            Host::Own => {
                let mut command = Command::new(std::env::current_exe()?);
                command.arg(if kind == Kind::Digi { "serve" } else { kind.name() });
                command
            }
            Host::Python => python(kind, options)?,
            Host::Node => node(kind, options)?,
        };
        if kind == Kind::Digi || kind.host() == Host::Python {
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
    command.arg(source("python/peers.py")).arg(kind.name());
    command.env("DIGI_LOAD_ID_SECRET", digi::ID_SECRET).env("DIGI_LOAD_LOGIN_SECRET", digi::LOGIN_SECRET);
    // Ctrl-C does not reach it, nor its Redis: like everything else it is told by the end of its input.
    command.process_group(0);
    Ok(command)
}

fn node(kind: Kind, options: &Options) -> Result<Command> {
    let node = options.node.as_ref().ok_or_else(|| format!("the peer {} needs --node", kind.name()))?;
    let mut command = Command::new(node);
    command.arg(source("node/ws_peer.js"));
    Ok(command)
}

/// A file of this crate.
fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
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
}

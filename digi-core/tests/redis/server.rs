//! Redis servers of a test's own.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to come up, or a condition to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A port that is free, and on which nobody else listens meanwhile: servers that lose the race take another.
pub(crate) fn free_port() -> u16 {
    // A cluster's node listens on its port plus 10000, too.
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        if port < 55_000 && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

/// A `redis-server`, ended when it is dropped.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    args: Vec<String>,
    dir: TempDir,
    child: Child,
}

impl RedisServer {
    /// On a port of its own, with more arguments.
    pub(crate) fn start(args: &[&str]) -> Self {
        for _ in 0..5 {
            let port = free_port();
            let args = args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
            if let Some(server) = Self::try_start(port, args) {
                return server;
            }
        }
        panic!("redis-server does not come up");
    }

    /// None: it ended at once, mostly because the port was taken meanwhile.
    pub(crate) fn try_start(port: u16, args: Vec<String>) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn(port, dir.path(), &args);
        wait_for_port(port, &mut child).then_some(Self { port, args, dir, child })
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The file in its folder that Redis may write to.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// After [`kill`](Self::kill), on the same port.
    pub(crate) fn restart(&mut self) {
        let since = Instant::now();
        loop {
            self.child = spawn(self.port, self.dir.path(), &self.args);
            if wait_for_port(self.port, &mut self.child) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "redis-server does not come back");
        }
    }

    /// SIGSTOP.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    /// SIGCONT.
    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// What a client without credentials is answered.
    pub(crate) async fn ask(&self, words: &[&str]) -> redis::Value {
        ask(self.port, words).await
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// One command on a connection of its own.
pub(crate) async fn ask(port: u16, words: &[&str]) -> redis::Value {
    try_ask(port, words).await.unwrap()
}

pub(crate) async fn try_ask(port: u16, words: &[&str]) -> redis::RedisResult<redis::Value> {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}"))?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.query_async(&mut connection).await
}

fn spawn(port: u16, dir: &Path, args: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    // A Sentinel keeps its state in the file that it is started with.
    let own: Vec<String> = if args.iter().any(|arg| arg == "--sentinel") {
        vec![]
    } else {
        let common = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"].map(str::to_owned);
        let port =
            if args.iter().any(|arg| arg == "--port") { vec![] } else { vec!["--port".into(), port.to_string()] };
        common.into_iter().chain(port).collect()
    };
    command.args(args.iter().filter(|arg| arg.ends_with(".conf"))).args(own);
    command.args(args.iter().filter(|arg| !arg.ends_with(".conf")));
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            panic!("redis-server cannot be started ({error}): install it, as with `apt install redis-server`")
        }
    }
}

/// False when it has ended.
fn wait_for_port(port: u16, child: &mut Child) -> bool {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("redis-server is silent on port {port}");
}

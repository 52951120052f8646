//! Redis servers of a test's own.

use std::collections::HashSet;
use std::fs::File;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex};
use std::time::{Duration, Instant};

use redis::{FromRedisValue, Value};
use tempfile::TempDir;

const LOG: &str = "redis.log";

/// How long a server may take to come up, or a condition to come true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A port that is free, as are its [`tls_port`] and a cluster node's second one, 10000 higher. All three lie below those
/// that the kernel gives to outgoing connections, so that a server that is restarted finds them free again.
fn free_port() -> u16 {
    static GIVEN: LazyLock<Mutex<HashSet<u16>>> = LazyLock::new(Mutex::default);
    loop {
        let port = fastrand::u16(10_000..15_000);
        let free = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if free(port) && free(tls_port_of(port)) && free(port + 10_000) && GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

const fn tls_port_of(port: u16) -> u16 {
    port + 5_000
}

pub(crate) fn tls_port(port: u16) -> String {
    tls_port_of(port).to_string()
}

/// A `redis-server`, ended when it is dropped.
pub(crate) struct RedisServer {
    pub(crate) port: u16,
    args: Vec<String>,
    dir: TempDir,
    child: Child,
}

impl RedisServer {
    /// With these lines in its configuration, in which `PORT` stands for a port of its own, and `TLSPORT` for another.
    pub(crate) fn start(lines: &[&str]) -> Self {
        Self::start_with(lines, &[])
    }

    /// A Sentinel, which also takes these lines.
    pub(crate) fn sentinel(lines: &[&str]) -> Self {
        Self::start_with(lines, &["--sentinel"])
    }

    fn start_with(lines: &[&str], args: &[&str]) -> Self {
        let mut config: Vec<String> =
            ["bind 127.0.0.1", "daemonize no"].iter().chain(lines).map(|line| (*line).to_owned()).collect();
        if !lines.iter().any(|line| line.starts_with("port ")) {
            config.push("port PORT".to_owned());
        }
        if args.is_empty() {
            config.extend(["save \"\"", "appendonly no"].map(str::to_owned));
        }
        let args: Vec<_> = ["redis.conf"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        // Another process may take the port meanwhile.
        for _ in 0..5 {
            let port = free_port();
            let dir = tempfile::tempdir().unwrap();
            let text = config.join("\n").replace("TLSPORT", &tls_port(port)).replace("PORT", &port.to_string()) + "\n";
            std::fs::write(dir.path().join("redis.conf"), text).unwrap();
            let mut child = spawn(dir.path(), &args);
            if comes_up(dir.path(), &mut child) {
                return Self { port, args, dir, child };
            }
        }
        panic!("redis-server does not come up with {config:?}");
    }

    /// As an address without scheme.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The address of `TLSPORT`.
    pub(crate) fn tls_address(&self) -> String {
        format!("127.0.0.1:{}", tls_port(self.port))
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// After [`kill`](Self::kill), on the same port.
    pub(crate) fn restart(&mut self) {
        let since = Instant::now();
        loop {
            self.child = spawn(self.dir.path(), &self.args);
            if comes_up(self.dir.path(), &mut self.child) {
                return;
            }
            assert!(since.elapsed() < PATIENCE, "redis-server does not come back");
        }
    }

    /// As if it hung, or the network had gone.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, name: &str) {
        let done = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
    }

    /// What it answers to a client that does not log in.
    pub(crate) async fn ask(&self, words: &[&str]) -> Value {
        self.try_ask(words).await.unwrap()
    }

    pub(crate) async fn try_ask(&self, words: &[&str]) -> redis::RedisResult<Value> {
        let client = redis::Client::open(self.url())?;
        let mut connection = client.get_multiplexed_async_connection().await?;
        redis::cmd(words[0]).arg(&words[1..]).query_async(&mut connection).await
    }

    /// The answer as text; empty when there is none.
    pub(crate) async fn text(&self, words: &[&str]) -> String {
        match self.try_ask(words).await {
            Ok(value) => String::from_redis_value(value).unwrap(),
            Err(_) => String::new(),
        }
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(dir: &Path, args: &[String]) -> Child {
    let log = File::create(dir.join(LOG)).unwrap();
    let mut command = Command::new("redis-server");
    command.args(args).current_dir(dir).stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
    match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            panic!("redis-server cannot be started ({error}): install it, as with `apt install redis-server`")
        }
    }
}

/// Waits until it says that it has all its ports; false when the process has ended. That one port answers is not
/// enough: it may be another server's, and the next port may be taken.
fn comes_up(dir: &Path, child: &mut Child) -> bool {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        let log = std::fs::read_to_string(dir.join(LOG)).unwrap();
        if log.contains("Ready to accept connections") || log.contains("Sentinel ID is") {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("redis-server does not say that it is ready");
}

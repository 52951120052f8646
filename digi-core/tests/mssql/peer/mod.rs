//! A scripted peer: the server's side of TDS 7.4 and 8.0 ([MS-TDS]), as far as the store uses it.
//!
//! It isn't Microsoft's `mssql-mock-tds`, which knows requests by their whole text (ours are calls of `sp_executesql`,
//! which it answers without looking into them), has no texts in its results, can't cut or hang, and brings OpenSSL.

mod answer;
mod tls;
mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use digi_core::store::mssql::{Encrypt, MssqlOptions, MssqlStore, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(crate) use answer::{Answer, Cell, Column};
pub(crate) use tls::Certificate;
use wire::Io;
pub(crate) use wire::{Encryption, Request, Value};

/// Longer than anything that a test waits for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The password of every login here. It must not be seen anywhere.
pub(crate) const PASSWORD: &str = "Correct-Horse-7";

/// What the peer does about a request.
pub(crate) enum Reply {
    Answer(Answer),
    /// Closes the connection instead of answering.
    Cut,
    /// Closes it in the middle of the answer.
    CutWithin(Answer),
    /// Says nothing until the other side closes the connection.
    Hang,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// How a peer treats whoever connects.
pub(crate) struct Setup {
    pub(crate) encryption: Encryption,
    pub(crate) certificate: Certificate,
    /// The answer to a login; none: silence.
    pub(crate) login: Option<Answer>,
    pub(crate) script: Arc<Script>,
}

impl Setup {
    /// Lets everybody in and answers as the script says.
    pub(crate) fn new(script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let (encryption, certificate) = (Encryption::Optional, Certificate::of("localhost"));
        Self { encryption, certificate, login: Some(Answer::logged_in()), script: Arc::new(script) }
    }

    /// Refuses every login.
    pub(crate) fn refusing(number: u32, text: &str) -> Self {
        let mut setup = Self::new(|_| panic!("nobody was let in"));
        setup.login = Some(Answer::refusal(number, 14, text));
        setup
    }
}

/// What a peer has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) requests: Vec<Request>,
    /// Connections that were made, and those of them that are still there.
    pub(crate) connections: usize,
    pub(crate) open: usize,
}

pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    certificate: Certificate,
    seen: watch::Receiver<Seen>,
    mode: watch::Sender<Mode>,
    _task: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Up,
    /// Closes every connection, the present ones and the coming ones.
    Down,
}

/// An address that refuses connections until a peer starts on it.
pub(crate) struct Reserved(TcpSocket);

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        Self(socket)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    pub(crate) fn start(self, setup: Setup) -> Peer {
        Peer::run(self.0.listen(64).unwrap(), setup)
    }
}

impl Peer {
    pub(crate) fn start(setup: Setup) -> Self {
        Reserved::new().start(setup)
    }

    pub(crate) fn run(listener: TcpListener, setup: Setup) -> Self {
        let address = listener.local_addr().unwrap();
        let certificate = setup.certificate.clone();
        let (seen, receiver) = watch::channel(Seen::default());
        let (mode, switch) = watch::channel(Mode::Up);
        let (setup, seen) = (Arc::new(setup), Arc::new(seen));
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let (setup, seen, mut switch) = (Arc::clone(&setup), Arc::clone(&seen), switch.clone());
                connections.spawn(async move {
                    let mut number = 0;
                    seen.send_modify(|seen| {
                        number = seen.connections;
                        seen.connections += 1;
                        seen.open += 1;
                    });
                    tokio::select! {
                        // A client that goes away in the middle of something is nothing special.
                        _ = serve(tcp, &setup, &seen, number) => {}
                        _ = switch.wait_for(|mode| *mode == Mode::Down) => {}
                    }
                    seen.send_modify(|seen| seen.open -= 1);
                });
            }
        });
        Self { address, certificate, seen: receiver, mode, _task: task }
    }

    /// Closes every connection, and those that are made from now on.
    pub(crate) fn go_down(&self) {
        self.mode.send_replace(Mode::Down);
    }

    pub(crate) fn come_up(&self) {
        self.mode.send_replace(Mode::Up);
    }

    /// Options with which one gets in. The host is a name, as certificates have it.
    pub(crate) fn options(&self) -> MssqlOptions {
        let mut options = MssqlOptions::new("localhost", "chat", "digi", PASSWORD);
        options.port = self.address.port();
        options.encrypt = Encrypt::Off;
        options.trust = Trust::Authority(self.certificate.authority_file());
        (options.lanes, options.pool) = (1, 1);
        options
    }

    pub(crate) fn options_with(&self, encrypt: Encrypt) -> MssqlOptions {
        MssqlOptions { encrypt, ..self.options() }
    }

    pub(crate) fn store(&self) -> MssqlStore {
        MssqlStore::open(self.options()).unwrap()
    }

    /// Waits until the peer has seen something.
    pub(crate) async fn until(&self, condition: impl FnMut(&Seen) -> bool) {
        let mut seen = self.seen.clone();
        tokio::time::timeout(DEADLINE, seen.wait_for(condition)).await.expect("the peer sees it in time").unwrap();
    }

    pub(crate) fn look<T>(&self, at: impl FnOnce(&Seen) -> T) -> T {
        at(&self.seen.borrow())
    }

    /// The requests so far whose text contains this.
    pub(crate) fn requests_with(&self, text: &str) -> Vec<Request> {
        self.look(|seen| seen.requests.iter().filter(|request| request.text.contains(text)).cloned().collect())
    }
}

async fn serve(tcp: TcpStream, setup: &Setup, seen: &watch::Sender<Seen>, number: usize) -> std::io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut io = wire::handshake(tcp, setup.encryption, &setup.certificate).await?;
    let Some(login) = &setup.login else { return hang(&mut io).await };
    wire::write(&mut io, &login.tokens).await?;
    if login.is_refusal {
        return io.shutdown().await;
    }
    while let Some(request) = wire::read_request(&mut io, number).await? {
        let reply = (setup.script)(&request);
        seen.send_modify(|seen| seen.requests.push(request));
        match reply {
            Reply::Answer(answer) => wire::write(&mut io, &answer.tokens).await?,
            Reply::Cut => return Ok(()),
            Reply::CutWithin(answer) => return wire::write_half(&mut io, &answer.tokens).await,
            Reply::Hang => return hang(&mut io).await,
        }
    }
    Ok(())
}

/// Until the other side closes.
async fn hang(io: &mut Box<dyn Io>) -> std::io::Result<()> {
    let mut ignored = [0; 1024];
    loop {
        match io.read(&mut ignored).await {
            Ok(0) | Err(_) => return Ok(()),
            Ok(_) => {}
        }
    }
}

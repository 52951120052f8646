//! A network between a store and its server that can be cut, held up and slowed down, and lose the answer to one request
//! that it knows by a piece of its text. It knows texts only where they aren't encrypted: with `encrypt=off`.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_secs(60);

const BATCH: u8 = 0x01;
const RPC: u8 = 0x03;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    Pass,
    /// Nothing gets through, and nobody hears why.
    Hang,
    /// Every connection is closed, also those to come.
    Cut,
}

/// What is to happen to the next request that contains a text.
struct Trap {
    piece: Vec<u8>,
    /// It is the whole request, and no call of a procedure.
    is_whole: bool,
    is_held: bool,
    caught: oneshot::Sender<()>,
    release: oneshot::Receiver<()>,
    answered: oneshot::Sender<()>,
}

/// A request that was caught, or will be.
pub(crate) struct Caught {
    caught: Option<oneshot::Receiver<()>>,
    release: Option<oneshot::Sender<()>>,
    answered: Option<oneshot::Receiver<()>>,
}

impl Caught {
    /// Until the request is there. The client's connection is closed then.
    pub(crate) async fn caught(&mut self) {
        wait(self.caught.take().unwrap(), "the request comes").await;
    }

    /// Lets a request go that was held back, and waits for the server's answer.
    pub(crate) async fn release(mut self) {
        self.release.take().unwrap().send(()).unwrap();
        wait(self.answered.take().unwrap(), "the server answers").await;
    }
}

async fn wait(event: oneshot::Receiver<()>, what: &str) {
    timeout(DEADLINE, event).await.unwrap_or_else(|_| panic!("{what} in time")).unwrap();
}

pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    _task: JoinSet<()>,
}

struct Shared {
    target: String,
    mode: watch::Sender<Mode>,
    delay: watch::Sender<Duration>,
    trap: Mutex<Option<Trap>>,
}

impl Proxy {
    /// In front of `host:port`.
    pub(crate) async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, delay) = (watch::Sender::new(Mode::Pass), watch::Sender::new(Duration::ZERO));
        let shared = Arc::new(Shared { target: target.to_owned(), mode, delay, trap: Mutex::new(None) });
        let mut task = JoinSet::new();
        let for_all = Arc::clone(&shared);
        task.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&for_all);
                connections.spawn(async move {
                    let mut mode = shared.mode.subscribe();
                    tokio::select! {
                        // One side has closed: then so does the other.
                        _ = carry(client, &shared) => {}
                        _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, shared, _task: task }
    }

    /// As a network should be. So it begins.
    pub(crate) fn pass(&self) {
        self.shared.mode.send_replace(Mode::Pass);
    }

    /// Nothing gets through any more, but nothing is closed either.
    pub(crate) fn hang(&self) {
        self.shared.mode.send_replace(Mode::Hang);
    }

    /// Closes every connection, and those that are made until [`Proxy::pass`].
    pub(crate) fn cut(&self) {
        self.shared.mode.send_replace(Mode::Cut);
    }

    /// What a packet takes each way.
    pub(crate) fn delay(&self, delay: Duration) {
        self.shared.delay.send_replace(delay);
    }

    /// The next request whose text contains this is carried out, but its answer gets lost: when the server has given
    /// it, both sides are cut off.
    pub(crate) fn lose_answer(&self, text: &str) -> Caught {
        self.trap(text, false, false)
    }

    /// The next request whose text contains this comes late: the client is cut off, and the server gets the request
    /// when it is released.
    pub(crate) fn hold_back(&self, text: &str) -> Caught {
        self.trap(text, false, true)
    }

    /// As [`Proxy::hold_back`], for a request that consists of this text alone.
    pub(crate) fn hold_back_whole(&self, text: &str) -> Caught {
        self.trap(text, true, true)
    }

    fn trap(&self, text: &str, is_whole: bool, is_held: bool) -> Caught {
        let piece = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let (caught, is_caught) = oneshot::channel();
        let (releaser, release) = oneshot::channel();
        let (answered, is_answered) = oneshot::channel();
        *self.shared.trap.lock().unwrap() = Some(Trap { piece, is_whole, is_held, caught, release, answered });
        Caught { caught: Some(is_caught), release: Some(releaser), answered: Some(is_answered) }
    }
}

impl Shared {
    /// Until something may go through.
    async fn ways_are_free(&self) {
        let delay = *self.delay.borrow();
        sleep(delay).await;
        let _ = self.mode.subscribe().wait_for(|mode| *mode != Mode::Hang).await;
    }

    /// The trap, if this is the request for it.
    fn trap_for(&self, kind: u8, message: &[u8]) -> Option<Trap> {
        // In front of the text: which transaction it belongs to.
        const HEADERS: usize = 22;
        let mut trap = self.trap.lock().unwrap();
        let Trap { piece, is_whole, .. } = trap.as_ref()?;
        let is_it = if *is_whole {
            kind == BATCH && message.get(HEADERS..) == Some(piece)
        } else {
            message.windows(piece.len()).any(|window| window == piece)
        };
        if is_it { trap.take() } else { None }
    }
}

async fn carry(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    let mut server = TcpStream::connect(&shared.target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut asked, mut message) = (Frames::default(), Vec::new());
    let mut answer = vec![0; 16 * 1024];
    loop {
        tokio::select! {
            more = asked.fill(&mut client) => {
                if more? == 0 {
                    return Ok(());
                }
                while let Some(frame) = asked.next() {
                    shared.ways_are_free().await;
                    if frame.is_request() {
                        message.extend(&frame.0[8..]);
                        if frame.is_last()
                            && let Some(trap) = shared.trap_for(frame.0[0], &std::mem::take(&mut message))
                        {
                            return caught(trap, &frame.0, client, server).await;
                        }
                    }
                    server.write_all(&frame.0).await?;
                }
            }
            count = server.read(&mut answer) => {
                let count = count?;
                if count == 0 {
                    return Ok(());
                }
                shared.ways_are_free().await;
                client.write_all(&answer[..count]).await?;
            }
        }
    }
}

async fn caught(trap: Trap, last: &[u8], client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    let Trap { is_held, caught, release, answered, .. } = trap;
    let mut client = Some(client);
    let mut caught = Some(caught);
    let mut tell = |client: &mut Option<TcpStream>| {
        drop(client.take());
        // Nobody waits for it: the test has ended.
        caught.take().map(|caught| caught.send(()))
    };
    if is_held {
        tell(&mut client);
        // Never, when the test has ended.
        if release.await.is_err() {
            return Ok(());
        }
    }
    server.write_all(last).await?;
    let mut frames = Frames::default();
    loop {
        if frames.fill(&mut server).await? == 0 {
            break;
        }
        let mut is_over = false;
        while let Some(frame) = frames.next() {
            is_over |= frame.is_last();
        }
        if is_over {
            break;
        }
    }
    tell(&mut client);
    let _ = answered.send(());
    Ok(())
}

/// What comes from one side, frame by frame: packets of TDS, and records of TLS around the login.
#[derive(Default)]
struct Frames(Vec<u8>);

struct Frame(Vec<u8>);

impl Frame {
    fn is_request(&self) -> bool {
        matches!(self.0[0], BATCH | RPC)
    }

    fn is_last(&self) -> bool {
        self.0[1] & 1 != 0
    }
}

impl Frames {
    async fn fill(&mut self, from: &mut TcpStream) -> io::Result<usize> {
        from.read_buf(&mut self.0).await
    }

    fn next(&mut self) -> Option<Frame> {
        let number =
            |at: usize| self.0.get(at..at + 2).map(|bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        let length = match self.0.first()? {
            // The kinds of TLS records; those of packets are others.
            0x14..=0x17 => number(3)? + 5,
            _ => number(2)?,
        };
        assert!(length >= 5, "this is neither TDS nor TLS");
        (self.0.len() >= length).then(|| Frame(self.0.drain(..length).collect()))
    }
}

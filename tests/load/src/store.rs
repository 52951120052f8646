//! How fast a store is behind a real engine: `make bench-store`.
//!
//! Each sender posts one message after the other, and waits for each to be committed. The messages are the host's, so
//! that no membership is read for each; a session's is not either. The rooms are new in every stage, and nobody is in
//! them, so what is measured is the store with the writer before it. First an engine that puts one message into a
//! transaction, then one as it is.

use std::time::{Duration, Instant};

use digi_core::engine::{Engine, Limits, Speaker};
use digi_core::store::model::{NewRoom, Outcome};
use digi_core::token::Keyring;
use digi_core::{ClientId, RoomId};
use tokio::task::JoinSet;

use crate::options::StoreOptions;
use crate::{Result, digi, peer};

/// Of a message, as people write them.
const BODY: &str = "A message of a length as people write them, more or less";

/// What came out for a number of senders.
struct Stage {
    /// Messages per second.
    rate: f64,
    /// Of every message, in microseconds, in ascending order.
    latencies: Vec<u32>,
    /// Messages in a transaction, on average.
    batch: f64,
    /// Microseconds of this process's CPU time per message.
    cpu_each: f64,
}

impl Stage {
    /// Milliseconds; `part` of all were faster.
    fn latency(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(index).map_or(f64::NAN, |us| f64::from(*us) / 1e3)
    }
}

/// Measures and prints.
pub(crate) async fn run(options: &StoreOptions) -> Result<()> {
    std::fs::create_dir_all(&options.out)?;
    let dir = tempfile::Builder::new().prefix("digi-store-").tempdir_in(&options.out)?;
    let url = match &options.url {
        Some(url) => url.clone(),
        None => format!("sqlite:{}", dir.path().join("chat.db").display()),
    };
    let single = open(&url, 1).await?;
    // Only the scheme: what follows may hold a password.
    let scheme = url.split(':').next().unwrap_or_default();
    let StoreOptions { rooms, measure, .. } = options;
    println!(
        "{scheme}: senders over up to {rooms} rooms, each with one message under way, {} s per line.\n\
         {:<14}{:>9}{:>13}{:>11}{:>11}{:>11}{:>14}{:>21}",
        measure.as_secs(),
        "",
        "senders",
        "messages/s",
        "p50 ms",
        "p99 ms",
        "commits/s",
        "messages each",
        "CPU us per message"
    );
    let slow = best(&single, "single rows", &options.single, options).await?;
    let fast = best(&open(&url, Limits::default().batch).await?, "batches", &options.senders, options).await?;
    println!("The best of the batches is {:.1} times the best of the single rows.", fast / slow);
    if options.url.is_some() && scheme != "memory" {
        println!("What was posted stays in the store.");
    }
    Ok(())
}

async fn open(url: &str, batch: usize) -> Result<Engine> {
    let limits = Limits { batch, ..Limits::default() };
    Ok(Engine::builder().keys(Keyring::new(digi::ID_SECRET)?).store(url).limits(limits).build().await?)
}

/// Prints a line for each number of senders, and gives the highest rate. Closes the engine.
async fn best(engine: &Engine, name: &str, senders: &[usize], options: &StoreOptions) -> Result<f64> {
    let mut best = 0.0_f64;
    for senders in senders {
        let stage = stage(engine, *senders, options).await?;
        let (p50, p99) = (stage.latency(0.5), stage.latency(0.99));
        let Stage { rate, batch, cpu_each, .. } = stage;
        let commits = rate / batch;
        println!(
            "{name:<14}{senders:>9}{rate:>13.1}{p50:>11.2}{p99:>11.2}{commits:>11.1}{batch:>14.1}{cpu_each:>21.1}"
        );
        best = best.max(rate);
    }
    engine.close().await;
    Ok(best)
}

async fn stage(engine: &Engine, senders: usize, options: &StoreOptions) -> Result<Stage> {
    let mut rooms = Vec::new();
    for _ in 0..senders.min(options.rooms) {
        rooms.push(engine.create_room(&NewRoom::default()).await?);
    }
    // What the first messages find cold is not counted.
    post_all(engine, senders, &rooms, 0, Instant::now()).await?;
    let (before, cpu, began) = (engine.stats(), peer::cpu_of("self")?, Instant::now());
    let mut latencies = post_all(engine, senders, &rooms, 1, began + options.measure).await?;
    let (elapsed, after) = (began.elapsed(), engine.stats());
    let cpu = peer::cpu_of("self")?.saturating_sub(cpu);
    latencies.sort_unstable();
    let messages = latencies.len() as f64;
    Ok(Stage {
        rate: messages / elapsed.as_secs_f64(),
        latencies,
        batch: messages / (after.batches - before.batches) as f64,
        cpu_each: cpu.as_secs_f64() * 1e6 / messages,
    })
}

/// Lets all senders post until then, each at least once, and waits for the last one; the messages of a sender are
/// numbered from `first` on. Gives the times that they took.
async fn post_all(engine: &Engine, senders: usize, rooms: &[RoomId], first: u64, until: Instant) -> Result<Vec<u32>> {
    let mut tasks = JoinSet::new();
    for (sender, room) in (0..senders).zip(rooms.iter().cycle()) {
        tasks.spawn(post(engine.clone(), *room, sender, first, until));
    }
    let mut latencies = Vec::new();
    while let Some(sender) = tasks.join_next().await {
        latencies.extend(sender??);
    }
    Ok(latencies)
}

async fn post(engine: Engine, room: RoomId, sender: usize, first: u64, until: Instant) -> Result<Vec<u32>> {
    let speaker = Speaker::host(sender.to_string(), format!("sender {sender}"));
    let mut latencies = Vec::new();
    let mut begun = Instant::now();
    for number in first.. {
        let client_id = ClientId::new(&format!("{sender}-{number}"));
        let outcome = engine.post(room, &speaker, BODY, client_id).await;
        match outcome.map_err(|error| format!("a message was not stored: {error}"))? {
            Outcome::Message { .. } => {}
            other => return Err(format!("a message was answered with {other:?}").into()),
        }
        let now = Instant::now();
        latencies.push(micros(now - begun));
        if now >= until {
            break;
        }
        begun = now;
    }
    Ok(latencies)
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}

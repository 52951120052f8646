//! The channel layer on Redis: beside a bare pair of redis-rs connections, and for a node with many rooms.
//!
//! This process publishes; another one, this program again, subscribes and answers. Both ways take turns in short
//! rounds over one Redis of their own, so what counts are the ratios. One event at a time there and back shows the
//! delay; as many as go show the throughput, with the publisher never more than [`AHEAD`] events ahead. Bare, an event
//! is a PUBLISH, 1,000 of them in a pipeline; Digi is given 1,000 events at a time, as its writer would give them.

mod bare;
mod node;
mod pair;
pub(crate) mod rooms;
mod server;

use std::time::Duration;

use crate::Result;
use crate::options::LayerOptions;
use pair::{Figures, Pair, Way};
use server::RedisServer;

/// How many events are published and not yet reported as received, at the most.
const AHEAD: u64 = 50_000;

/// After how many events the subscriber reports.
const REPORT: u64 = 10_000;

/// How many events are published at a time.
const TOGETHER: usize = 1_000;

/// As long as a frame with a short message.
const FRAME: usize = 200;

/// Measures and prints; whether Digi is as fast as it should be is the reader's to say.
pub(crate) async fn run(options: &LayerOptions) -> Result<()> {
    std::fs::create_dir_all(&options.out)?;
    let dir = tempfile::Builder::new().prefix("digi-layer-").tempdir_in(&options.out)?;
    let redis = RedisServer::start(dir.path()).await?;
    println!(
        "Redis {} on this machine; {} rounds of {} s for each line, taking turns; median [lowest-highest].",
        redis.version().await?,
        options.rounds,
        options.measure.as_secs_f64()
    );
    let mut figures = Vec::new();
    for way in Way::ALL {
        figures.push((way, Pair::start(way, &redis.url()).await?, Vec::<Figures>::new()));
    }
    for _ in 0..options.rounds {
        for (_, pair, rounds) in &mut figures {
            rounds.push(pair.measure(options.measure).await?);
        }
    }
    println!("{:<28}{:>26}{:>26}{:>30}{:>18}", "", "there and back, p50 us", "p99 us", "events/s", "CPU us per event");
    for (way, _, rounds) in &figures {
        let of = |value: fn(&Figures) -> f64, decimals| spread(rounds.iter().map(value).collect(), decimals);
        println!(
            "{:<28}{:>26}{:>26}{:>30}{:>18}",
            way.name(),
            of(|figures| figures.p50, 1),
            of(|figures| figures.p99, 1),
            of(|figures| figures.rate, 0),
            spread(rounds.iter().map(|figures| figures.cpu_each).collect(), 2),
        );
    }
    let (bare, others) = figures.split_first().ok_or("there is nothing to compare")?;
    for (way, _, rounds) in others {
        let ratio = |value: fn(&Figures) -> f64| {
            spread(rounds.iter().zip(&bare.2).map(|(digi, bare)| value(digi) / value(bare)).collect(), 2)
        };
        println!(
            "{} against bare: p50 {}, events/s {}",
            way.name(),
            ratio(|figures| figures.p50),
            ratio(|figures| figures.rate)
        );
    }
    drop(figures);
    rooms::run(&redis, dir.path(), options).await
}

/// Middle, lowest and highest.
fn spread(mut values: Vec<f64>, decimals: usize) -> String {
    values.sort_by(f64::total_cmp);
    let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
    let (low, middle, high) = (at(0), at(values.len() / 2), at(values.len().saturating_sub(1)));
    format!("{middle:.decimals$} [{low:.decimals$}-{high:.decimals$}]")
}

/// Serves as the other process, until this one's input ends.
pub(crate) async fn answer(way: &str, url: &str) -> Result<()> {
    let way = Way::from_name(way)?;
    let answering = async {
        match way {
            Way::Bare => bare::answer(url).await,
            Way::OneRoom | Way::ManyRooms => node::answer(url).await,
        }
    };
    tokio::select! {
        result = answering => result,
        () = crate::peer::parent_gone() => Ok(()),
    }
}

/// How long one event may be on its way.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for what has to come soon.
async fn soon<T>(what: &str, coming: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(PATIENCE, coming).await.map_err(|_| format!("{what} did not come within {PATIENCE:?}"))?
}

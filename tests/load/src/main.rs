//! Load runs of Digi's server and of Digi under Uvicorn, beside other servers, most of which store nothing: `make bench`.
//!
//! Each peer is a process of its own (this program again, as `serve`, `bare` or `epoll`; `python/`, `node/`); this
//! process makes the load, with one thread and as little work per frame as it can, and checks that every member of a
//! room gets every message once and in one order. Peers take turns in short rounds, so that what else the machine does
//! hits all alike; what counts are the ratios. A table, charts and everything that was measured go to `target/bench`.
//!
//! Digi does all its work: the JWT and the room's token of each connection are checked, the membership is read, and
//! every message is committed to SQLite with `synchronous=FULL` before anybody gets it. Only the rate limits are off.
//!
//! `digi-load layer`, a part of `make bench`, measures the channel layer on Redis beside a bare pair of connections.
//! `digi-load c` measures what the C ABI costs. `make bench-store` measures the store alone, behind an engine in this
//! process: any store, by its URL.

mod arrivals;
mod bare;
mod c_abi;
mod chart;
mod check;
mod client;
mod digi;
mod epoll;
mod generator;
mod history;
mod kind;
mod layer;
mod machine;
mod options;
mod peer;
mod report;
mod scenario;
mod spread;
mod store;
mod table;

use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use options::{Job, Options};

/// As in a server of one's own, see examples/rust-server. The peers in Rust have it, too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("FAILED: messages were lost, doubled, reordered or answered otherwise; see the table.");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("FAILED: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything arrived as it should.
fn run() -> Result<bool> {
    // Thousands of connections need as many descriptors, here and in the peers, which inherit this.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files })?;
    match Job::from_args(std::env::args().skip(1))? {
        Job::Help => println!("{}", options::USAGE),
        Job::Serve { dir, rooms, members } => on_runtime(digi::serve(&dir, rooms, members))?,
        Job::Bare => on_runtime(bare::serve())?,
        Job::Epoll => epoll::serve()?,
        Job::Layer(options) => on_runtime(layer::run(&options))?,
        Job::LayerNode(options) => on_runtime(layer::rooms::node(&options))?,
        Job::LayerPeer { way, url } => on_runtime(layer::answer(&way, &url))?,
        Job::C { program } => c_abi::run(&program)?,
        Job::Store(options) => on_runtime(store::run(&options))?,
        Job::Run(options) => return load(&options),
    }
    Ok(true)
}

fn on_runtime(work: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(work)
}

fn load(options: &Options) -> Result<bool> {
    std::fs::create_dir_all(&options.out)?;
    let mut report = report::Report::new(options);
    for scenario in scenario::ALL.iter().filter(|scenario| options.wants(scenario.name)) {
        report.add(&scenario::run(scenario, options)?);
    }
    if options.wants("history") {
        let (table, value) = tokio::runtime::Runtime::new()?.block_on(history::run(options))?;
        report.add_table("history", table, value);
    }
    report.finish(&options.out)
}

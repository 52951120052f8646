//! The table and the file.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::check::Faults;
use crate::generator::Round;
use crate::options::Options;
use crate::peer::Kind;
use crate::scenario::{Measured, Results, Scenario};

/// What was measured so far.
pub(crate) struct Report {
    scenarios: Vec<Value>,
    lines: Vec<String>,
    /// The table of the peers under Uvicorn.
    uvicorn: Vec<String>,
    /// Of the peers that have to be right.
    faults: Faults,
    run: Value,
}

/// Lowest, middle and highest of the rounds.
#[derive(Clone, Copy)]
struct Spread {
    min: f64,
    median: f64,
    max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        Self { min: at(0), median: at(values.len() / 2), max: at(values.len().saturating_sub(1)) }
    }

    /// Of each pair of rounds that ran one after the other.
    fn of_ratios(rounds: &[Round], others: &[Round], value: fn(&Round) -> f64) -> Self {
        Self::of(rounds.iter().zip(others).map(|(round, other)| value(round) / value(other)))
    }

    fn show(self, decimals: usize) -> String {
        let Self { min, median, max } = self;
        format!("{median:.decimals$} [{min:.decimals$}-{max:.decimals$}]")
    }

    fn json(self) -> Value {
        json!({ "min": self.min, "median": self.median, "max": self.max })
    }
}

impl Round {
    fn rate(&self) -> f64 {
        self.deliveries as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of the peer's CPU time per delivery.
    fn cpu_each(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.deliveries as f64
    }

    fn own_cpu_each(&self) -> f64 {
        self.own_cpu.as_secs_f64() * 1e6 / self.deliveries as f64
    }

    /// Microseconds; `part` of all were faster.
    fn latency(&self, part: f64) -> f64 {
        let index = (self.latencies.len() as f64 * part) as usize;
        self.latencies.get(index).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    }
}

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let run = json!({
            "cores": cores,
            "rounds": options.rounds,
            "seconds": options.measure.as_secs_f64(),
        });
        Self { scenarios: Vec::new(), lines: Vec::new(), uvicorn: Vec::new(), faults: Faults::default(), run }
    }

    pub(crate) fn add(&mut self, results: Results) {
        let Results { scenario, peers } = results;
        self.lines.push(format!("\n{}  {}", scenario.name, scenario.text));
        let is_idle = peers.iter().any(|(_, measured)| matches!(measured, Measured::Idle(_)));
        self.lines.push(if is_idle {
            format!("  {:10}{:>24}{:>18}", "peer", "KiB per connection", "% of a core")
        } else {
            format!(
                "  {:10}{:>28}{:>24}{:>24}{:>24}{:>22}",
                "peer", "deliveries/s", "p50 us", "p99 us", "CPU us per delivery", "lost/doubled/reord."
            )
        });
        let rows: Vec<_> = peers
            .iter()
            .map(|(kind, measured)| match measured {
                Measured::Rounds(rounds) => self.add_rounds(*kind, rounds),
                Measured::Idle(idle) => {
                    let (memory, percent) = (idle.memory, idle.cpu_share * 100.0);
                    self.lines.push(format!("  {:10}{memory:>24.1}{percent:>18.1}", kind.name()));
                    json!({ "peer": kind.name(), "kib_per_connection": memory, "cpu_share": idle.cpu_share })
                }
            })
            .collect();
        let ratio = self.add_ratio(&peers);
        let uvicorn = self.add_under_uvicorn(scenario, &peers);
        self.scenarios.push(json!({
            "name": scenario.name, "text": scenario.text, "peers": rows, "digi_to_bare": ratio,
            "under_uvicorn": uvicorn,
        }));
    }

    fn add_rounds(&mut self, kind: Kind, rounds: &[Round]) -> Value {
        let spread = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let (rate, cpu, own) = (spread(Round::rate), spread(Round::cpu_each), spread(Round::own_cpu_each));
        let (p50, p99) = (spread(|round| round.latency(0.5)), spread(|round| round.latency(0.99)));
        let mut faults = Faults::default();
        rounds.iter().for_each(|round| faults += round.faults);
        if kind.has_to_be_right() {
            self.faults += faults;
        }
        let Faults { lost, doubled, reordered, strange } = faults;
        let mut line = format!(
            "  {:10}{:>28}{:>24}{:>24}{:>24}{:>22}",
            kind.name(),
            rate.show(0),
            p50.show(0),
            p99.show(0),
            cpu.show(2),
            format!("{lost}/{doubled}/{reordered}")
        );
        if strange > 0 {
            line += &format!("  and {strange} strange frames");
        }
        self.lines.push(line);
        json!({
            "peer": kind.name(), "deliveries_per_second": rate.json(), "p50_us": p50.json(), "p99_us": p99.json(),
            "cpu_us_per_delivery": cpu.json(), "generator_cpu_us_per_delivery": own.json(),
            "lost": lost, "doubled": doubled, "reordered": reordered, "strange": strange,
        })
    }

    /// Digi's figures divided by the bare peer's.
    fn add_ratio(&mut self, peers: &[(Kind, Measured)]) -> Value {
        let of = |wanted| peers.iter().find(|(kind, _)| *kind == wanted).map(|(_, measured)| measured);
        match (of(Kind::Digi), of(Kind::Bare)) {
            (Some(Measured::Rounds(digi)), Some(Measured::Rounds(bare))) => {
                let ratio = |value: fn(&Round) -> f64| Spread::of_ratios(digi, bare, value);
                let (rate, cpu) = (ratio(Round::rate), ratio(Round::cpu_each));
                let (p50, p99) = (ratio(|round| round.latency(0.5)), ratio(|round| round.latency(0.99)));
                self.lines.push(format!(
                    "  {:10}{:>28}{:>24}{:>24}{:>24}",
                    "ratio",
                    rate.show(2),
                    p50.show(2),
                    p99.show(2),
                    cpu.show(2)
                ));
                json!({
                    "deliveries_per_second": rate.json(), "p50": p50.json(), "p99": p99.json(),
                    "cpu_per_delivery": cpu.json(),
                })
            }
            (Some(Measured::Idle(digi)), Some(Measured::Idle(bare))) => {
                let memory = digi.memory / bare.memory;
                self.lines.push(format!("  {:10}{memory:>24.2}", "ratio"));
                json!({ "kib_per_connection": memory })
            }
            _ => Value::Null,
        }
    }

    /// What the peers under Uvicorn cost, beside a Channels consumer and beside an application that does nothing.
    fn add_under_uvicorn(&mut self, scenario: &Scenario, peers: &[(Kind, Measured)]) -> Value {
        let rounds: Vec<_> = peers
            .iter()
            .filter_map(|(kind, measured)| match measured {
                Measured::Rounds(rounds) if kind.is_python() => Some((*kind, rounds)),
                _ => None,
            })
            .collect();
        let of = |wanted| rounds.iter().find(|(kind, _)| *kind == wanted).map(|(_, rounds)| *rounds);
        let (channels, bare) = (of(Kind::Channels), of(Kind::AsgiBare));
        let rows = rounds.iter().map(|(kind, rounds)| {
            let ratio = |to: Option<&Vec<Round>>| to.map(|to| Spread::of_ratios(rounds, to, Round::cpu_each));
            let (to_channels, to_bare) = (ratio(channels), ratio(bare));
            let cpu = Spread::of(rounds.iter().map(Round::cpu_each));
            let rate = Spread::of(rounds.iter().map(Round::rate));
            let show = |ratio: Option<Spread>, decimals| ratio.map_or_else(|| "-".to_owned(), |it| it.show(decimals));
            self.uvicorn.push(format!(
                "  {:4}{:10}{:>26}{:>22}{:>22}{:>28}",
                scenario.name,
                kind.name(),
                cpu.show(1),
                show(to_channels, 3),
                show(to_bare, 2),
                rate.show(0)
            ));
            json!({
                "peer": kind.name(), "cpu_to_channels": to_channels.map(Spread::json),
                "cpu_to_asgi_bare": to_bare.map(Spread::json),
            })
        });
        Value::Array(rows.collect())
    }

    /// Prints the tables and writes the file; whether nothing went wrong.
    pub(crate) fn finish(self, file: &Path) -> Result<bool> {
        println!(
            "Digi's server (SQLite, synchronous=FULL; HS256 JWT; no rate limits) and a bare in-memory fan-out on \
             tokio-tungstenite.\nMedians of the rounds [lowest-highest]; latency is from sending to the sender's own \
             copy."
        );
        for line in &self.lines {
            println!("{line}");
        }
        if !self.uvicorn.is_empty() {
            println!(
                "\nUnder Uvicorn: Digi's ASGI application on its own store (asgi-digi) and on Django's models (asgi-orm), a tuned \
                 Channels\nconsumer that stores through Django and sends through Redis, checks no login and does not wait \
                 for the disk (channels), and\na fan-out that stores nothing (asgi-bare). CPU time is that of the server, \
                 with Redis for channels.\n  {:14}{:>26}{:>22}{:>22}{:>28}",
                "", "CPU us per delivery", "to channels", "to asgi-bare", "deliveries/s"
            );
            self.uvicorn.iter().for_each(|line| println!("{line}"));
        }
        let passed = self.faults.is_none();
        let all = json!({ "run": self.run, "scenarios": self.scenarios, "passed": passed });
        std::fs::write(file, format!("{all:#}\n"))?;
        println!("\nWritten to {}.", file.display());
        Ok(passed)
    }
}

//! What is printed and written of a run.

use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::chart::{Bar, Chart, Group, Mark};
use crate::check::Faults;
use crate::generator::Round;
use crate::kind::Kind;
use crate::machine;
use crate::options::Options;
use crate::scenario::{Idle, Measured, Results, Row, Scenario};
use crate::spread::{Spread, digits};
use crate::table::Table;

/// A round in which this process took more of a core says what it can do, not what the peer can.
const BOUND: f64 = 0.9;
/// What a message may cost more where there are many rooms.
const ROOMS_GOAL: f64 = 1.25;

/// What was measured so far.
pub(crate) struct Report {
    scenarios: Vec<Value>,
    tables: Vec<Table>,
    charts: [Chart; 4],
    /// Of the peers that have to be right.
    faults: Faults,
    run: Value,
}

/// A row and its rounds.
type Rounds<'a> = (&'a Row, &'a [Round], u64);

impl Report {
    pub(crate) fn new(options: &Options) -> Self {
        let run = json!({
            "machine": machine::describe(),
            "date": machine::today(),
            "rounds": options.rounds,
            "seconds": options.measure.as_secs_f64(),
        });
        let chart = |title: &str, text: &str, origin| Chart {
            title: title.to_owned(),
            text: text.to_owned(),
            origin,
            groups: Vec::new(),
        };
        let charts = [
            chart(
                "Deliveries per second",
                "Beside Digi's server (1): median of the rounds, from lowest to highest",
                Some(1.0),
            ),
            chart(
                "CPU time per delivery",
                "Microseconds, server with its Redis: median of the rounds, from lowest to highest",
                None,
            ),
            chart(
                "Latency",
                "Milliseconds until half, 99 % and 99.9 % of all own messages were back: medians of the rounds",
                None,
            ),
            chart("Memory", "Resident MiB after the last round", None),
        ];
        Self { scenarios: Vec::new(), tables: Vec::new(), charts, faults: Faults::default(), run }
    }

    pub(crate) fn add(&mut self, results: &Results) {
        let Results { scenario, rows } = results;
        let (mut table, values) = match rows.first() {
            Some(Row { rooms: Some(_), .. }) => self.of_rounds(scenario, rows),
            _ if rows.iter().any(|row| matches!(row.measured, Measured::Idle(_))) => of_idle(rows),
            _ => self.of_rounds(scenario, rows),
        };
        table.title = format!("{}: {}", scenario.name, scenario.text);
        self.add_table(
            scenario.name,
            table,
            json!({ "text": scenario.text, "unit": scenario.unit(), "peers": values }),
        );
    }

    pub(crate) fn add_table(&mut self, name: &str, table: Table, mut value: Value) {
        value["name"] = name.into();
        self.scenarios.push(value);
        self.tables.push(table);
    }

    fn of_rounds(&mut self, scenario: &Scenario, rows: &[Row]) -> (Table, Vec<Value>) {
        let measured: Vec<Rounds<'_>> = rows
            .iter()
            .filter_map(|row| match &row.measured {
                Measured::Rounds { rounds, memory } => Some((row, rounds.as_slice(), *memory)),
                Measured::Idle(_) | Measured::Failed(_) => None,
            })
            .collect();
        let arrivals = scenario.unit() == "connection";
        let mut columns = if arrivals {
            vec!["peer", "connections/s", "beside digi", "CPU us each"]
        } else {
            vec!["peer", "deliveries/s", "beside digi", "CPU us each"]
        };
        columns.extend(["p50 ms", "p99 ms", "p999 ms", "RSS MiB", "generator's core", "lost/doubled/reordered"]);
        let mut table = Table { title: String::new(), columns, rows: Vec::new(), notes: Vec::new() };
        let mut values = Vec::new();
        let (mut groups, title): ([Vec<Bar>; 4], _) =
            (Default::default(), format!("{}: {}", scenario.name, scenario.text));
        for row in rows {
            let label = row.rooms.map_or(row.kind.name().to_owned(), |rooms| format!("{}, {rooms}", row.kind.name()));
            let found = measured.iter().find(|(other, ..)| std::ptr::eq(*other, row));
            let marks = match (found, &row.measured) {
                (Some((_, rounds, memory)), _) => {
                    let digi = measured.iter().find(|(other, ..)| other.kind == Kind::Digi && other.rooms == row.rooms);
                    let digi = digi.map(|(_, rounds, _)| *rounds);
                    let (cells, value, marks) = self.of_peer(row.kind, rounds, *memory, digi);
                    table.rows.push([vec![label.clone()], cells].concat());
                    values.push(value);
                    marks
                }
                (None, Measured::Failed(why)) => {
                    table.rows.push(vec![label.clone(), "failed".to_owned()]);
                    table.notes.push(format!("{label}: {why}"));
                    values.push(json!({ "peer": row.kind.name(), "failed": why }));
                    [Mark::Failed; 4]
                }
                (None, _) => continue,
            };
            if let (Some(rooms), Some(value)) = (row.rooms, values.last_mut()) {
                value["rooms"] = rooms.into();
            }
            for (group, mark) in groups.iter_mut().zip(marks) {
                group.push(Bar { kind: row.kind, label: label.clone(), mark });
            }
        }
        if !arrivals {
            for (chart, bars) in self.charts.iter_mut().zip(groups) {
                chart.groups.push(Group { title: title.clone(), bars });
            }
        }
        table.notes.extend(ceiling(&measured, scenario.unit()));
        table.notes.extend(under_uvicorn(&measured));
        table.notes.extend(over_rooms(&measured));
        (table, values)
    }

    /// The cells after the name, the same for the file, and for each chart.
    fn of_peer(
        &mut self,
        kind: Kind,
        rounds: &[Round],
        memory: u64,
        digi: Option<&[Round]>,
    ) -> (Vec<String>, Value, [Mark; 4]) {
        let spread = |value: fn(&Round) -> f64| Spread::of(rounds.iter().map(value));
        let (rate, cpu, own) = (spread(Round::rate), spread(Round::cpu_each), spread(Round::own_cpu_each));
        let latencies = [
            spread(|round| round.latency(0.5)),
            spread(|round| round.latency(0.99)),
            spread(|round| round.latency(0.999)),
        ];
        let ratio = digi.map(|digi| Spread::of_ratios(rounds, digi, Round::rate));
        let share = spread(Round::own_share);
        let bound = rounds.iter().filter(|round| round.own_share() > BOUND).count();
        let memory = memory as f64 / 1024.0;
        let mut faults = Faults::default();
        rounds.iter().for_each(|round| faults += round.faults);
        if kind.has_to_be_right() {
            self.faults += faults;
        }
        let Faults { lost, doubled, reordered, strange } = faults;
        let mut cells = vec![rate.show(), ratio.map_or_else(|| "-".to_owned(), Spread::show), cpu.show()];
        cells.extend(latencies.map(Spread::show));
        cells.push(digits(memory));
        let generator = format!("{:.0} %", share.median * 100.0);
        cells.push(if bound > 0 { format!("{generator}, bound in {bound}") } else { generator });
        let strange_too = if strange > 0 { format!(", {strange} strange") } else { String::new() };
        cells.push(format!("{lost}/{doubled}/{reordered}{strange_too}"));
        let [p50, p99, p999] = latencies;
        let value = json!({
            "peer": kind.name(), "deliveries_per_second": rate.json(), "beside_digi": ratio.map(Spread::json),
            "p50_ms": p50.json(), "p99_ms": p99.json(), "p999_ms": p999.json(),
            "cpu_us_per_delivery": cpu.json(), "generator_cpu_us_per_delivery": own.json(),
            "generator_share": share.json(), "generator_bound_rounds": bound, "rss_mib": memory,
            "lost": lost, "doubled": doubled, "reordered": reordered, "strange": strange,
        });
        let none = Spread::of([f64::NAN]);
        let marks = [
            Mark::Bar(ratio.unwrap_or(none)),
            Mark::Bar(cpu),
            Mark::Points(latencies.map(|latency| latency.median)),
            Mark::Bar(Spread::of([memory])),
        ];
        (cells, value, marks)
    }

    /// Prints the tables and writes everything; whether nothing went wrong.
    pub(crate) fn finish(mut self, dir: &Path) -> Result<bool> {
        let passed = self.faults.is_none();
        let text = |key: &str| self.run[key].as_str().unwrap_or_default().to_owned();
        let head = format!(
            "{}, {}. Each figure is the median of {} rounds of {} s [lowest-highest].",
            text("date"),
            text("machine"),
            self.run["rounds"],
            self.run["seconds"]
        );
        println!("{head}");
        let mut markdown = format!("{head}\n");
        for table in &self.tables {
            print!("{}", table.text());
            markdown += &table.markdown();
        }
        std::fs::write(dir.join("table.md"), markdown)?;
        let all = json!({ "run": self.run, "scenarios": self.scenarios, "passed": passed });
        std::fs::write(dir.join("load.json"), format!("{all:#}\n"))?;
        for (chart, file) in self.charts.iter_mut().zip(["rate", "cpu", "latency", "memory"]) {
            chart.groups.retain(|group| !group.bars.is_empty());
            if !chart.groups.is_empty() {
                std::fs::write(dir.join(file).with_extension("svg"), chart.svg())?;
            }
        }
        println!("\nWritten to {}: table.md, load.json, rate.svg, cpu.svg, latency.svg, memory.svg.", dir.display());
        Ok(passed)
    }
}

fn of_idle(rows: &[Row]) -> (Table, Vec<Value>) {
    let mut table = Table {
        title: String::new(),
        columns: vec!["peer", "connections", "KiB of each", "% of a core"],
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let mut values = Vec::new();
    for row in rows {
        let name = row.kind.name();
        match &row.measured {
            Measured::Idle(Idle { connections, memory, cpu_share }) => {
                let percent = format!("{:.1}", cpu_share * 100.0);
                table.rows.push(vec![name.to_owned(), connections.to_string(), digits(*memory), percent]);
                values.push(json!({ "peer": name, "kib_per_connection": memory, "cpu_share": cpu_share }));
            }
            Measured::Failed(why) => {
                table.rows.push(vec![name.to_owned(), "failed".to_owned()]);
                table.notes.push(format!("{name}: {why}"));
                values.push(json!({ "peer": name, "failed": why }));
            }
            Measured::Rounds { .. } => {}
        }
    }
    (table, values)
}

/// How far the load generator itself gets: measured at the peer that does the least.
fn ceiling(measured: &[Rounds<'_>], unit: &str) -> Option<String> {
    let (_, rounds, _) = measured.iter().find(|(row, ..)| row.kind == Kind::Epoll)?;
    let (rate, own) = (Spread::of(rounds.iter().map(Round::rate)), Spread::of(rounds.iter().map(Round::own_cpu_each)));
    let units = if unit == "delivery" { "deliveries" } else { "connections" };
    Some(format!(
        "The load generator takes {} us for a {unit} from epoll, and got {} {units}/s; with a whole core for it, it could take {}.",
        digits(own.median),
        digits(rate.median),
        digits(1e6 / own.median)
    ))
}

/// What Digi costs under Uvicorn, beside a Channels consumer and an application that does nothing.
fn under_uvicorn(measured: &[Rounds<'_>]) -> Vec<String> {
    let of = |kind| measured.iter().find(|(row, ..)| row.kind == kind).map(|(_, rounds, _)| *rounds);
    let note = |kind: Kind| {
        let rounds = of(kind)?;
        let beside = |other: Kind| {
            let ratio = Spread::of_ratios(rounds, of(other)?, Round::cpu_each);
            Some(format!("{} times that of {}", ratio.show(), other.name()))
        };
        let parts: Vec<_> = [Kind::Channels, Kind::AsgiBare].into_iter().filter_map(beside).collect();
        (!parts.is_empty()).then(|| format!("CPU time for a delivery, {}: {}.", kind.name(), parts.join(", ")))
    };
    [Kind::AsgiDigi, Kind::AsgiOrm].into_iter().filter_map(note).collect()
}

/// How much more a message costs among many rooms than among few.
fn over_rooms(measured: &[Rounds<'_>]) -> Vec<String> {
    let mut notes = Vec::new();
    for chunk in measured.chunk_by(|(a, ..), (b, ..)| a.kind == b.kind) {
        let (Some((few, first, _)), Some((many, last, _))) = (chunk.first(), chunk.last()) else { continue };
        let (Some(from), Some(to)) = (few.rooms, many.rooms) else { continue };
        let ratio = Spread::of_ratios(last, first, Round::cpu_each);
        let goal = match few.kind {
            Kind::Digi if ratio.median <= ROOMS_GOAL => format!("; the goal of {ROOMS_GOAL} is reached"),
            Kind::Digi => format!("; the goal of {ROOMS_GOAL} is NOT reached"),
            _ => String::new(),
        };
        let name = few.kind.name();
        notes.push(format!("{name}: a delivery among {to} rooms costs {} times one among {from}{goal}.", ratio.show()));
    }
    notes
}

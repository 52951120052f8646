//! A second of load, on the real server: nothing is lost, and there is something to read.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs that, and gives what it printed and the scenarios of its report.
fn run(out: &Path, args: &[&str]) -> (String, Vec<Value>) {
    let run = Command::new(env!("CARGO_BIN_EXE_digi-load"))
        .args(args)
        .args(["--rounds", "1", "--seconds", "1", "--out"])
        .arg(out)
        .output()
        .unwrap();
    let (table, errors) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert!(run.status.success(), "{table}\n{errors}");
    let report: Value = serde_json::from_slice(&std::fs::read(out.join("load.json")).unwrap()).unwrap();
    (table, report["scenarios"].as_array().unwrap().clone())
}

/// A row of a report is about something, and nothing went wrong in it.
fn check(row: &Value) {
    assert!(row["deliveries_per_second"]["median"].as_f64().unwrap() > 0.0, "{row}");
    for fault in ["lost", "doubled", "reordered", "strange"] {
        assert_eq!(row[fault], 0, "{row}");
    }
}

#[test]
fn a_second_of_load_loses_nothing() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (table, scenarios) = run(out.path(), &["--only", "S2", "--rooms", "4"]);
    let peers = scenarios[0]["peers"].as_array().unwrap();
    assert_eq!(peers.iter().map(|peer| &peer["peer"]).collect::<Vec<_>>(), ["digi", "epoll", "bare"]);
    let markdown = std::fs::read_to_string(out.path().join("table.md")).unwrap();
    for peer in peers {
        check(peer);
        let name = peer["peer"].as_str().unwrap();
        assert!(table.lines().any(|line| line.trim_start().starts_with(name)), "{table}");
        assert!(markdown.contains(&format!("\n| {name} | ")), "{markdown}");
    }
    // The database went with the server.
    let names = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = names.collect();
    left.sort();
    assert_eq!(left, ["cpu.svg", "latency.svg", "load.json", "memory.svg", "rate.svg", "table.md"]);
}

#[test]
fn idle_and_new_connections_and_many_rooms_are_measured() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let args = ["--only", "S4,S5,rooms", "--peers", "digi,epoll", "--rooms", "500"];
    let (table, scenarios) = run(out.path(), &args);
    let [idle, arrivals, rooms] = &scenarios[..] else { panic!("{scenarios:?}") };
    for peer in idle["peers"].as_array().unwrap() {
        assert!(peer["kib_per_connection"].as_f64().unwrap() > 0.0, "{peer}");
    }
    arrivals["peers"].as_array().unwrap().iter().for_each(check);
    let rooms = rooms["peers"].as_array().unwrap();
    rooms.iter().for_each(check);
    assert_eq!(rooms.iter().map(|row| row["rooms"].as_u64().unwrap()).collect::<Vec<_>>(), [50, 500, 50, 500]);
    assert!(table.contains("digi: a delivery among 500 rooms costs"), "{table}");
}

#[test]
fn a_history_is_measured() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (table, scenarios) = run(out.path(), &["--only", "history", "--history", "2000"]);
    let operations = scenarios[0]["operations"].as_array().unwrap();
    assert_eq!(operations.len(), 3, "{scenarios:?}");
    for operation in operations {
        for key in ["us", "cpu_us"] {
            assert!(operation[key]["ratio"]["median"].as_f64().unwrap() > 0.0, "{operation}");
        }
        assert!(table.contains(operation["operation"].as_str().unwrap()), "{table}");
    }
}

//! A short measurement of stores: there are figures for every number of senders, and no password in what goes wrong.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::process::{Command, Output};

fn measure(url: &str, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_digi-load"));
    command.arg("store").args(args).env("DIGI_BENCH_STORE", url).output().unwrap()
}

/// The lines of the table: what is measured, the senders, and then its figures.
fn table(output: &str) -> Vec<(String, usize, Vec<f64>)> {
    let line = |line: &str| {
        let (name, figures) = line.split_at_checked(14)?;
        let mut figures = figures.split_whitespace();
        let senders = figures.next()?.parse().ok()?;
        Some((name.trim().to_owned(), senders, figures.map(str::parse).collect::<Result<_, _>>().ok()?))
    };
    output.lines().filter_map(line).collect()
}

fn measured(url: &str) -> String {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let args = ["--senders", "1,40", "--single", "2", "--seconds", "1", "--rooms", "7", "--out"];
    let run = measure(url, &[&args[..], &[out.path().to_str().unwrap()]].concat());
    let (printed, errors) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert!(run.status.success(), "{printed}\n{errors}");
    let lines = table(&printed);
    let of = |line: &(String, usize, Vec<f64>)| (line.0.clone(), line.1);
    let expected = [("single rows", 2), ("batches", 1), ("batches", 40)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(lines.iter().map(of).collect::<Vec<_>>(), expected, "{printed}");
    for (_, senders, figures) in &lines {
        let [rate, p50, p99, commits, each, cpu] = figures[..] else { panic!("{printed}") };
        assert!(rate > 0.0 && p50 <= p99 && p99 > 0.0 && commits > 0.0 && cpu > 0.0, "{printed}");
        // No batch holds more than one message of each sender.
        assert!((1.0..=*senders as f64).contains(&each), "{printed}");
    }
    assert!((lines[0].2[4], lines[2].2[4] > 1.0) == (1.0, true), "{printed}");
    assert!(printed.contains("times the best of the single rows"), "{printed}");
    // A temporary database goes.
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
    printed
}

#[test]
fn a_store_is_measured_by_its_url() {
    assert!(measured("memory:").starts_with("memory: "));
}

#[test]
fn without_a_url_it_is_sqlite() {
    assert!(measured("").starts_with("sqlite: "));
}

#[test]
fn what_is_wrong_is_said_without_the_password() {
    let url = "oracle://digi:se-cret@host/chat";
    let runs = [
        (measure(url, &[]), "bad_url"),
        (measure("", &[url]), "a URL is no option"),
        (measure("", &["--seconds", url]), "--seconds: \"a URL\" is no number"),
    ];
    for (run, expected) in runs {
        let said = [run.stdout, run.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert!(!run.status.success() && said.contains(expected) && !said.contains("se-cret"), "{said}");
    }
}

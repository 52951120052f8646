//! A second of load, on the real server: nothing is lost, and there is something to read.

use std::process::Command;

use serde_json::Value;

#[test]
fn a_second_of_load_loses_nothing() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_digi-load"))
        .args(["--only", "S2", "--rooms", "4", "--rounds", "1", "--seconds", "1", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let (table, errors) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert!(run.status.success(), "{table}\n{errors}");

    let report: Value = serde_json::from_slice(&std::fs::read(out.path().join("load.json")).unwrap()).unwrap();
    let peers = report["scenarios"][0]["peers"].as_array().unwrap();
    assert_eq!(peers.len(), 2, "{report:#}");
    for peer in peers {
        assert!(peer["deliveries_per_second"]["median"].as_f64().unwrap() > 0.0, "{peer}");
        for fault in ["lost", "doubled", "reordered", "strange"] {
            assert_eq!(peer[fault], 0, "{peer}");
        }
        let row = |line: &str| line.trim_start().starts_with(peer["peer"].as_str().unwrap());
        assert!(table.lines().any(row), "{table}");
    }
    // The database went with the server.
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["load.json"]);
}

//! A short measurement of the channel layer: there are figures for each way, and the ratios.

use std::process::Command;

#[test]
fn the_layer_is_measured_beside_a_bare_pair() {
    let out = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_digi-load"))
        .args(["layer", "--rounds", "1", "--seconds", "1", "--rooms", "30", "--idle", "1", "--out"])
        .arg(out.path())
        .output()
        .unwrap();
    let (printed, errors) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert!(run.status.success(), "{printed}\n{errors}");
    for way in ["bare redis-rs", "digi, one room", "digi, 1,000 rooms"] {
        let line = printed.lines().find_map(|line| line.strip_prefix(way)).expect("a line for each way");
        let figures: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        assert_eq!(figures.len(), 4, "{printed}");
        assert!(figures.iter().all(|figure| *figure > 0.0), "{printed}");
    }
    assert_eq!(printed.matches("against bare: p50 ").count(), 2, "{printed}");
    assert!(printed.contains("30 rooms with one session each") && printed.contains("% of a core here"), "{printed}");
    // The database went.
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0);
}

//! Without its features digi-core is its pure part: no runtime, no I/O, no clock, no randomness, no locks. What a
//! dependency drags in counts too, so the tree that cargo resolves is asked.

// Clippy's allowance for tests does not reach the functions that they share.
#![allow(clippy::expect_used)]

use std::collections::BTreeSet;
use std::process::Command;

/// Crates that do I/O, run tasks, lock or draw random numbers. None may come with the pure part.
const IMPURE: [&str; 12] = [
    "getrandom",
    "hyper",
    "mio",
    "parking_lot",
    "rand",
    "redis",
    "rusqlite",
    "socket2",
    "tiberius",
    "tokio",
    "tokio-tungstenite",
    "tungstenite",
];

/// The names of all crates that a build of digi-core with `arguments` links.
fn tree(arguments: &[&str]) -> BTreeSet<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["tree", "--locked", "-p", "digi-core", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .args(arguments)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints UTF-8");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn impure(crates: &BTreeSet<String>) -> Vec<&'static str> {
    IMPURE.into_iter().filter(|name| crates.contains(*name)).collect()
}

#[test]
fn without_features_nothing_impure_is_linked() {
    let crates = tree(&["--no-default-features"]);
    assert!(crates.contains("digi-core") && crates.contains("aes-gcm"), "not digi-core's tree: {crates:?}");
    assert!(impure(&crates).is_empty(), "{:?}", impure(&crates));
}

#[test]
fn with_features_the_same_search_finds_them() {
    let found = impure(&tree(&["--features", "server"]));
    for name in ["getrandom", "hyper", "mio", "parking_lot", "rusqlite", "tokio", "tokio-tungstenite", "tungstenite"] {
        assert!(found.contains(&name), "{name} was not found, only {found:?}");
    }
}

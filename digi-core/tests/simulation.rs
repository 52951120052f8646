//! The simulation over many seeds, and the proof that it would find what it is there to find.
//!
//! `DIGI_SIM_SEEDS` says how many seeds (1,000 by default); `make sim SEEDS=10000` runs more.
#![allow(clippy::panic)]

use digi_core::testing::bugs::{self, Bug};
use digi_core::testing::simulation::{Profile, Report, run};

fn seeds() -> u64 {
    std::env::var("DIGI_SIM_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000)
}

fn run_all(profile: Profile, seeds: std::ops::Range<u64>) -> Report {
    let mut total = Report::default();
    for seed in seeds {
        match run(seed, profile) {
            Ok(report) => total += report,
            Err(failure) => panic!("{failure}"),
        }
    }
    println!("{profile:?}: {total:?}");
    total
}

#[test]
fn everything_holds() {
    let total = run_all(Profile::Everything, 0..seeds());
    // A simulation in which nothing happens would hold as well.
    assert!(total.committed > 10 * seeds() && total.frames > 50 * seeds(), "{total:?}");
    assert!(total.kills > 0 && total.restores > 0 && total.resets > 0 && total.unknown_commits > 0, "{total:?}");
}

#[test]
fn a_stalled_original_and_its_resend_on_two_nodes_make_one_message() {
    let total = run_all(Profile::StalledResend, 0..seeds().div_ceil(3));
    assert!(total.duplicates > 0, "{total:?}");
}

#[test]
fn a_restore_with_one_of_three_nodes_partitioned_resets_everybody() {
    let total = run_all(Profile::RestorePartitioned, 0..seeds().div_ceil(3));
    assert!(total.noticed > 0 && total.restores > total.noticed, "{total:?}");
}

#[test]
fn a_removal_closes_the_sessions_from_before_it_and_no_others() {
    run_all(Profile::Membership, 0..seeds().div_ceil(3));
}

#[test]
fn what_the_layer_did_not_carry_is_read_from_the_log_without_comparing_heads() {
    let total = run_all(Profile::Layer, 0..seeds());
    assert!(total.outages > seeds() && total.kicks > 0 && total.restores == 0, "{total:?}");
}

#[test]
fn a_run_is_decided_by_its_seed() {
    for profile in Profile::ALL {
        for seed in 0..10 {
            assert_eq!(run(seed, profile), run(seed, profile), "seed {seed} of {profile:?}");
        }
    }
}

fn is_found(bug: Bug) {
    is_found_in(bug, Profile::Everything);
}

fn is_found_in(bug: Bug, profile: Profile) {
    let found = bugs::with(bug, || (0..1_000).find_map(|seed| run(seed, profile).err()));
    match found {
        Some(failure) => println!("{bug:?} is found: {failure}"),
        None => panic!("{bug:?} is not found within 1,000 seeds"),
    }
}

#[test]
fn a_skipped_gap_check_is_found() {
    is_found(Bug::SkipGapCheck);
}

#[test]
fn a_drop_at_a_wrong_number_is_found() {
    is_found(Bug::DropAtWrongSeq);
}

#[test]
fn a_replay_cut_too_early_is_found() {
    is_found(Bug::CutReplayEarly);
}

#[test]
fn a_broadcast_before_the_commit_is_found() {
    is_found(Bug::BroadcastBeforeCommit);
}

#[test]
fn a_number_taken_before_a_refusal_is_found() {
    is_found(Bug::NumberBeforeRefusing);
}

#[test]
fn what_was_not_published_and_forgotten_is_found() {
    is_found_in(Bug::ForgetMissed, Profile::Layer);
}

#[test]
fn a_lagging_layer_that_is_ignored_is_found() {
    is_found_in(Bug::IgnoreLagged, Profile::Layer);
}

#[test]
fn an_epoch_reused_after_a_restore_is_found() {
    is_found(Bug::ReuseEpochAfterRestore);
}

//! The SQL Server store on a real server: the one that `DIGI_MSSQL_URL` names. Without it every test here is reported as
//! ignored, and what needs no server is in the target `mssql`.
//!
//! Every test has a schema of its own, which is gone afterwards. The login has to be allowed to make schemas.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests say what is wrong by panicking")]

mod database;
mod faults;
#[path = "../mssql/proxy.rs"]
mod proxy;
mod replay;
mod suite;
mod values;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let url = std::env::var("DIGI_MSSQL_URL").ok();
    let mut trials = suite::trials(url.as_deref());
    trials.extend(faults::trials(url.as_deref()));
    trials.extend(replay::trials(url.as_deref()));
    trials.extend(values::trials(url.as_deref()));
    if url.is_none() {
        trials = trials.into_iter().map(|trial| trial.with_ignored_flag(true)).collect();
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    if url.is_none() {
        println!("SQL Server was not tested: DIGI_MSSQL_URL does not name one.");
    }
    conclusion.exit_code()
}

/// A test of a name. Without a server it is not run.
fn trial(name: String, url: Option<&str>, test: impl FnOnce(&str) + Send + 'static) -> Trial {
    let url = url.unwrap_or_default().to_owned();
    Trial::test(name, move || {
        test(&url);
        Ok(())
    })
}

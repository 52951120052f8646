//! What a token costs: `cargo bench -p digi-core --bench token`.
#![allow(clippy::unwrap_used)]

use digi_core::token::{Emit, Keyring, KeyringBuilder, Kind};
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

fn keys() -> KeyringBuilder {
    Keyring::builder()
        .key(1, "a secret for benchmarks, long enough")
        .legacy_fernet("cw_0x689RpI-jtRR7oE8h_eQsKImvJapLeSbXpwF4e4=")
}

#[divan::bench]
fn seal(bencher: Bencher<'_, '_>) {
    let keys = keys().build().unwrap();
    let mut out = String::with_capacity(64);
    bencher.bench_local(|| {
        out.clear();
        keys.seal_into(black_box(Kind::Message), black_box(4_294_967_297), &mut out);
        out.len()
    });
}

#[divan::bench]
fn open_v1(bencher: Bencher<'_, '_>) {
    let keys = keys().build().unwrap();
    let token = keys.seal(Kind::Message, 4_294_967_297);
    bencher.bench_local(|| keys.open(black_box(Kind::Message), black_box(&token)));
}

#[divan::bench]
fn seal_fernet(bencher: Bencher<'_, '_>) {
    let keys = keys().emit(Emit::Fernet).build().unwrap();
    let mut out = String::with_capacity(160);
    bencher.bench_local(|| {
        out.clear();
        keys.seal_into(black_box(Kind::Room), black_box(4711), &mut out);
        out.len()
    });
}

#[divan::bench]
fn open_legacy(bencher: Bencher<'_, '_>) {
    let keys = keys().emit(Emit::Fernet).build().unwrap();
    let token = keys.seal(Kind::Room, 4711);
    bencher.bench_local(|| keys.open(black_box(Kind::Room), black_box(&token)));
}

#[divan::bench]
fn refuse_forged(bencher: Bencher<'_, '_>) {
    let keys = keys().build().unwrap();
    let token = keys.seal(Kind::Message, 4_294_967_297);
    bencher.bench_local(|| keys.open(black_box(Kind::Room), black_box(&token)));
}

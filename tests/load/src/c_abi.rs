//! What the C ABI costs: `digi_session_receive` and a frame out beside the same in Rust.
//!
//! Both do the same rounds by turns, this process in Rust and `c/session.c` as a process of its own, each with an engine
//! of two threads that keeps the messages in memory.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use digi_core::consumer::{Rate, Scope};
use digi_core::engine::{Engine, Limits};
use digi_core::frame::Frame;
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{CloseCode, Session};

use crate::Result;

const ROUNDS: usize = 15;
/// Messages of a round that come one by one; ten times as many in its other parts.
const COUNT: u32 = 2_000;
const BATCH: usize = 64;
const PARTS: [&str; 3] = ["a frame answered at once", "a message, one at a time", "messages, 64 under way"];

const READ: &str = r#"{"type": "read", "seq": 1}"#;
const ADD: &str = r#"{"type": "add", "message": "A message of a length as people write them"}"#;

/// Measures and prints. `program` is `c/session.c`, compiled.
pub(crate) fn run(program: &Path) -> Result<()> {
    let mut child = Command::new(program)
        .arg(COUNT.to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", program.display()))?;
    let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err("the program has no pipes".into());
    };
    let mut lines = BufReader::new(output).lines();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (engine, session) = runtime.block_on(open())?;
    let mut ratios: [Vec<f64>; 3] = Default::default();
    let mut rust: [Vec<f64>; 3] = Default::default();
    for round in 0..=ROUNDS {
        let here = runtime.block_on(round_of(&session))?;
        input.write_all(b"\n")?;
        let line = lines.next().ok_or("the program has ended")??;
        // The first is to warm up.
        for (part, there) in line.split(' ').enumerate().take(if round == 0 { 0 } else { 3 }) {
            ratios[part].push(there.parse::<f64>()? / here[part]);
            rust[part].push(here[part]);
        }
    }
    drop(input);
    runtime.block_on(engine.close());
    if !child.wait()?.success() {
        return Err("the program failed".into());
    }
    println!("\nThe C ABI beside Rust, {ROUNDS} rounds by turns: median [least-most]");
    println!("{:<28}{:>14}{:>26}", "", "Rust, ns", "C / Rust");
    for (part, name) in PARTS.iter().enumerate() {
        let [_, ns, _] = spread(&mut rust[part]);
        let [least, median, most] = spread(&mut ratios[part]);
        println!("{name:<28}{ns:>14.0}{:>26}", format!("{median:.2} [{least:.2}-{most:.2}]"));
    }
    Ok(())
}

fn spread(values: &mut [f64]) -> [f64; 3] {
    values.sort_unstable_by(f64::total_cmp);
    [0, values.len() / 2, values.len() - 1].map(|at| values[at])
}

async fn open() -> Result<(Engine, Session)> {
    let mut limits = Limits::default();
    let all = Rate { per_second: 1_000_000_000, burst: 1_000_000_000 };
    (limits.consumer.frames, limits.consumer.refusals) = (all, all);
    let keys = Keyring::new("a secret of at least thirty-two bytes")?;
    let engine = Engine::builder().keys(keys).limits(limits).build().await?;
    let members = vec![("7".into(), "7".into(), Role::Member)];
    let room = engine.create_room(&NewRoom { members, ..NewRoom::default() }).await?;
    let token = engine.keys().seal(Kind::Room, room.get());
    let (user, user_name) = ("7".into(), "7".into());
    let scope = Scope { token, user, user_name, after: None, origin: None, remote: None, login: None };
    let session = engine.connect(scope).await.map_err(|code| code.to_string())?;
    next(&session).await?;
    Ok((engine, session))
}

async fn next(session: &Session) -> Result<Frame> {
    session.next().await.map_err(|code: CloseCode| code.to_string().into())
}

/// Nanoseconds per frame of each part.
async fn round_of(session: &Session) -> Result<[f64; 3]> {
    let many = COUNT * 10;
    let mut bytes = 0;
    let start = Instant::now();
    for _ in 0..many {
        session.receive(READ).await?;
        bytes += next(session).await?.as_str().len();
    }
    let answered = start.elapsed();
    let start = Instant::now();
    for _ in 0..COUNT {
        session.receive(ADD).await?;
        bytes += next(session).await?.as_str().len();
    }
    let single = start.elapsed();
    let start = Instant::now();
    let mut frames = Vec::with_capacity(BATCH);
    for _ in (0..many).step_by(BATCH) {
        for _ in 0..BATCH {
            session.receive(ADD).await?;
        }
        let mut all = 0;
        while all < BATCH {
            session.next_many(&mut frames).await.map_err(|code| code.to_string())?;
            all += frames.len();
            bytes += frames.drain(..).map(|frame| frame.as_str().len()).sum::<usize>();
        }
    }
    let batches = start.elapsed();
    if bytes == 0 {
        return Err("nothing came out".into());
    }
    let each = |time: std::time::Duration, count: u32| time.as_nanos() as f64 / f64::from(count);
    Ok([each(answered, many), each(single, COUNT), each(batches, many)])
}

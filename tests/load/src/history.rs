//! What a long history costs: the same work on a store with many messages and on one with few, by turns. Both are
//! SQLite files behind an engine in this process.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use digi_core::consumer::{ConsumerLimits, Rate, Scope};
use digi_core::engine::{Engine, Limits, Speaker};
use digi_core::store::model::{Action, Authority, Batch, BatchId, Command, NewRoom, Outcome, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{Cursor, Millis, RoomId, Seq, Session};
use fastrand::Rng;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::options::Options;
use crate::spread::Spread;
use crate::table::Table;
use crate::{Result, digi};

/// Over which the messages are spread.
const ROOMS: u64 = 1_000;
/// Messages in each room of the store with few.
const FEW: u64 = 100;
/// How often each is done in a round.
const COUNT: u64 = 1_000;
/// Messages that are added at the same time.
const AT_A_TIME: u64 = 64;
/// By how many messages whoever resumes is behind, and how many a page of history has.
const PAGE: u64 = 50;
const USER: &str = "load";
/// What it may cost more than with few messages.
const GOAL: f64 = 1.5;
/// Of a message, as people write them.
const BODY: &str = "A message of a length as people write them, more or less";

const OPS: [&str; 3] = ["add, 64 at a time", "resume, 50 behind", "a page of history, anywhere"];

/// Microseconds for each: by the clock, and of CPU time.
#[derive(Clone, Copy)]
struct Cost {
    time: f64,
    cpu: f64,
}

/// A store behind its engine.
struct Bed {
    engine: Engine,
    /// Numbered from 1.
    rooms: i64,
    /// A session in some of the rooms.
    sessions: Vec<(RoomId, Session)>,
    random: Rng,
}

/// Measures, and gives what is to be shown.
pub(crate) async fn run(options: &Options) -> Result<(Table, Value)> {
    let rooms = ROOMS.min(options.history.div_ceil(FEW));
    let many = options.history / rooms;
    eprintln!("history: {} messages in {rooms} rooms, beside {} in as many", many * rooms, FEW * rooms);
    let dir = tempfile::Builder::new().prefix("digi-history-").tempdir_in(&options.out)?;
    let mut long = Bed::make(&dir.path().join("long.db"), rooms, many).await?;
    let mut young = Bed::make(&dir.path().join("young.db"), rooms, FEW).await?;
    let mut costs: [(Vec<Cost>, Vec<Cost>); 3] = Default::default();
    // They are short. The first is to warm up.
    for round in 0..=2 * options.rounds {
        for (op, (of_long, of_young)) in costs.iter_mut().enumerate() {
            let (old, new) = (long.measure(op).await?, young.measure(op).await?);
            if round > 0 {
                of_long.push(old);
                of_young.push(new);
            }
        }
    }
    long.engine.close().await;
    young.engine.close().await;
    Ok(table(&costs, many * rooms, FEW * rooms))
}

fn table(costs: &[(Vec<Cost>, Vec<Cost>); 3], many: u64, few: u64) -> (Table, Value) {
    let mut table = Table {
        title: format!("history: {many} messages in SQLite, beside {few} in as many rooms"),
        columns: vec!["", "us each, many", "us each, few", "ratio", "CPU us, many", "CPU us, few", "ratio"],
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let mut values = Vec::new();
    for (name, (long, young)) in OPS.into_iter().zip(costs) {
        let (mut cells, mut value) = (vec![name.to_owned()], json!({ "operation": name }));
        for (key, of) in [("us", (|cost| cost.time) as fn(&Cost) -> f64), ("cpu_us", |cost| cost.cpu)] {
            let ratio = Spread::of(long.iter().zip(young).map(|(long, young)| of(long) / of(young)));
            let (long, young) = (Spread::of(long.iter().map(of)), Spread::of(young.iter().map(of)));
            cells.extend([long, young, ratio].map(Spread::show));
            value[key] = json!({ "many": long.json(), "few": young.json(), "ratio": ratio.json() });
            if ratio.median > GOAL {
                table.notes.push(format!("The goal of {GOAL} is NOT reached by: {name} ({key})."));
            }
        }
        table.rows.push(cells);
        values.push(value);
    }
    if table.notes.is_empty() {
        table.notes.push(format!("The goal, at most {GOAL} times as much, is reached."));
    }
    (table, json!({ "messages": many, "beside": few, "operations": values }))
}

impl Bed {
    /// Makes the store, and opens it again when it is full.
    async fn make(path: &Path, rooms: u64, each: u64) -> Result<Self> {
        let engine = open(path).await?;
        let members = vec![(USER.into(), Arc::from(USER), Role::Member)];
        for room in 1..=rooms {
            let id = Some(RoomId(i64::try_from(room)?));
            engine.create_room(&NewRoom { id, members: members.clone(), ..NewRoom::default() }).await?;
        }
        fill(&engine, rooms, each).await?;
        engine.close().await;
        let (mut random, rooms) = (Rng::with_seed(1), i64::try_from(rooms)?);
        let engine = open(path).await?;
        let mut sessions = Vec::new();
        for room in random.choose_multiple(1..=rooms, 100) {
            let session = enter(&engine, RoomId(room), None).await?;
            sessions.push((RoomId(room), session));
        }
        Ok(Self { engine, rooms, sessions, random })
    }

    async fn measure(&mut self, op: usize) -> Result<Cost> {
        let (began, cpu) = (Instant::now(), cpu_time());
        match op {
            0 => self.add().await?,
            1 => self.resume().await?,
            _ => self.page().await?,
        }
        let each = |time: Duration| time.as_secs_f64() * 1e6 / COUNT as f64;
        Ok(Cost { time: each(began.elapsed()), cpu: each(cpu_time().saturating_sub(cpu)) })
    }

    fn any_room(&mut self) -> RoomId {
        RoomId(self.random.i64(1..=self.rooms))
    }

    async fn add(&mut self) -> Result<()> {
        let mut tasks = JoinSet::new();
        for _ in 0..AT_A_TIME {
            let rooms: Vec<_> = (0..COUNT / AT_A_TIME).map(|_| self.any_room()).collect();
            let engine = self.engine.clone();
            tasks.spawn(async move {
                let speaker = Speaker::host(USER, USER);
                for room in rooms {
                    match engine.post(room, &speaker, BODY, None).await? {
                        Outcome::Message { .. } => {}
                        other => return Err(format!("a message was answered with {other:?}").into()),
                    }
                }
                Ok(())
            });
        }
        while let Some(task) = tasks.join_next().await {
            let done: Result<()> = task?;
            done?;
        }
        Ok(())
    }

    async fn resume(&mut self) -> Result<()> {
        for _ in 0..COUNT {
            let room = self.any_room();
            let heads = self.engine.store().heads(&[room]).await?;
            let (_, head) = heads.first().ok_or("a room has gone")?;
            let after = Cursor::new(head.epoch, Seq(head.last_seq.0.saturating_sub(PAGE)));
            enter(&self.engine, room, Some(after)).await?;
        }
        Ok(())
    }

    async fn page(&mut self) -> Result<()> {
        for index in 0..COUNT as usize {
            let (room, session) = &self.sessions[index % self.sessions.len()];
            let heads = self.engine.store().heads(&[*room]).await?;
            let (_, head) = heads.first().ok_or("a room has gone")?;
            let before = self.random.u64(PAGE.min(head.last_seq.0)..=head.last_seq.0);
            session.receive(&format!(r#"{{"type":"history","before":{before},"limit":{PAGE}}}"#)).await?;
            until(session, r#"{"type":"history""#).await?;
        }
        Ok(())
    }
}

async fn open(path: &Path) -> Result<Engine> {
    let unlimited = Rate { per_second: 0, burst: 0 };
    let limits = Limits {
        consumer: ConsumerLimits { frames: unlimited, refusals: unlimited, ..ConsumerLimits::default() },
        sessions_per_user: usize::MAX,
        close_spread: 1,
        ..Limits::default()
    };
    let store = format!("sqlite:{}", path.display());
    Ok(Engine::builder().keys(Keyring::new(digi::ID_SECRET)?).store(&store).limits(limits).build().await?)
}

/// Adds so many messages to each room, past the engine.
async fn fill(engine: &Engine, rooms: u64, each: u64) -> Result<()> {
    let node = fastrand::u64(..);
    let mut number = 0;
    for room in 1..=i64::try_from(rooms)? {
        let command = Command {
            room: RoomId(room),
            user: USER.into(),
            user_name: Arc::from(USER),
            authority: Authority::Host,
            action: Action::Add { body: Arc::from(BODY), client_id: None },
        };
        for begun in (0..each).step_by(1_000) {
            number += 1;
            let commands = vec![command.clone(); usize::try_from((each - begun).min(1_000))?];
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis();
            let now = Millis(u64::try_from(now)?);
            engine.store().apply(&Batch { id: BatchId { node, number }, commands, known: Vec::new(), now }).await?;
        }
    }
    Ok(())
}

/// Into a room, up to where nothing is missing.
async fn enter(engine: &Engine, room: RoomId, after: Option<Cursor>) -> Result<Session> {
    let token = engine.keys().seal(Kind::Room, room.get());
    let after = after.map(|cursor| cursor.to_string());
    let scope =
        Scope { token, user: USER.into(), user_name: USER.into(), after, origin: None, remote: None, login: None };
    let session = engine.connect(scope).await.map_err(|code| code.to_string())?;
    until(&session, r#"{"type":"resumed""#).await?;
    Ok(session)
}

/// Takes what comes, up to such a frame.
async fn until(session: &Session, beginning: &str) -> Result<()> {
    loop {
        let frame = session.next().await.map_err(|code| code.to_string())?;
        if frame.as_str().starts_with(beginning) {
            return Ok(());
        }
        if frame.as_str().starts_with(r#"{"type":"error""#) {
            return Err(format!("refused: {}", frame.as_str()).into());
        }
    }
}

/// Of this process, all threads.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or_default(), u32::try_from(time.tv_nsec).unwrap_or_default())
}

//! What it costs a node to have members in many rooms.
//!
//! The node is a process of its own, so that what it holds is the rooms' and nobody else's.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use digi_core::RoomId;
use digi_core::consumer::Scope;
use digi_core::engine::{Engine, Limits};
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use tokio::process::Command;

use super::server::RedisServer;
use crate::options::LayerOptions;
use crate::{Result, digi, peer};

/// How many sessions are opened at a time.
const AT_ONCE: usize = 64;

/// What the node is to do.
pub(crate) struct NodeOptions {
    pub(crate) redis: String,
    /// Redis's process, whose CPU time is looked at.
    pub(crate) redis_process: String,
    pub(crate) database: String,
    pub(crate) rooms: usize,
    /// Seconds; half of that passes before the measurement.
    pub(crate) idle: u64,
}

/// Makes the rooms, and lets a node have a session in each.
pub(super) async fn run(redis: &RedisServer, dir: &Path, options: &LayerOptions) -> Result<()> {
    let database = dir.join("rooms.db").display().to_string();
    let store = format!("sqlite:{database}");
    let engine = Engine::builder().keys(Keyring::new(digi::ID_SECRET)?).store(&store).build().await?;
    for room in 1..=options.rooms {
        let id = Some(RoomId(i64::try_from(room)?));
        let members = vec![("1".into(), "alice".into(), Role::Member)];
        engine.create_room(&NewRoom { id, members, ..NewRoom::default() }).await?;
    }
    engine.close().await;
    drop(engine);
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("layer-node").arg(redis.url()).arg(redis.process()).arg(database);
    command.arg(options.rooms.to_string()).arg(options.idle.as_secs().to_string());
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).status().await?;
    if ended.success() { Ok(()) } else { Err("the node with many rooms failed".into()) }
}

/// The node.
pub(crate) async fn node(options: &NodeOptions) -> Result<()> {
    let NodeOptions { rooms, idle, .. } = *options;
    let limits = Limits { sessions_per_user: rooms, ..Limits::default() };
    let store = format!("sqlite:{}", options.database);
    let engine = Engine::builder().keys(Keyring::new(digi::ID_SECRET)?).store(&store).layer(&options.redis);
    let engine = engine.limits(limits).build().await?;
    // The first read opens connections and fills caches.
    engine.store().heads(&[RoomId(1)]).await?;
    let (before, began) = (peer::memory_of(std::process::id())?, Instant::now());
    let ids: Vec<_> = (1..=i64::try_from(rooms)?).collect();
    let mut sessions = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let scopes = ids.iter().map(|id| Scope {
            token: engine.keys().seal(Kind::Room, *id),
            user: "1".into(),
            user_name: "alice".into(),
            after: None,
            origin: None,
            remote: None,
            login: None,
        });
        for session in futures_util::future::join_all(scopes.map(|scope| engine.connect(scope))).await {
            sessions.push(session.map_err(|code| format!("a session was closed with {code}"))?);
        }
    }
    let joined = began.elapsed();
    let client = redis::Client::open(options.redis.as_str())?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    loop {
        let mut channels = redis::cmd("PUBSUB");
        let channels: Vec<String> =
            channels.arg("CHANNELS").arg("*__digi__chat_*").query_async(&mut connection).await?;
        if channels.len() >= rooms {
            break;
        }
        if began.elapsed() > Duration::from_secs(120) {
            return Err(format!("{} of {rooms} rooms are subscribed to after two minutes", channels.len()).into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let subscribed = began.elapsed();
    let memory = (peer::memory_of(std::process::id())? - before) as f64 / rooms as f64;
    println!(
        "{rooms} rooms with one session each: joined in {:.2} s, all subscribed after {:.2} s; {memory:.1} KiB for a \
         room, its session and its subscription.",
        joined.as_secs_f64(),
        subscribed.as_secs_f64()
    );
    // Long enough for the comparisons to have slowed down to their idle pace.
    tokio::time::sleep(Duration::from_secs(idle) / 2).await;
    let cpu = || -> Result<_> { Ok((peer::cpu_of("self")?, peer::cpu_of(&options.redis_process)?)) };
    let (began, (own, of_redis)) = (Instant::now(), cpu()?);
    tokio::time::sleep(Duration::from_secs(idle)).await;
    let (own_after, of_redis_after) = cpu()?;
    let percent = |used: Duration| used.as_secs_f64() * 100.0 / began.elapsed().as_secs_f64();
    println!(
        "Idle over {idle} s, heads compared and connections checked: {:.2} % of a core here, {:.2} % in Redis.",
        percent(own_after.saturating_sub(own)),
        percent(of_redis_after.saturating_sub(of_redis))
    );
    drop(sessions);
    engine.close().await;
    Ok(())
}

//! What it costs a node to have members in many rooms.

use std::path::Path;
use std::time::{Duration, Instant};

use digi_core::consumer::Scope;
use digi_core::engine::{Engine, Limits};
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};

use super::server::RedisServer;
use crate::options::LayerOptions;
use crate::{Result, digi, peer};

/// How many sessions are opened at a time.
const AT_ONCE: usize = 64;

pub(super) async fn run(redis: &RedisServer, dir: &Path, options: &LayerOptions) -> Result<()> {
    let rooms = options.rooms;
    let limits = Limits { sessions_per_user: rooms, ..Limits::default() };
    let store = format!("sqlite:{}", dir.join("rooms.db").display());
    let engine =
        Engine::builder().keys(Keyring::new(digi::ID_SECRET)?).store(&store).layer(&redis.url()).limits(limits);
    let engine = engine.build().await?;
    let mut ids = Vec::new();
    for _ in 0..rooms {
        let member = ("1".into(), "alice".into(), Role::Member);
        ids.push(engine.create_room(&NewRoom { members: vec![member], ..NewRoom::default() }).await?);
    }
    let (before, began) = (peer::memory_of(std::process::id())?, Instant::now());
    let mut sessions = Vec::new();
    for ids in ids.chunks(AT_ONCE) {
        let scopes = ids.iter().map(|id| Scope {
            token: engine.keys().seal(Kind::Room, id.get()),
            user: "1".into(),
            user_name: "alice".into(),
            after: None,
            origin: None,
            remote: None,
        });
        for session in futures_util::future::join_all(scopes.map(|scope| engine.connect(scope))).await {
            sessions.push(session.map_err(|code| format!("a session was closed with {code}"))?);
        }
    }
    let joined = began.elapsed();
    let mut connection = redis.connect().await?;
    loop {
        let channels: Vec<String> =
            redis::cmd("PUBSUB").arg("CHANNELS").arg("*__digi__chat_*").query_async(&mut connection).await?;
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
        "{rooms} rooms with one session each: joined in {:.2} s, all subscribed after {:.2} s; {memory:.1} KiB for a room, its \
         session and its subscription.",
        joined.as_secs_f64(),
        subscribed.as_secs_f64()
    );
    // Long enough for the comparisons to have slowed down to their idle pace.
    tokio::time::sleep(options.settle).await;
    let cpu = || -> Result<_> { Ok((peer::cpu_of("self")?, peer::cpu_of(&redis.process())?)) };
    let (began, (own, of_redis)) = (Instant::now(), cpu()?);
    tokio::time::sleep(options.idle).await;
    let (own_after, of_redis_after) = cpu()?;
    let percent = |used: Duration| used.as_secs_f64() * 100.0 / began.elapsed().as_secs_f64();
    println!(
        "Idle over {} s, heads compared and connections checked: {:.2} % of a core here, {:.2} % in Redis.",
        options.idle.as_secs(),
        percent(own_after.saturating_sub(own)),
        percent(of_redis_after.saturating_sub(of_redis))
    );
    drop(sessions);
    engine.close().await;
    Ok(())
}

//! Digi's server as its users run it: SQLite on a file, JWTs, tokens. Only the rate limits are off.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use digi_core::consumer::{ConsumerLimits, Rate};
use digi_core::engine::{Engine, Limits};
use digi_core::server::{JwtAuthenticator, JwtKey, Server, ServerLimits};
use digi_core::store::model::{NewRoom, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{RoomId, UserKey};
use jsonwebtoken::{EncodingKey, Header, get_current_timestamp};

use crate::{Result, peer};

pub(crate) const ID_SECRET: &str = "the load run's secret for ids, in no use elsewhere";
pub(crate) const LOGIN_SECRET: &str = "the load run's secret for logins, in no use elsewhere";
/// Seconds; longer than any run.
const LOGIN_LIFETIME: u64 = 3600;

/// Serves rooms 1 to `rooms` of so many members each until the parent goes; the database is removed then.
pub(crate) async fn serve(dir: &Path, rooms: usize, members: usize) -> Result<()> {
    // Removed by this process, so that it goes even if the parent is killed.
    let dir = tempfile::Builder::new().prefix("digi-load-").tempdir_in(dir)?;
    let unlimited = Rate { per_second: 0, burst: 0 };
    let limits = Limits {
        consumer: ConsumerLimits { frames: unlimited, refusals: unlimited, ..ConsumerLimits::default() },
        // Nobody waits for the clients of a load run.
        close_spread: 1,
        ..Limits::default()
    };
    let store = format!("sqlite:{}", dir.path().join("chat.db").display());
    let engine = Engine::builder().keys(Keyring::new(ID_SECRET)?).store(&store).limits(limits).build().await?;
    for room in 0..rooms {
        let member = |member| {
            let key = user(room, member);
            (UserKey::from(key.as_str()), Arc::from(key), Role::Member)
        };
        let id = Some(room_id(room)?);
        engine.create_room(&NewRoom { id, members: (0..members).map(member).collect(), ..NewRoom::default() }).await?;
    }
    let logins = JwtAuthenticator::new(JwtKey::hs256(LOGIN_SECRET)?);
    // While another peer has its turn nobody would answer a ping.
    let limits = ServerLimits { ping_interval: Duration::from_secs(LOGIN_LIFETIME), ..ServerLimits::default() };
    let server = Server::builder(engine).authenticator(logins).limits(limits).listen("127.0.0.1:0").start().await?;
    peer::announce(server.local_addr());
    peer::parent_gone().await;
    server.shutdown().await;
    Ok(())
}

fn room_id(room: usize) -> Result<RoomId> {
    Ok(RoomId(i64::try_from(room)? + 1))
}

fn user(room: usize, member: usize) -> String {
    format!("{room}-{member}")
}

/// What a client needs to get into rooms.
pub(crate) struct Doorman {
    keys: Keyring,
    login: EncodingKey,
}

impl Doorman {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self { keys: Keyring::new(ID_SECRET)?, login: EncodingKey::from_secret(LOGIN_SECRET.as_bytes()) })
    }

    /// The room's path.
    pub(crate) fn path(&self, room: usize) -> Result<String> {
        Ok(format!("/ws/chat/{}/", self.keys.seal(Kind::Room, room_id(room)?.get())))
    }

    /// A member's login.
    pub(crate) fn jwt(&self, room: usize, member: usize) -> Result<String> {
        let claims = serde_json::json!({ "sub": user(room, member), "exp": get_current_timestamp() + LOGIN_LIFETIME });
        Ok(jsonwebtoken::encode(&Header::default(), &claims, &self.login)?)
    }
}

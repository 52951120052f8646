//! The tokio driver: everything pure put to work.
//!
//! An [`Engine`] has sessions, rooms in shards, one writer, a store and a channel layer. What happens to a message is
//! told in `ARCHITECTURE.md`; the files here follow it: `session` takes it in, `carry_out` does what its consumer
//! wants, `writer` commits and hands it out, `outbox` holds it for each reader, `tasks` put right what went past.

#[cfg(feature = "bridge")]
mod bridge;
mod builder;
mod carry_out;
mod core;
mod limits;
pub(crate) mod missed;
mod outbox;
mod presence;
mod publisher;
mod registry;
mod session;
mod stats;
mod tasks;
mod timers;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use self::core::Core;
pub use builder::EngineBuilder;
pub use limits::Limits;
pub use outbox::OutboxLimits;
pub use session::Session;
use session::SessionCore;
pub use stats::Stats;
use writer::{Asker, Job};

use crate::consumer::{Consumer, Scope};
use crate::error::{CloseCode, Code, Error};
use crate::event::{Envelope, Signal};
use crate::id::{ClientId, MessageId, RoomId, UserKey};
use crate::store::model::{Action, Authority, Command, Membership, NewRoom, Outcome, Role};
use crate::store::{Store, StoreError};
use crate::token::Keyring;

/// A chat engine; clones are the same one. It runs on the tokio runtime on which it was built, and ends when the last
/// clone and session are dropped; [`Engine::close`] ends it in good order.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Core>,
}

/// In whose name a host acts.
#[derive(Clone, Debug)]
pub struct Speaker {
    /// The user.
    pub user: UserKey,
    /// The name that others see.
    pub name: Arc<str>,
    /// Whether the user's own rights are checked, or the host's count.
    pub authority: Authority,
}

impl Speaker {
    /// A user, with the user's own rights.
    pub fn user(user: impl Into<UserKey>, name: impl Into<Arc<str>>) -> Self {
        Self { user: user.into(), name: name.into(), authority: Authority::Member }
    }

    /// A user or a name for the system, with the host's rights.
    pub fn host(user: impl Into<UserKey>, name: impl Into<Arc<str>>) -> Self {
        Self { user: user.into(), name: name.into(), authority: Authority::Host }
    }
}

impl Engine {
    /// Starts making an engine.
    pub fn builder() -> EngineBuilder {
        EngineBuilder::new()
    }

    /// Takes a connection in. Returns once the consumer has accepted it.
    ///
    /// # Errors
    /// The code with which the connection is to be closed.
    pub async fn connect(&self, scope: Scope) -> Result<Session, CloseCode> {
        let (session, accepting) = self.begin(scope)?;
        accepting.await.map(|()| session)
    }

    /// Takes a connection in without waiting: the session comes at once, and the second part resolves when the consumer
    /// has accepted it. Until then [`Session::receive`] ignores what it is given.
    ///
    /// # Errors
    /// The code with which the connection is to be closed, where that is known already; the second part's are the rest.
    pub fn begin(
        &self,
        scope: Scope,
    ) -> Result<(Session, impl Future<Output = Result<(), CloseCode>> + Send + use<>), CloseCode> {
        let core = &self.core;
        if core.is_forked() {
            return Err(CloseCode::Restart);
        }
        let (accept, accepted) = oneshot::channel();
        let user = scope.user.clone();
        let consumer = Consumer::new(core.rules.clone(), scope);
        let inner =
            core.registry.add(&user, |id| Arc::new(SessionCore::new(id, consumer, core.limits.outbox, accept)))?;
        // From here on dropping it, also by dropping this future, takes the session out again.
        let session = Session { core: core.clone(), inner };
        // Not earlier: `close` closes the sessions that it finds registered.
        if core.is_closing() {
            return Err(CloseCode::Restart);
        }
        session.inner.tell(core, Consumer::handle_connect);
        Ok((session, async { accepted.await.unwrap_or(Err(CloseCode::Restart)) }))
    }

    /// Stores a command and tells the room. `refused` outcomes come as errors.
    ///
    /// # Errors
    /// What is wrong with the text, the store's refusal, `engine_closed`, `engine_forked`.
    pub async fn submit(&self, mut command: Command) -> Result<Outcome, Error> {
        let core = &self.core;
        if core.is_forked() {
            return Err(Code::EngineForked.into());
        }
        if core.is_closing() {
            return Err(Code::EngineClosed.into());
        }
        if let Action::Add { body, .. } | Action::Edit { body, .. } = &command.action {
            core.rules.check_body(body)?;
        }
        if command.authority == Authority::Member {
            // The policy wants to know the role; the store checks the membership itself.
            let (asking, room, user) = (core.clone(), command.room, command.user.clone());
            let member = core.run(async move { asking.ask(asking.store.member(room, &user)).await }).await??;
            let membership: Membership = member.membership.ok_or(Code::NotAMember)?;
            core.rules.ask_policy(&mut command, &membership)?;
        }
        core.writer.wait_for_space().await;
        let taking = core.writer.hold();
        if core.is_closing() {
            return Err(Code::EngineClosed.into());
        }
        let (answer, outcome) = oneshot::channel();
        core.writer.submit(Job::new(command, Asker::Host(answer)));
        drop(taking);
        match outcome.await {
            Ok(Outcome::Refused(code)) => Err(code.into()),
            Ok(outcome) => Ok(outcome),
            Err(_) => Err(Code::EngineClosed.into()),
        }
    }

    /// Adds a message in somebody's name.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn post(
        &self,
        room: RoomId,
        speaker: &Speaker,
        body: &str,
        client_id: Option<ClientId>,
    ) -> Result<Outcome, Error> {
        self.act(room, speaker, Action::Add { body: body.into(), client_id }).await
    }

    /// Replaces the text of a message.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn edit(
        &self,
        room: RoomId,
        speaker: &Speaker,
        message: MessageId,
        body: &str,
    ) -> Result<Outcome, Error> {
        self.act(room, speaker, Action::Edit { message, body: body.into() }).await
    }

    /// Deletes a message, leaving a tombstone.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn delete(&self, room: RoomId, speaker: &Speaker, message: MessageId) -> Result<Outcome, Error> {
        self.act(room, speaker, Action::Delete { message }).await
    }

    /// Makes a user a member of a room, or changes the role.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn add_member(
        &self,
        room: RoomId,
        member: impl Into<UserKey>,
        name: impl Into<Arc<str>>,
        role: Role,
    ) -> Result<Outcome, Error> {
        let action = Action::AddMember { member: member.into(), name: name.into(), role };
        self.act(room, &Speaker::host("", ""), action).await
    }

    /// Ends a membership, and with it the user's sessions in the room, on every node.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub async fn remove_member(&self, room: RoomId, member: impl Into<UserKey>) -> Result<Outcome, Error> {
        self.act(room, &Speaker::host("", ""), Action::RemoveMember { member: member.into() }).await
    }

    async fn act(&self, room: RoomId, speaker: &Speaker, action: Action) -> Result<Outcome, Error> {
        let Speaker { user, name, authority } = speaker.clone();
        self.submit(Command { room, user, user_name: name, authority, action }).await
    }

    /// Makes a room.
    ///
    /// # Errors
    /// `room_exists`, `store_unavailable`, `engine_forked`.
    pub async fn create_room(&self, room: &NewRoom) -> Result<RoomId, Error> {
        let (core, room) = (self.core.clone(), room.clone());
        Ok(self.core.run(async move { core.store.create_room(&room, core.now()).await }).await??)
    }

    /// Closes every session of a user with 4504 `kicked`, here and on every node that the channel layer reaches. While
    /// this node can't reach the layer, the kick is kept, and sent some seconds after it is back. A node that can't be reached just then, or
    /// that only shares the store, doesn't hear of it: who must not come back is to lose the membership, too.
    pub fn kick(&self, user: impl Into<UserKey>) {
        self.close_sessions(user.into(), None);
    }

    /// Closes the sessions that a user has by one log-in ([`Scope::login`]) with 4503 `unauthenticated`, here and on
    /// other nodes, as [`kick`](Self::kick) does with all of a user's.
    pub fn end_login(&self, user: impl Into<UserKey>, login: impl Into<Arc<str>>) {
        self.close_sessions(user.into(), Some(login.into()));
    }

    /// The log-ins by which sessions are here, each once: so that a host can look whether they still count.
    pub fn logins(&self) -> BTreeSet<(UserKey, Arc<str>)> {
        self.core.registry.logins()
    }

    fn close_sessions(&self, user: UserKey, login: Option<Arc<str>>) {
        let signal = Signal::Kick { user, login };
        self.core.signal(&signal);
        self.core.publish(vec![Envelope::Signal(signal)]);
    }

    /// To be called once after every restore of a backup, and after a fail-over that lost data: raises the epoch of every
    /// room, so that no client takes new messages for old ones, and resets the sessions of loaded rooms. Without it only
    /// those rooms notice that are loaded where more was seen than the store now has; after a restart there are none.
    ///
    /// # Errors
    /// `store_unavailable`, `engine_forked`.
    pub async fn restored(&self) -> Result<(), Error> {
        self.core.run(restored(self.core.clone())).await??;
        Ok(())
    }

    /// The store, for what needs no engine: reading history, purging.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// The keys, to seal the room tokens that a host hands out.
    pub fn keys(&self) -> &Keyring {
        self.core.rules.encoder.keyring()
    }

    /// The bounds in force.
    pub fn limits(&self) -> &Limits {
        &self.core.limits
    }

    /// What the engine has done and has to do.
    pub fn stats(&self) -> Stats {
        let layer = self.core.layer.status();
        let stats = Stats {
            layer_up: layer.is_up,
            layer_undecodable: layer.undecodable,
            bridge_up: true,
            sessions: self.core.registry.len() as u64,
            rooms: self.core.room_count() as u64,
            queued: self.core.writer.waiting() as u64,
            ..self.core.counters.stats()
        };
        #[cfg(feature = "bridge")]
        if let Some(bridge) = &self.core.bridge {
            let status = bridge.status();
            return Stats {
                bridge_up: status.is_up,
                bridge_sent: status.sent,
                bridge_received: status.received,
                bridge_lost: status.lost,
                bridge_undecodable: status.undecodable,
                ..stats
            };
        }
        stats
    }

    /// Whether [`Engine::close`] has been called.
    pub fn is_closed(&self) -> bool {
        self.core.is_closing()
    }

    /// Ends in good order: takes nothing new in, commits and hands out what is queued, then closes the sessions with
    /// 1012 `restart`, spread over [`Limits::close_spread`]. Goes on also if it is not waited for to the end.
    pub async fn close(&self) {
        self.core.start_closing();
        // Where the runtime is gone, or this is another process, nothing is left that could be closed.
        let _ = self.core.run(drain(self.core.clone())).await;
    }
}

impl Engine {
    /// Ends at once: closes the sessions with 1012 `restart`, and lets nobody wait any longer. For a host whose runtime is
    /// about to end; what is queued may not be stored any more.
    pub fn abort(&self) {
        self.core.start_closing();
        self.core.writer.abandon();
        for session in self.core.registry.all() {
            session.tell(&self.core, |consumer| consumer.handle_closed(CloseCode::Restart));
        }
    }
}

async fn restored(core: Arc<Core>) -> Result<(), StoreError> {
    // Where it is known how far the lost numbers went, the new ones begin above them.
    for (room, seen) in core.loaded_rooms() {
        match core.ask(core.store.raise_epoch(room, seen, core.now())).await {
            // A room younger than the backup is gone.
            Ok(_) | Err(StoreError::NoSuchRoom(_)) => {}
            Err(error) => return Err(error),
        }
    }
    core.store.raise_all(core.now()).await?;
    core.compare.notify_one();
    Ok(())
}

async fn drain(core: Arc<Core>) {
    core.writer.wait_until_done().await;
    let sessions = core.registry.all();
    // Few sessions need no spreading: at most one per millisecond.
    let spread = core.limits.close_spread.min(sessions.len() as u64);
    let per_step = sessions.len().div_ceil(spread.max(1) as usize).max(1);
    for step in sessions.chunks(per_step) {
        for session in step {
            session.tell(&core, |consumer| consumer.handle_closed(CloseCode::Restart));
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    core.publisher.settle().await;
    // What is stored is safe already.
    let _ = core.noted(core.store.settle().await);
    #[cfg(feature = "bridge")]
    if let Some(bridge) = &core.bridge {
        bridge.leave().await;
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("stats", &self.stats())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

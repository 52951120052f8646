//! `digi_engine`.

use std::ffi::{c_char, c_int, c_void};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use digi_core::consumer::Scope;
use digi_core::engine::{Engine, Stats};
use digi_core::store::model::NewRoom;
use digi_core::{Code, Error, Millis, RoomId};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::callback;
use crate::config::digi_config;
use crate::fork::Origin;
use crate::frame::digi_frame;
use crate::handle::{Context, Out, borrow, digi_text, list, sized, text};
use crate::model::{digi_command, digi_outcome, role};
use crate::ready::Ready;
use crate::result::{
    DIGI_AGAIN, DIGI_OK, Failure, bad_argument, close_number, digi_error, digi_result, guard_outside, guard_value,
};
use crate::session::{Open, digi_session, give};
use crate::wait::{Deadline, wait};

/// A chat engine: rooms, sessions, one store and one channel layer, on threads of its own. Any number of threads may use
/// one at once. A process that was forked off has none of the threads: every function says `DIGI_ERR_ENGINE_FORKED` there.
pub struct digi_engine {
    pub(crate) inner: ManuallyDrop<Inner>,
}

pub(crate) struct Inner {
    pub(crate) engine: Engine,
    runtime: Runtime,
    pub(crate) origin: Origin,
    ready: Arc<Ready>,
    caller: Mutex<Option<JoinHandle<()>>>,
}

/// How long freeing an engine waits for what its threads are in the middle of.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a connection at its start.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_scope {
    /// `sizeof(digi_scope)`.
    pub size: usize,
    /// The room's token, out of the URL that the client came by.
    pub token: digi_text,
    /// Who is logged in: an immutable key. That it is this user is the host's to know.
    pub user: digi_text,
    /// The name that others see. None: the key.
    pub user_name: digi_text,
    /// Where the client stopped last time: the cursor that it gives. May be left out.
    pub after: digi_text,
    /// The page's origin and the client's address, for the log. May be left out.
    pub origin: digi_text,
    /// See `origin`.
    pub remote: digi_text,
    /// By what the host knows this log-in again, to end it by `digi_engine_kick`; not a secret. May be left out.
    pub login: digi_text,
    /// What `digi_session_data` gives back.
    pub data: *mut c_void,
}

impl digi_scope {
    /// # Safety
    /// The texts are as the header says.
    pub(crate) unsafe fn read(&self) -> Result<Scope, Failure> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        // SAFETY: the caller's promise.
        unsafe {
            let user = self.user.needed("scope.user")?;
            Ok(Scope {
                token: self.token.needed("scope.token")?.to_owned(),
                user: user.into(),
                user_name: self.user_name.get("scope.user_name")?.unwrap_or(user).into(),
                after: owned(self.after.get("scope.after")?),
                origin: owned(self.origin.get("scope.origin")?),
                remote: owned(self.remote.get("scope.remote")?),
                login: self.login.get("scope.login")?.map(Into::into),
            })
        }
    }
}

/// A first member of a new room.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_member {
    /// The user's key.
    pub user: digi_text,
    /// The name that others see. None: the key.
    pub user_name: digi_text,
    /// `DIGI_ROLE_…`.
    pub role: i32,
}

/// What an engine has done since it was made; what says "now" is as it is now.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct digi_stats {
    /// `sizeof(digi_stats)`, set before the call.
    pub size: usize,
    /// Sessions, now.
    pub sessions: u64,
    /// Rooms that are loaded, now.
    pub rooms: u64,
    /// Commands that wait to be stored, now.
    pub queued: u64,
    /// Changes that were committed.
    pub committed: u64,
    /// Commands that were refused by the store's rules or could not be stored.
    pub refused: u64,
    /// Resends that were recognised.
    pub duplicates: u64,
    /// Batches that were given to the store.
    pub batches: u64,
    /// Frames of rooms that were handed to sessions.
    pub deliveries: u64,
    /// Whether the channel layer can be reached, now.
    pub layer_up: bool,
}

/// Takes a frame of a session (to be freed, there or later), or, with `frame` NULL, that it is closed with that
/// `DIGI_CLOSE_…` number; nothing comes for it any more. See `digi_engine_on_frame`.
pub type digi_frame_callback = Option<
    unsafe extern "C" fn(ctx: *mut c_void, session: *mut digi_session, frame: *mut digi_frame, close_code: digi_result),
>;

impl Inner {
    fn check(&self) -> Result<(), Failure> {
        self.origin.check()
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Runs something on the engine's threads and waits for it. It goes on if nobody waits any longer.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Failure> {
        self.check()?;
        let ended = || Failure::from(Code::EngineClosed);
        let done = wait(self.handle().spawn(work), Deadline::NEVER).ok_or_else(ended)?;
        Ok(done.map_err(|error| if error.is_panic() { Code::Internal.into() } else { ended() })??)
    }
}

/// Opens the store, brings its schema up to date and starts the engine.
///
/// Errors: `DIGI_ERR_CONFIG`, `DIGI_ERR_BAD_URL`, `DIGI_ERR_SCHEMA`, `DIGI_ERR_FILE_IN_USE`,
/// `DIGI_ERR_STORE_UNAVAILABLE` (also for a SQLite file that can't be opened; the text says why),
/// `DIGI_ERR_STORE_FULL`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_new(
    config: *const digi_config,
    engine: *mut *mut digi_engine,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (config, out) = unsafe { (borrow(config, "config")?, Out::new(engine, "engine")?) };
        let (builder, threads) = {
            let settings = config.0.lock();
            (settings.builder(), settings.threads)
        };
        let runtime = Builder::new_multi_thread().worker_threads(threads).thread_name("digi").enable_all().build();
        let runtime = runtime.map_err(|error| Code::Config.with(format!("the system gives no threads: {error}")))?;
        let building = runtime.spawn(builder.build());
        let built = wait(building, Deadline::NEVER).and_then(Result::ok).ok_or(Code::Internal);
        let engine = match built.map_err(Error::from).and_then(|built| built) {
            Ok(engine) => engine,
            Err(error) => {
                runtime.shutdown_timeout(PATIENCE);
                return Err(error.into());
            }
        };
        let (origin, ready, caller) = (Origin::here(), Ready::new(), Mutex::default());
        out.give(digi_engine { inner: ManuallyDrop::new(Inner { engine, runtime, origin, ready, caller }) });
        Ok(DIGI_OK)
    })
}

/// Takes a connection in, without waiting for the store: the session comes at once. Its first frame (`resumed`, or with
/// `scope.after` what was missed) says that it is in its room, and gets what is stored from then on. If it may not enter, or
/// its token does not open, `digi_session_next` gives the close code, and no frame.
///
/// Errors: a `DIGI_CLOSE_…` to close the connection with where that is known at once (too many sessions, closing);
/// `DIGI_ERR_BAD_ARGUMENT`, `DIGI_ERR_ENGINE_FORKED`. There is no session then.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_connect(
    engine: *mut digi_engine,
    scope: *const digi_scope,
    session: *mut *mut digi_session,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, given, out) =
            unsafe { (borrow(engine, "engine")?, sized(scope, "scope")?, Out::new(session, "session")?) };
        let inner = &engine.inner;
        inner.check()?;
        // SAFETY: as above.
        let scope = unsafe { given.read()? };
        let (session, accepting) = inner.engine.begin(scope)?;
        out.set(give(Open::start(session, Box::pin(accepting), inner.origin, &inner.ready, given.data)));
        Ok(DIGI_OK)
    })
}

/// Sessions that have something to read, up to `most` into `sessions` and how many into `count`; call `digi_session_next` for
/// them. A session stays on this list until `digi_session_next` has said `DIGI_AGAIN` or a close code for it, and those that
/// were not given come first the next time; so nothing is lost if not all are read at once. One may also be given that
/// has nothing (more) to read. `timeout_ms` is how long to wait for the first: 0 not at all, -1 for ever. `DIGI_AGAIN`: none.
///
/// Errors: `DIGI_ERR_ENGINE_CLOSED` after `digi_engine_close`, once every session on the list has said its close code.
///
/// Threads: free a session in the thread that calls this, or while no thread does; else it may be given to one that has
/// just lost it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_ready(
    engine: *mut digi_engine,
    timeout_ms: i64,
    sessions: *mut *mut digi_session,
    most: usize,
    count: *mut usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, count) = unsafe { (borrow(engine, "engine")?, Out::new(count, "count")?) };
        if sessions.is_null() || most == 0 {
            return Err(bad_argument("sessions", "there is no space for a session"));
        }
        engine.inner.check()?;
        let found = engine.inner.ready.look(most, Deadline::after(timeout_ms))?;
        if found.is_empty() {
            return Ok(DIGI_AGAIN);
        }
        count.set(found.len());
        for (place, session) in found.iter().enumerate() {
            // SAFETY: `sessions` has `most` places.
            unsafe { sessions.add(place).write(Arc::as_ptr(session).cast_mut().cast()) };
        }
        Ok(DIGI_OK)
    })
}

/// A descriptor that is readable while `digi_engine_ready` has sessions to give, for poll, epoll, kqueue or libuv. Don't
/// read from it: call `digi_engine_ready` with timeout 0, which may also say `DIGI_AGAIN`. One for all sessions; it belongs to the
/// engine.
///
/// Errors: `DIGI_ERR_CONFIG` when the system has no descriptor left.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_descriptor(
    engine: *mut digi_engine,
    descriptor: *mut c_int,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, out) = unsafe { (borrow(engine, "engine")?, Out::new(descriptor, "descriptor")?) };
        engine.inner.check()?;
        out.set(engine.inner.ready.descriptor()?);
        Ok(DIGI_OK)
    })
}

/// Hands every frame of every session to `callback`, from a thread of Digi's that does nothing else: one call at a time,
/// a session's frames in their order. The callback may call everything, also free its session or the engine; while it
/// blocks, nobody gets frames. Once per engine, and instead of `digi_engine_ready` and `digi_session_next`. `destroy`, which
/// may be NULL, is called with `ctx` after the last call; if this function fails, `ctx` stays the host's.
///
/// Threads: free sessions within the callback; elsewhere it may just be called with the one that is freed.
///
/// Errors: `DIGI_ERR_CONFIG` where there is one already, or the system gives no thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_on_frame(
    engine: *mut digi_engine,
    callback: digi_frame_callback,
    ctx: *mut c_void,
    destroy: Option<unsafe extern "C" fn(ctx: *mut c_void)>,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let engine = unsafe { borrow(engine, "engine")? };
        let callback = callback.ok_or_else(|| bad_argument("callback", "it is NULL"))?;
        engine.inner.check()?;
        let mut caller = engine.inner.caller.lock();
        if caller.is_some() {
            return Err(Code::Config.with("the engine has a callback for frames already").into());
        }
        let ready = engine.inner.ready.clone();
        let ctx = Arc::new(Context::new(ctx, destroy));
        let of_thread = ctx.clone();
        let calling = move || call_back(&ready, callback, &of_thread);
        let spawned = thread::Builder::new().name("digi-frames".to_owned()).spawn(calling);
        *caller = Some(spawned.map_err(|error| {
            ctx.give_back();
            Code::Config.with(format!("the system gives no thread: {error}"))
        })?);
        Ok(DIGI_OK)
    })
}

/// Sessions that the calling thread takes at once, and frames of one before the next has its turn.
const TURN: usize = 256;

fn call_back(
    ready: &Ready,
    callback: unsafe extern "C" fn(*mut c_void, *mut digi_session, *mut digi_frame, digi_result),
    ctx: &Context,
) {
    while !ready.is_over() {
        let Ok(sessions) = ready.look(TURN, Deadline::NEVER) else { return };
        for session in sessions {
            let pointer: *mut digi_session = Arc::as_ptr(&session).cast_mut().cast();
            let mut frames = Vec::new();
            let result = session.next(TURN, 0, |frame| frames.push(frame));
            for frame in frames {
                if !session.is_freed() && !ready.is_over() {
                    let frame = Box::into_raw(Box::new(digi_frame(frame)));
                    // SAFETY: the host's function; the frame is the host's from here on.
                    unsafe { callback(ctx.pointer, pointer, frame, DIGI_OK) };
                }
            }
            if let Err(Failure::Closed(code)) = result
                && !session.is_freed()
                && !ready.is_over()
            {
                // SAFETY: as above.
                unsafe { callback(ctx.pointer, pointer, std::ptr::null_mut(), close_number(code)) };
            }
        }
    }
}

/// Makes a room and writes its id into `room`: `id`, between 1 and 2147483647, or with 0 one above the highest that
/// there is. `members` are its first members; of several with the same user the last counts. Waits for the store.
///
/// Room, id and members stay in the store, and no function finds a room by its `name`, which may be empty. So remember
/// the id, or give one of your own and make the room at every start: `DIGI_ERR_ROOM_EXISTS` then says that it is there,
/// and leaves everything as it is, its members too (`digi_engine_submit` as host, with `DIGI_CHANGE_JOIN`, adds some).
///
/// Errors: `DIGI_ERR_ROOM_EXISTS`, `DIGI_ERR_STORE_UNAVAILABLE`, `DIGI_ERR_STORE_FULL`, `DIGI_ERR_STORE_REJECTED` (such
/// as an id out of range), `DIGI_ERR_BAD_ARGUMENT`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_create_room(
    engine: *mut digi_engine,
    id: i64,
    name: *const c_char,
    name_length: usize,
    members: *const digi_member,
    member_count: usize,
    room: *mut i64,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, name, members, out) = unsafe {
            let name = digi_text { data: name, length: name_length }.get("name")?.unwrap_or_default();
            (borrow(engine, "engine")?, name, list(members, member_count, "members")?, Out::new(room, "room")?)
        };
        let read = |member: &digi_member| {
            // SAFETY: as above.
            let (user, name) =
                unsafe { (member.user.needed("member.user")?, member.user_name.get("member.user_name")?) };
            Ok((user.into(), name.unwrap_or(user).into(), role(member.role, "member.role")?))
        };
        let members = members.iter().map(read).collect::<Result<_, Failure>>()?;
        let new = NewRoom { id: (id != 0).then_some(RoomId(id)), name: name.to_owned(), kind: String::new(), members };
        let core = engine.inner.engine.clone();
        out.set(engine.inner.run(async move { core.create_room(&new).await })?.0);
        Ok(DIGI_OK)
    })
}

/// Has a change stored, in a user's name or the host's, and waits until it is. `outcome` may be NULL. The room is told of
/// messages; that a membership has ended, its own sessions are told by `DIGI_CLOSE_REMOVED`, and that one has begun, nobody.
/// Without `as_host` a join or leave is `DIGI_ERR_REFUSED`.
///
/// Errors: what the change is refused with, such as `DIGI_ERR_NOT_A_MEMBER`, `DIGI_ERR_NO_SUCH_MESSAGE`,
/// `DIGI_ERR_EMPTY_BODY`; `DIGI_ERR_STORE_UNAVAILABLE`; `DIGI_ERR_ENGINE_CLOSED`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_submit(
    engine: *mut digi_engine,
    command: *const digi_command,
    outcome: *mut digi_outcome,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, command, out) =
            unsafe { (borrow(engine, "engine")?, sized(command, "command")?.read()?, Out::optional(outcome)) };
        let core = engine.inner.engine.clone();
        let done = engine.inner.run(async move { core.submit(command).await })?;
        if let Some(out) = out {
            out.set(digi_outcome::of(&done));
        }
        Ok(DIGI_OK)
    })
}

/// Closes every session of a user with `DIGI_CLOSE_KICKED`, on every node that the channel layer reaches; with a `login`
/// those only that were begun by it (`digi_scope.login`), with `DIGI_CLOSE_UNAUTHENTICATED`. Who must not come back is to
/// lose the membership, too.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_kick(
    engine: *mut digi_engine,
    user: *const c_char,
    user_length: usize,
    login: *const c_char,
    login_length: usize,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, user, login) = unsafe {
            let login = digi_text { data: login, length: login_length }.get("login")?;
            (borrow(engine, "engine")?, text(user, user_length, "user")?, login)
        };
        engine.inner.check()?;
        let _entered = engine.inner.handle().enter();
        match login {
            None => engine.inner.engine.kick(user),
            Some(login) => engine.inner.engine.end_login(user, login),
        }
        Ok(DIGI_OK)
    })
}

/// To be called once after every restore of a backup, before anybody writes: raises the epoch of every room, so that no
/// client takes new messages for old ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_restored(engine: *mut digi_engine, error: *mut *mut digi_error) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let engine = unsafe { borrow(engine, "engine")? };
        let core = engine.inner.engine.clone();
        engine.inner.run(async move { core.restored().await })?;
        Ok(DIGI_OK)
    })
}

/// Removes a room's messages that were added before a time (milliseconds since 1970-01-01T00:00:00Z), for good, and
/// writes how many they were into `removed`, which may be NULL. Clients that show them are not told; a `client_id` of one
/// of them counts as new from now on.
///
/// Errors: `DIGI_ERR_NO_SUCH_ROOM`, `DIGI_ERR_STORE_UNAVAILABLE`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_purge(
    engine: *mut digi_engine,
    room: i64,
    before: u64,
    removed: *mut u64,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (engine, out) = unsafe { (borrow(engine, "engine")?, Out::optional(removed)) };
        let store = engine.inner.engine.store().clone();
        let purge = async move { Ok(store.purge(RoomId(room), Millis(before)).await?) };
        let count = engine.inner.run(purge)?;
        if let Some(out) = out {
            out.set(count);
        }
        Ok(DIGI_OK)
    })
}

/// Writes what the engine has done into `stats`, whose member `size` the caller has set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_stats(
    engine: *const digi_engine,
    stats: *mut digi_stats,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions; that it begins with its size is looked at before anything is written.
        let (engine, size) = unsafe { (borrow(engine, "engine")?, sized(stats.cast_const(), "stats")?.size) };
        engine.inner.check()?;
        let Stats { sessions, rooms, queued, committed, refused, duplicates, batches, deliveries, layer_up, .. } =
            engine.inner.engine.stats();
        let all =
            digi_stats { size, sessions, rooms, queued, committed, refused, duplicates, batches, deliveries, layer_up };
        // SAFETY: the caller's struct has `size` bytes, and `sized` has seen that those are no more than there are here.
        unsafe { std::ptr::copy_nonoverlapping((&raw const all).cast::<u8>(), stats.cast::<u8>(), size) };
        Ok(DIGI_OK)
    })
}

/// Ends in good order, and waits for it: takes nothing new in, stores and hands out what is queued, then closes the
/// sessions with `DIGI_CLOSE_RESTART`, spread over `close_spread_ms`. What they have to read can still be read. From
/// its beginning on `digi_engine_submit` and (for sessions that are in their room) `digi_session_receive` answer
/// `DIGI_ERR_ENGINE_CLOSED`, and `digi_engine_connect` `DIGI_CLOSE_RESTART`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_close(engine: *mut digi_engine, error: *mut *mut digi_error) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let engine = unsafe { borrow(engine, "engine")? };
        let core = engine.inner.engine.clone();
        engine.inner.run(async move {
            core.close().await;
            Ok(())
        })?;
        engine.inner.ready.close();
        Ok(DIGI_OK)
    })
}

/// Ends the engine at once and frees it, after `digi_engine_close` if nothing is to be lost that was taken in. Servers
/// are to be freed before. NULL is fine.
///
/// Sessions that are left are closed with `DIGI_CLOSE_RESTART`, unless they were already, and whoever waits in them
/// waits no longer: `digi_session_next` gives what there is to read and then the close code, `digi_session_receive`
/// answers `DIGI_ERR_ENGINE_CLOSED`. They are to be freed; the last one that is closes the store (a SQLite file is open
/// until then).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_engine_free(engine: *mut digi_engine) {
    guard_value((), || {
        if engine.is_null() {
            return;
        }
        // SAFETY: by the header's conventions an engine that was not freed.
        let engine = unsafe { Box::from_raw(engine) };
        if !engine.inner.origin.is_here() {
            // Its threads are not in this process, and its locks may have been held when it was forked off.
            return;
        }
        let inner = ManuallyDrop::into_inner(engine.inner);
        callback::later(move || inner.end());
    });
}

impl Inner {
    fn end(self) {
        let Self { engine, runtime, ready, caller, .. } = self;
        // Whoever waits waits no longer: sessions may outlive this.
        engine.abort();
        ready.end();
        if let Some(caller) = caller.into_inner()
            && caller.thread().id() != thread::current().id()
        {
            // It only ends early by a panic.
            let _ = caller.join();
        }
        drop(engine);
        runtime.shutdown_timeout(PATIENCE);
    }
}

//! The writer: commits whatever gathered while the last transaction ran, then tells everybody.
//!
//! It works in as many lanes as the store has, and a room always in the same one. A lane has two tasks, so that a batch
//! is handed out while the next one is being committed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;
use tracing::error;

use super::core::{Core, Wakes};
use super::session::SessionCore;
use super::stats::add;
use crate::consumer::Ticket;
use crate::error::Code;
use crate::event::{Envelope, Event, EventKind};
use crate::id::{Millis, RoomId};
use crate::store::attempt::{Attempt, BatchIds, PATIENCE, Step};
use crate::store::model::{Batch, Command, Outcome};
use crate::store::{StoreError, lane_of};

/// A batch's frames for one room are handed out in parts of that fraction of an outbox, so that who reads as fast as
/// it is given frames is never too slow, however much a batch brings.
const PARTS: usize = 4;

/// So many deliveries, and other tasks get their turn.
const TURN: u64 = 10_000;

/// Who hears of every change, see `EngineBuilder::observer`.
pub(super) type Observer = Box<dyn Fn(&[(RoomId, &Outcome)]) + Send + Sync>;

/// Who waits for a command's outcome.
pub(super) enum Asker {
    Session(Arc<SessionCore>, Ticket),
    Host(oneshot::Sender<Outcome>),
}

pub(super) struct Job {
    command: Command,
    asker: Asker,
    since: Instant,
}

impl Job {
    pub(super) fn new(command: Command, asker: Asker) -> Self {
        Self { command, asker, since: Instant::now() }
    }
}

/// The queues in front of the writer.
pub(super) struct WriterHandle {
    /// One per lane.
    queues: Vec<mpsc::UnboundedSender<Job>>,
    /// Bounds the queues together: sessions wait for space before they take a frame in, so that it exceeds `most` by
    /// one command per session at the utmost.
    waiting: AtomicUsize,
    most: usize,
    space: Notify,
    abandoned: AtomicBool,
    /// Commands that have no outcome yet, queued or on their way.
    unfinished: AtomicUsize,
    finished: Notify,
}

/// See [`WriterHandle::hold`].
pub(super) struct Hold<'a>(&'a WriterHandle);

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.done(1);
    }
}

/// The other end of a lane's queue.
pub(super) struct WriterQueue(mpsc::UnboundedReceiver<Job>);

impl WriterHandle {
    pub(super) fn new(most: usize, lanes: usize) -> (Self, Vec<WriterQueue>) {
        let (queues, ends) = (0..lanes.max(1)).map(|_| mpsc::unbounded_channel()).unzip();
        let handle = Self {
            queues,
            waiting: AtomicUsize::new(0),
            most: most.max(1),
            space: Notify::new(),
            abandoned: AtomicBool::new(false),
            unfinished: AtomicUsize::new(0),
            finished: Notify::new(),
        };
        (handle, Vec::into_iter(ends).map(WriterQueue).collect())
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    pub(super) async fn wait_for_space(&self) {
        let is_full = || self.waiting() >= self.most && !self.abandoned.load(Ordering::SeqCst);
        while is_full() {
            let freed = self.space.notified();
            if !is_full() {
                return;
            }
            freed.await;
        }
    }

    /// Nobody is to wait any longer for what may never happen.
    pub(super) fn abandon(&self) {
        self.abandoned.store(true, Ordering::SeqCst);
        self.space.notify_waiters();
    }

    /// Announces what is about to be submitted. Whoever holds this and then finds the engine not closing is waited
    /// for: closing is announced first and looks for what is unfinished afterwards.
    pub(super) fn hold(&self) -> Hold<'_> {
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        Hold(self)
    }

    pub(super) fn submit(&self, job: Job) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        self.unfinished.fetch_add(1, Ordering::SeqCst);
        let lane = lane_of(job.command.room, self.queues.len());
        // The queues end with the engine, and then nobody can submit.
        let _ = self.queues[lane].send(job);
    }

    fn taken(&self, jobs: usize) {
        let before = self.waiting.fetch_sub(jobs, Ordering::Relaxed);
        if before >= self.most {
            self.space.notify_waiters();
        }
    }

    fn done(&self, jobs: usize) {
        if self.unfinished.fetch_sub(jobs, Ordering::SeqCst) == jobs {
            self.finished.notify_waiters();
        }
    }

    /// Waits until every command that was submitted has its outcome.
    pub(super) async fn wait_until_done(&self) {
        loop {
            let finished = self.finished.notified();
            if self.unfinished.load(Ordering::SeqCst) == 0 {
                return;
            }
            finished.await;
        }
    }
}

/// A batch that the store is through with.
struct Done {
    askers: Vec<(Asker, RoomId)>,
    outcomes: Vec<Outcome>,
}

/// One lane; runs until the engine is gone.
pub(super) async fn run(core: Weak<Core>, WriterQueue(mut queue): WriterQueue, mut ids: BatchIds, most: usize) {
    let (done, batches) = mpsc::channel(2);
    if let Some(core) = core.upgrade() {
        let weak = Arc::downgrade(&core);
        core.spawn(hand_out(weak, batches));
    }
    let (mut jobs, mut away) = (Vec::new(), false);
    while queue.recv_many(&mut jobs, most).await > 0 {
        let Some(core) = core.upgrade() else { return };
        core.writer.taken(jobs.len());
        let finished = commit(&core, &mut jobs, &mut ids, away).await;
        away = matches!(finished.outcomes.last(), Some(Outcome::Refused(Code::StoreUnavailable)));
        drop(core);
        if done.send(finished).await.is_err() {
            return;
        }
    }
}

async fn commit(core: &Arc<Core>, jobs: &mut Vec<Job>, ids: &mut BatchIds, away: bool) -> Done {
    let began = Instant::now();
    // Who has waited for long while the last batch found the store away does not wait for one more to find it so.
    let has_waited = |job: &&Job| began.duration_since(job.since) >= Duration::from_millis(PATIENCE);
    let late = if away { jobs.iter().take_while(has_waited).count() } else { 0 };
    let mut outcomes = vec![Outcome::Refused(Code::StoreUnavailable); late];
    let mut askers = Vec::with_capacity(jobs.len());
    let mut commands = Vec::with_capacity(jobs.len());
    for Job { command, asker, .. } in jobs.drain(..) {
        askers.push((asker, command.room));
        commands.push(command);
    }
    commands.drain(..late);
    if !commands.is_empty() {
        outcomes.extend(carry_out(core, commands, ids, began).await);
    }
    // A store that answers with too few outcomes is broken; nobody is left without an answer all the same.
    outcomes.resize(askers.len(), Outcome::Refused(Code::Internal));
    Done { askers, outcomes }
}

async fn carry_out(core: &Arc<Core>, commands: Vec<Command>, ids: &mut BatchIds, began: Instant) -> Vec<Outcome> {
    let mut rooms: Vec<_> = commands.iter().map(|command| command.room).collect();
    rooms.sort_unstable();
    rooms.dedup();
    let known = rooms.into_iter().filter_map(|room| Some((room, core.seen(room)?))).collect();
    let start = core.now();
    // Whatever is done to the system's clock meanwhile.
    let now = || Millis(start.0.saturating_add(u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)));
    let mut attempt = Attempt::new(Batch { id: ids.next_id(), commands, known, now: start });
    loop {
        match attempt.step() {
            Step::Apply(batch) => {
                add(&core.counters.batches, 1);
                let answer = core.noted(caught(core.store.apply(batch)).await);
                attempt.handle_applied(answer, now());
            }
            Step::Void(id) => {
                let answer = core.noted(caught(core.store.void(id)).await);
                attempt.handle_void(answer, ids, now());
            }
            Step::Pause(ms) => {
                tokio::time::sleep(Duration::from_millis(ms)).await;
                attempt.handle_pause_over();
            }
            Step::Done => return attempt.into_outcomes(),
        }
    }
}

/// A host's store that panics must not take the writer with it, and what it did nobody knows.
async fn caught<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    let answer = AssertUnwindSafe(call).catch_unwind().await;
    answer.unwrap_or_else(|_| Err(StoreError::Unknown("the store panicked".into())))
}

async fn hand_out(core: Weak<Core>, mut batches: mpsc::Receiver<Done>) {
    while let Some(done) = batches.recv().await {
        let Some(core) = core.upgrade() else { return };
        let jobs = done.askers.len();
        tell(&core, done).await;
        core.writer.done(jobs);
    }
}

/// Tells the rooms, the other nodes and the senders what a batch changed.
async fn tell(core: &Arc<Core>, Done { askers, outcomes }: Done) {
    if let Some(observer) = &core.observer {
        let rooms = askers.iter().map(|(_, room)| *room);
        let changes: Vec<_> = rooms.zip(&outcomes).filter(|(_, outcome)| outcome.is_change()).collect();
        // A host's own that panics must not take the writer with it.
        if !changes.is_empty() && catch_unwind(AssertUnwindSafe(|| observer(&changes))).is_err() {
            error!("the observer of what is stored panicked");
        }
    }
    let mut events: Vec<Event> = askers
        .iter()
        .zip(&outcomes)
        .filter_map(|((_, room), outcome)| Event::of(*room, outcome, &core.rules.encoder))
        .collect();
    add(&core.counters.committed, events.len() as u64);
    // One visit per room; the order within a room stays.
    events.sort_by_key(|event| event.room);
    #[cfg(feature = "bridge")]
    if let Some(bridge) = &core.bridge {
        bridge.publish(&events);
    }
    let alone = core.layer.is_alone();
    let envelopes = if alone { Vec::new() } else { events.iter().cloned().map(Envelope::Event).collect() };
    let mut wakes = Wakes::default();
    let most = core.limits.outbox;
    let mut turn = 0;
    let mut events = events.into_iter().peekable();
    while let Some(room) = events.peek().map(|event| event.room) {
        let (mut frames, mut bytes) = (0, 0);
        let part: Vec<_> = std::iter::from_fn(|| {
            let fits = frames == 0 || (frames < most.frames / PARTS && bytes < most.bytes / PARTS);
            let event = events.next_if(|event| event.room == room && fits)?;
            frames += 1;
            bytes += frame_bytes(&event);
            Some(event)
        })
        .collect();
        core.events(room, part, &mut wakes);
        if wakes.delivered - turn > TURN || events.peek().is_some_and(|event| event.room == room) {
            turn = wakes.delivered;
            wakes.wake();
            tokio::task::yield_now().await;
        }
    }
    core.publish(envelopes);
    for ((asker, _), outcome) in askers.into_iter().zip(outcomes) {
        match outcome {
            Outcome::Refused(_) => add(&core.counters.refused, 1),
            Outcome::Duplicate { .. } => add(&core.counters.duplicates, 1),
            _ => {}
        }
        match asker {
            Asker::Session(session, ticket) => session.tell(core, |consumer| consumer.handle_outcome(ticket, &outcome)),
            // A host that stopped waiting does not want to know.
            Asker::Host(answer) => drop(answer.send(outcome)),
        }
    }
    wakes.wake();
    core.counters.delivered(wakes.delivered);
}

fn frame_bytes(event: &Event) -> usize {
    match &event.kind {
        EventKind::Message { frame, .. } => frame.as_bytes().len(),
        EventKind::Member { .. } => 0,
    }
}

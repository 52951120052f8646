//! Routing and order: what one room's members on this node are shown, and when.
//!
//! A [`Room`] is told of changes by whoever learns of them first (the local writer after a commit, the channel
//! layer, a comparison with the store) in any order, any number of times, or not at all. It hands them to the
//! members' outboxes in order of number, once. What it misses it asks to be read from the log.
//!
//! Its methods are of four kinds: getters; `handle_*` for what happened outside; `join`, `go_live`, `leave` for the
//! sessions; [`Room::poll_output`] for what the driver has to do. It reads no clock: `now` is passed in, and
//! [`Room::next_wakeup`] says when [`Room::handle_tick`] wants to be called.

mod member;
pub mod presence;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, VecDeque};

use indexmap::IndexMap;

pub use member::{Deliver, SessionId};
use member::{Member, Pending, Phase};

use crate::error::CloseCode;
use crate::event::{Event, EventKind};
use crate::frame::{Encoder, Frame, Run};
use crate::id::{Cursor, Millis, RoomId, Seq, UserKey};
use crate::store::model::{Change, Changes, Head, MemberAnswer, MemberOp, Membership, MessageOp};

/// The bounds of a room.
#[derive(Clone, Copy, Debug)]
pub struct RoomLimits {
    /// Sessions of one room on this node; a further one is refused.
    pub sessions: usize,
    /// Events that wait for a missing number. What comes beyond is dropped and read from the log.
    pub held_events: usize,
    /// Frames that wait while a session's replay is under way. Beyond it the session is closed as too slow.
    pub held_frames: usize,
    /// How long a missing number is waited for before the log is read, in milliseconds.
    pub grace: u64,
}

impl Default for RoomLimits {
    fn default() -> Self {
        Self { sessions: 100_000, held_events: 1_024, held_frames: 1_024, grace: 20 }
    }
}

/// How long after a failed or fruitless read of the log the next one follows, in milliseconds: doubled up to the
/// second figure.
const RETRY: (u64, u64) = (50, 5_000);

/// How many memberships a room remembers.
const KNOWN_MEMBERS: usize = 4_096;

/// What the driver has to do for a room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RoomOutput {
    /// Read the log after a number and answer with [`Room::handle_changes`], giving `seen` back.
    ReadLog {
        /// Read what is numbered above.
        after: Seq,
        /// The highest number known when the question was asked.
        seen: Cursor,
    },
    /// The store lies behind what was seen, so its data was restored: raise the epoch above `seen` and answer with
    /// [`Room::handle_head`].
    RaiseEpoch {
        /// What the new numbering has to stay above.
        seen: Cursor,
    },
    /// What the session was shown is void: tell its consumer.
    Reset {
        /// Which session.
        session: SessionId,
    },
    /// The session is no longer in the room: close it.
    Close {
        /// Which session.
        session: SessionId,
        /// Why.
        code: CloseCode,
    },
}

/// The answer to [`Room::join`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum JoinAnswer {
    /// The session is in, on hold; the room has shown everything up to the cursor.
    Joined(Cursor),
    /// The membership was read before a change of memberships that the room knows of: read it again.
    Stale,
    /// The room has as many sessions as it may.
    Full,
}

enum Repair {
    Idle,
    /// The log is read when `until` has come, unless what is missing arrives first.
    /// With `suspicion` it is read even if nothing seems to be missing any more.
    Waiting {
        until: Millis,
        suspicion: bool,
    },
    /// With `suspicion` something may have been lost since the question.
    Reading {
        suspicion: bool,
    },
}

/// A membership that was read from the store.
struct Known {
    membership: Membership,
    read_at: Cursor,
}

/// One room on one node. `O` is the driver's handle to a session's outbox.
pub struct Room<O> {
    id: RoomId,
    limits: RoomLimits,
    /// Everything up to here has been handed out; the epoch is the room's.
    shown: Cursor,
    /// What sessions were sent up to here became void with the last reset.
    void: Cursor,
    /// The highest number of the epoch that this node has heard of.
    highest: Seq,
    /// The last number at which a membership may have changed, as far as this room knows.
    last_membership: Seq,
    members: IndexMap<SessionId, Member<O>>,
    known: HashMap<UserKey, Known>,
    held: BTreeMap<Seq, Event>,
    repair: Repair,
    retry: u64,
    outputs: VecDeque<RoomOutput>,
}

impl<O> Room<O> {
    /// A room whose store stands at `head`: everything up to there is history.
    pub fn new(id: RoomId, head: Head, limits: RoomLimits) -> Self {
        Self {
            id,
            limits,
            shown: head.cursor(),
            void: Cursor::default(),
            highest: head.last_seq,
            last_membership: head.last_seq,
            members: IndexMap::new(),
            known: HashMap::new(),
            held: BTreeMap::new(),
            repair: Repair::Idle,
            retry: RETRY.0,
            outputs: VecDeque::new(),
        }
    }

    /// Which room it is.
    pub fn id(&self) -> RoomId {
        self.id
    }

    /// Everything up to here has been handed to the members.
    pub fn shown(&self) -> Cursor {
        self.shown
    }

    /// The highest cursor heard of. Note it *before* asking the store for a head: a head below it means restored
    /// data, one below what was heard of meanwhile does not.
    pub fn seen(&self) -> Cursor {
        Cursor::new(self.shown.epoch, self.highest)
    }

    /// How many sessions are in.
    pub fn sessions(&self) -> usize {
        self.members.len()
    }

    /// The sessions of a user.
    pub fn sessions_of<'a>(&'a self, user: &'a UserKey) -> impl Iterator<Item = SessionId> + 'a {
        self.members.iter().filter(move |(_, member)| &member.user == user).map(|(id, _)| *id)
    }

    /// The membership of a user, if the room remembers it: no removal up to the answer's head contradicts it.
    pub fn membership(&self, user: &UserKey) -> Option<MemberAnswer> {
        let known = self.known.get(user)?;
        let at = known.read_at.max(self.shown);
        Some(MemberAnswer {
            membership: Some(known.membership.clone()),
            head: Head { epoch: at.epoch, last_seq: at.seq },
        })
    }

    /// When [`Room::handle_tick`] wants to be called.
    pub fn next_wakeup(&self) -> Option<Millis> {
        match self.repair {
            Repair::Waiting { until, .. } => Some(until),
            Repair::Idle | Repair::Reading { .. } => None,
        }
    }

    /// A change was committed, here or on another node.
    pub fn handle_event(&mut self, event: Event, now: Millis, deliver: &mut impl Deliver<O>) {
        self.handle_events([event], now, deliver);
    }

    /// Changes were committed, here or on another node. What follows each other is handed out together.
    pub fn handle_events(
        &mut self,
        events: impl IntoIterator<Item = Event>,
        now: Millis,
        deliver: &mut impl Deliver<O>,
    ) {
        let mut pending = Pending::default();
        for event in events {
            self.take_event(event, &mut pending, deliver);
        }
        self.fan_out(&mut pending, deliver);
        self.wait_for_missing(now);
    }

    fn take_event(&mut self, event: Event, pending: &mut Pending, deliver: &mut impl Deliver<O>) {
        if event.at.epoch < self.shown.epoch {
            return;
        }
        if event.at.epoch > self.shown.epoch {
            self.fan_out(pending, deliver);
            // The sessions load the new history, which has this event: nothing is left to deliver.
            self.adopt(Head { epoch: event.at.epoch, last_seq: event.at.seq });
            return;
        }
        let seq = event.at.seq;
        self.highest = self.highest.max(seq);
        if seq <= self.shown.seq {
            return;
        }
        if seq == self.shown.seq.next() || testing_bug!(SkipGapCheck) {
            self.show(event, false, pending, deliver);
            self.drain_held(pending, deliver);
        } else if self.held.len() < self.limits.held_events {
            self.held.insert(seq, event);
        }
    }

    /// The store's head was read (to compare, or after raising the epoch). `seen` is what [`Room::seen`] was
    /// before the question.
    pub fn handle_head(&mut self, head: Head, seen: Cursor, now: Millis) {
        if head.epoch > self.shown.epoch {
            self.adopt(head);
        } else if seen.epoch == self.shown.epoch && head.cursor() < seen {
            self.outputs.push_back(RoomOutput::RaiseEpoch { seen: self.seen() });
        } else if head.epoch == self.shown.epoch {
            self.highest = self.highest.max(head.last_seq);
            self.wait_for_missing(now);
        }
    }

    /// The channel layer may have lost something: compare with the log at once.
    pub fn handle_lagged(&mut self, now: Millis) {
        if testing_bug!(IgnoreLagged) {
            return;
        }
        self.repair = match self.repair {
            Repair::Reading { .. } => Repair::Reading { suspicion: true },
            Repair::Idle | Repair::Waiting { .. } => Repair::Waiting { until: now, suspicion: true },
        };
    }

    /// The answer to [`RoomOutput::ReadLog`]; none when the store could not be asked.
    pub fn handle_changes(
        &mut self,
        changes: Option<Changes>,
        seen: Cursor,
        encoder: &Encoder,
        now: Millis,
        deliver: &mut impl Deliver<O>,
    ) {
        let suspicion = matches!(self.repair, Repair::Reading { suspicion: true }) || changes.is_none();
        self.repair = Repair::Idle;
        let before = self.shown;
        let was_read = changes.is_some();
        if let Some(changes) = changes {
            self.take_changes(changes, seen, encoder, deliver);
        }
        let is_behind = self.highest > self.shown.seq;
        if self.shown > before || was_read && !is_behind {
            self.retry = RETRY.0;
            if is_behind || suspicion {
                self.repair = Repair::Waiting { until: now, suspicion };
            }
        } else {
            self.repair = Repair::Waiting { until: now.plus(self.retry), suspicion };
            self.retry = (self.retry * 2).min(RETRY.1);
        }
    }

    fn take_changes(&mut self, changes: Changes, seen: Cursor, encoder: &Encoder, deliver: &mut impl Deliver<O>) {
        let Changes { head, floor, through, rows } = changes;
        if head.epoch > self.shown.epoch {
            self.adopt(head);
            return;
        }
        if seen.epoch == self.shown.epoch && head.cursor() < seen {
            self.outputs.push_back(RoomOutput::RaiseEpoch { seen: self.seen() });
            return;
        }
        if head.epoch < self.shown.epoch {
            return;
        }
        self.highest = self.highest.max(head.last_seq);
        if seen.epoch != self.shown.epoch {
            // `through` counts from a number of the old epoch.
            return;
        }
        if floor > self.shown.seq {
            // What is missing was purged: nobody can be told what it was.
            self.adopt(head);
            return;
        }
        let start = self.shown.seq;
        let mut pending = Pending::default();
        for row in rows {
            if row.seq <= start {
                continue;
            }
            let was_adopted = matches!(row.change, Change::Adopted(_));
            let mut is_known = false;
            let kind = match row.change {
                Change::Member { op, member } => EventKind::Member { op, member },
                Change::Message(message) | Change::Adopted(message) => {
                    let op = match &message.body {
                        None => MessageOp::Deleted,
                        // With the text of now it is new to everybody.
                        Some(_) if message.pos > start && was_adopted && message.edited_at.is_some() => {
                            MessageOp::Edited
                        }
                        Some(_) if message.pos > start => {
                            is_known = was_adopted;
                            MessageOp::Added
                        }
                        Some(_) => MessageOp::Edited,
                    };
                    let frame = encoder.change(op, row.seq, &message);
                    let (sender, client_id) = (message.sender, message.client_id);
                    EventKind::Message { op, message: message.id, pos: message.pos, sender, client_id, frame }
                }
            };
            let at = Cursor::new(self.shown.epoch, row.seq);
            self.show(Event { room: self.id, at, kind }, is_known, &mut pending, deliver);
        }
        self.shown.seq = self.shown.seq.max(through);
        self.held.retain(|seq, _| *seq > through);
        self.drain_held(&mut pending, deliver);
        self.fan_out(&mut pending, deliver);
    }

    /// Time has passed.
    pub fn handle_tick(&mut self, now: Millis) {
        if let Repair::Waiting { until, .. } = self.repair
            && until <= now
        {
            self.repair = Repair::Reading { suspicion: false };
            self.outputs.push_back(RoomOutput::ReadLog { after: self.shown.seq, seen: self.seen() });
        }
    }

    /// Lets a session in, on hold, or puts one that is in back on hold: frames wait until [`Room::go_live`].
    /// `membership` and `head` are as they were read.
    pub fn join(
        &mut self,
        session: SessionId,
        user: UserKey,
        membership: Membership,
        head: Head,
        outbox: O,
        now: Millis,
    ) -> JoinAnswer {
        if head.epoch > self.shown.epoch {
            self.adopt(head);
        }
        if head.epoch < self.shown.epoch || head.last_seq < self.last_membership {
            return JoinAnswer::Stale;
        }
        if self.members.len() >= self.limits.sessions && !self.members.contains_key(&session) {
            return JoinAnswer::Full;
        }
        if head.last_seq > self.highest {
            self.highest = head.last_seq;
            self.wait_for_missing(now);
        }
        let read_at = head.cursor();
        if self.known.len() < KNOWN_MEMBERS || self.known.contains_key(&user) {
            self.known.insert(user.clone(), Known { membership, read_at });
        }
        let listens = self.members.get(&session).is_some_and(|before| before.listens);
        let phase = Phase::Holding(VecDeque::new());
        self.members.insert(session, Member { user, read_at, outbox, phase, listens });
        JoinAnswer::Joined(self.shown)
    }

    /// The session has been sent everything up to `at`: hands over what waited above it, then goes on live.
    pub fn go_live(&mut self, session: SessionId, at: Cursor, now: Millis, deliver: &mut impl Deliver<O>) {
        if at.epoch > self.shown.epoch {
            self.adopt(Head { epoch: at.epoch, last_seq: at.seq });
            return;
        }
        if at < self.void {
            // The room was reset meanwhile, and the session's consumer has been told so.
            return;
        }
        let Some(member) = self.members.get_mut(&session) else { return };
        let phase = std::mem::replace(&mut member.phase, Phase::Live { from: at.seq });
        if let Phase::Holding(frames) = phase {
            let cut = if testing_bug!(CutReplayEarly) { at.seq.next() } else { at.seq };
            let rest: Vec<_> = frames.into_iter().filter(|(seq, _)| *seq > cut).map(|(_, frame)| frame).collect();
            if !rest.is_empty() && !deliver.deliver(&member.outbox, &Run::new(rest)) {
                self.expel(session, CloseCode::TooSlow);
            }
        }
        if at.seq > self.highest {
            self.highest = at.seq;
            self.wait_for_missing(now);
        }
    }

    /// Takes a session out.
    pub fn leave(&mut self, session: SessionId) {
        self.members.swap_remove(&session);
    }

    /// From now on a session gets what is not stored, too.
    pub fn listen(&mut self, session: SessionId) {
        if let Some(member) = self.members.get_mut(&session) {
            member.listens = true;
        }
    }

    /// Hands a frame that takes no number to those who listen, but not to its causer; one that nobody here caused is in
    /// the classic form and goes to everybody. Who is on hold or slow misses it.
    pub fn signal(&mut self, from: Option<&UserKey>, frame: &Frame, deliver: &mut impl Deliver<O>) {
        let run = Run::from(frame.clone());
        for member in self.members.values() {
            let wants = from.is_none_or(|from| member.listens && &member.user != from);
            if wants && matches!(member.phase, Phase::Live { .. }) {
                deliver.deliver(&member.outbox, &run);
            }
        }
    }

    /// What the driver has to do next.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<RoomOutput> {
        self.outputs.pop_front()
    }

    /// Takes over another numbering: everything that was shown, held or remembered is void.
    fn adopt(&mut self, head: Head) {
        self.shown = head.cursor();
        self.void = self.shown;
        self.highest = head.last_seq;
        self.last_membership = head.last_seq;
        self.known.clear();
        self.held.clear();
        if let Repair::Waiting { .. } = self.repair {
            self.repair = Repair::Idle;
        }
        for (session, member) in &mut self.members {
            member.phase = Phase::Holding(VecDeque::new());
            self.outputs.push_back(RoomOutput::Reset { session: *session });
        }
    }

    /// Shows the next event. `is_known`: those who don't listen have been shown it by somebody else.
    fn show(&mut self, event: Event, is_known: bool, pending: &mut Pending, deliver: &mut impl Deliver<O>) {
        self.shown.seq = event.at.seq;
        match event.kind {
            EventKind::Message { frame, .. } => {
                if pending.is_known != is_known {
                    self.fan_out(pending, deliver);
                    pending.is_known = is_known;
                }
                pending.seqs.push(event.at.seq);
                pending.frames.push(frame);
            }
            EventKind::Member { op, member } => {
                self.known.remove(&member);
                self.last_membership = event.at.seq;
                if op == MemberOp::Left {
                    // Who leaves is still shown what came before.
                    self.fan_out(pending, deliver);
                    let gone: Vec<_> = self
                        .members
                        .iter()
                        .filter(|(_, m)| m.user == member && m.read_at < event.at)
                        .map(|(session, _)| *session)
                        .collect();
                    for session in gone {
                        self.expel(session, CloseCode::Removed);
                    }
                }
            }
        }
    }

    fn fan_out(&mut self, pending: &mut Pending, deliver: &mut impl Deliver<O>) {
        let Pending { seqs, frames, is_known } = std::mem::take(pending);
        let Some(first) = seqs.first().copied() else { return };
        let run = Run::new(frames);
        let mut slow = Vec::new();
        for (session, member) in &mut self.members {
            if is_known && !member.listens && matches!(member.phase, Phase::Live { .. }) {
                continue;
            }
            let room_left = match &mut member.phase {
                Phase::Live { from } => {
                    let had = if testing_bug!(DropAtWrongSeq) { from.next() } else { *from };
                    let old = if first > had { 0 } else { seqs.partition_point(|seq| *seq <= had) };
                    match old {
                        0 => deliver.deliver(&member.outbox, &run),
                        all if all == seqs.len() => true,
                        some => deliver.deliver(&member.outbox, &Run::new(run.frames()[some..].to_vec())),
                    }
                }
                Phase::Holding(frames) => {
                    frames.extend(seqs.iter().copied().zip(run.frames().iter().cloned()));
                    frames.len() <= self.limits.held_frames
                }
            };
            if !room_left {
                slow.push(*session);
            }
        }
        for session in slow {
            self.expel(session, CloseCode::TooSlow);
        }
    }

    fn drain_held(&mut self, pending: &mut Pending, deliver: &mut impl Deliver<O>) {
        while let Some(entry) = self.held.first_entry() {
            let seq = *entry.key();
            if seq > self.shown.seq.next() {
                break;
            }
            let event = entry.remove();
            if seq > self.shown.seq {
                self.show(event, false, pending, deliver);
            }
        }
    }

    fn expel(&mut self, session: SessionId, code: CloseCode) {
        self.members.swap_remove(&session);
        self.outputs.push_back(RoomOutput::Close { session, code });
    }

    fn wait_for_missing(&mut self, now: Millis) {
        match self.repair {
            Repair::Idle if self.highest > self.shown.seq => {
                self.repair = Repair::Waiting { until: now.plus(self.limits.grace), suspicion: false };
            }
            Repair::Waiting { suspicion: false, .. } if self.highest <= self.shown.seq => self.repair = Repair::Idle,
            _ => {}
        }
    }
}

//! How what a consumer and a room put out is carried out: questions to the store, jobs for the writer, frames for
//! outboxes. The answers go back into the same consumer or room.

use std::sync::Arc;

use tracing::warn;

use super::core::Core;
use super::session::SessionCore;
use super::writer::{Asker, Job};
use crate::consumer::{Output, Ticket};
use crate::error::CloseCode;
use crate::event::Envelope;
use crate::id::{Cursor, RoomId};
use crate::room::{JoinAnswer, Room, RoomOutput};
use crate::store::model::{LOG_WINDOW, MemberAnswer};

impl Core {
    pub(super) fn carry_out_room(self: &Arc<Self>, id: RoomId, outputs: Vec<RoomOutput>) {
        for output in outputs {
            match output {
                RoomOutput::ReadLog { after, seen } => {
                    let core = self.clone();
                    self.runtime.spawn(async move {
                        let changes = core.ask(core.store.changes(id, after, LOG_WINDOW)).await;
                        let now = core.now();
                        core.at_room(id, |room, wakes| {
                            room.handle_changes(changes.ok(), seen, &core.rules.encoder, now, wakes);
                        });
                    });
                }
                RoomOutput::RaiseEpoch { seen } => {
                    // Every session that reads finds the same; one question is enough.
                    if !self.raising.lock().insert(id) {
                        continue;
                    }
                    warn!(room = %id, %seen, "the store lies behind what was seen: its data was restored; raising the epoch");
                    let core = self.clone();
                    self.runtime.spawn(async move {
                        let raised = core.ask(core.store.raise_epoch(id, seen, core.now())).await;
                        core.raising.lock().remove(&id);
                        if let Ok(head) = raised {
                            core.observe(id, head, Cursor::default());
                        }
                    });
                }
                RoomOutput::Reset { session } => {
                    if let Some(session) = self.registry.get(session) {
                        session.tell(self, |consumer| consumer.handle_reset(id));
                    }
                }
                RoomOutput::Close { session, code } => {
                    if let Some(session) = self.registry.get(session) {
                        session.tell(self, |consumer| consumer.handle_closed(code));
                    }
                }
            }
        }
    }

    /// Does what a session's consumer wants done. Called by one task at a time for a session.
    pub(super) fn carry_out(self: &Arc<Self>, session: &Arc<SessionCore>, output: Output) {
        match output {
            Output::AskMember { ticket, room } => self.ask_member(session, ticket, room),
            Output::Join { ticket, room, answer } => self.join(session, ticket, room, answer),
            Output::Accept => session.accept(),
            Output::Submit { ticket, command } => {
                self.writer.submit(Job::new(command, Asker::Session(session.clone(), ticket)));
            }
            Output::LoadChanges { ticket, room, after, limit } => {
                let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
                self.runtime.spawn(async move {
                    let answer = core.ask(core.store.changes(room, after, limit)).await;
                    if let Ok(changes) = &answer {
                        core.observe(room, changes.head, seen);
                    }
                    let answer = answer.map_err(|error| error.code());
                    session.tell(&core, |consumer| consumer.handle_changes(ticket, answer));
                });
            }
            Output::LoadHistory { ticket, room, before, limit } => {
                let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
                self.runtime.spawn(async move {
                    let answer = core.ask(core.store.history(room, before, limit)).await;
                    if let Ok(page) = &answer {
                        core.observe(room, page.head, seen);
                    }
                    let answer = answer.map_err(|error| error.code());
                    session.tell(&core, |consumer| consumer.handle_history(ticket, answer));
                });
            }
            Output::Send(frame) => {
                if !session.send(frame) {
                    session.tell(self, |consumer| consumer.handle_closed(CloseCode::TooSlow));
                }
            }
            Output::GoLive { room, at } => {
                let now = self.now();
                let id = session.id;
                self.at_room(room, |room, wakes| room.go_live(id, at, now, wakes));
            }
            Output::Signal(signal) => {
                self.signal(&signal);
                self.publish(vec![Envelope::Signal(signal)]);
            }
            Output::Listen { room } => {
                let id = session.id;
                self.at_room(room, |room, _| room.listen(id));
                if let Some(presence) = &self.presence {
                    presence.tell(room, session);
                }
            }
            Output::Leave { room } => {
                let id = session.id;
                self.at_room(room, |room, _| room.leave(id));
                if let Some(presence) = &self.presence {
                    presence.leave(self, room, session);
                }
            }
            Output::Close(code) => {
                session.closed(code);
                self.registry.remove(session.id, &session.user);
            }
        }
    }

    fn ask_member(self: &Arc<Self>, session: &Arc<SessionCore>, ticket: Ticket, room: RoomId) {
        let remembered = {
            let shard = self.shard(room).lock();
            shard.get(&room).and_then(|room| room.membership(&session.user))
        };
        if let Some(answer) = remembered {
            return session.tell(self, |consumer| consumer.handle_member(ticket, Ok(answer)));
        }
        let (core, session, seen) = (self.clone(), session.clone(), self.seen(room).unwrap_or_default());
        self.runtime.spawn(async move {
            let answer = core.ask(core.store.member(room, &session.user)).await;
            if let Ok(member) = &answer {
                core.observe(room, member.head, seen);
            }
            let answer = answer.map_err(|error| error.code());
            session.tell(&core, |consumer| consumer.handle_member(ticket, answer));
        });
    }

    fn join(self: &Arc<Self>, session: &Arc<SessionCore>, ticket: Ticket, id: RoomId, answer: MemberAnswer) {
        let Some(membership) = answer.membership else { return };
        let now = self.now();
        let mut shard = self.shard(id).lock();
        let mut is_new = false;
        let room = shard.entry(id).or_insert_with(|| {
            is_new = true;
            Room::new(id, answer.head, self.limits.room)
        });
        let joined = room.join(session.id, session.user.clone(), membership, answer.head, session.clone(), now);
        let outputs = self.outputs_of(room);
        drop(shard);
        if is_new {
            if self.room_count() == 1 {
                // Nobody looked at the store while no room was loaded.
                self.compare.notify_one();
            }
            // The task that subscribes looks at the log afterwards: nothing is missed in between.
            let _ = self.subscriptions.send(id);
        }
        if let (Some(presence), JoinAnswer::Joined(_)) = (&self.presence, joined) {
            presence.enter(self, id, session);
        }
        session.tell(self, |consumer| consumer.handle_joined(ticket, joined));
        self.carry_out_room(id, outputs);
    }

    /// The connection has gone.
    pub(super) fn forget(self: &Arc<Self>, session: &Arc<SessionCore>) {
        session.tell(self, crate::consumer::Consumer::handle_disconnect);
        session.outbox.close(CloseCode::Normal);
        super::stats::add(&self.counters.ignored_claims, session.ignored_claims());
        self.registry.remove(session.id, &session.user);
    }
}

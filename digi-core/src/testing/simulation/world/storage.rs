//! How the simulated store is asked, and how its answers get lost.

use super::*;

impl World {
    pub(super) fn ask(&mut self, at: usize, node: &mut Node, ask: Ask) {
        let (life, store_life) = (self.slots[at].life, self.store_life);
        let unavailable = || StoreError::Unavailable("simulated".into());
        if let Ask::Apply(batch) = &ask {
            if testing_bug!(BroadcastBeforeCommit) {
                self.announce_early(node, batch);
            }
            if self.chance(self.faults.apply_failed) {
                return self.after(1, 40, Happening::Answer(at, life, ask, Answer::Applied(Err(unavailable()))));
            }
            if self.chance(self.faults.apply_unknown) {
                self.report.unknown_commits += 1;
                let unknown = Answer::Applied(Err(StoreError::Unknown("simulated".into())));
                self.after(1, 200, Happening::Answer(at, life, ask.clone(), unknown));
                let (least, most) = [(0, 1), (100, 3_000)][self.rng.usize(0..2)];
                if self.rng.u32(0..3) > 0 {
                    self.after(least, most, Happening::Execute { node: at, life, store_life, ask, lost: true });
                }
                return;
            }
            if self.chance(self.faults.apply_stalled) {
                return self.after(500, 4_000, Happening::Execute { node: at, life, store_life, ask, lost: false });
            }
        } else if self.chance(self.faults.read_failed) {
            let answer = self.failed(&ask);
            return self.after(1, 40, Happening::Answer(at, life, ask, answer));
        }
        self.after(0, 15, Happening::Execute { node: at, life, store_life, ask, lost: false });
    }

    pub(super) fn failed(&self, ask: &Ask) -> Answer {
        let error = StoreError::Unavailable("simulated".into());
        match ask {
            Ask::Member { .. } => Answer::Member(Err(error)),
            Ask::Changes { .. } | Ask::Log { .. } => Answer::Changes(Err(error)),
            Ask::History { .. } => Answer::History(Err(error)),
            Ask::Raise { .. } => Answer::Head(Err(error)),
            Ask::Heads { .. } => Answer::Heads(Err(error)),
            Ask::Apply(_) => Answer::Applied(Err(StoreError::Unknown("the database was restored".into()))),
            Ask::Void(_) => Answer::Void(Err(error)),
        }
    }

    /// The moment at which the store does what it was asked.
    pub(super) fn execute(&mut self, node: usize, life: u64, store_life: u64, ask: Ask, lost: bool) {
        let store = &mut self.store;
        let answer = if store_life != self.store_life {
            self.failed(&ask)
        } else {
            let answer = match &ask {
                Ask::Member { room, user, .. } => Answer::Member(store.member(*room, user)),
                Ask::Changes { room, after, limit, .. } => Answer::Changes(store.changes(*room, *after, *limit)),
                Ask::History { room, before, limit, .. } => Answer::History(store.history(*room, *before, *limit)),
                Ask::Log { room, after, .. } => Answer::Changes(store.changes(*room, *after, LOG_WINDOW)),
                Ask::Raise { room, seen } => Answer::Head(store.raise_epoch(*room, *seen, self.now)),
                Ask::Heads { rooms } => {
                    let ids: Vec<_> = rooms.iter().map(|(id, _)| *id).collect();
                    Answer::Heads(Ok(store.heads(&ids)))
                }
                Ask::Void(id) => Answer::Void(store.void(*id)),
                Ask::Apply(batch) => {
                    let before = store.heads(&self.rooms);
                    let answer = store.apply(batch);
                    let after = store.heads(&self.rooms);
                    self.report.resets +=
                        before.iter().zip(&after).filter(|(b, a)| b.1.epoch < a.1.epoch).count() as u64;
                    if let Ok(applied) = &answer {
                        self.note(batch, &applied.outcomes);
                    }
                    Answer::Applied(answer)
                }
            };
            self.trace.note(|| Step::Asked { node, ask: ask.clone(), at: self.now, answer: answer.clone() });
            answer
        };
        if !lost {
            self.after(0, 15, Happening::Answer(node, life, ask, answer));
        }
    }

    /// What there is at the end, as two nodes see it.
    pub(super) fn read_all(&mut self) {
        for node in 0..2 {
            let logs = self.rooms.iter().map(|room| Ask::Log { room: *room, after: Seq(0), seen: Cursor::default() });
            let heads = Ask::Heads { rooms: self.rooms.iter().map(|room| (*room, Cursor::default())).collect() };
            for ask in logs.chain([heads]).collect::<Vec<_>>() {
                self.execute(node, 0, self.store_life, ask, true);
            }
        }
    }

    pub(super) fn note(&mut self, batch: &Batch, outcomes: &[Outcome]) {
        for (command, outcome) in batch.commands.iter().zip(outcomes) {
            match outcome {
                Outcome::Message { .. } => self.report.committed += 1,
                Outcome::Duplicate { .. } => self.report.duplicates += 1,
                Outcome::Member { op, at, member } => {
                    self.report.committed += 1;
                    let key = (command.room, member.clone());
                    self.member_changes.entry(key).or_default().push((self.now, *op, at.seq));
                    if *op == MemberOp::Joined {
                        let back = self.clients.iter_mut().filter(|c| c.room == command.room && &c.user == member);
                        back.for_each(|client| client.barred = false);
                    }
                }
                Outcome::Unchanged | Outcome::Refused(_) => {}
            }
        }
    }

    pub(super) fn announce_early(&self, node: &mut Node, batch: &Batch) {
        let Ok(applied) = self.store.clone().apply(batch) else { return };
        for (command, outcome) in batch.commands.iter().zip(&applied.outcomes) {
            if let Some(event) = Event::of(command.room, outcome, &self.rules.encoder) {
                node.announce(event.room, vec![event], self.now);
            }
        }
    }
}

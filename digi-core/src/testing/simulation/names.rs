//! What the rooms, messages and batches of a recording are called in the store on which it is replayed: the store
//! chooses the rooms' ids, and may hold other rooms and batches already.

use super::node::{Answer, Ask};
use crate::id::{MessageId, RoomId};
use crate::store::model::{
    Action, Applied, Batch, BatchId, Change, Changes, Command, Head, History, Message, NewRoom, Outcome,
};

pub(super) struct Names {
    /// By the recording's id, which counts from 1.
    rooms: Vec<RoomId>,
    /// Makes the batches' ids other ones than those of every other replay.
    salt: u64,
}

impl Names {
    /// For a store in which no room of the recording has been made yet.
    pub(super) fn new(salt: u64) -> Self {
        Self { rooms: Vec::new(), salt }
    }

    /// The recording's next room was made under that id.
    pub(super) fn add(&mut self, room: RoomId) {
        self.rooms.push(room);
    }

    /// A room to be made under an id of the store's choice.
    pub(super) fn new_room(room: &NewRoom) -> NewRoom {
        NewRoom { id: None, ..room.clone() }
    }

    pub(super) fn room(&self, room: RoomId) -> RoomId {
        let index = usize::try_from(room.0 - 1).ok();
        index.and_then(|index| self.rooms.get(index).copied()).unwrap_or(room)
    }

    pub(super) fn batch_id(&self, id: BatchId) -> BatchId {
        BatchId { node: id.node ^ self.salt, ..id }
    }

    pub(super) fn batch(&self, batch: &Batch) -> Batch {
        Batch {
            id: self.batch_id(batch.id),
            commands: batch.commands.iter().map(|command| self.command(command)).collect(),
            known: batch.known.iter().map(|(room, seen)| (self.room(*room), *seen)).collect(),
            now: batch.now,
        }
    }

    fn command(&self, command: &Command) -> Command {
        let mut command = command.clone();
        command.room = self.room(command.room);
        if let Action::Edit { message, .. } | Action::Delete { message } = &mut command.action {
            *message = self.message_id(*message);
        }
        command
    }

    /// A question in the store's terms.
    pub(super) fn ask(&self, ask: &Ask) -> Ask {
        let mut ask = ask.clone();
        match &mut ask {
            Ask::Member { room, .. }
            | Ask::Changes { room, .. }
            | Ask::History { room, .. }
            | Ask::Log { room, .. }
            | Ask::Raise { room, .. } => *room = self.room(*room),
            Ask::Heads { rooms } => rooms.iter_mut().for_each(|(room, _)| *room = self.room(*room)),
            Ask::Apply(batch) => *batch = self.batch(batch),
            Ask::Void(id) => *id = self.batch_id(*id),
        }
        ask
    }

    /// An answer in the store's terms.
    pub(super) fn answer(&self, answer: &Answer) -> Answer {
        let mut answer = answer.clone();
        match &mut answer {
            Answer::Changes(Ok(changes)) => self.changes(changes),
            Answer::History(Ok(History { messages, .. })) => messages.iter_mut().for_each(|it| self.message(it)),
            Answer::Heads(Ok(heads)) => self.heads(heads),
            Answer::Applied(Ok(Applied { outcomes, heads })) => {
                outcomes.iter_mut().for_each(|outcome| self.outcome(outcome));
                self.heads(heads);
            }
            _ => {}
        }
        answer
    }

    fn heads(&self, heads: &mut [(RoomId, Head)]) {
        heads.iter_mut().for_each(|(room, _)| *room = self.room(*room));
    }

    fn changes(&self, changes: &mut Changes) {
        for row in &mut changes.rows {
            if let Change::Message(message) | Change::Adopted(message) = &mut row.change {
                self.message(message);
            }
        }
    }

    fn outcome(&self, outcome: &mut Outcome) {
        match outcome {
            Outcome::Message { message, .. } => self.message(message),
            Outcome::Duplicate { message, .. } => *message = self.message_id(*message),
            Outcome::Member { .. } | Outcome::Unchanged | Outcome::Refused(_) => {}
        }
    }

    fn message(&self, message: &mut Message) {
        message.id = self.message_id(message.id);
        message.room = self.room(message.room);
    }

    fn message_id(&self, id: MessageId) -> MessageId {
        let (room, pos) = id.split_own();
        MessageId::own(self.room(room), pos).unwrap_or(id)
    }
}

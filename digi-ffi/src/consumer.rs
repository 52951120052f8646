//! `digi_consumer`: the state machine of one connection, for hosts with a loop, a store and a clock of their own.

use std::sync::Arc;

use digi_core::consumer::{Consumer, Output, Ticket};
use digi_core::event::Signal;
use digi_core::frame::Frame;
use digi_core::room::JoinAnswer;
use digi_core::store::model::{
    Change, ChangeRow, Changes, Head, History, MemberAnswer, MemberOp, Membership, Message, MessageOp, Outcome,
};
use digi_core::{Code, Cursor, Epoch, MessageId, Millis, RoomId, Seq, UserKey};
use parking_lot::Mutex;

use crate::config::digi_config;
use crate::engine::digi_scope;
use crate::frame::digi_frame;
use crate::handle::{Out, borrow, digi_text, free, list, sized};
use crate::model::{
    DIGI_CHANGE_ADD, DIGI_CHANGE_DELETE, DIGI_CHANGE_DUPLICATE, DIGI_CHANGE_EDIT, DIGI_CHANGE_JOIN, DIGI_CHANGE_LEAVE,
    DIGI_CHANGE_NONE, DIGI_ROLE_NONE, DIGI_ROW_LOG, DIGI_ROW_MESSAGE, digi_command, digi_outcome, digi_row, message_op,
    role, role_number,
};
use crate::result::{
    DIGI_AGAIN, DIGI_OK, Failure, bad_argument, close_code_of, close_number, code_of, digi_error, digi_result,
    guard_outside, guard_value,
};

/// The state machine of one connection, without threads, clock or store. The host tells it what happened
/// (`digi_consumer_push`), does what it says (`digi_consumer_pop`), and owns everything else: the store, the room's order,
/// the sockets. Any thread may use one; calls take turns. What goes in (>) and comes out (<), from the beginning to the first
/// message:
///
/// ```text
/// > CONNECT                          < ASK_MEMBER (ticket)
/// > MEMBER (ticket, role, head)      < JOIN (ticket)
/// > JOINED (ticket, position)        < ACCEPT, SEND `resumed`, GO_LIVE
/// > FRAME `add`                      < SUBMIT (ticket, command)
///   the host stores it, and sends its frame to all who are live, the sender among them
/// > OUTCOME (ticket, outcome)        < SEND `ack`, if the client gave a `client_id`
/// ```
///
/// With `scope.after`, LOAD_CHANGES or LOAD_HISTORY come before `resumed`. Inputs before CONNECT and after the end are
/// ignored.
pub struct digi_consumer {
    consumer: Mutex<Consumer>,
    rules: Arc<digi_core::consumer::Rules>,
}

/// The connection has begun. The first input.
pub const DIGI_INPUT_CONNECT: u32 = 0;
/// The client has sent `text`, at `now`.
pub const DIGI_INPUT_FRAME: u32 = 1;
/// The client has sent something that is no text, at `now`: `code` says what (`DIGI_ERR_NOT_TEXT`, …).
pub const DIGI_INPUT_UNREADABLE: u32 = 2;
/// The answer to `DIGI_OUTPUT_ASK_MEMBER`: `role` (`DIGI_ROLE_NONE`: no member), and the room's head, read before it, in
/// `epoch` and `seq`; or a `code`.
pub const DIGI_INPUT_MEMBER: u32 = 3;
/// The answer to `DIGI_OUTPUT_JOIN`: `epoch` and `seq` are the room's head when its frames began to be held back; or `code`:
/// `DIGI_AGAIN`, the membership was read too long ago, or `DIGI_CLOSE_OVERLOADED`, the room is full.
pub const DIGI_INPUT_JOINED: u32 = 4;
/// The answer to `DIGI_OUTPUT_LOAD_CHANGES`: the head in `epoch` and `seq`, `floor`, `through` (the smaller of `after` +
/// `limit` and the head: from there it is asked again), and `rows`: one
/// `DIGI_ROW_MESSAGE` for each message that changed, with the number of its last change in `seq`, and `DIGI_ROW_LOG` for
/// each membership that did, in order of `seq`; or a `code`.
pub const DIGI_INPUT_CHANGES: u32 = 5;
/// The answer to `DIGI_OUTPUT_LOAD_HISTORY`: the head in `epoch` and `seq`, and `rows` (`DIGI_ROW_MESSAGE`), oldest first;
/// or a `code`.
pub const DIGI_INPUT_HISTORY: u32 = 6;
/// The answer to `DIGI_OUTPUT_SUBMIT`: `outcome`, with a `code` in it where it was refused.
pub const DIGI_INPUT_OUTCOME: u32 = 7;
/// What this session was shown of `room` is void: the epoch is a new one.
pub const DIGI_INPUT_RESET: u32 = 8;
/// The host closes the connection with the `DIGI_CLOSE_…` in `code`.
pub const DIGI_INPUT_CLOSE: u32 = 9;
/// The client has gone.
pub const DIGI_INPUT_DISCONNECT: u32 = 10;

/// Something that happened; which members a kind uses is told at its `DIGI_INPUT_…`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct digi_input {
    /// `sizeof(digi_input)`.
    pub size: usize,
    /// `DIGI_INPUT_…`.
    pub kind: u32,
    /// In answers: what went wrong, or 0.
    pub code: digi_result,
    /// In answers: of the question.
    pub ticket: u64,
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub now: u64,
    /// What the client sent.
    pub text: digi_text,
    /// A room's id.
    pub room: i64,
    /// A generation of the numbering.
    pub epoch: u64,
    /// A number in it.
    pub seq: u64,
    /// Numbers up to here can no longer be read.
    pub floor: u64,
    /// The rows cover every number up to here.
    pub through: u64,
    /// `DIGI_ROLE_…`.
    pub role: i32,
    /// Rows.
    pub rows: *const digi_row,
    /// How many they are.
    pub row_count: usize,
    /// What became of a command.
    pub outcome: digi_outcome,
}

/// Ask whether the consumer's user is a member of `room`: `DIGI_INPUT_MEMBER`.
pub const DIGI_OUTPUT_ASK_MEMBER: u32 = 0;
/// Put the connection into `room`, and hold its frames back until `DIGI_OUTPUT_GO_LIVE`: `DIGI_INPUT_JOINED`. `epoch`, `seq` and
/// `role` are those of the answer about its membership.
pub const DIGI_OUTPUT_JOIN: u32 = 1;
/// The connection is let in.
pub const DIGI_OUTPUT_ACCEPT: u32 = 2;
/// Store `command`, and tell everybody in the room (`digi_consumer_encode`): `DIGI_INPUT_OUTCOME`. Frame, text and policy have
/// been looked at; the host looks at the rest, and refuses with `DIGI_ERR_NOT_A_MEMBER` (no longer),
/// `DIGI_ERR_NO_SUCH_MESSAGE` (not in this room), `DIGI_ERR_NOT_SENDER` (but a moderator may delete) and
/// `DIGI_ERR_MESSAGE_DELETED`. An add with a `client_id` that this user has used is `DIGI_CHANGE_DUPLICATE`, with the first
/// one's `message_id` and `pos`, and nobody is told.
pub const DIGI_OUTPUT_SUBMIT: u32 = 3;
/// Read the changes of `room` above `after`, at most `limit` numbers: `DIGI_INPUT_CHANGES`.
pub const DIGI_OUTPUT_LOAD_CHANGES: u32 = 4;
/// Read the newest `limit` messages of `room` placed before `before` (0: of all): `DIGI_INPUT_HISTORY`.
pub const DIGI_OUTPUT_LOAD_HISTORY: u32 = 5;
/// Send `frame` to this client.
pub const DIGI_OUTPUT_SEND: u32 = 6;
/// From now on hand this client the changes of `room` above `epoch` and `seq`, those that were held back first.
pub const DIGI_OUTPUT_GO_LIVE: u32 = 7;
/// Send `frame` to the others in `room` who listen. It is not stored.
pub const DIGI_OUTPUT_SIGNAL: u32 = 8;
/// This client of `room` listens: from now on it gets signals, too.
pub const DIGI_OUTPUT_LISTEN: u32 = 9;
/// Take the connection out of `room`, if it is in there.
pub const DIGI_OUTPUT_LEAVE: u32 = 10;
/// Close the connection with `code`, a `DIGI_CLOSE_…`. The last output; after `DIGI_INPUT_DISCONNECT` there is none.
pub const DIGI_OUTPUT_CLOSE: u32 = 11;

/// Something to do; which members a kind uses is told at its `DIGI_OUTPUT_…`. Everything in it lives until it is freed.
#[repr(C)]
pub struct digi_output {
    /// `DIGI_OUTPUT_…`.
    pub kind: u32,
    /// A `DIGI_CLOSE_…`.
    pub code: digi_result,
    /// To be given back with the answer; 0 where there is none.
    pub ticket: u64,
    /// A room's id.
    pub room: i64,
    /// A generation of the numbering.
    pub epoch: u64,
    /// A number in it.
    pub seq: u64,
    /// Above this number.
    pub after: u64,
    /// Before this place; 0: from the newest on.
    pub before: u64,
    /// At most so many.
    pub limit: u64,
    /// In joins: the member's `DIGI_ROLE_…`.
    pub role: i32,
    /// What to send; not ended by NUL.
    pub frame: digi_text,
    /// What to store. Last, because it may grow.
    pub command: digi_command,
}

/// An output with what it points to. The first member is what C sees.
#[repr(C)]
struct Held {
    shown: digi_output,
    _output: Output,
}

/// Makes a consumer for a connection, under the keys, bounds and policy of `config`; its store and layer are not used.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_consumer_new(
    config: *const digi_config,
    scope: *const digi_scope,
    consumer: *mut *mut digi_consumer,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (config, scope, out) =
            unsafe { (borrow(config, "config")?, sized(scope, "scope")?.read()?, Out::new(consumer, "consumer")?) };
        let rules = Arc::new(config.0.lock().rules());
        let consumer = Mutex::new(Consumer::new(rules.clone(), scope));
        out.give(digi_consumer { consumer, rules });
        Ok(DIGI_OK)
    })
}

/// Tells a consumer what happened. An answer to a question that is no longer open is ignored.
///
/// Errors: `DIGI_ERR_BAD_ARGUMENT` for an input that is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_consumer_push(
    consumer: *mut digi_consumer,
    input: *const digi_input,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (consumer, input) = unsafe { (borrow(consumer, "consumer")?, sized(input, "input")?) };
        // SAFETY: as above.
        unsafe { input.tell(&consumer.consumer)? };
        Ok(DIGI_OK)
    })
}

/// What to do next, in this order; to be freed with `digi_output_free`. `DIGI_AGAIN`: nothing until the next input.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_consumer_pop(
    consumer: *mut digi_consumer,
    output: *mut *mut digi_output,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (consumer, out) = unsafe { (borrow(consumer, "consumer")?, Out::new(output, "output")?) };
        let Some(output) = consumer.consumer.lock().poll_output() else { return Ok(DIGI_AGAIN) };
        out.set(Box::into_raw(Box::new(Held { shown: digi_output::of(&output), _output: output })).cast());
        Ok(DIGI_OK)
    })
}

/// The frame that everybody in the room gets for a change of a message: `change` is one of `DIGI_CHANGE_ADD`, `…_EDIT` and
/// `…_DELETE`, `seq` the change's number, `message` the message after it (`DIGI_ROW_MESSAGE`). Encode once, send to all.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_consumer_encode(
    consumer: *const digi_consumer,
    change: u32,
    seq: u64,
    message: *const digi_row,
    frame: *mut *mut digi_frame,
    error: *mut *mut digi_error,
) -> digi_result {
    guard_outside(error, || {
        // SAFETY: the header's conventions.
        let (consumer, message, out) = unsafe {
            (borrow(consumer, "consumer")?, borrow(message, "message")?.read_message()?, Out::new(frame, "frame")?)
        };
        out.give(digi_frame(consumer.rules.encoder.change(message_op(change, "change")?, Seq(seq), &message)));
        Ok(DIGI_OK)
    })
}

/// Frees an output and what it points to. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_output_free(output: *mut digi_output) {
    // SAFETY: by the header's conventions NULL, or what `digi_consumer_pop` gave.
    guard_value((), || unsafe { free(output.cast::<Held>()) });
}

/// Frees a consumer. NULL is fine.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn digi_consumer_free(consumer: *mut digi_consumer) {
    // SAFETY: the header's conventions.
    guard_value((), || unsafe { free(consumer) });
}

impl digi_input {
    fn head(&self) -> Head {
        Head { epoch: Epoch(self.epoch), last_seq: Seq(self.seq) }
    }

    /// The answer, unless a code says that there is none.
    fn answer<T>(&self, answer: impl FnOnce() -> Result<T, Failure>) -> Result<Result<T, Code>, Failure> {
        if self.code == DIGI_OK {
            return answer().map(Ok);
        }
        let code =
            code_of(self.code).ok_or_else(|| bad_argument("input.code", "it is none of the DIGI_ERR_… numbers"))?;
        Ok(Err(code))
    }

    /// # Safety
    /// The texts and rows are as the header says.
    unsafe fn tell(&self, consumer: &Mutex<Consumer>) -> Result<(), Failure> {
        let (ticket, now) = (Ticket(self.ticket), Millis(self.now));
        // SAFETY: the caller's promise.
        let rows = || unsafe { list(self.rows, self.row_count, "input.rows") };
        match self.kind {
            DIGI_INPUT_CONNECT => consumer.lock().handle_connect(),
            DIGI_INPUT_FRAME => {
                // SAFETY: the caller's promise.
                let text = unsafe { self.text.needed("input.text")? };
                consumer.lock().handle_frame(text, now);
            }
            DIGI_INPUT_UNREADABLE => {
                let code =
                    code_of(self.code).ok_or_else(|| bad_argument("input.code", "it is no DIGI_ERR_… number"))?;
                consumer.lock().handle_unreadable(code, now);
            }
            DIGI_INPUT_MEMBER => {
                let answer = self.answer(|| {
                    let membership = match self.role {
                        DIGI_ROLE_NONE => None,
                        number => Some(Membership { role: role(number, "input.role")? }),
                    };
                    Ok(MemberAnswer { membership, head: self.head() })
                })?;
                consumer.lock().handle_member(ticket, answer);
            }
            DIGI_INPUT_JOINED => {
                let answer = match self.code {
                    DIGI_OK => JoinAnswer::Joined(self.head().cursor()),
                    DIGI_AGAIN => JoinAnswer::Stale,
                    _ => JoinAnswer::Full,
                };
                consumer.lock().handle_joined(ticket, answer);
            }
            DIGI_INPUT_CHANGES => {
                let answer = self.answer(|| {
                    // SAFETY: the caller's promise.
                    let rows: Result<_, _> = rows()?.iter().map(|row| unsafe { change_row(row) }).collect();
                    Ok(Changes { head: self.head(), floor: Seq(self.floor), through: Seq(self.through), rows: rows? })
                })?;
                consumer.lock().handle_changes(ticket, answer);
            }
            DIGI_INPUT_HISTORY => {
                let answer = self.answer(|| {
                    // SAFETY: the caller's promise.
                    let messages: Result<_, _> = rows()?.iter().map(|row| unsafe { row.read_message() }).collect();
                    Ok(History { head: self.head(), messages: messages? })
                })?;
                consumer.lock().handle_history(ticket, answer);
            }
            DIGI_INPUT_OUTCOME => consumer.lock().handle_outcome(ticket, &outcome(&self.outcome)?),
            DIGI_INPUT_RESET => consumer.lock().handle_reset(RoomId(self.room)),
            DIGI_INPUT_CLOSE => {
                let code = close_code_of(self.code);
                let code = code.ok_or_else(|| bad_argument("input.code", "it is none of the DIGI_CLOSE_… numbers"))?;
                consumer.lock().handle_closed(code);
            }
            DIGI_INPUT_DISCONNECT => consumer.lock().handle_disconnect(),
            _ => return Err(bad_argument("input.kind", "it is none of the DIGI_INPUT_… numbers")),
        }
        Ok(())
    }
}

unsafe fn change_row(row: &digi_row) -> Result<ChangeRow, Failure> {
    let change = match (row.kind, row.change) {
        // SAFETY: the caller's promise.
        (DIGI_ROW_MESSAGE, _) => Change::Message(unsafe { row.read_message()? }),
        (DIGI_ROW_LOG, DIGI_CHANGE_JOIN | DIGI_CHANGE_LEAVE) => {
            let op = if row.change == DIGI_CHANGE_JOIN { MemberOp::Joined } else { MemberOp::Left };
            // SAFETY: the caller's promise.
            Change::Member { op, member: unsafe { row.user.needed("row.user")? }.into() }
        }
        _ => return Err(bad_argument("row", "it is neither a message nor a membership that changed")),
    };
    Ok(ChangeRow { seq: Seq(row.seq), change })
}

/// What a consumer wants to know of an outcome; the texts of the message are not among it.
fn outcome(given: &digi_outcome) -> Result<Outcome, Failure> {
    if given.code != DIGI_OK {
        let code = code_of(given.code);
        return code.map(Outcome::Refused).ok_or_else(|| bad_argument("outcome.code", "it is no DIGI_ERR_… number"));
    }
    let at = Cursor::new(Epoch(given.epoch), Seq(given.seq));
    let nobody = || UserKey::from("");
    Ok(match given.change {
        DIGI_CHANGE_ADD | DIGI_CHANGE_EDIT | DIGI_CHANGE_DELETE => {
            let op = match given.change {
                DIGI_CHANGE_ADD => MessageOp::Added,
                DIGI_CHANGE_EDIT => MessageOp::Edited,
                _ => MessageOp::Deleted,
            };
            let message = Message {
                id: MessageId(given.message_id),
                room: RoomId(0),
                pos: Seq(given.pos),
                sender: nobody(),
                sender_name: "".into(),
                body: None,
                client_id: None,
                created_at: Millis(0),
                edited_at: None,
                deleted_at: None,
            };
            Outcome::Message { op, at, message }
        }
        DIGI_CHANGE_JOIN => Outcome::Member { op: MemberOp::Joined, at, member: nobody() },
        DIGI_CHANGE_LEAVE => Outcome::Member { op: MemberOp::Left, at, member: nobody() },
        DIGI_CHANGE_DUPLICATE => Outcome::Duplicate { message: MessageId(given.message_id), pos: Seq(given.pos) },
        DIGI_CHANGE_NONE => Outcome::Unchanged,
        _ => return Err(bad_argument("outcome.change", "it is none of the DIGI_CHANGE_… numbers")),
    })
}

impl digi_output {
    /// To be used while the output lives, wherever it is moved: what it points to is on the heap.
    fn of(output: &Output) -> Self {
        let nothing = digi_command {
            size: size_of::<digi_command>(),
            change: DIGI_CHANGE_NONE,
            as_host: false,
            room: 0,
            user: digi_text::NONE,
            user_name: digi_text::NONE,
            text: digi_text::NONE,
            client_id: digi_text::NONE,
            message_id: 0,
            role: 0,
        };
        let new = |kind| Self {
            kind,
            code: DIGI_OK,
            ticket: 0,
            room: 0,
            epoch: 0,
            seq: 0,
            after: 0,
            before: 0,
            limit: 0,
            role: 0,
            command: nothing,
            frame: digi_text::NONE,
        };
        let text = |frame: &Frame| digi_text::of(frame.as_str());
        match output {
            Output::AskMember { ticket, room } => {
                Self { ticket: ticket.0, room: room.0, ..new(DIGI_OUTPUT_ASK_MEMBER) }
            }
            Output::Join { ticket, room, answer } => Self {
                ticket: ticket.0,
                room: room.0,
                epoch: answer.head.epoch.0,
                seq: answer.head.last_seq.0,
                role: answer.membership.as_ref().map_or(DIGI_ROLE_NONE, |member| role_number(member.role)),
                ..new(DIGI_OUTPUT_JOIN)
            },
            Output::Accept => new(DIGI_OUTPUT_ACCEPT),
            Output::Submit { ticket, command } => Self {
                ticket: ticket.0,
                room: command.room.0,
                command: digi_command::of(command),
                ..new(DIGI_OUTPUT_SUBMIT)
            },
            Output::LoadChanges { ticket, room, after, limit } => {
                Self { ticket: ticket.0, room: room.0, after: after.0, limit: *limit, ..new(DIGI_OUTPUT_LOAD_CHANGES) }
            }
            Output::LoadHistory { ticket, room, before, limit } => Self {
                ticket: ticket.0,
                room: room.0,
                before: before.map_or(0, |before| before.0),
                limit: (*limit).into(),
                ..new(DIGI_OUTPUT_LOAD_HISTORY)
            },
            Output::Send(frame) => Self { frame: text(frame), ..new(DIGI_OUTPUT_SEND) },
            Output::GoLive { room, at } => {
                Self { room: room.0, epoch: at.epoch.0, seq: at.seq.0, ..new(DIGI_OUTPUT_GO_LIVE) }
            }
            Output::Signal(Signal::Room { room, frame, .. }) => {
                Self { room: room.0, frame: text(frame), ..new(DIGI_OUTPUT_SIGNAL) }
            }
            // A consumer makes none of the others.
            Output::Signal(_) => new(DIGI_OUTPUT_SIGNAL),
            Output::Listen { room } => Self { room: room.0, ..new(DIGI_OUTPUT_LISTEN) },
            Output::Leave { room } => Self { room: room.0, ..new(DIGI_OUTPUT_LEAVE) },
            Output::Close(code) => Self { code: close_number(*code), ..new(DIGI_OUTPUT_CLOSE) },
        }
    }
}

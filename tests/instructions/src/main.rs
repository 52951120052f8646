//! The pure paths that every message takes, as often as is asked: `digi-instructions PATH COUNT`. Without arguments it
//! names the paths. `tests/test_instructions.py` counts their instructions.

use std::cell::Cell;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;

use digi_core::consumer::{Consumer, ConsumerLimits, Output, Rate, Rules, Scope, Ticket};
use digi_core::event::{Event, EventKind};
use digi_core::frame::{ClientFrame, Encoder, Frame, Run};
use digi_core::room::{JoinAnswer, Room, RoomLimits, SessionId};
use digi_core::store::model::{Action, Head, MemberAnswer, Membership, Message, MessageOp, Outcome, Role};
use digi_core::token::{Keyring, Kind};
use digi_core::{Cursor, Epoch, MessageId, Millis, RoomId, Seq};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Path = fn(u64) -> Result<()>;

const PATHS: [(&str, Path); 6] = [
    ("token_seal", token_seal),
    ("token_open", token_open),
    ("frame_parse", frame_parse),
    ("frame_encode", frame_encode),
    ("consumer_add", consumer_add),
    ("room_deliver_100", room_deliver),
];

const ROOM: RoomId = RoomId(4_711);
const EPOCH: Epoch = Epoch(1);
const NOW: Millis = Millis(1_724_566_366_007);
const ADD: &str =
    r#"{"type":"add","message":"See you at seven in front of the station","client_id":"0b6c2d1e-7f3a-4d55"}"#;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(name), Some(count)) = (args.next(), args.next()) else {
        PATHS.iter().for_each(|(name, _)| println!("{name}"));
        return Ok(());
    };
    let (_, path) = PATHS.iter().find(|(path, _)| *path == name).ok_or("there is no such path")?;
    path(count.parse()?)
}

fn keys() -> Result<Keyring> {
    Ok(Keyring::new("a secret for counting, long enough for it")?)
}

fn token_seal(count: u64) -> Result<()> {
    let (keys, mut out) = (keys()?, String::new());
    for _ in 0..count {
        out.clear();
        keys.seal_into(black_box(Kind::Message), black_box(4_294_967_297), &mut out);
    }
    Ok(())
}

fn token_open(count: u64) -> Result<()> {
    let keys = keys()?;
    let token = keys.seal(Kind::Message, 4_294_967_297);
    for _ in 0..count {
        black_box(keys.open(black_box(Kind::Message), black_box(&token)))?;
    }
    Ok(())
}

fn frame_parse(count: u64) -> Result<()> {
    for _ in 0..count {
        black_box(ClientFrame::parse(black_box(ADD)).is_ok());
    }
    Ok(())
}

/// A message as a store gives it.
fn message(pos: u64, body: Arc<str>) -> Result<Message> {
    Ok(Message {
        id: MessageId::own(ROOM, Seq(pos)).ok_or("no such id")?,
        room: ROOM,
        pos: Seq(pos),
        sender: "17".into(),
        sender_name: "Ana".into(),
        body: Some(body),
        client_id: None,
        created_at: NOW,
        edited_at: None,
        deleted_at: None,
    })
}

fn frame_encode(count: u64) -> Result<()> {
    let (encoder, message) = (Encoder::new(keys()?), message(9, "See you at seven in front of the station".into())?);
    for _ in 0..count {
        black_box(encoder.change(MessageOp::Added, black_box(Seq(9)), black_box(&message)));
    }
    Ok(())
}

/// A connection that is in its room.
fn consumer() -> Result<Consumer> {
    let keys = keys()?;
    let token = keys.seal(Kind::Room, ROOM.get());
    let unlimited = ConsumerLimits { frames: Rate { per_second: 0, burst: 0 }, ..ConsumerLimits::default() };
    let rules = Rules { limits: unlimited, ..Rules::new(Encoder::new(keys)) };
    let (user, user_name) = ("17".into(), "Ana".into());
    let scope = Scope { token, user, user_name, after: None, origin: None, remote: None, login: None };
    let mut consumer = Consumer::new(Arc::new(rules), scope);
    consumer.handle_connect();
    let head = Head { epoch: EPOCH, last_seq: Seq(0) };
    while let Some(output) = consumer.poll_output() {
        match output {
            Output::AskMember { ticket, .. } => {
                let membership = Some(Membership { role: Role::Member });
                consumer.handle_member(ticket, Ok(MemberAnswer { membership, head }));
            }
            Output::Join { ticket, .. } => consumer.handle_joined(ticket, JoinAnswer::Joined(head.cursor())),
            _ => {}
        }
    }
    Ok(consumer)
}

fn submitted(consumer: &mut Consumer) -> Result<(Ticket, Arc<str>)> {
    loop {
        match consumer.poll_output() {
            // With its first `client_id` it shows that it is no classic page.
            Some(Output::Listen { .. }) => {}
            Some(Output::Submit { ticket, command }) => match command.action {
                Action::Add { body, .. } => return Ok((ticket, body)),
                other => return Err(format!("no add, but {other:?}").into()),
            },
            other => return Err(format!("no command, but {other:?}").into()),
        }
    }
}

/// From the frame to the command, and from its outcome to the `ack`.
fn consumer_add(count: u64) -> Result<()> {
    let mut consumer = consumer()?;
    for pos in 1..=count {
        consumer.handle_frame(black_box(ADD), NOW);
        let (ticket, body) = submitted(&mut consumer)?;
        let at = Cursor::new(EPOCH, Seq(pos));
        consumer.handle_outcome(ticket, &Outcome::Message { op: MessageOp::Added, at, message: message(pos, body)? });
        let Some(Output::Send(_)) = consumer.poll_output() else { return Err("no ack".into()) };
    }
    Ok(())
}

/// One change, in order, to a hundred members.
fn room_deliver(count: u64) -> Result<()> {
    let head = Head { epoch: EPOCH, last_seq: Seq(0) };
    let mut room: Room<Cell<usize>> = Room::new(ROOM, head, RoomLimits::default());
    let mut take = |outbox: &Cell<usize>, run: &Run| {
        outbox.set(outbox.get() + run.bytes());
        true
    };
    for number in 0..100 {
        let (session, user) = (SessionId(number), format!("user {number}").into());
        room.join(session, user, Membership { role: Role::Member }, head, Cell::default(), NOW);
        room.go_live(session, head.cursor(), NOW, &mut take);
    }
    let frame = Frame::from_text("x".repeat(250));
    for seq in 1..=count {
        let pos = Seq(seq);
        let kind = EventKind::Message {
            op: MessageOp::Added,
            message: MessageId::own(ROOM, pos).ok_or("no such id")?,
            pos,
            sender: "17".into(),
            client_id: None,
            frame: frame.clone(),
        };
        room.handle_event(black_box(Event { room: ROOM, at: Cursor::new(EPOCH, pos), kind }), NOW, &mut take);
    }
    if room.shown().seq == Seq(count) { Ok(()) } else { Err("not everything was shown".into()) }
}

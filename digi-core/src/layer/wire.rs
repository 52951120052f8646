//! How envelopes travel between Digi's own nodes.
//!
//! A payload is a version byte, the sending node's number as a varint, and then items, one after the other to the end,
//! each as postcard writes it (<https://postcard.jamesmunns.com/wire-format>). All items of a payload belong to one
//! group. A node that meets a version or an item that it does not know drops the payload and reads the log, so a fleet
//! may be renewed one process at a time.

use bytes::Bytes;
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::event::{Envelope, Event, EventKind, Group, Signal};
use crate::frame::Frame;
use crate::id::{ClientId, Cursor, Epoch, MessageId, RoomId, Seq, UserKey};
use crate::store::model::{MemberOp, MessageOp};

/// The first byte of every payload.
const VERSION: u8 = 1;

/// A payload that has reached so many bytes is closed and another one begun.
const ENOUGH: usize = 64 * 1024;

/// New kinds go to the end: their place is their number.
#[derive(Serialize, Deserialize)]
enum Item<'a> {
    Message {
        op: Op,
        room: i64,
        epoch: u64,
        seq: u64,
        message: i64,
        pos: u64,
        sender: &'a str,
        client_id: Option<&'a str>,
        frame: &'a str,
    },
    Member {
        joined: bool,
        room: i64,
        epoch: u64,
        seq: u64,
        member: &'a str,
    },
    Room {
        room: i64,
        from: &'a str,
        frame: &'a str,
    },
    Kick {
        user: &'a str,
    },
    Missed {
        room: Option<i64>,
    },
    Presence {
        room: i64,
        node: u64,
        asks: bool,
        users: Vec<(&'a str, &'a str)>,
    },
    EndLogin {
        user: &'a str,
        login: &'a str,
    },
}

#[derive(Serialize, Deserialize)]
enum Op {
    Added,
    Edited,
    Deleted,
}

/// A payload that this version of Digi cannot read.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("it is of version {0}, and this node reads version {VERSION}")]
    Version(u8),
    #[error("it is damaged or of another kind")]
    Damaged,
}

/// The payloads that carry the envelopes, with the group of each; the envelopes of a group keep their order.
pub(super) fn encode(node: u64, envelopes: &[Envelope]) -> Vec<(Group, Vec<u8>)> {
    let mut done = Vec::new();
    let mut open: IndexMap<Group, Vec<u8>> = IndexMap::new();
    for envelope in envelopes {
        let group = envelope.group();
        let payload = open.entry(group).or_insert_with(|| begin(node));
        append(payload, &item_of(envelope));
        if payload.len() >= ENOUGH {
            done.extend(open.shift_remove_entry(&group));
        }
    }
    done.extend(open);
    done
}

fn begin(node: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(256);
    payload.push(VERSION);
    append(&mut payload, &node);
    payload
}

fn append(payload: &mut Vec<u8>, value: &impl Serialize) {
    // Writing plain values into memory cannot fail. If it did, the readers would find the payload damaged.
    let _ = postcard::to_io(value, payload);
}

fn item_of(envelope: &Envelope) -> Item<'_> {
    match envelope {
        Envelope::Event(Event { room, at, kind }) => {
            let (room, epoch, seq) = (room.0, at.epoch.0, at.seq.0);
            match kind {
                EventKind::Message { op, message, pos, sender, client_id, frame } => Item::Message {
                    op: match op {
                        MessageOp::Added => Op::Added,
                        MessageOp::Edited => Op::Edited,
                        MessageOp::Deleted => Op::Deleted,
                    },
                    room,
                    epoch,
                    seq,
                    message: message.0,
                    pos: pos.0,
                    sender: sender.as_str(),
                    client_id: client_id.as_ref().map(ClientId::as_str),
                    frame: frame.as_str(),
                },
                EventKind::Member { op, member } => {
                    Item::Member { joined: *op == MemberOp::Joined, room, epoch, seq, member: member.as_str() }
                }
            }
        }
        Envelope::Signal(Signal::Room { room, from, frame }) => {
            Item::Room { room: room.0, from: from.as_str(), frame: frame.as_str() }
        }
        Envelope::Signal(Signal::Presence { room, node, users, asks }) => Item::Presence {
            room: room.0,
            node: *node,
            asks: *asks,
            users: users.iter().map(|(user, name)| (user.as_str(), &**name)).collect(),
        },
        Envelope::Signal(Signal::Kick { user, login: None }) => Item::Kick { user: user.as_str() },
        Envelope::Signal(Signal::Kick { user, login: Some(login) }) => Item::EndLogin { user: user.as_str(), login },
        Envelope::Signal(Signal::Missed { room }) => Item::Missed { room: room.map(|room| room.0) },
    }
}

/// What another node sent; nothing when it was this one, whose number is `own`.
///
/// # Errors
/// The payload cannot be read, in part or as a whole.
pub(super) fn decode(own: u64, payload: &Bytes) -> Result<Vec<Envelope>, Unreadable> {
    let (version, rest) = payload.split_first().ok_or(Unreadable::Damaged)?;
    if *version != VERSION {
        return Err(Unreadable::Version(*version));
    }
    let (node, mut rest) = take::<u64>(rest)?;
    let mut envelopes = Vec::new();
    if node == own {
        return Ok(envelopes);
    }
    while !rest.is_empty() {
        let (item, after) = take::<Item<'_>>(rest)?;
        envelopes.push(envelope_of(item, payload).ok_or(Unreadable::Damaged)?);
        rest = after;
    }
    Ok(envelopes)
}

fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<(T, &'a [u8]), Unreadable> {
    postcard::take_from_bytes(bytes).map_err(|_| Unreadable::Damaged)
}

/// The envelope, its frame a part of `payload`.
fn envelope_of(item: Item<'_>, payload: &Bytes) -> Option<Envelope> {
    let frame_of = |text: &str| Frame::part_of(payload, text);
    let event = |room, epoch, seq, kind| {
        Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(epoch), Seq(seq)), kind })
    };
    Some(match item {
        Item::Message { op, room, epoch, seq, message, pos, sender, client_id, frame } => {
            let client_id = match client_id {
                Some(text) => Some(ClientId::new(text)?),
                None => None,
            };
            let op = match op {
                Op::Added => MessageOp::Added,
                Op::Edited => MessageOp::Edited,
                Op::Deleted => MessageOp::Deleted,
            };
            let (message, pos, sender) = (MessageId(message), Seq(pos), UserKey::from(sender));
            let frame = frame_of(frame);
            event(room, epoch, seq, EventKind::Message { op, message, pos, sender, client_id, frame })
        }
        Item::Member { joined, room, epoch, seq, member } => {
            let op = if joined { MemberOp::Joined } else { MemberOp::Left };
            event(room, epoch, seq, EventKind::Member { op, member: UserKey::from(member) })
        }
        Item::Room { room, from, frame } => {
            Envelope::Signal(Signal::Room { room: RoomId(room), from: from.into(), frame: frame_of(frame) })
        }
        Item::Kick { user } => Envelope::Signal(Signal::Kick { user: user.into(), login: None }),
        Item::EndLogin { user, login } => {
            Envelope::Signal(Signal::Kick { user: user.into(), login: Some(login.into()) })
        }
        Item::Presence { room, node, asks, users } => Envelope::Signal(Signal::Presence {
            room: RoomId(room),
            node,
            asks,
            users: users.into_iter().map(|(user, name)| (user.into(), name.into())).collect(),
        }),
        Item::Missed { room } => Envelope::Signal(Signal::Missed { room: room.map(RoomId) }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn added(room: i64, seq: u64, text: &str) -> Envelope {
        let kind = EventKind::Message {
            op: MessageOp::Added,
            message: MessageId(room << 32 | 7),
            pos: Seq(seq),
            sender: "7".into(),
            client_id: ClientId::new("c-1"),
            frame: Frame::from_text(text.into()),
        };
        Envelope::Event(Event { room: RoomId(room), at: Cursor::new(Epoch(1_700_000_000_000), Seq(seq)), kind })
    }

    fn all_of(payloads: Vec<(Group, Vec<u8>)>) -> Vec<Envelope> {
        payloads.into_iter().flat_map(|(_, payload)| decode(2, &payload.into()).unwrap()).collect()
    }

    #[test]
    fn everything_comes_out_as_it_went_in() {
        let at = Cursor::new(Epoch(u64::MAX), Seq(u64::MAX));
        let member =
            |op| Event { room: RoomId(i64::MIN), at, kind: EventKind::Member { op, member: "ключ".into() } };
        let mut edited = added(1, 2, "{}");
        let mut deleted = edited.clone();
        for (envelope, new) in [(&mut edited, MessageOp::Edited), (&mut deleted, MessageOp::Deleted)] {
            let Envelope::Event(Event { kind: EventKind::Message { op, client_id, .. }, .. }) = envelope else {
                unreachable!()
            };
            (*op, *client_id) = (new, None);
        }
        let signal = Signal::Room { room: RoomId(1), from: "8".into(), frame: Frame::from_text("{\"👋\":1}".into()) };
        for envelope in [
            added(1, 1, "{\"message\":\"👋\"}"),
            edited,
            deleted,
            Envelope::Event(member(MemberOp::Joined)),
            Envelope::Event(member(MemberOp::Left)),
            Envelope::Signal(signal),
            Envelope::Signal(Signal::Kick { user: "8".into(), login: None }),
            Envelope::Signal(Signal::Kick { user: "8".into(), login: Some("ключ".into()) }),
            Envelope::Signal(Signal::Presence {
                room: RoomId(1),
                node: u64::MAX,
                users: vec![("8".into(), "Bob".into()), ("ключ".into(), "".into())],
                asks: true,
            }),
            Envelope::Signal(Signal::Missed { room: Some(RoomId(-1)) }),
            Envelope::Signal(Signal::Missed { room: None }),
        ] {
            let payloads = encode(1, std::slice::from_ref(&envelope));
            assert_eq!(payloads[0].0, envelope.group());
            assert_eq!(all_of(payloads), [envelope]);
        }
    }

    #[test]
    fn a_group_has_one_payload_until_that_is_large() {
        let small = [added(1, 1, "{}"), added(2, 1, "{}"), added(1, 2, "{}"), added(1, 3, "{}")];
        let payloads = encode(1, &small);
        assert_eq!(
            payloads.iter().map(|(group, _)| *group).collect::<Vec<_>>(),
            [1, 2].map(|id| Group::Room(RoomId(id)))
        );
        assert_eq!(
            decode(2, &payloads[0].1.clone().into()),
            Ok(vec![small[0].clone(), small[2].clone(), small[3].clone()])
        );

        let text = "x".repeat(ENOUGH / 3);
        let large: Vec<_> = (1..=10).map(|seq| added(1, seq, &text)).collect();
        let payloads = encode(1, &large);
        assert!(payloads.len() >= 3 && payloads.iter().all(|(_, payload)| payload.len() < 2 * ENOUGH));
        assert_eq!(all_of(payloads), large);
    }

    #[test]
    fn a_small_event_costs_few_bytes_beside_its_frame() {
        let frame = "x".repeat(100);
        let events: Vec<_> = (1..=100).map(|seq| added(1, seq, &frame)).collect();
        let payloads = encode(u64::MAX, &events);
        assert!(payloads[0].1.len() < 100 * (100 + 32), "{} bytes", payloads[0].1.len());
    }

    #[test]
    fn ones_own_is_nothing() {
        let payloads = encode(2, &[added(1, 1, "{}")]);
        assert_eq!(decode(2, &payloads[0].1.clone().into()), Ok(vec![]));
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        let good = encode(1, &[added(1, 1, "{}")]).remove(0).1;
        let mut newer = good.clone();
        newer[0] = 2;
        assert_eq!(decode(2, &newer.into()), Err(Unreadable::Version(2)));
        for end in [0, 1, 3, good.len() - 1] {
            assert_eq!(decode(2, &good[..end].to_vec().into()), Err(Unreadable::Damaged), "cut at {end}");
        }
        let unknown_kind = [&good[..2], &[99]].concat();
        assert_eq!(decode(2, &unknown_kind.into()), Err(Unreadable::Damaged));
        let no_text = [&good[..good.len() - 1], &[0xff]].concat();
        assert_eq!(decode(2, &no_text.into()), Err(Unreadable::Damaged));
    }

    proptest! {
        #[test]
        fn nothing_that_comes_in_does_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = decode(1, &bytes.into());
        }

        #[test]
        fn nor_does_a_byte_that_fell_over(at in 0_usize..200, bit in 0_u8..8) {
            let mut payload = encode(1, &[added(1, 1, "{\"message\":\"hello\"}"), added(1, 2, "{}")]).remove(0).1;
            let at = at % payload.len();
            payload[at] ^= 1 << bit;
            let _ = decode(2, &payload.into());
        }
    }
}

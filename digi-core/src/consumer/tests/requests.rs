//! What an open connection asks for.

use super::*;

fn outcome(driven: &mut Driven, ticket: Ticket, outcome: &Outcome) -> Vec<String> {
    driven.consumer.handle_outcome(ticket, outcome);
    driven.said()
}

fn done(op: MessageOp, seq: u64, pos: u64) -> Outcome {
    Outcome::Message { op, at: at(seq), message: message(pos, Some("text")) }
}

#[test]
fn a_command_names_the_user_of_the_scope() {
    let mut driven = Driven::open(rules());
    assert_eq!(driven.frame(r#"{"message":" hi ","user":"mallory","client_id":"c1"}"#), ["submit"]);
    let command = driven.command.take().unwrap();
    assert_eq!((command.room, command.user.as_str(), &*command.user_name), (ROOM, "7", "alice"));
    assert_eq!(command.authority, Authority::Member);
    assert_eq!(command.action, Action::Add { body: " hi ".into(), client_id: ClientId::new("c1") });
    assert_eq!(driven.consumer.ignored_claims(), 1);
    let token = driven.token(3);
    assert_eq!(driven.frame(&format!(r#"{{"type":"edit","message_id":"{token}","message":"b"}}"#)), ["submit"]);
    let id = message(3, None).id;
    assert_eq!(driven.command.take().unwrap().action, Action::Edit { message: id, body: "b".into() });
    assert_eq!(driven.frame(&format!(r#"{{"action":"delete","message_id":"{token}"}}"#)), ["submit"]);
    assert_eq!(driven.command.take().unwrap().action, Action::Delete { message: id });
}

#[test]
fn the_sender_of_a_client_id_hears_what_became_of_it() {
    let cases = [
        (done(MessageOp::Added, 6, 6), "ack c1 6/6"),
        (done(MessageOp::Edited, 8, 3), "ack c1 8/3"),
        (done(MessageOp::Deleted, 9, 3), "ack c1 9/3"),
        (Outcome::Duplicate { message: MessageId(3), pos: Seq(3) }, "ack c1 3/3"),
        (Outcome::Refused(Code::NotAMember), "error not_a_member c1"),
        (Outcome::Refused(Code::StoreUnavailable), "error store_unavailable c1"),
    ];
    for (what, said) in cases {
        let mut driven = Driven::open(rules());
        driven.frame(r#"{"message":"hi","client_id":"c1"}"#);
        let ticket = driven.ticket;
        assert!(outcome(&mut driven, Ticket(ticket.0 + 1), &what).is_empty(), "nobody asked that");
        assert_eq!(outcome(&mut driven, ticket, &what), [said]);
        assert!(outcome(&mut driven, ticket, &what).is_empty(), "one answer");
    }
}

#[test]
fn without_a_client_id_only_errors_come_back() {
    let mut driven = Driven::open(rules());
    for what in [done(MessageOp::Added, 6, 6), Outcome::Duplicate { message: MessageId(3), pos: Seq(3) }] {
        driven.frame(r#"{"message":"hi"}"#);
        let ticket = driven.ticket;
        assert!(outcome(&mut driven, ticket, &what).is_empty());
    }
    driven.frame(r#"{"message":"hi"}"#);
    let ticket = driven.ticket;
    assert_eq!(outcome(&mut driven, ticket, &Outcome::Refused(Code::NotSender)), ["error not_sender"]);
}

#[test]
fn bodies_are_checked() {
    let mut rules = rules();
    rules.limits.body_bytes = 4;
    let mut driven = Driven::open(rules);
    let token = driven.token(3);
    for (body, code) in
        [("", "empty_body"), (" \\n\\u00a0", "empty_body"), ("a\\u0000", "bad_body"), ("üüx", "body_too_long")]
    {
        let said = driven.frame(&format!(r#"{{"message":"{body}","client_id":"c1"}}"#));
        assert_eq!(said, [format!("error {code} c1")], "{body}");
        let said = driven.frame(&format!(r#"{{"type":"edit","message_id":"{token}","message":"{body}"}}"#));
        assert_eq!(said, [format!("error {code}")], "{body}");
    }
    assert_eq!(driven.frame(r#"{"message":"üü"}"#), ["submit"], "exactly as long as it may be");
}

#[test]
fn bad_frames_are_answered_and_the_connection_stays() {
    let mut rules = rules();
    rules.limits.frame_bytes = 200;
    let mut driven = Driven::open(rules);
    let room_token = driven.rules.encoder.keyring().seal(Kind::Room, ROOM.get());
    let other_room = driven.rules.encoder.keyring().seal(Kind::Room, 2);
    let cases = [
        ("{".to_owned(), "error bad_json"),
        (r#"{"message":5,"client_id":"c1"}"#.to_owned(), "error bad_frame c1"),
        (r#"{"type":"shout"}"#.to_owned(), "error unknown_type"),
        (format!(r#"{{"message":"{}"}}"#, "x".repeat(200)), "error frame_too_large"),
        (r#"{"type":"delete","message_id":"nonsense","client_id":"c1"}"#.to_owned(), "error bad_token c1"),
        (format!(r#"{{"type":"delete","message_id":"{room_token}"}}"#), "error bad_token"),
        (r#"{"message":"hi","room":"nonsense"}"#.to_owned(), "error bad_token"),
        (format!(r#"{{"message":"hi","room":"{other_room}","client_id":"c1"}}"#), "error not_joined c1"),
        (r#"{"type":"read","seq":3}"#.to_owned(), "error unsupported"),
    ];
    for (text, said) in cases {
        assert_eq!(driven.frame(&text), [said], "{text}");
    }
    driven.consumer.handle_unreadable(Code::NotText, Millis(1_000));
    assert_eq!(driven.said(), ["error not_text"]);
    assert_eq!(driven.frame(&format!(r#"{{"message":"hi","room":"{room_token}"}}"#)), ["submit"]);
}

#[test]
fn a_strict_server_refuses_false_claims() {
    let mut strict = rules();
    strict.strict = true;
    let mut driven = Driven::open(strict);
    assert_eq!(driven.frame(r#"{"message":"hi","user":"mallory","client_id":"c1"}"#), ["error user_mismatch c1"]);
    for own in [r#""alice""#, r#""7""#, "7", "null"] {
        assert_eq!(driven.frame(&format!(r#"{{"message":"hi","user":{own}}}"#)), ["submit"], "{own}");
    }
    assert_eq!(driven.consumer.ignored_claims(), 0);
}

#[test]
fn the_policy_allows_replaces_and_refuses() {
    let policy = |command: &Command, membership: &Membership| {
        assert_eq!(membership.role, Role::Member);
        match &command.action {
            Action::Add { body, .. } | Action::Edit { body, .. } => match &**body {
                "shout" => Verdict::Replace("SHOUT".into()),
                "nothing" => Verdict::Replace(" ".into()),
                "nul" => Verdict::Replace("\0".into()),
                "spam" => Verdict::Refuse(Code::Refused.with("No spam.")),
                _ => Verdict::Allow,
            },
            _ => Verdict::Replace("means nothing".into()),
        }
    };
    let mut rules = rules();
    rules.policy = Some(Arc::new(policy));
    let mut driven = Driven::open(rules);
    let token = driven.token(3);
    let add = |driven: &mut Driven, body| driven.frame(&format!(r#"{{"message":"{body}","client_id":"c1"}}"#));
    assert_eq!(add(&mut driven, "hi"), ["submit"]);
    assert_eq!(add(&mut driven, "shout"), ["submit"]);
    let replaced = Action::Add { body: "SHOUT".into(), client_id: ClientId::new("c1") };
    assert_eq!(driven.command.take().unwrap().action, replaced);
    assert_eq!(add(&mut driven, "nothing"), ["error empty_body c1"]);
    assert_eq!(add(&mut driven, "nul"), ["error bad_body c1"]);
    assert_eq!(add(&mut driven, "spam"), ["error refused c1"]);
    assert_eq!(driven.frame(&format!(r#"{{"type":"edit","message_id":"{token}","message":"shout"}}"#)), ["submit"]);
    let id = message(3, None).id;
    assert_eq!(driven.command.take().unwrap().action, Action::Edit { message: id, body: "SHOUT".into() });
    assert_eq!(driven.frame(&format!(r#"{{"type":"delete","message_id":"{token}"}}"#)), ["submit"]);
    assert_eq!(driven.command.take().unwrap().action, Action::Delete { message: id });
}

#[test]
fn history_comes_in_pages() {
    let mut driven = Driven::open(rules());
    assert_eq!(driven.frame(r#"{"type":"history","client_id":"h1"}"#), ["newest 51"]);
    assert_eq!(driven.history(page(60, 51)), ["history of 50 9.60 h1 more"]);
    assert_eq!(driven.frame(r#"{"type":"history","before":11,"limit":5}"#), ["6 before 11"]);
    assert_eq!(driven.history(page(10, 5)), ["history of 5 9.10"], "no more");
    assert_eq!(driven.frame(r#"{"type":"history","limit":0}"#), ["newest 2"]);
    assert_eq!(driven.frame(r#"{"type":"history","limit":4294967295,"before":0}"#), ["201 before 0"]);
    driven.consumer.handle_history(driven.ticket, Err(Code::StoreUnavailable));
    assert_eq!(driven.said(), ["error store_unavailable"]);
    assert!(driven.consumer.is_open());
}

#[test]
fn a_history_of_another_epoch_is_not_shown() {
    let mut driven = Driven::open(rules());
    driven.frame(r#"{"type":"history","before":4,"limit":5,"client_id":"h1"}"#);
    let of = |epoch| History { head: Head { epoch: Epoch(epoch), last_seq: Seq(5) }, ..page(3, 3) };
    assert_eq!(driven.history(of(EPOCH - 1)), ["6 before 4"], "an older one is asked for again");
    assert_eq!(driven.history(of(EPOCH)), ["history of 3 9.5 h1"]);
    driven.frame(r#"{"type":"history"}"#);
    assert!(driven.history(of(EPOCH + 1)).is_empty(), "a reset is on its way");
}

#[test]
fn answers_may_come_in_any_order() {
    let mut driven = Driven::open(rules());
    driven.frame(r#"{"message":"a","client_id":"c1"}"#);
    let first = driven.ticket;
    driven.frame(r#"{"type":"history","client_id":"h1"}"#);
    let history = driven.ticket;
    driven.frame(r#"{"message":"b","client_id":"c2"}"#);
    let last = driven.ticket;
    assert_eq!(outcome(&mut driven, last, &done(MessageOp::Added, 7, 7)), ["ack c2 7/7"]);
    driven.consumer.handle_history(history, Ok(page(5, 5)));
    assert_eq!(driven.said(), ["history of 5 9.5 h1"]);
    assert_eq!(outcome(&mut driven, first, &done(MessageOp::Added, 6, 6)), ["ack c1 6/6"]);
}

#[test]
fn so_much_may_wait_and_no_more() {
    let mut rules = rules();
    rules.limits.in_flight = 2;
    let mut driven = Driven::open(rules);
    assert_eq!(driven.frame(r#"{"message":"a","client_id":"c1"}"#), ["submit"]);
    let first = driven.ticket;
    assert_eq!(driven.frame(r#"{"type":"history"}"#), ["newest 51"]);
    assert_eq!(driven.frame(r#"{"message":"b","client_id":"c2"}"#), ["error busy c2"]);
    assert_eq!(driven.frame(r#"{"type":"history","client_id":"h"}"#), ["error busy h"]);
    outcome(&mut driven, first, &done(MessageOp::Added, 6, 6));
    assert_eq!(driven.frame(r#"{"message":"b","client_id":"c2"}"#), ["submit"]);
}

#[test]
fn too_many_frames_are_refused_and_then_the_connection_closes() {
    let mut rules = rules();
    rules.limits.frames = Rate { per_second: 10, burst: 2 };
    rules.limits.refusals = Rate { per_second: 1, burst: 3 };
    let mut driven = Driven::open(rules);
    let send = |driven: &mut Driven, now| driven.frame_at(r#"{"message":"a","client_id":"c1"}"#, now);
    for _ in 0..2 {
        assert_eq!(send(&mut driven, 1_000), ["submit"]);
    }
    for _ in 0..3 {
        assert_eq!(send(&mut driven, 1_000), ["error rate_limited c1"]);
    }
    assert_eq!(send(&mut driven, 1_100), ["submit"], "after a pause it goes on");
    assert_eq!(send(&mut driven, 1_100), ["error rate_limited c1", "leave", "close 4506"]);
    assert!(send(&mut driven, 9_000).is_empty());
}

#[test]
fn whatever_is_refused_counts_as_abuse_in_the_end() {
    let mut rules = rules();
    rules.limits.refusals = Rate { per_second: 1, burst: 2 };
    for kind in 0..4 {
        let mut driven = Driven::open(rules.clone());
        let mut offend = || match kind {
            0 => driven.frame("{"),
            1 => driven.frame(r#"{"message":""}"#),
            2 => driven.frame(r#"{"type":"read","seq":1}"#),
            _ => {
                driven.consumer.handle_unreadable(Code::NotText, Millis(1_000));
                driven.said()
            }
        };
        assert_eq!((offend().len(), offend().len()), (1, 1));
        assert_eq!(offend().last().unwrap(), "close 4506");
    }
}

#[test]
fn no_binary_frame_is_dropped_in_silence() {
    let mut rules = rules();
    rules.limits.frames = Rate { per_second: 1, burst: 1 };
    let mut driven = Driven::open(rules);
    driven.frame(r#"{"message":"a"}"#);
    driven.consumer.handle_unreadable(Code::NotText, Millis(1_000));
    assert_eq!(driven.said(), ["error not_text"]);
}

#[test]
fn typing_is_told_once_in_a_while() {
    let mut rules = rules();
    rules.limits.typing = Rate { per_second: 1, burst: 1 };
    let mut driven = Driven::open(rules);
    let mut typed = |at| {
        driven.consumer.handle_frame(r#"{"type":"typing"}"#, Millis(at));
        let outputs = std::iter::from_fn(|| driven.consumer.poll_output());
        outputs.filter(|output| !matches!(output, Output::Listen { .. })).collect::<Vec<_>>()
    };
    let frame = Frame::from_text(r#"{"type":"typing","user":"alice"}"#.into());
    let signal = Output::Signal(crate::event::Signal::Room { room: ROOM, from: "7".into(), frame });
    assert_eq!(typed(10_000), std::slice::from_ref(&signal));
    assert_eq!(typed(10_999), [], "and nothing is said of it");
    assert_eq!(typed(11_000), [signal]);
}

#[test]
fn only_who_knows_more_than_the_classic_frames_listens() {
    let classic = [r#"{"message":"hi","user":"alice"}"#, r#"{"type":"delete","message_id":"x"}"#, "{"];
    let mut driven = Driven::open(rules());
    classic.iter().for_each(|text| _ = driven.frame(text));
    assert_eq!(driven.listens, 0);
    for text in [
        r#"{"message":"hi","client_id":"c1"}"#,
        r#"{"type":"history"}"#,
        r#"{"type":"resume","after":"9.5"}"#,
        r#"{"type":"typing"}"#,
    ] {
        let mut driven = Driven::open(rules());
        driven.frame(text);
        driven.frame(text);
        assert_eq!(driven.listens, 1, "{text}");
    }
    let mut driven = Driven::new(rules(), Some("9.5"));
    driven.consumer.handle_connect();
    driven.said();
    driven.member(5);
    driven.joined(5);
    assert_eq!(driven.listens, 1, "it came with a cursor");
}

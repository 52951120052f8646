//! Ways into a room, and out.

use super::*;

fn connect(after: Option<&str>) -> Driven {
    let mut driven = Driven::new(rules(), after);
    driven.consumer.handle_connect();
    assert_eq!(driven.said(), ["ask member"]);
    driven
}

/// On its way in with a cursor, in a room that has shown everything up to `position`.
fn resuming(after: &str, position: u64) -> (Driven, Vec<String>) {
    let mut driven = connect(Some(after));
    driven.member(position);
    let said = driven.joined(position);
    (driven, said)
}

#[test]
fn a_token_that_does_not_open_closes() {
    let foreign = Keyring::new("another secret for tests, as long").unwrap().seal(Kind::Room, 1);
    let message = rules().encoder.keyring().seal(Kind::Message, 1);
    for token in ["", "nonsense", &foreign, &message] {
        let mut driven = Driven::with_token(rules(), None, token.to_owned());
        driven.consumer.handle_connect();
        assert_eq!(driven.said(), ["close 4500"], "{token:?}");
        assert!(driven.consumer.is_closed() && driven.consumer.room().is_none());
        driven.consumer.handle_connect();
        assert!(driven.said().is_empty());
    }
}

#[test]
fn who_is_no_member_is_turned_away() {
    let mut driven = connect(None);
    driven.consumer.handle_member(driven.ticket, Ok(MemberAnswer { membership: None, head: head(5) }));
    assert_eq!(driven.said(), ["leave", "close 4501"]);
    for (code, close) in [
        (Code::NoSuchRoom, "close 4501"),
        (Code::StoreUnavailable, "close 4001"),
        (Code::Schema, "close 4001"),
        (Code::Internal, "close 4001"),
    ] {
        let mut driven = connect(None);
        driven.consumer.handle_member(driven.ticket, Err(code));
        assert_eq!(driven.said(), ["leave", close], "{code}");
    }
}

#[test]
fn a_first_visit_learns_the_cursor_and_goes_live() {
    let mut driven = connect(None);
    assert!(!driven.consumer.is_open());
    assert_eq!(driven.consumer.room(), Some(ROOM));
    assert_eq!(driven.frame(r#"{"message":"too early"}"#), [""; 0]);
    assert_eq!(driven.member(5), ["join"]);
    assert_eq!(driven.joined(5), ["accept", "resumed 9.5", "live 9.5"]);
    assert!(driven.consumer.is_open());
}

#[test]
fn a_full_room_turns_away() {
    let mut driven = connect(None);
    driven.member(5);
    driven.consumer.handle_joined(driven.ticket, JoinAnswer::Full);
    assert_eq!(driven.said(), ["leave", "close 4003"]);
}

#[test]
fn a_stale_membership_is_read_again() {
    let mut driven = connect(Some("9.5"));
    for _ in 0..3 {
        driven.member(5);
        driven.consumer.handle_joined(driven.ticket, JoinAnswer::Stale);
        assert_eq!(driven.said(), ["ask member"]);
    }
    driven.member(5);
    assert_eq!(driven.joined(5), ["accept", "resumed 9.5", "live 9.5"], "the cursor is not forgotten");
}

#[test]
fn who_missed_nothing_resumes_at_once() {
    let (_, said) = resuming("9.5", 5);
    assert_eq!(said, ["accept", "resumed 9.5", "live 9.5"]);
}

#[test]
fn a_replay_shows_the_present_state_of_what_changed() {
    let (mut driven, said) = resuming("9.10", 20);
    assert_eq!(said, ["accept", "changes after 10"]);
    let member = ChangeRow { seq: Seq(13), change: Change::Member { op: MemberOp::Joined, member: "8".into() } };
    let rows = vec![
        row(11, 11, Some("new")),
        row(12, 3, Some("edited")),
        member,
        row(15, 4, None),
        row(18, 14, Some("new and edited")),
        row(20, 16, None),
    ];
    let expected = [
        "add 11/11 new",
        "edit 12/3 edited",
        "delete 15/4",
        "add 18/14 new and edited",
        "delete 20/16",
        "resumed 9.20",
        "live 9.20",
    ];
    assert_eq!(driven.changes(changes(20, 20, rows)), expected);
}

#[test]
fn a_replay_goes_on_until_it_reaches_the_rooms_position() {
    let (mut driven, _) = resuming("9.10", 20);
    assert_eq!(driven.changes(changes(21, 15, vec![row(11, 11, Some("a"))])), ["add 11/11 a", "changes after 15"]);
    // Still measured by where the client stood at first: 11 is new to it.
    let rest = vec![row(16, 11, Some("b"))];
    assert_eq!(driven.changes(changes(21, 19, rest)), ["add 16/11 b", "changes after 19"]);
    assert_eq!(driven.changes(changes(25, 23, vec![])), ["resumed 9.23", "live 9.23"]);
}

#[test]
fn a_client_may_have_seen_more_than_the_room_here() {
    let (mut driven, said) = resuming("9.8", 5);
    assert_eq!(said, ["accept", "changes after 8"]);
    assert_eq!(driven.changes(changes(8, 8, vec![])), ["resumed 9.8", "live 9.8"]);
}

#[test]
fn a_cursor_that_cannot_be_resumed_is_reset() {
    let reset = ["reset 9.20", "history of 50 9.20 more", "live 9.20"];
    for cursor in ["8.5", "10.5", "0.0", "1.18446744073709551615", "nonsense", "9"] {
        let (mut driven, said) = resuming(cursor, 20);
        let mut expected = vec!["accept", "newest 51"];
        if !cursor.contains('.') {
            expected.insert(1, "error bad_cursor");
        }
        assert_eq!(said, expected, "{cursor}");
        let newest = History { head: head(20), ..page(60, 51) };
        assert_eq!(driven.history(newest), reset, "{cursor}");
    }
}

#[test]
fn a_log_that_does_not_reach_back_to_the_cursor_is_reset() {
    let answers = [
        ("ahead of the head", "9.30", changes(25, 25, vec![])),
        ("far ahead", "9.18446744073709551615", changes(25, 25, vec![])),
        ("below the floor", "9.10", Changes { floor: Seq(11), ..changes(25, 25, vec![]) }),
        ("too far behind", "9.10", changes(1_011, 1_010, vec![row(11, 11, Some("void"))])),
        (
            "another epoch",
            "9.10",
            Changes { head: Head { epoch: Epoch(11), last_seq: Seq(25) }, ..changes(25, 25, vec![]) },
        ),
    ];
    for (why, cursor, answer) in answers {
        let (mut driven, _) = resuming(cursor, 20);
        assert_eq!(driven.changes(answer), ["newest 51"], "{why}");
        assert_eq!(driven.history(page(25, 10)), ["reset 9.25", "history of 10 9.25", "live 9.25"], "{why}");
    }
    let (mut driven, _) = resuming("9.10", 20);
    let just = Changes { floor: Seq(10), ..changes(1_010, 1_010, vec![]) };
    assert_eq!(driven.changes(just), ["resumed 9.1010", "live 9.1010"], "exactly the window, exactly the floor");
}

#[test]
fn a_reset_shows_at_least_what_the_room_has_shown() {
    let (mut driven, _) = resuming("8.1", 20);
    assert_eq!(driven.history(page(19, 5)), ["newest 51"], "read before the room's position");
    assert_eq!(driven.history(page(20, 5)), ["reset 9.20", "history of 5 9.20", "live 9.20"]);
}

#[test]
fn a_store_that_cannot_be_read_on_the_way_in_closes() {
    let (mut driven, _) = resuming("9.10", 20);
    driven.consumer.handle_changes(driven.ticket, Err(Code::StoreUnavailable));
    assert_eq!(driven.said(), ["leave", "close 4001"]);
    let (mut driven, _) = resuming("8.10", 20);
    driven.consumer.handle_history(driven.ticket, Err(Code::StoreUnavailable));
    assert_eq!(driven.said(), ["leave", "close 4001"]);
}

#[test]
fn a_resume_while_open_goes_the_whole_way_again() {
    let mut driven = Driven::open(rules());
    assert_eq!(driven.frame(r#"{"type":"resume","after":"9.3"}"#), ["ask member"]);
    assert_eq!(driven.member(8), ["join"]);
    assert_eq!(driven.joined(8), ["changes after 3"], "accepted once");
    assert_eq!(driven.changes(changes(8, 8, vec![row(4, 4, Some("a"))])), ["add 4/4 a", "resumed 9.8", "live 9.8"]);
    assert_eq!(driven.frame(r#"{"type":"resume","after":"9"}"#), ["error bad_cursor"]);
    assert!(driven.consumer.is_open());
}

#[test]
fn a_member_removed_meanwhile_is_told_so_at_a_resume() {
    let mut driven = Driven::open(rules());
    driven.frame(r#"{"type":"resume","after":"9.3"}"#);
    driven.consumer.handle_member(driven.ticket, Ok(MemberAnswer { membership: None, head: head(8) }));
    assert_eq!(driven.said(), ["leave", "close 4502"]);
}

#[test]
fn a_reset_begins_anew_from_every_step() {
    let steps: [fn() -> Driven; 5] = [
        || connect(Some("9.10")),
        || {
            let mut driven = connect(Some("9.10"));
            driven.member(20);
            driven
        },
        || resuming("9.10", 20).0,
        || resuming("8.10", 20).0,
        || Driven::open(rules()),
    ];
    for (number, step) in steps.iter().enumerate() {
        let mut driven = step();
        let was_open = driven.consumer.is_open();
        let stale = driven.ticket;
        driven.consumer.handle_reset(RoomId(2));
        assert!(driven.said().is_empty(), "another room");
        driven.consumer.handle_reset(ROOM);
        assert_eq!(driven.said(), ["ask member"], "step {number}");
        // Answers to what was asked before come to nothing.
        let membership = Some(Membership { role: Role::Member });
        driven.consumer.handle_member(stale, Ok(MemberAnswer { membership, head: head(20) }));
        driven.consumer.handle_joined(stale, JoinAnswer::Joined(at(20)));
        driven.consumer.handle_changes(stale, Ok(changes(20, 20, vec![])));
        driven.consumer.handle_history(stale, Ok(page(20, 1)));
        assert!(driven.said().is_empty(), "step {number}");
        assert_eq!(driven.member(30), ["join"]);
        let said = driven.joined(30);
        let expected: &[&str] = if was_open { &["newest 51"] } else { &["accept", "newest 51"] };
        assert_eq!(said, expected, "step {number}");
        assert_eq!(driven.history(page(30, 2)), ["reset 9.30", "history of 2 9.30", "live 9.30"]);
    }
}

#[test]
fn who_leaves_leaves_once() {
    let mut driven = Driven::open(rules());
    driven.consumer.handle_disconnect();
    assert_eq!(driven.said(), ["leave"]);
    driven.consumer.handle_disconnect();
    driven.consumer.handle_closed(CloseCode::Kicked);
    assert!(driven.said().is_empty());
    let mut driven = Driven::new(rules(), None);
    driven.consumer.handle_disconnect();
    driven.consumer.handle_connect();
    assert!(driven.said().is_empty(), "gone before it began");
}

#[test]
fn nothing_comes_after_the_close() {
    let mut driven = Driven::open(rules());
    driven.frame(r#"{"message":"hi","client_id":"c1"}"#);
    let command = driven.ticket;
    driven.frame(r#"{"type":"history"}"#);
    let history = driven.ticket;
    driven.consumer.handle_closed(CloseCode::Kicked);
    assert_eq!(driven.said(), ["leave", "close 4504"]);
    driven.consumer.handle_outcome(command, &Outcome::Refused(Code::StoreFull));
    driven.consumer.handle_outcome(command, &Outcome::Duplicate { message: MessageId(1), pos: Seq(1) });
    driven.consumer.handle_history(history, Ok(page(5, 5)));
    driven.consumer.handle_reset(ROOM);
    driven.consumer.handle_unreadable(Code::NotText, Millis(1_000));
    driven.consumer.handle_closed(CloseCode::Normal);
    driven.consumer.handle_connect();
    assert_eq!(driven.frame(r#"{"message":"hi"}"#), [""; 0]);
    assert!(driven.consumer.is_closed());
}

#[test]
fn a_store_that_stays_behind_the_room_is_not_asked_forever() {
    /// Answers the same until it says something else; how often that was.
    fn asked(driven: &mut Driven, question: &str, answer: impl Fn(&mut Driven) -> Vec<String>) -> (usize, Vec<String>) {
        for times in 1..10_000 {
            let said = answer(driven);
            if said != [question] {
                return (times, said);
            }
        }
        panic!("asked forever: {question}");
    }
    let closed = ["leave", "close 4001"];
    let stale = |driven: &mut Driven| {
        driven.member(5);
        driven.consumer.handle_joined(driven.ticket, JoinAnswer::Stale);
        driven.said()
    };
    let (times, said) = asked(&mut connect(None), "ask member", stale);
    assert!(said == closed && times > 10, "{times} {said:?}");
    let (mut driven, _) = resuming("9.10", 20);
    let (times, said) = asked(&mut driven, "changes after 15", |driven| driven.changes(changes(15, 15, vec![])));
    assert!(said == closed && times > 10, "{times} {said:?}");
    let (mut driven, _) = resuming("9.10", 20);
    let (times, said) = asked(&mut driven, "changes after 10", |driven| driven.changes(changes(25, 10, vec![])));
    assert!(said == closed && times > 10, "a head, but no rows: {times} {said:?}");
    let (mut driven, _) = resuming("8.10", 20);
    let (times, said) = asked(&mut driven, "newest 51", |driven| driven.history(page(19, 5)));
    assert!(said == closed && times > 10, "{times} {said:?}");
    let mut driven = Driven::open(rules());
    driven.frame(r#"{"type":"history","client_id":"h1"}"#);
    let older = || History { head: Head { epoch: Epoch(EPOCH - 1), last_seq: Seq(5) }, ..page(5, 5) };
    let (times, said) = asked(&mut driven, "newest 51", |driven| driven.history(older()));
    assert!(said == ["error store_unavailable h1"] && times > 10, "{times} {said:?}");
    assert!(driven.consumer.is_open());
}

#[test]
fn a_replay_that_no_outbox_would_take_is_a_reset() {
    let mut rules = rules();
    rules.limits.replay_bytes = 2_000;
    let long = "x".repeat(900);
    let resuming = || {
        let mut driven = Driven::new(rules.clone(), Some("9.10"));
        driven.consumer.handle_connect();
        driven.said();
        driven.member(20);
        driven.joined(20);
        driven
    };
    let both = vec![row(11, 11, Some(&long)), row(12, 12, Some(&long))];
    assert_eq!(resuming().changes(changes(20, 20, both)), ["newest 51"]);
    let mut driven = resuming();
    assert_eq!(driven.changes(changes(20, 11, vec![row(11, 11, Some(&long))])).last().unwrap(), "changes after 11");
    assert_eq!(driven.changes(changes(20, 20, vec![row(12, 12, Some(&long))])), ["newest 51"], "all pages together");
    assert_eq!(driven.history(page(20, 1)), ["reset 9.20", "history of 1 9.20", "live 9.20"]);
}

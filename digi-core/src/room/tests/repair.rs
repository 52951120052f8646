//! Gaps, reads of the log, epochs.

use super::*;

#[test]
fn a_gap_is_waited_for_and_then_read() {
    let mut driven = Driven::with_member();
    driven.events([7]);
    assert_eq!(driven.wakes_in(), Some(20));
    driven.now = driven.now.plus(19);
    driven.room.handle_tick(driven.now);
    assert!(driven.said().is_empty());
    driven.wake();
    assert_eq!(driven.said(), ["read after 5, seen 9.7"]);
    assert_eq!(driven.wakes_in(), None, "one read at a time");
    driven.events([8]);
    driven.room.handle_tick(driven.now.plus(1_000));
    assert!(driven.said().is_empty());
    driven.changes(Some(log(5, 7, 7)), at(7));
    assert_eq!(driven.got(1), [6, 7, 8]);
    assert_eq!((driven.wakes_in(), driven.said()), (None, vec![]));
}

#[test]
fn a_gap_that_closes_by_itself_is_not_read() {
    let mut driven = Driven::with_member();
    driven.events([8, 7, 7, 6, 6, 3]);
    assert_eq!(driven.got(1), [6, 7, 8]);
    assert_eq!(driven.wakes_in(), None);
}

#[test]
fn so_many_events_are_held_and_the_rest_is_read() {
    let mut driven = Driven::new(5, RoomLimits { held_events: 3, ..RoomLimits::default() });
    driven.enter(1, 5);
    driven.events([20, 19, 18, 7, 8]);
    driven.wake();
    assert_eq!(driven.said(), ["read after 5, seen 9.20"]);
    driven.changes(Some(log(5, 17, 20)), at(20));
    assert_eq!(driven.got(1), (6..=20).collect::<Vec<_>>());
}

#[test]
fn an_answer_short_of_what_is_missing_is_asked_for_again() {
    let mut driven = Driven::with_member();
    driven.head(head(9), at(5));
    driven.wake();
    assert_eq!(driven.said(), ["read after 5, seen 9.9"]);
    driven.changes(Some(log(5, 7, 9)), at(9));
    assert_eq!((driven.got(1), driven.wakes_in()), (vec![6, 7], Some(0)));
    driven.wake();
    assert_eq!(driven.said(), ["read after 7, seen 9.9"]);
    // Several changes of one message are one row: what it does not name it covers all the same.
    let one = Changes { rows: log(8, 9, 9).rows, ..log(7, 9, 9) };
    driven.changes(Some(one), at(9));
    assert_eq!((driven.got(1), driven.room.shown(), driven.wakes_in()), (vec![9], at(9), None));
}

#[test]
fn reads_that_fail_are_tried_again_ever_more_slowly() {
    let mut driven = Driven::with_member();
    driven.events([7]);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        driven.wake();
        assert_eq!(driven.said(), ["read after 5, seen 9.7"]);
        driven.changes(None, at(7));
        pauses.extend(driven.wakes_in());
    }
    assert_eq!(pauses, [50, 100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000, 5_000]);
    driven.wake();
    driven.changes(Some(log(5, 7, 7)), at(7));
    assert_eq!((driven.got(1), driven.wakes_in()), (vec![6, 7], None));
    driven.events([9]);
    driven.wake();
    driven.changes(None, at(9));
    assert_eq!(driven.wakes_in(), Some(50), "from the beginning");
}

#[test]
fn a_layer_that_may_have_lost_something_is_checked_at_once() {
    let mut driven = Driven::with_member();
    driven.room.handle_lagged(driven.now);
    assert_eq!(driven.wakes_in(), Some(0));
    driven.events([6]);
    driven.wake();
    assert_eq!(driven.said(), ["read after 6, seen 9.6"], "even if nothing seems to be missing");
    // Whatever was lost now may be missing in the answer.
    driven.room.handle_lagged(driven.now);
    driven.changes(Some(log(6, 6, 6)), at(6));
    driven.wake();
    assert_eq!(driven.said(), ["read after 6, seen 9.6"]);
    driven.changes(None, at(6));
    assert_eq!(driven.wakes_in(), Some(50), "a failed look is repeated");
    driven.wake();
    driven.changes(Some(log(6, 8, 8)), at(6));
    assert_eq!((driven.got(1), driven.wakes_in()), (vec![6, 7, 8], None));
}

#[test]
fn what_was_purged_before_it_was_shown_resets() {
    let mut driven = Driven::with_member();
    driven.head(head(30), at(5));
    driven.wake();
    driven.said();
    driven.changes(Some(Changes { floor: Seq(6), ..log(20, 30, 30) }), at(30));
    assert_eq!((driven.said(), driven.room.shown()), (vec!["reset 1".to_owned()], at(30)));
    assert!(driven.got(1).is_empty());
    // What the session was sent before that does not let it go on: frames 6 to 30 would be missing.
    driven.go_live(1, at(8));
    driven.events([31]);
    assert!(driven.got(1).is_empty());
    assert_eq!(driven.join(1, 31), JoinAnswer::Joined(at(31)));
    driven.go_live(1, at(31));
    driven.events([32]);
    assert_eq!(driven.got(1), [32]);
    let mut driven = Driven::with_member();
    driven.changes(Some(Changes { floor: Seq(5), ..log(5, 6, 6) }), at(5));
    assert_eq!((driven.said(), driven.got(1)), (vec![], vec![6]), "just not");
}

#[test]
fn a_higher_epoch_discards_what_is_held_and_resets() {
    let event = |seq| Event { at: head_of(EPOCH + 1, seq).cursor(), ..added(seq) };
    let ways: [fn(&mut Driven, Head); 4] = [
        |driven, head| driven.event(Event { at: head.cursor(), ..added(head.last_seq.0) }),
        |driven, head| driven.head(head, at(0)),
        |driven, head| driven.changes(Some(Changes { head, ..log(5, 5, 5) }), at(8)),
        |driven, head| driven.go_live(2, head.cursor()),
    ];
    for (number, learn) in ways.iter().enumerate() {
        let mut driven = Driven::with_member();
        driven.join(2, 5);
        driven.events([8]);
        let new = head_of(EPOCH + 1, 7);
        learn(&mut driven, new);
        assert_eq!(driven.said(), ["reset 1", "reset 2"], "way {number}");
        assert_eq!((driven.room.shown(), driven.room.seen()), (new.cursor(), new.cursor()));
        assert_eq!(driven.wakes_in(), None);
        driven.events([9]);
        driven.event(event(8));
        assert!(driven.got.is_empty(), "both are on hold; the old epoch's 9 is dropped, its 8 was forgotten");
        assert_eq!(driven.room.shown(), head_of(EPOCH + 1, 8).cursor());
        driven.go_live(1, at(9));
        assert!(driven.got.is_empty(), "what it was sent is void");
        driven.join_as(1, "1", head_of(EPOCH + 1, 8));
        driven.event(event(9));
        driven.go_live(1, head_of(EPOCH + 1, 8).cursor());
        assert_eq!(driven.got(1), [9]);
    }
}

#[test]
fn an_answer_to_a_question_of_another_epoch_is_not_taken_for_complete() {
    let mut driven = Driven::new(500, RoomLimits::default());
    driven.enter(1, 500);
    driven.room.handle_lagged(driven.now);
    driven.wake();
    assert_eq!(driven.said(), ["read after 500, seen 9.500"]);
    // A backup came back; another node, which had seen less, raised the epoch, and changes were made since.
    driven.head(head_of(EPOCH + 1, 300), at(0));
    assert_eq!(driven.said(), ["reset 1"]);
    let new = |seq| head_of(EPOCH + 1, seq).cursor();
    driven.join_as(1, "1", head_of(EPOCH + 1, 300));
    driven.go_live(1, new(300));
    // The answer holds nothing above 500.
    let nothing = Changes { head: head_of(EPOCH + 1, 302), floor: Seq(300), through: Seq(302), rows: vec![] };
    driven.changes(Some(nothing), at(500));
    assert_eq!(driven.room.shown(), new(300));
    driven.wake();
    assert_eq!(driven.said(), [format!("read after 300, seen {}", new(302))]);
    let answer = Changes { head: head_of(EPOCH + 1, 302), floor: Seq(300), ..log(300, 302, 302) };
    driven.changes(Some(answer), new(302));
    assert_eq!(driven.got(1), [301, 302]);
}

#[test]
fn a_head_below_what_was_seen_before_the_question_means_restored_data() {
    let mut driven = Driven::with_member();
    driven.events([6, 8]);
    let seen = driven.room.seen();
    assert_eq!(seen, at(8), "held counts as seen");
    driven.head(head(7), at(7));
    assert!(driven.said().is_empty(), "8 came after the question");
    driven.head(head(7), seen);
    assert_eq!(driven.said(), ["raise above 9.8"]);
    driven.head(head_of(EPOCH - 1, 90), seen);
    assert_eq!(driven.said(), ["raise above 9.8"]);
    driven.head(head(7), head_of(EPOCH - 1, 90).cursor());
    assert!(driven.said().is_empty(), "noted in another epoch");
    driven.changes(Some(log(6, 7, 7)), seen);
    assert_eq!((driven.said(), driven.got(1)), (vec!["raise above 9.8".to_owned()], vec![6]));
    assert_eq!(driven.wakes_in(), Some(50), "asked again, should the epoch not rise");
}

#[test]
fn the_last_numbers_there_are_make_nothing_panic() {
    let mut driven = Driven::new(u64::MAX - 1, RoomLimits::default());
    driven.enter(1, u64::MAX - 1);
    let last = |seq| Event { at: at(seq), ..member_event(1, MemberOp::Joined, "8") };
    driven.event(last(u64::MAX));
    driven.event(last(u64::MAX));
    driven.event(last(1));
    driven.head(head(u64::MAX), at(u64::MAX));
    assert_eq!((driven.room.shown(), driven.said()), (at(u64::MAX), vec![]));
    let highest = head_of(u64::MAX, u64::MAX);
    driven.event(Event { at: highest.cursor(), ..member_event(1, MemberOp::Left, "8") });
    assert_eq!(driven.room.shown(), highest.cursor());
    assert_eq!(crate::store::model::raised(highest, highest.cursor(), Millis(1)), highest);
}

#[test]
fn what_others_have_shown_is_new_to_those_only_who_know_it_again() {
    let mut driven = Driven::with_member();
    driven.enter(2, 5);
    driven.room.listen(SessionId(2));
    let mut changes = log(5, 8, 8);
    for row in &mut changes.rows[..2] {
        let Change::Message(message) = row.change.clone() else { unreachable!() };
        row.change = Change::Adopted(message);
    }
    // The second one was edited since.
    if let Change::Adopted(message) = &mut changes.rows[1].change {
        message.edited_at = Some(Millis(9));
    }
    driven.head(head(8), at(5));
    driven.wake();
    driven.changes(Some(changes), at(8));
    assert_eq!((driven.got(1), driven.got(2)), (vec![7, 8], vec![6, 7, 8]));
    assert_eq!(driven.room.shown(), at(8));
}

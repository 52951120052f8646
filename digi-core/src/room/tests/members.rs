//! Who is in, on hold, live, or out.

use super::*;

#[test]
fn frames_wait_for_who_is_on_hold_and_are_cut_exactly() {
    let mut driven = Driven::new(5, RoomLimits::default());
    assert_eq!(driven.join(1, 5), JoinAnswer::Joined(at(5)));
    assert_eq!(driven.join(2, 5), JoinAnswer::Joined(at(5)));
    driven.events([6, 7, 8]);
    assert!(driven.got.is_empty());
    driven.go_live(1, at(7));
    assert_eq!(driven.got(1), [8], "up to 7 it was sent already");
    driven.go_live(2, at(5));
    assert_eq!(driven.got(2), [6, 7, 8]);
    driven.events([9]);
    assert_eq!((driven.got(1), driven.got(2)), (vec![9], vec![9]));
    assert_eq!(driven.join(3, 8), JoinAnswer::Joined(at(9)), "what the room has shown, not what the head was");
}

#[test]
fn who_was_sent_more_than_the_room_has_shown_gets_none_of_it_twice() {
    let mut driven = Driven::with_member();
    driven.join(2, 5);
    driven.go_live(2, at(7));
    assert_eq!(driven.wakes_in(), Some(20), "the room has missed something");
    driven.events([6, 7, 8]);
    assert_eq!((driven.got(1), driven.got(2)), (vec![6, 7, 8], vec![8]));
    assert_eq!(driven.wakes_in(), None);
}

#[test]
fn a_member_that_joins_again_is_on_hold_again() {
    let mut driven = Driven::with_member();
    driven.events([6]);
    assert_eq!(driven.join(1, 6), JoinAnswer::Joined(at(6)));
    driven.events([7]);
    assert_eq!(driven.got(1), [6]);
    driven.go_live(1, at(6));
    assert_eq!((driven.got(1), driven.room.sessions()), (vec![7], 1));
}

#[test]
fn who_waits_too_long_on_hold_is_closed_as_too_slow() {
    let mut driven = Driven::new(0, RoomLimits { held_frames: 2, ..RoomLimits::default() });
    driven.enter(1, 0);
    driven.join(2, 0);
    driven.events([1, 2]);
    assert!(driven.said().is_empty());
    driven.events([3, 4]);
    assert_eq!(driven.said(), ["close 2 4000"]);
    driven.go_live(2, at(0));
    assert_eq!((driven.got(1), driven.got(2)), (vec![1, 2, 3, 4], vec![]));
}

#[test]
fn who_has_no_space_is_closed_and_the_others_go_on() {
    let mut driven = Driven::new(0, RoomLimits::default());
    (1..=3).for_each(|session| driven.enter(session, 0));
    driven.join(4, 0);
    driven.slow = vec![2, 4];
    driven.events([1, 2]);
    assert_eq!(driven.said(), ["close 2 4000"]);
    driven.go_live(4, at(0));
    assert_eq!(driven.said(), ["close 4 4000"], "what waited did not fit");
    assert_eq!((driven.got(1), driven.got(3), driven.got(2), driven.got(4)), (vec![1, 2], vec![1, 2], vec![], vec![]));
    assert_eq!(driven.room.sessions(), 2);
}

#[test]
fn a_full_room_refuses_but_those_inside_may_join_again() {
    let mut driven = Driven::new(0, RoomLimits { sessions: 1, ..RoomLimits::default() });
    driven.enter(1, 0);
    assert_eq!(driven.join(2, 0), JoinAnswer::Full);
    assert_eq!(driven.join(1, 0), JoinAnswer::Joined(at(0)));
    driven.room.leave(SessionId(1));
    driven.room.leave(SessionId(1));
    assert_eq!(driven.join(2, 0), JoinAnswer::Joined(at(0)));
}

#[test]
fn a_removal_closes_the_sessions_that_were_read_before_it() {
    let mut driven = Driven::new(5, RoomLimits::default());
    driven.join_as(1, "u", head(5));
    driven.go_live(1, at(5));
    driven.join_as(2, "u", head(6));
    driven.join_as(3, "v", head(5));
    driven.join_as(4, "u", head(7));
    driven.event(member_event(6, MemberOp::Left, "u"));
    assert_eq!(driven.said(), ["close 1 4502"], "2 was read at the removal, so after it");
    assert_eq!(driven.room.sessions_of(&"u".into()).count(), 2);
    driven.event(member_event(7, MemberOp::Joined, "u"));
    assert!(driven.said().is_empty());
    // From the log as well.
    let row = ChangeRow { seq: Seq(8), change: Change::Member { op: MemberOp::Left, member: "u".into() } };
    driven.head(head(8), at(7));
    driven.wake();
    driven.said();
    driven.changes(Some(Changes { rows: vec![row], ..log(7, 8, 8) }), at(8));
    assert_eq!(driven.said().len(), 2);
    assert_eq!(driven.room.sessions_of(&"v".into()).count(), 1);
}

#[test]
fn a_membership_read_before_a_change_of_memberships_is_stale() {
    for op in [MemberOp::Left, MemberOp::Joined] {
        let mut driven = Driven::with_member();
        driven.event(member_event(6, op, "u"));
        driven.events([7]);
        assert_eq!(driven.join(2, 5), JoinAnswer::Stale);
        assert_eq!(driven.join(2, 6), JoinAnswer::Joined(at(7)));
    }
    let mut driven = Driven::with_member();
    driven.events([6]);
    driven.event(member_event(8, MemberOp::Left, "2"));
    assert_eq!(driven.join(2, 6), JoinAnswer::Joined(at(6)), "not shown yet");
    driven.events([7]);
    assert_eq!(driven.said(), ["close 2 4502"], "so it closes the session then");
}

#[test]
fn a_membership_of_an_older_epoch_is_stale_and_a_higher_one_resets() {
    let mut driven = Driven::with_member();
    assert_eq!(driven.join_as(2, "2", head_of(EPOCH - 1, 50)), JoinAnswer::Stale);
    assert_eq!(driven.join_as(2, "2", head_of(EPOCH + 1, 3)), JoinAnswer::Joined(head_of(EPOCH + 1, 3).cursor()));
    assert_eq!(driven.said(), ["reset 1"]);
}

#[test]
fn a_head_beyond_what_is_shown_makes_the_room_look() {
    let mut driven = Driven::with_member();
    assert_eq!(driven.join(2, 7), JoinAnswer::Joined(at(5)));
    driven.wake();
    assert_eq!(driven.said(), ["read after 5, seen 9.7"]);
}

#[test]
fn memberships_are_remembered_until_they_change() {
    let mut driven = Driven::with_member();
    let known = |driven: &Driven, user: &str| driven.room.membership(&user.into()).map(|answer| answer.head);
    assert_eq!(known(&driven, "1"), Some(head(5)));
    assert_eq!(known(&driven, "2"), None);
    driven.events([6]);
    assert_eq!(known(&driven, "1"), Some(head(6)), "nothing up to 6 has ended it");
    driven.room.leave(SessionId(1));
    assert_eq!(known(&driven, "1"), Some(head(6)), "also without a session");
    driven.event(member_event(7, MemberOp::Joined, "1"));
    assert_eq!(known(&driven, "1"), None, "perhaps another role");
    assert_eq!(driven.join(1, 6), JoinAnswer::Stale);
    assert_eq!(known(&driven, "1"), None);
    driven.enter(1, 7);
    driven.event(member_event(8, MemberOp::Left, "1"));
    assert_eq!(known(&driven, "1"), None);
    driven.enter(2, 12);
    assert_eq!(known(&driven, "2"), Some(head(12)), "read later than shown");
    driven.head(head_of(EPOCH + 1, 20), at(8));
    assert_eq!(known(&driven, "2"), None, "another numbering");
}

#[test]
fn a_signal_skips_its_causer_and_who_is_on_hold() {
    let mut driven = Driven::new(0, RoomLimits::default());
    driven.join_as(1, "u", head(0));
    driven.join_as(2, "u", head(0));
    driven.go_live(1, at(0));
    driven.go_live(2, at(0));
    (3..=4).for_each(|session| driven.enter(session, 0));
    driven.join(5, 0);
    driven.slow = vec![4];
    (1..=5).for_each(|session| driven.room.listen(SessionId(session)));
    // A classic page, which would take it for a message.
    driven.enter(6, 0);
    driven.signal("u", &Frame::from_text(r#"{"type":"typing"}"#.into()));
    assert_eq!(driven.got, [(3, 0)]);
    driven.join(3, 0);
    driven.go_live(3, at(0));
    driven.signal("u", &Frame::from_text(r#"{"type":"typing"}"#.into()));
    assert_eq!(driven.got, [(3, 0), (3, 0)], "it listens after a replay, too");
    assert!(driven.said().is_empty(), "to miss a signal closes nobody");
}

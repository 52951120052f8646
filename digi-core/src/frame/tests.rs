use proptest::prelude::*;

use super::*;
use crate::error::Code;
use crate::id::{Epoch, MessageId, RoomId, UserKey};
use crate::store::model::Head;

fn parse(text: &str) -> Request<'_> {
    ClientFrame::parse(text).unwrap().request
}

fn bad(text: &str) -> (Code, String) {
    let bad = ClientFrame::parse(text).unwrap_err();
    (bad.error.code(), bad.error.detail().to_owned())
}

fn add(message: &str) -> Request<'_> {
    Request::Add { message: message.into(), resend: false }
}

#[test]
fn the_kind_is_type_or_action_or_add() {
    let edit = Request::Edit { message_id: "t".into(), message: "b".into() };
    assert_eq!(parse(r#"{"message":"hi"}"#), add("hi"));
    assert_eq!(parse(r#"{"type":"add","message":"hi","user":"alice"}"#), add("hi"));
    assert_eq!(parse(r#"{"action":"edit","message_id":"t","message":"b"}"#), edit);
    assert_eq!(parse(r#"{"type":null,"action":"edit","message_id":"t","message":"b"}"#), edit);
    assert_eq!(parse(r#"{"type":"add","action":"edit","message":"hi"}"#), add("hi"), "`type` counts");
    assert_eq!(parse(r#"{"type":"delete","message_id":"t"}"#), Request::Delete { message_id: "t".into() });
}

#[test]
fn the_other_kinds_have_their_keys() {
    let resend = Request::Add { message: "hi".into(), resend: true };
    assert_eq!(parse(r#"{"message":"hi","client_id":"c","resend":true}"#), resend);
    assert_eq!(parse(r#"{"type":"resume","after":"1.2"}"#), Request::Resume { after: "1.2".into() });
    assert_eq!(parse(r#"{"type":"history"}"#), Request::History { before: None, limit: None });
    assert_eq!(
        parse(r#"{"type":"history","before":18446744073709551615,"limit":4294967295}"#),
        Request::History { before: Some(Seq(u64::MAX)), limit: Some(u32::MAX) }
    );
    assert_eq!(parse(r#"{"type":"typing"}"#), Request::Typing);
    assert_eq!(parse(r#"{"type":"read","seq":7}"#), Request::Read { seq: Seq(7) });
}

#[test]
fn unknown_keys_and_nulls_count_for_nothing() {
    let text = r#"{"message":"hi","csrf":[1,{"a":null}],"user":null,"client_id":null,"room":null,"resend":null}"#;
    let frame = ClientFrame::parse(text).unwrap();
    assert_eq!(frame, ClientFrame { room: None, user: None, client_id: None, request: add("hi") });
}

#[test]
fn a_claimed_user_is_a_string_or_a_whole_number() {
    let user = |text| ClientFrame::parse(text).unwrap().user.unwrap().into_owned();
    assert_eq!(user(r#"{"message":"hi","user":"Zo\u00eb"}"#), "Zoë");
    assert_eq!(user(r#"{"message":"hi","user":42}"#), "42");
    assert_eq!(user(r#"{"message":"hi","user":-1}"#), "-1");
    assert_eq!(user(r#"{"message":"hi","user":18446744073709551615}"#), "18446744073709551615");
}

#[test]
fn texts_without_escapes_are_borrowed() {
    let frame = ClientFrame::parse(r#"{"message":"plain","room":"r","user":"u"}"#).unwrap();
    assert!(matches!(frame.request, Request::Add { message: Cow::Borrowed("plain"), .. }));
    assert!(matches!((frame.room, frame.user), (Some(Cow::Borrowed("r")), Some(Cow::Borrowed("u")))));
}

#[test]
fn a_wrong_type_is_answered_with_the_name_of_the_key() {
    let wrong = [
        ("type", "1"),
        ("action", "[]"),
        ("room", "{}"),
        ("user", "true"),
        ("user", "1.5"),
        ("message", "5"),
        ("message_id", "7"),
        ("client_id", "7"),
        ("resend", "\"yes\""),
        ("after", "1.2"),
        ("before", "-1"),
        ("before", "1.0"),
        ("before", "\"3\""),
        ("limit", "4294967296"),
        ("seq", "18446744073709551616"),
    ];
    for (key, value) in wrong {
        let (code, detail) = bad(&format!("{{\"{key}\":{value}}}"));
        assert_eq!(code, Code::BadFrame, "{key}: {value}");
        assert!(detail.contains(&format!("`{key}`")), "{key}: {detail}");
    }
}

#[test]
fn a_missing_key_is_named() {
    let missing = [
        (r#"{"user":"alice"}"#, "message"),
        (r#"{"message":null}"#, "message"),
        (r#"{"type":"edit","message":"b"}"#, "message_id"),
        (r#"{"type":"edit","message_id":"t"}"#, "message"),
        (r#"{"type":"delete"}"#, "message_id"),
        (r#"{"type":"resume"}"#, "after"),
        (r#"{"type":"read"}"#, "seq"),
    ];
    for (text, key) in missing {
        assert_eq!(bad(text), (Code::BadFrame, format!("The key `{key}` is missing.")), "{text}");
    }
}

#[test]
fn a_key_must_not_stand_twice() {
    assert_eq!(bad(r#"{"message":"a","message":"b"}"#).0, Code::BadFrame);
    assert_eq!(parse(r#"{"message":"a","x":1,"x":2}"#), add("a"), "unless it means nothing");
}

#[test]
fn what_is_no_object_is_refused() {
    // As a sequence of values serde would take it for the struct.
    let array = r#"["add",null,null,null,"hi",null,null,null,null,null,null,null]"#;
    for text in ["[]", array, "\"add\"", "1", "null", "true"] {
        assert_eq!(bad(text).0, Code::BadJson, "{text}");
    }
    for text in
        ["", " ", "{", r#"{"message":"hi"}x"#, "{'message':'hi'}", r#"{"message":"\ud800"}"#, "{\"message\":\"\n\"}"]
    {
        assert_eq!(bad(text).0, Code::BadJson, "{text}");
    }
    assert_eq!(parse(" \t\r\n{\"message\":\"hi\"}\n"), add("hi"));
}

#[test]
fn an_unknown_type_is_shown_shortened() {
    let (code, detail) = bad(&format!(r#"{{"type":"{}"}}"#, "ü".repeat(1_000)));
    assert_eq!(code, Code::UnknownType);
    assert!(detail.contains(&"ü".repeat(40)) && !detail.contains(&"ü".repeat(41)), "{detail}");
}

#[test]
fn a_client_id_is_checked_and_given_back() {
    for id in [String::new(), "x".repeat(65), "a\\u0000b".to_owned()] {
        let bad = ClientFrame::parse(&format!(r#"{{"message":"hi","client_id":"{id}"}}"#)).unwrap_err();
        assert_eq!((bad.error.code(), bad.client_id), (Code::BadClientId, None), "{id}");
    }
    let given = |text| ClientFrame::parse(text).unwrap_err().client_id;
    let c1 = ClientId::new("c1");
    assert_eq!(ClientFrame::parse(r#"{"message":"hi","client_id":"c1"}"#).unwrap().client_id, c1);
    assert_eq!(given(r#"{"client_id":"c1"}"#), c1, "a missing key");
    assert_eq!(given(r#"{"client_id":"c1","message":5}"#), c1, "a wrong type");
    assert_eq!(given(r#"{"client_id":"c1","type":"shout"}"#), c1, "an unknown type");
    assert_eq!(given(r#"{"client_id":7,"message":5}"#), None);
}

#[test]
fn deep_nesting_is_no_danger() {
    for depth in [200, 100_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        assert_eq!(parse(&format!(r#"{{"x":{open}{close},"message":"hi"}}"#)), add("hi"), "an unknown key is skipped");
        assert!(ClientFrame::parse(&format!(r#"{{"message":{open}{close}}}"#)).is_err());
        assert!(ClientFrame::parse(&format!("{open}{close}")).is_err());
        assert!(ClientFrame::parse(&"{\"message\":".repeat(depth)).is_err());
    }
}

fn encoder() -> Encoder {
    Encoder::new(Keyring::new("a secret for tests, long enough!").unwrap())
}

fn message() -> Message {
    Message {
        id: MessageId::own(RoomId(1), Seq(3)).unwrap(),
        room: RoomId(1),
        pos: Seq(3),
        sender: UserKey::from("7"),
        sender_name: "alice".into(),
        body: Some("hi \"you\" <\u{1F600}>\n".into()),
        client_id: ClientId::new("c1"),
        created_at: Millis(1_724_566_366_007),
        edited_at: None,
        deleted_at: None,
    }
}

fn token() -> String {
    encoder().keyring().seal(Kind::Message, message().id.get())
}

#[test]
fn changes_have_these_bytes() {
    let (encoder, token) = (encoder(), token());
    let mut message = message();
    assert_eq!(
        encoder.change(MessageOp::Added, Seq(3), &message).as_str(),
        format!(
            r#"{{"type":"add","message":"hi \"you\" <😀>\n","user":"alice","message_id":"{token}","seq":3,"pos":3,"at":"2024-08-25T06:12:46.007Z"}}"#
        )
    );
    message.body = Some("new".into());
    message.edited_at = Some(Millis(1_724_566_367_000));
    assert_eq!(
        encoder.change(MessageOp::Edited, Seq(4), &message).as_str(),
        format!(
            r#"{{"type":"edit","message":"new","user":"alice","message_id":"{token}","seq":4,"pos":3,"at":"2024-08-25T06:12:47.000Z"}}"#
        )
    );
    message.body = None;
    message.deleted_at = Some(Millis(1_724_566_368_000));
    assert_eq!(
        encoder.change(MessageOp::Deleted, Seq(5), &message).as_str(),
        format!(
            r#"{{"type":"delete","user":"alice","message_id":"{token}","seq":5,"pos":3,"at":"2024-08-25T06:12:48.000Z"}}"#
        )
    );
}

#[test]
fn a_history_has_these_bytes() {
    let (encoder, token) = (encoder(), token());
    let edited = Message { body: Some("new".into()), edited_at: Some(Millis(1_724_566_367_000)), ..message() };
    let deleted = Message { body: None, deleted_at: Some(Millis(1_724_566_368_000)), ..message() };
    let head = Head { epoch: Epoch(9), last_seq: Seq(5) };
    let page = History { head, messages: vec![edited, deleted] };
    let expected = format!(
        concat!(
            r#"{{"type":"history","messages":["#,
            r#"{{"message":"new","user":"alice","message_id":"{token}","pos":3,"at":"2024-08-25T06:12:46.007Z","edited_at":"2024-08-25T06:12:47.000Z"}},"#,
            r#"{{"user":"alice","message_id":"{token}","pos":3,"at":"2024-08-25T06:12:46.007Z","deleted":true}}"#,
            r#"],"more":true,"through":5,"cursor":"9.5","client_id":"h1"}}"#
        ),
        token = token
    );
    assert_eq!(encoder.history(&page, true, ClientId::new("h1").as_ref()).as_str(), expected);
    let empty = History { head, messages: vec![] };
    let expected = r#"{"type":"history","messages":[],"more":false,"through":5,"cursor":"9.5"}"#;
    assert_eq!(encoder.history(&empty, false, None).as_str(), expected);
}

#[test]
fn answers_have_these_bytes() {
    let (encoder, token) = (encoder(), token());
    let client_id = ClientId::new("c\"1").unwrap();
    assert_eq!(
        encoder.ack(&client_id, message().id, Seq(4), Seq(3)).as_str(),
        format!(r#"{{"type":"ack","client_id":"c\"1","message_id":"{token}","seq":4,"pos":3}}"#)
    );
    let cursor = Cursor::new(Epoch(1_700_000_000_000), Seq(42));
    assert_eq!(encoder.resumed(cursor).as_str(), r#"{"type":"resumed","cursor":"1700000000000.42"}"#);
    assert_eq!(encoder.reset(cursor).as_str(), r#"{"type":"reset","cursor":"1700000000000.42"}"#);
    assert_eq!(
        encoder.error(&Code::EmptyBody.into(), None).as_str(),
        format!(r#"{{"type":"error","code":"empty_body","detail":"{}"}}"#, Code::EmptyBody.text())
    );
    assert_eq!(
        encoder.error(&Code::Refused.with("No \"links\"."), Some(&client_id)).as_str(),
        r#"{"type":"error","code":"refused","detail":"No \"links\".","client_id":"c\"1"}"#
    );
}

#[test]
fn a_log_gets_a_frames_size_only() {
    let frame = encoder().change(MessageOp::Added, Seq(3), &message());
    assert_eq!(format!("{frame:?}"), format!("Frame({} bytes)", frame.as_bytes().len()));
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = ClientFrame::parse(&text);
    }

    #[test]
    fn nothing_like_json_makes_it_panic(text in r#"[\[{]?("(type|user|client_id|message|limit|x)"[:,]?|[0-9e.\-]{1,9}|[\[\]{}:,"\\]|null|\\u[d-f0-9]{4}| ){0,24}"#) {
        let _ = ClientFrame::parse(&text);
    }

    #[test]
    fn every_text_comes_through(body in any::<String>(), escape in any::<bool>()) {
        let mut quoted = serde_json::to_string(&body).unwrap();
        if escape {
            // As Python's json.dumps writes it: everything beyond ASCII escaped, in UTF-16.
            quoted = quoted.chars().fold(String::new(), |mut out, c| {
                if c.is_ascii() {
                    out.push(c);
                } else {
                    out.extend(c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")));
                }
                out
            });
        }
        let text = format!("{{\"message\":{quoted}}}");
        prop_assert_eq!(parse(&text), add(&body));
        let message = Message { body: Some(body.as_str().into()), ..message() };
        let frame = encoder().change(MessageOp::Added, Seq(3), &message);
        let value: Value = serde_json::from_str(frame.as_str()).unwrap();
        prop_assert_eq!(value["message"].as_str(), Some(body.as_str()));
    }
}

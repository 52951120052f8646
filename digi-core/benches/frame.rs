//! What reading and writing a frame costs: `cargo bench -p digi-core --bench frame`.
#![allow(clippy::unwrap_used)]

use digi_core::frame::{ClientFrame, Encoder};
use digi_core::store::model::{Head, History, Message, MessageOp};
use digi_core::token::Keyring;
use digi_core::{ClientId, Epoch, MessageId, Millis, RoomId, Seq};
use divan::{Bencher, black_box};

/// About as long as what people write.
const BODY: &str = "See you at seven in front of the station, I bring the tickets 🎫";

fn main() {
    divan::main();
}

fn encoder() -> Encoder {
    Encoder::new(Keyring::new("a secret for benchmarks, long enough").unwrap())
}

fn message(pos: u64) -> Message {
    let room = RoomId(4_711);
    Message {
        id: MessageId::own(room, Seq(pos)).unwrap(),
        room,
        pos: Seq(pos),
        sender: "17".into(),
        sender_name: "Ana".into(),
        body: Some(BODY.into()),
        client_id: None,
        created_at: Millis(1_724_566_366_007),
        edited_at: None,
        deleted_at: None,
    }
}

#[divan::bench]
fn decode_add(bencher: Bencher<'_, '_>) {
    let text = format!(r#"{{"type":"add","message":"{BODY}","user":"Ana"}}"#);
    bencher.bench_local(|| ClientFrame::parse(black_box(&text)).is_ok());
}

#[divan::bench]
fn decode_add_with_client_id(bencher: Bencher<'_, '_>) {
    let text = format!(r#"{{"type":"add","message":"{BODY}","client_id":"0b6c2d1e-7f3a-4d55"}}"#);
    bencher.bench_local(|| ClientFrame::parse(black_box(&text)).is_ok());
}

#[divan::bench]
fn decode_edit(bencher: Bencher<'_, '_>) {
    let token = encoder().keyring().seal(digi_core::token::Kind::Message, message(9).id.get());
    let text = format!(r#"{{"type":"edit","message_id":"{token}","message":"{BODY}"}}"#);
    bencher.bench_local(|| ClientFrame::parse(black_box(&text)).is_ok());
}

/// A frame that is refused costs a second, slower reading that names what is wrong.
#[divan::bench]
fn decode_refused(bencher: Bencher<'_, '_>) {
    let text = format!(r#"{{"type":"add","message":"{BODY}","client_id":17}}"#);
    bencher.bench_local(|| ClientFrame::parse(black_box(&text)).is_err());
}

#[divan::bench]
fn encode_change(bencher: Bencher<'_, '_>) {
    let (encoder, message) = (encoder(), message(9));
    bencher.bench_local(|| encoder.change(MessageOp::Added, black_box(Seq(9)), black_box(&message)));
}

#[divan::bench]
fn encode_ack(bencher: Bencher<'_, '_>) {
    let (encoder, message) = (encoder(), message(9));
    let client_id = ClientId::new("0b6c2d1e-7f3a-4d55").unwrap();
    bencher.bench_local(|| encoder.ack(black_box(&client_id), message.id, Seq(9), message.pos));
}

#[divan::bench(args = [1, 50, 200])]
fn encode_history(bencher: Bencher<'_, '_>, messages: u64) {
    let encoder = encoder();
    let head = Head { epoch: Epoch(1_724_566_366_007), last_seq: Seq(messages) };
    let page = History { head, messages: (1..=messages).map(message).collect() };
    bencher.bench_local(|| encoder.history(black_box(&page), true, None));
}

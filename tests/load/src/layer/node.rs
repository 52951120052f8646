//! Publishing and subscribing through Digi's layer.

use digi_core::event::{Envelope, Event, EventKind, Group};
use digi_core::frame::Frame;
use digi_core::layer::{ChannelLayer, Incoming, RedisLayer};
use digi_core::store::model::MessageOp;
use digi_core::{Cursor, Epoch, MessageId, RoomId, Seq, UserKey};

use super::{FRAME, PATIENCE, REPORT, TOGETHER};
use crate::Result;

const ASK: RoomId = RoomId(1);
const ANSWER: RoomId = RoomId(2);
const REPORTS: RoomId = RoomId(3);

/// The rooms of the many events begin here.
const MANY: i64 = 1_000;

pub(super) struct End {
    layer: RedisLayer,
    ask: [Envelope; 1],
    batch: Vec<Envelope>,
    reports: u64,
}

impl End {
    pub(super) async fn connect(url: &str, rooms: usize) -> Result<Self> {
        let layer = subscribed(url, &[ANSWER, REPORTS].map(Group::Room)).await?;
        let room = |at: usize| RoomId(MANY + (at % rooms) as i64);
        let batch = (0..TOGETHER).map(|at| event(room(at), at as u64)).collect();
        Ok(Self { layer, ask: [event(ASK, 1)], batch, reports: 0 })
    }

    pub(super) async fn ask(&mut self) -> Result<()> {
        self.layer.publish(&self.ask).await?;
        arrived(&self.layer).await?;
        Ok(())
    }

    pub(super) async fn publish(&mut self) -> Result<()> {
        Ok(self.layer.publish(&self.batch).await?)
    }

    pub(super) async fn reported(&mut self) -> Result<u64> {
        if self.reports == 0 {
            self.reports = arrived(&self.layer).await?.len() as u64;
        }
        self.reports -= 1;
        Ok(REPORT)
    }
}

/// A layer that is up and subscribed.
pub(super) async fn subscribed(url: &str, groups: &[Group]) -> Result<RedisLayer> {
    let layer = RedisLayer::from_url(url)?;
    let up = async {
        while layer.subscribe(groups).await.is_err() || !layer.status().is_up {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.map_err(|_| "the layer did not come up")?;
    Ok(layer)
}

async fn arrived(layer: &RedisLayer) -> Result<Vec<Envelope>> {
    loop {
        match layer.next().await.ok_or("the layer has ended")? {
            Incoming::Arrived(envelopes) => return Ok(envelopes),
            // Once at the start; a loss later is found by the count that does not come.
            Incoming::Lagged => {}
        }
    }
}

fn event(room: RoomId, seq: u64) -> Envelope {
    let kind = EventKind::Message {
        op: MessageOp::Added,
        message: MessageId(room.0 << 32 | seq as i64),
        pos: Seq(seq),
        sender: UserKey::from("1234"),
        client_id: digi_core::ClientId::new("c-123456"),
        frame: Frame::from_text("x".repeat(FRAME)),
    };
    Envelope::Event(Event { room, at: Cursor::new(Epoch(1_700_000_000_000), Seq(seq)), kind })
}

pub(super) async fn answer(url: &str) -> Result<()> {
    let many = (0..TOGETHER as i64).map(|at| Group::Room(RoomId(MANY + at)));
    let groups: Vec<_> = many.chain([Group::Room(ASK)]).collect();
    let layer = subscribed(url, &groups).await?;
    println!("ready");
    let mut count = 0;
    loop {
        for envelope in arrived(&layer).await? {
            if envelope.group() == Group::Room(ASK) {
                layer.publish(&[event(ANSWER, 1)]).await?;
                continue;
            }
            count += 1;
            if count % REPORT == 0 {
                layer.publish(&[event(REPORTS, count)]).await?;
            }
        }
    }
}

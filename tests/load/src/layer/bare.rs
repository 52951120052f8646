//! Publishing and subscribing with redis-rs alone.

use futures_util::StreamExt;
use redis::Msg;
use redis::aio::{MultiplexedConnection, PubSubSink, PubSubStream};

use super::{FRAME, REPORT, TOGETHER};
use crate::Result;

const ASK: &str = "bare-ask";
const ANSWER: &str = "bare-answer";
const MANY: &str = "bare-many";
const REPORTS: &str = "bare-reports";

pub(super) struct End {
    connection: MultiplexedConnection,
    incoming: Subscription,
    batch: redis::Pipeline,
    frame: Vec<u8>,
}

impl End {
    pub(super) async fn connect(url: &str) -> Result<Self> {
        let client = redis::Client::open(url)?;
        let connection = client.get_multiplexed_async_connection().await?;
        let incoming = subscribed(&client, &[ANSWER, REPORTS]).await?;
        let frame = vec![b'x'; FRAME];
        let mut batch = redis::pipe();
        for _ in 0..TOGETHER {
            batch.cmd("PUBLISH").arg(MANY).arg(&frame).ignore();
        }
        Ok(Self { connection, incoming, batch, frame })
    }

    pub(super) async fn ask(&mut self) -> Result<()> {
        publish(&mut self.connection, ASK, &self.frame).await?;
        self.incoming.next().await?;
        Ok(())
    }

    pub(super) async fn publish(&mut self) -> Result<()> {
        Ok(self.batch.query_async(&mut self.connection).await?)
    }

    pub(super) async fn reported(&mut self) -> Result<u64> {
        self.incoming.next().await?;
        Ok(REPORT)
    }
}

struct Subscription {
    stream: PubSubStream,
    /// The connection lasts for as long as this.
    _sink: PubSubSink,
}

impl Subscription {
    async fn next(&mut self) -> Result<Msg> {
        Ok(self.stream.next().await.ok_or("the subscription has ended")?)
    }
}

async fn subscribed(client: &redis::Client, channels: &[&str]) -> Result<Subscription> {
    let mut pubsub = client.get_async_pubsub().await?;
    for channel in channels {
        pubsub.subscribe(channel).await?;
    }
    let (sink, stream) = pubsub.split();
    Ok(Subscription { stream, _sink: sink })
}

async fn publish(connection: &mut MultiplexedConnection, channel: &str, payload: &[u8]) -> Result<()> {
    Ok(redis::cmd("PUBLISH").arg(channel).arg(payload).query_async(connection).await?)
}

pub(super) async fn answer(url: &str) -> Result<()> {
    let client = redis::Client::open(url)?;
    let mut connection = client.get_multiplexed_async_connection().await?;
    let mut incoming = subscribed(&client, &[ASK, MANY]).await?;
    println!("ready");
    let mut arrived = 0;
    loop {
        let message = incoming.next().await?;
        if message.get_channel_name() == ASK {
            publish(&mut connection, ANSWER, message.get_payload_bytes()).await?;
        } else {
            arrived += 1;
            if arrived % REPORT == 0 {
                publish(&mut connection, REPORTS, b"").await?;
            }
        }
    }
}

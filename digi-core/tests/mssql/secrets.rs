//! What gets into logs: neither the password, nor what people write.

use std::io;
use std::sync::{Arc, Mutex};

use digi_core::store::Store;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::peer::{Answer, PASSWORD, Peer, Setup};
use crate::script::{self, APPLY, ROOM, batch};

const WRITTEN: &str = "what alice wrote";

/// All that is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[tokio::test]
async fn neither_the_password_nor_a_message_is_logged() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(log.clone());
    let _guard = subscriber.finish().set_default();
    tracing::info!("the log is on");

    // Let in, and refused by errors that quote what was to be stored.
    let quoting = format!("Violation of PRIMARY KEY constraint. The duplicate key value is ({WRITTEN}).");
    let peer = Peer::start(Setup::new(move |request| {
        if request.text.contains(APPLY) {
            Answer::error(2628, 16, &quoting).into()
        } else {
            script::server(request).into()
        }
    }));
    let options = peer.options();
    let shown = format!("{options:?}");
    let store = peer.store();
    store.member(ROOM, &WRITTEN.into()).await.unwrap();
    let refused = store.apply(&batch(1, WRITTEN)).await.unwrap_err();
    // Not let in.
    let peer = Peer::start(Setup::refusing(18456, &format!("Login failed: {PASSWORD}")));
    let unavailable = peer.store().member(ROOM, &"alice".into()).await.unwrap_err();

    let told = format!("{shown} {refused} {refused:?} {unavailable} {unavailable:?}");
    for (what, text) in [("errors", &told), ("the log", &log.text())] {
        assert!(!text.contains(PASSWORD), "the password is in {what}: {text}");
        assert!(!text.contains(WRITTEN), "a message is in {what}: {text}");
    }
    assert!(log.text().contains("the log is on"));
}

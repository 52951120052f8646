//! What `tracing` says, as lines, for bindings that hand them to a log of the host's.

use std::fmt::{self, Write};

use tracing::Event;
use tracing::field::{Field, Visit};

/// The message of an event, and behind it its fields.
pub fn line(event: &Event<'_>) -> String {
    let mut words = Words::default();
    event.record(&mut words);
    words.message + &words.fields
}

#[derive(Default)]
struct Words {
    message: String,
    fields: String,
}

impl Visit for Words {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => self.message.push_str(value),
            name => drop(write!(self.fields, " {name}={value:?}")),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing into a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

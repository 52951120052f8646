//! What Rust's `tracing` says goes to Python's `logging`, under the logger `digi`.
//!
//! Whoever logs puts a line into a bounded queue and takes no GIL; a thread of its own hands the lines on.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::RwLock;
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Lines that wait. Further ones are counted and left out.
const WAITING: usize = 1_024;
/// How long the end of the interpreter waits for the last lines.
const FLUSH: Duration = Duration::from_secs(1);

/// The process whose thread takes the lines, and the way to it.
static QUEUE: RwLock<Option<(u32, SyncSender<Entry>)>> = RwLock::new(None);
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
/// The most that is asked for: 0 nothing, 1 errors … 5 everything.
static VERBOSITY: AtomicUsize = AtomicUsize::new(0);

enum Entry {
    Line {
        level: Level,
        target: &'static str,
        text: String,
    },
    /// Everything before this has been handed on.
    Flush(SyncSender<()>),
}

/// Begins, unless it has begun in this process, and takes over the level that `logging` asks for now.
pub(crate) fn start(py: Python<'_>) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("digi",))?;
    let asked: u32 = logger.call_method0("getEffectiveLevel")?.extract()?;
    VERBOSITY.store(verbosity(asked), Ordering::Relaxed);
    let process = std::process::id();
    let mut queue = QUEUE.write();
    if queue.as_ref().is_some_and(|(of, _)| *of == process) {
        return Ok(());
    }
    let first = queue.is_none();
    let (sender, lines) = sync_channel(WAITING);
    std::thread::Builder::new().name("digi-log".to_owned()).spawn(move || hand_on(&lines))?;
    *queue = Some((process, sender));
    drop(queue);
    if first {
        // Fails where the host has a subscriber of its own in this library, which it cannot have.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ToPython));
        let flush = PyCFunction::new_closure(py, None, None, |args, _| flush(args.py()))?;
        py.import("atexit")?.call_method1("register", (flush,))?;
    }
    Ok(())
}

/// From Python's numbers: 10 debug, 20 info, 30 warning, 40 error.
const fn verbosity(level: u32) -> usize {
    match level {
        0..10 => 5,
        10..20 => 4,
        20..30 => 3,
        30..40 => 2,
        40..=50 => 1,
        _ => 0,
    }
}

fn python_level(level: Level) -> u32 {
    match level {
        Level::ERROR => 40,
        Level::WARN => 30,
        Level::INFO => 20,
        Level::DEBUG => 10,
        Level::TRACE => 5,
    }
}

fn flush(py: Python<'_>) {
    let sender = QUEUE.read().as_ref().filter(|(of, _)| *of == std::process::id()).map(|(_, sender)| sender.clone());
    if let Some(sender) = sender {
        let (done, flushed) = sync_channel(1);
        py.detach(move || {
            if sender.try_send(Entry::Flush(done)).is_ok() {
                let _ = flushed.recv_timeout(FLUSH);
            }
        });
    }
}

fn hand_on(lines: &Receiver<Entry>) {
    while let Ok(entry) = lines.recv() {
        match entry {
            Entry::Flush(done) => drop(done.send(())),
            Entry::Line { level, target, text } => {
                let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
                let logged = Python::try_attach(|py| -> PyResult<()> {
                    let name = target.replace("digi_core", "digi").replace("_digi", "digi").replace("::", ".");
                    let logger = py.import("logging")?.call_method1("getLogger", (name,))?;
                    if left_out > 0 {
                        logger.call_method1("warning", ("%d lines were left out: too many at once", left_out))?;
                    }
                    logger.call_method1("log", (python_level(level), "%s", text)).map(drop)
                });
                // Where a handler of the host's raises, that is the host's. None: the interpreter has ended.
                if logged.is_none() {
                    return;
                }
            }
        }
    }
}

struct ToPython;

impl<S: Subscriber> Layer<S> for ToPython {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Other libraries' details are not Digi's to tell.
        if metadata.is_event() && metadata.target().trim_start_matches('_').starts_with("digi") {
            // The level that is asked for may change.
            Interest::sometimes()
        } else {
            Interest::never()
        }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        let of = match *metadata.level() {
            Level::ERROR => 1,
            Level::WARN => 2,
            Level::INFO => 3,
            Level::DEBUG => 4,
            Level::TRACE => 5,
        };
        of <= VERBOSITY.load(Ordering::Relaxed)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        None
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut line = Line::default();
        event.record(&mut line);
        let metadata = event.metadata();
        let text = line.message + &line.fields;
        let entry = Entry::Line { level: *metadata.level(), target: metadata.target(), text };
        let sent = match &*QUEUE.read() {
            Some((of, sender)) if *of == std::process::id() => sender.try_send(entry).is_ok(),
            _ => false,
        };
        if !sent {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The message and the fields of an event as text.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
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

//! What Rust's `tracing` says goes to Python's `logging`, under the logger `digi`.
//!
//! Whoever logs puts a line into a bounded queue and takes no GIL; a thread of its own hands the lines on.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use pyo3::prelude::*;
use pyo3::types::PyCFunction;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// Lines that wait. Further ones are counted and left out.
const WAITING: usize = 1_024;
/// How long the end of the interpreter waits for the last lines, and a forked child for a lock that may be nobody's.
const PATIENCE: Duration = Duration::from_secs(1);

/// The thread that takes the lines.
struct Queue {
    process: u32,
    /// None once the interpreter ends.
    lines: Option<SyncSender<Line>>,
    ended: Option<Mutex<Receiver<()>>>,
}

static QUEUE: RwLock<Option<Queue>> = RwLock::new(None);
static LEFT_OUT: AtomicU64 = AtomicU64::new(0);
/// The most that is asked for: 2 warnings … 5 everything. Warnings always go to Python, which may want them later.
static VERBOSITY: AtomicUsize = AtomicUsize::new(2);

struct Line {
    level: Level,
    target: &'static str,
    text: String,
}

/// Begins, unless it has begun in this process, and takes over the level that `logging` asks for now.
pub(crate) fn start(py: Python<'_>) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", ("digi",))?;
    let asked: u32 = logger.call_method0("getEffectiveLevel")?.extract()?;
    VERBOSITY.store(verbosity(asked), Ordering::Relaxed);
    // At a fork a thread that does not follow may have held the lock.
    let Some(mut queue) = QUEUE.try_write_for(PATIENCE) else { return Ok(()) };
    let process = std::process::id();
    if queue.as_ref().is_some_and(|known| known.process == process) {
        return Ok(());
    }
    let (sender, lines) = sync_channel(WAITING);
    let (alive, ended) = channel();
    std::thread::Builder::new().name("digi-log".to_owned()).spawn(move || hand_on(Mutex::new(lines), alive))?;
    let parents = queue.replace(Queue { process, lines: Some(sender), ended: Some(Mutex::new(ended)) });
    drop(queue);
    if parents.is_none() {
        // Fails where the host has a subscriber of its own in this library, which it cannot have.
        let _ = tracing::subscriber::set_global_default(tracing_subscriber::registry().with(ToPython));
        let at_exit = PyCFunction::new_closure(py, None, None, |args, _| args.py().detach(end))?;
        py.import("atexit")?.call_method1("register", (at_exit,))?;
    }
    // Its locks may have been held at the fork, too.
    std::mem::forget(parents);
    Ok(())
}

/// From Python's numbers: 10 debug, 20 info, 30 warning, 40 error.
const fn verbosity(level: u32) -> usize {
    match level {
        0..10 => 5,
        10..20 => 4,
        20..30 => 3,
        _ => 2,
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

/// Lets the thread hand on what waits and end, while it still can: Python must not be held.
fn end() {
    let ended = match &mut *QUEUE.write() {
        Some(queue) if queue.process == std::process::id() => {
            queue.lines = None;
            queue.ended.take()
        }
        _ => None,
    };
    if let Some(ended) = ended {
        let _ = ended.lock().recv_timeout(PATIENCE);
    }
}

/// The life of the thread; `_alive` tells its end. It stays attached to Python: coming and going takes a lock of the
/// interpreter's that a fork may find held.
#[allow(clippy::needless_pass_by_value, reason = "they end with the thread")]
fn hand_on(lines: Mutex<Receiver<Line>>, _alive: Sender<()>) {
    Python::try_attach(|py| {
        while let Ok(line) = py.detach(|| lines.lock().recv()) {
            // Where a handler of the host's raises, that is the host's.
            let _ = log(py, &line);
        }
    });
}

fn log(py: Python<'_>, line: &Line) -> PyResult<()> {
    let name = line.target.replace("digi_core", "digi").replace("_digi", "digi").replace("::", ".");
    let logger = py.import("logging")?.call_method1("getLogger", (name,))?;
    let left_out = LEFT_OUT.swap(0, Ordering::Relaxed);
    if left_out > 0 {
        logger.call_method1("warning", ("%d lines were left out: too many at once", left_out))?;
    }
    logger.call_method1("log", (python_level(line.level), "%s", &line.text)).map(drop)
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
        let metadata = event.metadata();
        let text = digi_core::logging::line(event);
        let line = Line { level: *metadata.level(), target: metadata.target(), text };
        let sent = match &*QUEUE.read() {
            Some(Queue { process, lines: Some(lines), .. }) if *process == std::process::id() => {
                lines.try_send(line).is_ok()
            }
            _ => false,
        };
        if !sent {
            LEFT_OUT.fetch_add(1, Ordering::Relaxed);
        }
    }
}

//! Connections: the writer's own on a thread of its own, and a few for reading.

use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rusqlite::limits::Limit;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::spawn_blocking;

use super::error::store_error;
use super::in_use::InUse;
use super::options::SqliteOptions;
use super::overlay::{self, Overlay};
use super::place::{PAUSE, Sweep};
use crate::store::StoreError;
use crate::store::recent::Recent;

/// What waits for the writer at most; whoever brings more waits. The engine sends one batch at a time.
const QUEUE: usize = 64;

/// The longest row, and so about the longest text, in bytes. What is longer is refused by SQLite itself.
pub(super) const MAX_ROW: i32 = 1 << 20;

/// How far the write-ahead log grows before its pages are moved into the file: 16 MiB, so that pages which change in
/// every batch are moved seldom.
const CHECKPOINT_PAGES: u32 = 4_096;

/// What the writer's thread owns.
pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) recent: Recent,
    pub(super) overlay: Arc<RwLock<Overlay>>,
    pub(super) sweep: Sweep,
    /// Dropped after the connection.
    _file: Arc<InUse>,
}

type Job = Box<dyn FnOnce(&mut Writer) + Send>;

impl Writer {
    pub(super) fn open(
        path: &Path,
        options: &SqliteOptions,
        file: Arc<InUse>,
        overlay: Arc<RwLock<Overlay>>,
    ) -> Result<Self, StoreError> {
        let connection = open_for_writing(path, options)?;
        Ok(Self { connection, recent: Recent::new(), overlay, sweep: Sweep::default(), _file: file })
    }

    /// Carries out jobs until there can be no more, and places what they leave in the journal.
    fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        // When the journal last grew, or could not be placed. Questions, of which there are always some, don't count.
        let mut since = Instant::now();
        loop {
            let job = match jobs.try_recv() {
                Err(TryRecvError::Empty) if self.has_unplaced() => {
                    let rest = PAUSE.saturating_sub(since.elapsed());
                    if !rest.is_zero() {
                        // Whoever sends a job unparks.
                        thread::park_timeout(rest);
                    } else if !self.note(Self::place_piece) {
                        since = Instant::now();
                    }
                    continue;
                }
                Err(TryRecvError::Empty) => jobs.blocking_recv(),
                job => job.ok(),
            };
            let Some(job) = job else { break };
            let before = self.overlay.read().extent().last;
            job(&mut self);
            if self.overlay.read().extent().last != before {
                since = Instant::now();
            }
            self.note(Self::place_due);
        }
        self.note(Self::place_all);
    }

    /// Takes in what others have left in the journal.
    pub(super) fn look(&mut self) -> Result<(), StoreError> {
        overlay::snapshot(&self.connection, &self.overlay, |_| ()).map(drop).map_err(store_error)
    }

    /// What cannot be placed now stays in the journal, safe, and is tried again. Whether it could.
    fn note(&mut self, place: impl FnOnce(&mut Self) -> rusqlite::Result<()>) -> bool {
        let placed = place(self);
        if let Err(error) = &placed {
            tracing::debug!(%error, "the journal could not be placed");
        }
        placed.is_ok()
    }
}

/// The way to the writer's thread. Dropping it runs what is queued, and waits for the connection to be closed.
pub(super) struct WriterHandle {
    queue: mpsc::Sender<Job>,
    /// Dropped after the queue: its end is what ends the thread.
    thread: JoinOnDrop,
}

struct JoinOnDrop(Option<JoinHandle<()>>);

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        let Some(thread) = self.0.take() else { return };
        thread.thread().unpark();
        if thread.join().is_err() {
            tracing::error!("the store's writer thread had panicked");
        }
    }
}

impl WriterHandle {
    pub(super) fn open(
        path: &Path,
        options: &SqliteOptions,
        file: Arc<InUse>,
        overlay: Arc<RwLock<Overlay>>,
    ) -> Result<Self, StoreError> {
        let writer = Writer::open(path, options, file, overlay)?;
        let (queue, jobs) = mpsc::channel::<Job>(QUEUE);
        let thread = thread::Builder::new().name("digi-sqlite".into()).spawn(move || writer.run(jobs));
        let thread = thread.map_err(|error| StoreError::Unavailable(format!("no thread for the store: {error}")))?;
        Ok(Self { queue, thread: JoinOnDrop(Some(thread)) })
    }

    /// Runs a job on the writer's thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Writer) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move |writer: &mut Writer| {
            // Nobody waits any more: then nobody is told.
            let _ = answer.send(job(writer));
        });
        let gone = |_| StoreError::Unavailable("the store's writer thread has ended".into());
        self.queue.send(job).await.map_err(gone)?;
        if let Some(thread) = &self.thread.0 {
            thread.thread().unpark();
        }
        // The thread ends before an answer only by a panic, somewhere before or after the commit.
        let lost = |_| StoreError::Unknown("the store's writer thread has ended".into());
        answered.await.map_err(lost)?
    }
}

/// The connections for reading. A read waits until one is free.
pub(super) struct Readers {
    idle: Mutex<Vec<Connection>>,
    overlay: Arc<RwLock<Overlay>>,
    free: Arc<Semaphore>,
    /// Dropped after the connections.
    _file: Arc<InUse>,
}

/// A connection on loan; given back by whoever drops it, also by a panic.
struct Loan {
    connection: Option<Connection>,
    readers: Arc<Readers>,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.readers.idle.lock().extend(self.connection.take());
    }
}

impl Readers {
    /// All are opened at once, so that all have the same file open even if its name is given to another later.
    pub(super) fn open(
        path: &Path,
        options: &SqliteOptions,
        file: Arc<InUse>,
        overlay: Arc<RwLock<Overlay>>,
    ) -> Result<Self, StoreError> {
        let count = options.readers.max(1);
        let idle: Result<Vec<_>, _> = (0..count).map(|_| open_for_reading(path, options)).collect();
        Ok(Self { idle: Mutex::new(idle?), overlay, free: Arc::new(Semaphore::new(count)), _file: file })
    }

    /// Runs a read inside one snapshot, with what it takes out of the overlay as of the same moment.
    pub(super) async fn run<P, T: Send + 'static>(
        self: &Arc<Self>,
        take: impl Fn(&Overlay) -> P + Send + 'static,
        read: impl FnOnce(&Connection, P) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Unavailable("the store's readers have ended".into());
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| gone())?;
        let readers = Arc::clone(self);
        let work = spawn_blocking(move || {
            let connection = readers.idle.lock().pop();
            let loan = Loan { connection, readers, _permit: permit };
            let connection = loan.connection.as_ref().ok_or_else(gone)?;
            let (snapshot, taken) = overlay::snapshot(connection, &loan.readers.overlay, take).map_err(store_error)?;
            read(&snapshot, taken).map_err(store_error)
        });
        work.await.map_err(|error| StoreError::Unavailable(format!("a read was ended: {error}")))?
    }
}

fn open_for_writing(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let connection = open(path, options)?;
    set_wal(&connection, options)?;
    set(&connection, "synchronous", "FULL")?;
    set(&connection, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    // Pages that all rooms' batches touch stay in memory: 32 MiB.
    set(&connection, "cache_size", -32_768)?;
    if let Some(max_mb) = options.max_mb {
        let page: i64 = connection.pragma_query_value(None, "page_size", |row| row.get(0)).map_err(store_error)?;
        set(&connection, "max_page_count", (i64::from(max_mb) << 20) / page.max(512))?;
    }
    Ok(connection)
}

pub(super) fn open_for_reading(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let connection = open(path, options)?;
    set(&connection, "query_only", "ON")?;
    Ok(connection)
}

fn open(path: &Path, options: &SqliteOptions) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let opened = || {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_millis(options.busy_ms.into()))?;
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_ROW)?;
        connection.set_prepared_statement_cache_capacity(32);
        Ok(connection)
    };
    opened().map_err(store_error)
}

/// Two processes that open a new file at once stand in each other's way here, and SQLite does not wait by itself:
/// either could be the one that the other waits for.
fn set_wal(connection: &Connection, options: &SqliteOptions) -> Result<(), StoreError> {
    let until = Instant::now() + Duration::from_millis(options.busy_ms.into());
    loop {
        let set = connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0));
        match set {
            Ok(mode) if mode == "wal" => return Ok(()),
            Ok(mode) => {
                let text = format!("the file system allows no write-ahead log (journal_mode stayed {mode})");
                return Err(StoreError::Unavailable(text));
            }
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < until => {
                thread::sleep(Duration::from_millis(2));
            }
            Err(error) => return Err(store_error(error)),
        }
    }
}

fn set(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> Result<(), StoreError> {
    connection.pragma_update(None, name, value).map_err(store_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_reach_the_disk_and_readers_cannot_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.db");
        let _file = InUse::claim(&path).unwrap();
        let writer = open_for_writing(&path, &SqliteOptions::default()).unwrap();
        let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        // 2 is FULL.
        assert_eq!(number("synchronous"), 2);
        assert_eq!(number("busy_timeout"), 5_000);
        let reader = open_for_reading(&path, &SqliteOptions::default()).unwrap();
        reader.execute_batch("CREATE TABLE t (a)").unwrap_err();
        writer.execute_batch("CREATE TABLE t (a)").unwrap();
    }

    #[test]
    fn the_bound_of_a_file_is_set_in_mib() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chat.db");
        let _file = InUse::claim(&path).unwrap();
        let options = SqliteOptions { max_mb: Some(3), ..SqliteOptions::default() };
        let writer = open_for_writing(&path, &options).unwrap();
        let number = |name| writer.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("max_page_count") * number("page_size"), 3 << 20);
    }
}

//! What only the SQLite store promises: crashes, several processes, versions, and files in use.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command as Process, Stdio};
use std::thread;

use digi_core::store::model::{Action, Authority, Batch, BatchId, Change, Command, NewRoom, Outcome, Role};
use digi_core::store::sqlite::{SCRIPTS, SqliteOptions, SqliteStore};
use digi_core::store::{Store, StoreError};
use digi_core::{ClientId, Millis, RoomId, Seq};
use rusqlite::Connection;

const NOW: Millis = Millis(1_700_000_000_000);

async fn open(path: &Path) -> SqliteStore {
    let store = SqliteStore::open(path, &SqliteOptions::default()).unwrap();
    store.migrate().await.unwrap();
    store
}

async fn room(store: &SqliteStore, id: i64) -> RoomId {
    let members = vec![("alice".into(), "Alice".into(), Role::Member)];
    let room = NewRoom { id: Some(RoomId(id)), members, ..NewRoom::default() };
    match store.create_room(&room, NOW).await {
        Ok(id) | Err(StoreError::RoomExists(id)) => id,
        Err(error) => panic!("{error}"),
    }
}

fn add(room: RoomId, client_id: &str, body: &str) -> Command {
    let action = Action::Add { body: body.into(), client_id: ClientId::new(client_id) };
    Command { room, user: "alice".into(), user_name: "Alice".into(), authority: Authority::Member, action }
}

fn batch(commands: Vec<Command>) -> Batch {
    Batch { id: BatchId { node: 0, number: 0 }, commands, known: Vec::new(), now: NOW }
}

/// How often each client id stands in a room, whose numbers have to be complete.
async fn client_ids(store: &SqliteStore, room: RoomId) -> HashMap<String, usize> {
    let log = store.changes(room, Seq(0), u64::MAX).await.unwrap();
    let seqs: Vec<_> = log.rows.iter().map(|row| row.seq.0).collect();
    assert_eq!(seqs, (1..=log.head.last_seq.0).collect::<Vec<_>>());
    let mut counts = HashMap::new();
    for row in log.rows {
        let Change::Message(message) = row.change else { panic!("{row:?}") };
        *counts.entry(message.client_id.unwrap().to_string()).or_default() += 1;
    }
    counts
}

const BATCH: usize = 3;

/// What a batch of the child consists of: messages in two rooms, and one that every child sends.
fn child_batch(name: &str, number: usize) -> Vec<Command> {
    let own = |n: usize| add(RoomId(1 + (n % 2) as i64), &format!("{name} {number} {n}"), "text");
    let mut commands: Vec<_> = (0..BATCH).map(own).collect();
    commands.push(add(RoomId(3), &format!("shared {number}"), name));
    commands
}

/// The tests that need a process which writes run this binary again with themselves alone. Whether this is that
/// process; it then has written its batches and said `applied <n>` after each.
async fn was_child() -> bool {
    let (Ok(path), Ok(name)) = (std::env::var("DIGI_TEST_DB"), std::env::var("DIGI_TEST_NAME")) else { return false };
    let count: usize = std::env::var("DIGI_TEST_BATCHES").unwrap().parse().unwrap();
    let store = open(Path::new(&path)).await;
    for id in 1..=3 {
        room(&store, id).await;
    }
    for number in 0..count {
        match store.apply(&batch(child_batch(&name, number))).await {
            Ok(_) => println!("applied {number}"),
            Err(StoreError::Full(_) | StoreError::Unavailable(_)) => {
                // A read in the same process shows what was applied and nothing else.
                let shown = client_ids(&store, RoomId(3)).await.len();
                println!("failed with {shown} shown");
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    true
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn child(test: &str, path: &Path, name: &str, batches: usize) -> Child {
    let mut process = Process::new(std::env::current_exe().unwrap());
    process.args(["--exact", test, "--nocapture"]);
    start(process, path, name, batches)
}

fn start(mut process: Process, path: &Path, name: &str, batches: usize) -> Child {
    let process = process.env("DIGI_TEST_DB", path).env("DIGI_TEST_NAME", name);
    process.env("DIGI_TEST_BATCHES", batches.to_string()).stdout(Stdio::piped()).spawn().unwrap()
}

/// The batches that a child reports, as it does so.
fn reports(child: &mut Child) -> impl Iterator<Item = usize> + use<> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    // The first one stands behind what the test harness prints before it.
    lines.filter_map(|line| line.rsplit_once("applied ").and_then(|(_, number)| number.parse().ok()))
}

#[tokio::test]
async fn what_was_reported_survives_kill_9() {
    if was_child().await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    for round in 0..12 {
        let name = format!("round {round}");
        let mut child = child("what_was_reported_survives_kill_9", &path, &name, usize::MAX);
        let mut reported = reports(&mut child);
        let mut last = 0;
        // Then it is somewhere within its next batches.
        for number in reported.by_ref().take(1 + round * 7) {
            last = number;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        last = reported.last().unwrap_or(last);

        let store = open(&path).await;
        let there = [client_ids(&store, RoomId(1)).await, client_ids(&store, RoomId(2)).await];
        let count =
            |n: usize, number: usize| there[n % 2].get(&format!("{name} {number} {n}")).copied().unwrap_or_default();
        for number in 0..=last {
            assert!((0..BATCH).all(|n| count(n, number) == 1), "{name}: batch {number} of {last} is not there once");
        }
        // Those of which nobody heard are there in full or not at all.
        for number in last + 1..last + 100 {
            let counts: Vec<_> = (0..BATCH).map(|n| count(n, number)).collect();
            assert!(counts == [0; BATCH] || counts == [1; BATCH], "{name}: batch {number}: {counts:?}");
        }
        assert_eq!(integrity(&path), "ok");
    }
}

fn integrity(path: &Path) -> String {
    let connection = Connection::open(path).unwrap();
    connection.pragma_query_value(None, "integrity_check", |row| row.get(0)).unwrap()
}

/// The write-ahead log reaches the largest size that the process may write: the commit itself fails.
#[cfg(unix)]
#[tokio::test]
async fn a_commit_that_cannot_be_written_is_not_done() {
    if was_child().await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for kib in [200, 301, 402] {
        let path = dir.path().join(format!("{kib}.db"));
        let mut process = Process::new("sh");
        // The shell counts in blocks of 512 bytes. Ignoring the signal makes the write fail instead.
        process.args(["-c", &format!("trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"", kib * 2)]);
        process.arg(std::env::current_exe().unwrap());
        process.args(["--exact", "a_commit_that_cannot_be_written_is_not_done", "--nocapture"]);
        let child = start(process, &path, "limited", 10_000);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{text}");
        let applied = text.matches("applied ").count();
        assert!(applied > 0, "{text}");
        assert!(text.contains(&format!("failed with {applied} shown")), "{text}");
        // Nor does recovery bring it back.
        let store = open(&path).await;
        assert_eq!(client_ids(&store, RoomId(3)).await.len(), applied);
        let applied = store.apply(&batch(child_batch("limited", applied))).await.unwrap();
        assert!(applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Message { .. })), "{applied:?}");
    }
}

/// Three processes make the file, its tables and rooms at the same time, and write at the same time.
#[tokio::test]
async fn processes_share_a_file() {
    if was_child().await {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let names = ["one", "two", "three"];
    let children: Vec<_> = names.map(|name| child("processes_share_a_file", &path, name, 50)).into();
    for mut child in children {
        assert_eq!(reports(&mut child).last(), Some(49));
        assert!(child.wait().unwrap().success());
    }
    let store = open(&path).await;
    let there = [client_ids(&store, RoomId(1)).await, client_ids(&store, RoomId(2)).await];
    for name in names {
        for (number, n) in (0..50).flat_map(|number| (0..BATCH).map(move |n| (number, n))) {
            assert_eq!(there[n % 2].get(&format!("{name} {number} {n}")), Some(&1));
        }
    }
    let shared = client_ids(&store, RoomId(3)).await;
    assert_eq!(shared.len(), 50);
    assert!(shared.values().all(|count| *count == 1), "{shared:?}");
}

#[test]
fn migrating_twice_and_at_once_is_migrating() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..10 {
        let path = dir.path().join(format!("{round}.db"));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    runtime().block_on(async {
                        let store = open(&path).await;
                        store.migrate().await.unwrap();
                    });
                });
            }
        });
        let connection = Connection::open(&path).unwrap();
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!((version, mode.as_str()), (SCRIPTS.len() as i64, "wal"));
    }
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date() {
    let dir = tempfile::tempdir().unwrap();
    for version in 1..SCRIPTS.len() {
        let path = dir.path().join(format!("{version}.db"));
        let connection = Connection::open(&path).unwrap();
        for script in &SCRIPTS[..version] {
            connection.execute_batch(script).unwrap();
        }
        connection.pragma_update(None, "user_version", version as i64).unwrap();
        connection.execute("INSERT INTO digi_room VALUES (7, 'kept', '', 0)", []).unwrap();
        drop(connection);
        drop(open(&path).await);
        let connection = Connection::open(&path).unwrap();
        let stored: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        let kept: String = connection.query_one("SELECT name FROM digi_room", [], |row| row.get(0)).unwrap();
        let batches: i64 = connection.query_one("SELECT count(*) FROM digi_batch", [], |row| row.get(0)).unwrap();
        assert_eq!((stored, kept.as_str(), batches), (SCRIPTS.len() as i64, "kept", 0));
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    drop(open(&path).await);
    for version in [SCRIPTS.len() as i64 + 1, 99, -1] {
        Connection::open(&path).unwrap().pragma_update(None, "user_version", version).unwrap();
        let store = SqliteStore::open(&path, &SqliteOptions::default()).unwrap();
        let Err(StoreError::Schema(text)) = store.migrate().await else { panic!("version {version} was taken") };
        assert!(text.contains(&version.to_string()), "{text}");
        drop(store);
        let connection = Connection::open(&path).unwrap();
        let after: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap();
        assert_eq!(after, version);
    }
}

#[tokio::test]
async fn a_file_without_tables_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path().join("chat.db"), &SqliteOptions::default()).unwrap();
    let answer = store.apply(&batch(vec![add(RoomId(1), "id", "text")])).await;
    assert!(matches!(&answer, Err(StoreError::Schema(text)) if text.contains("migrate")), "{answer:?}");
    assert!(matches!(store.heads(&[RoomId(1)]).await, Err(StoreError::Schema(_))));
    assert!(matches!(store.create_room(&NewRoom::default(), NOW).await, Err(StoreError::Schema(_))));
}

#[tokio::test]
async fn what_cannot_be_opened_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let garbage = dir.path().join("garbage");
    std::fs::write(&garbage, "no database, but long enough to be read as one ".repeat(100)).unwrap();
    let opened = SqliteStore::open(&garbage, &SqliteOptions::default());
    assert!(matches!(opened, Err(StoreError::Unavailable(_))));
    // No use in trying these again.
    for (path, what) in [(dir.path().join("nowhere/chat.db"), "nowhere is no"), (dir.path().to_path_buf(), "is a")] {
        let opened = SqliteStore::open(path, &SqliteOptions::default());
        let Err(StoreError::BadUrl(text)) = opened else { panic!("not refused") };
        assert!(text.contains(&format!("{what} directory: give the database a name")), "{text}");
    }
    let text = std::fs::read_to_string(dir.path().join("garbage")).unwrap();
    assert!(text.starts_with("no database"), "what was there was written over");
}

/// Names that SQLite would take for more than names.
#[tokio::test]
async fn a_path_is_a_path() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["file:chat.db", ":memory:", "chat.db#x", "a b%20ü.db"] {
        let path = dir.path().join(name);
        room(&open(&path).await, 1).await;
        assert!(path.is_file(), "{name}");
    }
    let url = format!("sqlite:{}?max_mb=1&readers=1", dir.path().join("url.db").display());
    SqliteStore::from_url(&url).unwrap().migrate().await.unwrap();
    assert!(matches!(SqliteStore::from_url("sqlite:"), Err(StoreError::BadUrl(_))));
}

/// A writer elsewhere is waited for, and no longer than the setting says. Reads go on.
#[tokio::test]
async fn a_locked_file_is_unavailable_and_then_not() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let store = SqliteStore::open(&path, &SqliteOptions { busy_ms: 20, ..SqliteOptions::default() }).unwrap();
    store.migrate().await.unwrap();
    let room = room(&store, 1).await;
    store.apply(&batch(vec![add(room, "one", "text")])).await.unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = store.apply(&batch(vec![add(room, "two", "text")])).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.history(room, None, 10).await.unwrap().messages.len(), 1);
    other.execute_batch("ROLLBACK").unwrap();
    let applied = store.apply(&batch(vec![add(room, "two", "text"), add(room, "one", "text")])).await.unwrap();
    assert!(matches!(applied.outcomes[..], [Outcome::Message { .. }, Outcome::Duplicate { .. }]), "{applied:?}");
}

/// A batch that did not fit fits once there is room, with the same numbers and client ids.
#[tokio::test]
async fn after_a_full_disk_the_numbers_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let store = SqliteStore::open(&path, &SqliteOptions { max_mb: Some(1), ..SqliteOptions::default() }).unwrap();
    store.migrate().await.unwrap();
    let room = room(&store, 1).await;
    let body = "x".repeat(16 << 10);
    let commands = |number: usize| (0..7).map(|n| add(room, &format!("{number} {n}"), &body)).collect();
    let mut number = 0;
    while let Ok(applied) = store.apply(&batch(commands(number))).await {
        assert_eq!(applied.heads[0].1.last_seq.0, 7 * (number as u64 + 1));
        number += 1;
        assert!(number < 20, "1 MiB holds no {} KiB", number * 7 * 16);
    }
    assert!(matches!(store.apply(&batch(commands(number))).await, Err(StoreError::Full(_))));
    // A small one may still fit; it takes the next number.
    assert_eq!(store.heads(&[room]).await.unwrap()[0].1.last_seq.0, 7 * number as u64);
    let roomier = open(&path).await;
    let applied = roomier.apply(&batch(commands(number))).await.unwrap();
    assert!(applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Message { .. })), "{applied:?}");
    assert!(client_ids(&store, room).await.values().all(|count| *count == 1));
    let repeat = store.apply(&batch(vec![add(room, &format!("{number} 0"), "x")])).await.unwrap();
    assert!(matches!(repeat.outcomes[..], [Outcome::Duplicate { .. }]), "{repeat:?}");
}

#[tokio::test]
async fn the_change_marker_shows_what_others_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.db");
    let (mine, theirs) = (open(&path).await, open(&path).await);
    let room = room(&mine, 1).await;
    for n in 0..5 {
        mine.apply(&batch(vec![add(room, &format!("mine {n}"), "text")])).await.unwrap();
        mine.history(room, None, 10).await.unwrap();
        theirs.history(room, None, 10).await.unwrap();
        // It may change without that, because the others place what is in the journal.
        let marker = mine.change_marker().await.unwrap().unwrap();
        theirs.apply(&batch(vec![add(room, &format!("theirs {n}"), "text")])).await.unwrap();
        assert_ne!(mine.change_marker().await.unwrap(), Some(marker));
    }
}

/// A plain descriptor is as bad as another SQLite: whoever closes it takes the locks away.
#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_open_otherwise_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, hard, soft) = (dir.path().join("chat.db"), dir.path().join("hard.db"), dir.path().join("soft.db"));
    drop(open(&path).await);
    std::fs::hard_link(&path, &hard).unwrap();
    std::os::unix::fs::symlink(&path, &soft).unwrap();
    let held = std::fs::File::open(&path).unwrap();
    for name in [&path, &hard, &soft] {
        let opened = SqliteStore::open(name, &SqliteOptions::default());
        let Err(StoreError::FileInUse(text)) = opened.map(|_| ()) else { panic!("{name:?} was opened") };
        assert!(text.contains("another copy of SQLite") && text.contains("a file of Digi's own"), "{text}");
    }
    drop(held);
    // Stores of one copy know of each other, under whatever name.
    let stores = [open(&path).await, open(&soft).await];
    let _held = std::fs::File::open(&path).unwrap();
    open(&soft).await;
    drop(stores);
    assert!(matches!(SqliteStore::open(&path, &SqliteOptions::default()), Err(StoreError::FileInUse(_))));
}

//! The system's SQLite beside the bundled one, in one process, on one file.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests say what is wrong by panicking")]
#![allow(unsafe_code, reason = "the second copy is a C library, loaded at run time")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use digi_core::store::sqlite::{SqliteOptions, SqliteStore};
use digi_core::store::{Store, StoreError};
use libloading::Library;

type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type Exec = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_void, *mut c_void, *mut *mut c_char) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// A connection of the system's SQLite.
struct Foreign<'l> {
    library: &'l Library,
    handle: *mut c_void,
}

impl<'l> Foreign<'l> {
    fn open(library: &'l Library, path: &Path) -> Self {
        let path = CString::new(path.as_os_str().as_bytes()).unwrap();
        let mut handle = ptr::null_mut();
        // SAFETY: this is sqlite3_open's signature; both pointers outlive the call.
        let code = unsafe { library.get::<Open>(b"sqlite3_open\0").unwrap()(path.as_ptr(), &raw mut handle) };
        assert_eq!(code, 0, "sqlite3_open");
        Self { library, handle }
    }

    fn execute(&self, sql: &str) {
        let sql = CString::new(sql).unwrap();
        // SAFETY: this is sqlite3_exec's signature; it allows the callback, its argument and the place for a text to be
        // null, and the handle is open.
        let code = unsafe {
            let exec = self.library.get::<Exec>(b"sqlite3_exec\0").unwrap();
            exec(self.handle, sql.as_ptr(), ptr::null(), ptr::null_mut(), ptr::null_mut())
        };
        assert_eq!(code, 0, "{sql:?}");
    }
}

impl Drop for Foreign<'_> {
    fn drop(&mut self) {
        // SAFETY: this is sqlite3_close's signature; the handle is open and not used afterwards.
        let code = unsafe { self.library.get::<Close>(b"sqlite3_close\0").unwrap()(self.handle) };
        assert_eq!(code, 0, "sqlite3_close");
    }
}

#[tokio::test]
async fn a_file_that_another_copy_has_open_is_refused() {
    // SAFETY: SQLite's initialisers do nothing that another library would notice.
    let library = match unsafe { Library::new("libsqlite3.so.0") } {
        Ok(library) => library,
        Err(error) if std::env::var("CI").as_deref() != Ok("true") => {
            eprintln!("skipped: the system has no SQLite of its own: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let dir = tempfile::tempdir().unwrap();
    let (path, link) = (dir.path().join("chat.db"), dir.path().join("link.db"));
    let foreign = Foreign::open(&library, &path);
    foreign.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY)");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let opened = SqliteStore::open(name, &SqliteOptions::default()).map(|_| ());
        assert!(matches!(opened, Err(StoreError::FileInUse(_))), "{opened:?}");
    }
    // It did the other copy no harm.
    foreign.execute("INSERT INTO theirs VALUES (1)");
    drop(foreign);
    let store = SqliteStore::open(&path, &SqliteOptions::default()).unwrap();
    store.migrate().await.unwrap();
    // Another file of the other copy does not matter.
    let elsewhere = Foreign::open(&library, &dir.path().join("other.db"));
    elsewhere.execute("CREATE TABLE theirs (id INTEGER PRIMARY KEY)");
    SqliteStore::open(&link, &SqliteOptions::default()).unwrap().migrate().await.unwrap();
}

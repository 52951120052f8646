//! What SQLite's errors mean for a store.

use rusqlite::{Error, ErrorCode, ffi};

use crate::store::StoreError;

/// The store's error for one of SQLite's. SQLite's texts name tables and files, never what is stored.
pub(super) fn store_error(error: Error) -> StoreError {
    let failure = match error {
        Error::SqliteFailure(failure, text) => {
            let text = text.unwrap_or_else(|| failure.to_string());
            return by_code(failure, text);
        }
        // Before anything was run: a number that no column holds.
        Error::ToSqlConversionFailure(_) => return StoreError::Rejected("a number is out of range".into()),
        other => other,
    };
    StoreError::Unavailable(failure.to_string())
}

fn by_code(failure: ffi::Error, text: String) -> StoreError {
    match failure.code {
        ErrorCode::DiskFull => StoreError::Full(text),
        // The shared memory beside the file could not grow: the same disk, and SQLite asks no further.
        _ if failure.extended_code == ffi::SQLITE_IOERR_SHMSIZE => StoreError::Full(text),
        ErrorCode::TooBig | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch => StoreError::Rejected(text),
        ErrorCode::Unknown if text.starts_with("no such table") || text.contains("no column named") => {
            StoreError::Schema(format!("{text}; has migrate() been run?"))
        }
        _ => StoreError::Unavailable(text),
    }
}

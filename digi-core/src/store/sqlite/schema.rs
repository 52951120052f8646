//! The tables, and bringing them up to date.

use rusqlite::{Connection, TransactionBehavior};

use super::error::store_error;
use crate::store::StoreError;

/// What leads from each version to the next; the first makes version 1 out of an empty file. A script that has been
/// released is never changed.
pub const SCRIPTS: &[&str] = &[
    include_str!("../schema/sqlite/0001.sql"),
    include_str!("../schema/sqlite/0002.sql"),
    include_str!("../schema/sqlite/0003.sql"),
];

/// Applies what is missing. `PRAGMA user_version` says how many scripts have been applied.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    if missing(connection)?.is_empty() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(store_error)?;
    // Asked again: another process may have been first.
    for (version, script) in missing(&transaction)? {
        transaction.execute_batch(script).map_err(|error| {
            StoreError::Schema(format!("version {version} could not be applied: {}", store_error(error)))
        })?;
        transaction.pragma_update(None, "user_version", version).map_err(store_error)?;
    }
    transaction.commit().map_err(store_error)
}

fn missing(connection: &Connection) -> Result<Vec<(u32, &'static str)>, StoreError> {
    let stored: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(store_error)?;
    let newest = SCRIPTS.len();
    let applied = usize::try_from(stored).ok().filter(|applied| *applied <= newest).ok_or_else(|| {
        StoreError::Schema(format!(
            "the file has version {stored}, this Digi knows up to {newest}: it belongs to a newer Digi (or to another \
             program); update Digi or name another file"
        ))
    })?;
    Ok((1..).zip(SCRIPTS.iter().copied()).skip(applied).collect())
}

//! The tables, and bringing them up to date.

use std::time::Duration;

use super::connection::Readers;
use super::failure::{Failure, Kind};
use super::rows::{integer, sets};
use super::statements::in_schema;
use crate::store::StoreError;

/// What leads from each version to the next; the first makes version 1 out of an empty schema. `{schema}` stands for
/// the schema's name in brackets; every statement ends with a semicolon at the end of a line. A script that has been
/// released is never changed.
pub const SCRIPTS: &[&str] = &[include_str!("../schema/mssql/0001.sql")];

/// One row: how many scripts have been applied.
pub const VERSION_TABLE: &str = "IF OBJECT_ID(N'{schema}.digi_schema', N'U') IS NULL
CREATE TABLE {schema}.digi_schema (
    id      INT NOT NULL,
    version INT NOT NULL,
    CONSTRAINT digi_schema_key PRIMARY KEY CLUSTERED (id)
);";
const FIRST_VERSION: &str = "IF NOT EXISTS (SELECT 1 FROM {schema}.digi_schema WHERE id = 1)
    INSERT INTO {schema}.digi_schema (id, version) VALUES (1, 0);";
const VERSION: &str = "SELECT version FROM {schema}.digi_schema WHERE id = 1;";
const IS_THERE: &str =
    "SELECT CASE WHEN OBJECT_ID(N'{schema}.digi_schema', N'U') IS NULL THEN 0 ELSE 1 END AS is_there;";
const SET_VERSION: &str = "UPDATE {schema}.digi_schema SET version = @P1 WHERE id = 1 AND version < @P1;";

const OPENJSON: &str = "SELECT value FROM OPENJSON(N'[1]');";
const SNAPSHOT: &str = "SELECT CAST(is_read_committed_snapshot_on AS INT) FROM sys.databases WHERE name = DB_NAME();";

/// 2: forced.
const DURABILITY: &str = "SELECT CAST(delayed_durability AS INT) FROM sys.databases WHERE name = DB_NAME();";

/// How often it is begun again when another node makes the same tables.
const TRIES: usize = 5;

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// Applies what is missing. Every statement of a script does nothing where its table is, so several nodes may do it at
/// once: who comes second in the making of a table begins anew.
pub(super) async fn migrate(readers: &Readers, schema: &str) -> Result<(), StoreError> {
    check_database(readers).await?;
    for _ in 1..TRIES {
        match apply_missing(readers, schema).await {
            Err(Stop::Failed(failure)) if failure.number.is_some() => tokio::time::sleep(PAUSE).await,
            done => return done.map_err(StoreError::from),
        }
    }
    apply_missing(readers, schema).await.map_err(StoreError::from)
}

enum Stop {
    Failed(Failure),
    Newer(i64),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Stop> for StoreError {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(failure) => match failure.into_store_error(false) {
                Self::Rejected(text) => Self::Schema(format!("the tables could not be made: {text}")),
                other => other,
            },
            Stop::Newer(version) => Self::Schema(format!(
                "the database has version {version}, this Digi knows up to {}: it belongs to a newer Digi; update Digi \
                 or name another database or schema",
                SCRIPTS.len()
            )),
        }
    }
}

async fn apply_missing(readers: &Readers, schema: &str) -> Result<(), Stop> {
    let mut version = 0;
    // Where everything is there, nothing is asked that needs the right to make tables.
    if first(readers, &in_schema(IS_THERE, schema)).await? == Some(1) {
        version = first(readers, &in_schema(VERSION, schema)).await?.unwrap_or_default();
    }
    let newest = SCRIPTS.len();
    let Some(applied) = usize::try_from(version).ok().filter(|applied| *applied <= newest) else {
        return Err(Stop::Newer(version));
    };
    if applied == newest {
        return Ok(());
    }
    readers.once(&in_schema(VERSION_TABLE, schema), &[]).await?;
    readers.once(&in_schema(FIRST_VERSION, schema), &[]).await?;
    for (version, script) in (1_i32..).zip(SCRIPTS.iter().copied()).skip(applied) {
        for statement in statements(script) {
            readers.once(&in_schema(&statement, schema), &[]).await?;
        }
        readers.once(&in_schema(SET_VERSION, schema), &[&version]).await?;
    }
    Ok(())
}

/// The first number that a text gives.
async fn first(readers: &Readers, text: &str) -> Result<Option<i64>, Failure> {
    let [rows] = sets(readers.once(text, &[]).await?)?;
    rows.first().map(|row| integer(row, 0)).transpose()
}

/// The statements of a script, one by one.
fn statements(script: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut statement = String::new();
    for line in script.lines() {
        let code = line.split("--").next().unwrap_or_default().trim_end();
        statement.push_str(code);
        statement.push('\n');
        if code.ends_with(';') {
            all.push(std::mem::take(&mut statement).trim().to_owned());
        }
    }
    all
}

/// Says what Digi needs of the database and can't set by itself.
async fn check_database(readers: &Readers) -> Result<(), StoreError> {
    match readers.query(OPENJSON, &[]).await {
        Ok(_) => {}
        Err(failure) if failure.kind == Kind::Schema => {
            let text = "the database does not know OPENJSON; its owner runs `ALTER DATABASE … SET COMPATIBILITY_LEVEL = \
                        130` (or higher), or Digi gets a database of its own";
            return Err(StoreError::Schema(text.into()));
        }
        Err(failure) => return Err(failure.into_store_error(false)),
    }
    // Who may not look there is not told.
    if let Ok(Some(0)) = first(readers, SNAPSHOT).await {
        tracing::warn!(
            "READ_COMMITTED_SNAPSHOT is off: who reads waits for who writes; the database's owner runs `ALTER DATABASE … \
             SET READ_COMMITTED_SNAPSHOT ON`"
        );
    }
    if let Ok(Some(2)) = first(readers, DURABILITY).await {
        tracing::warn!("DELAYED_DURABILITY is FORCED: what is acknowledged may be lost when the server fails");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_fall_into_statements_that_can_be_run_again() {
        for script in SCRIPTS {
            let all = statements(script);
            assert!(!all.is_empty());
            for statement in all {
                let table = statement.split("N'{schema}.").nth(1).and_then(|rest| rest.split('\'').next());
                let table = table.unwrap_or_else(|| panic!("{statement}"));
                assert!(statement.starts_with("IF OBJECT_ID(N'{schema}."), "{statement}");
                assert!(statement.contains(&format!("CREATE TABLE {{schema}}.{table} (")), "{statement}");
                assert!(statement.ends_with(';'), "{statement}");
            }
        }
    }
}

//! How a SQLite store is opened, and the URL that says so.

use std::path::PathBuf;

use crate::store::StoreError;

/// Settings of a [`SqliteStore`](super::SqliteStore).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SqliteOptions {
    /// The most that the database file may grow to, in MiB; beyond it `apply` fails with
    /// [`StoreError::Full`]. None: as the disk allows. The write-ahead log beside it is not counted.
    pub max_mb: Option<u32>,
    /// How many reads run at once, each on a connection of its own.
    pub readers: usize,
    /// How long a write waits for another process that writes, in milliseconds, before it fails with
    /// [`StoreError::Unavailable`].
    pub busy_ms: u32,
}

impl Default for SqliteOptions {
    fn default() -> Self {
        Self { max_mb: None, readers: 4, busy_ms: 5_000 }
    }
}

/// Reads `sqlite:path?max_mb=…&readers=…&busy_ms=…`. The path ends at the first `?` and stands as it is, without
/// percent-encoding.
pub(super) fn parse_url(url: &str) -> Result<(PathBuf, SqliteOptions), StoreError> {
    let bad = |what: String| Err(StoreError::BadUrl(what));
    let Some(rest) = url.strip_prefix("sqlite:") else {
        return bad("a SQLite store's URL begins with `sqlite:`".into());
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if path.is_empty() {
        return bad("the store's URL has no path: write `sqlite:path/to/chat.db`".into());
    }
    if path.starts_with("//") {
        return bad(format!("the path `{path}` begins with `//`: write `sqlite:chat.db` or `sqlite:/srv/chat.db`"));
    }
    if path == ":memory:" {
        return bad("SQLite in memory is not offered: write `memory:` for a store that forgets".into());
    }
    let mut options = SqliteOptions::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let number = || match value.parse::<u32>() {
            Ok(number) if number > 0 => Ok(number),
            _ => Err(StoreError::BadUrl(format!(
                "option `{name}` of the store's URL is not a number above 0: `{value}`"
            ))),
        };
        match name {
            "max_mb" => options.max_mb = Some(number()?),
            "readers" => options.readers = number()? as usize,
            "busy_ms" => options.busy_ms = number()?,
            _ => {
                return bad(format!(
                    "the store's URL has an unknown option `{name}`; there are max_mb, readers, busy_ms"
                ));
            }
        }
    }
    Ok((path.into(), options))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_path_and_options() {
        let (path, options) = parse_url("sqlite:chat.db").unwrap();
        assert_eq!((path, options), ("chat.db".into(), SqliteOptions::default()));
        let (path, options) = parse_url("sqlite:/srv/a b%20.db?max_mb=64&readers=2&busy_ms=100").unwrap();
        assert_eq!(path, PathBuf::from("/srv/a b%20.db"));
        assert_eq!(options, SqliteOptions { max_mb: Some(64), readers: 2, busy_ms: 100 });
    }

    #[test]
    fn what_is_wrong_with_a_url_is_named() {
        for (url, part) in [
            ("mssql://host/db", "sqlite:"),
            ("sqlite:", "no path"),
            ("sqlite:?max_mb=1", "no path"),
            ("sqlite://chat.db", "`//`"),
            ("sqlite::memory:", "memory:"),
            ("sqlite:a.db?max_mb=lots", "max_mb"),
            ("sqlite:a.db?max_mb=-1", "max_mb"),
            ("sqlite:a.db?readers=0", "readers"),
            ("sqlite:a.db?busy_ms", "busy_ms"),
            ("sqlite:a.db?cache=shared", "cache"),
        ] {
            match parse_url(url) {
                Err(StoreError::BadUrl(text)) => assert!(text.contains(part), "{url}: {text}"),
                other => panic!("{url}: {other:?}"),
            }
        }
    }
}

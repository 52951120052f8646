//! The URL of a SQL Server store. What is wrong is named, and never quoted where a password may have got into it.

use percent_encoding::percent_decode_str;
use url::{Host, ParseError, Url};
use zeroize::Zeroizing;

use super::{MssqlOptions, bad};
use crate::store::StoreError;

pub(super) fn parse(text: &str) -> Result<MssqlOptions, StoreError> {
    if !text.starts_with("mssql://") {
        return bad("a SQL Server store's URL begins with `mssql://`");
    }
    // The parser would leave some of these out.
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return bad("the store's URL contains a blank or a control character: write it percent-encoded");
    }
    let url = Url::parse(text).map_err(unreadable)?;
    if url.path().contains('@') || url.query().is_some_and(|query| query.contains('@')) || url.fragment().is_some() {
        return bad("of the store's URL, user and password end too early: write @ / ? # in them percent-encoded");
    }
    let host = match url.host() {
        Some(Host::Domain(name)) if name.contains('%') => {
            return bad("the host in the store's URL is a name in ASCII or an address");
        }
        Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
        Some(Host::Ipv4(address)) => address.to_string(),
        Some(Host::Ipv6(address)) => address.to_string(),
        _ => return bad("the store's URL has no host: write `mssql://user:password@host/database`"),
    };
    let user = decoded("user", url.username())?;
    let password = decoded("password", url.password().unwrap_or_default())?;
    if user.is_empty() || password.is_empty() {
        return bad("the store's URL lacks a user or a password: write `mssql://user:password@host/database`");
    }
    let database = url.path().strip_prefix('/').unwrap_or_default();
    if database.is_empty() {
        return bad("the store's URL has no database: write `mssql://user:password@host/database`");
    }
    if database.contains('/') {
        return bad("behind the host in the store's URL stands more than a database: write / in its name as %2F");
    }
    let mut options =
        MssqlOptions::new(host, decoded("database", database)?.as_str(), user.as_str(), password.as_str());
    match url.port() {
        Some(0) => return bad("the port in the store's URL is a number from 1 to 65535"),
        Some(port) => options.port = port,
        None => {}
    }
    let mut seen = Vec::new();
    for pair in url.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        options.set(name, &decoded("option", value)?)?;
        if seen.contains(&name) {
            return bad(format!("option `{name}` stands twice in the store's URL"));
        }
        seen.push(name);
    }
    options.check()?;
    Ok(options)
}

fn decoded(part: &str, text: &str) -> Result<Zeroizing<String>, StoreError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(Zeroizing::new(text.into_owned())),
        Err(_) => bad(format!("{part} in the store's URL is not UTF-8 in percent-encoding")),
    }
}

fn unreadable(error: ParseError) -> StoreError {
    StoreError::BadUrl(match error {
        ParseError::InvalidPort => {
            "the port in the store's URL is no number up to 65535; or user or password contain one of @ : / ? #, which are \
             written percent-encoded"
                .into()
        }
        ParseError::EmptyHost => "the store's URL has no host: write `mssql://user:password@host/database`".into(),
        ParseError::InvalidDomainCharacter => "the host in the store's URL is a name in ASCII or an address; of a named \
                                               instance, write the server's host and the instance's port"
            .into(),
        error => format!("the store's URL can't be read: {error}"),
    })
}

//! The URL of a layer on Redis. What is wrong is named, and never quoted where a password may have got into it.

use std::fmt;
use std::net::Ipv6Addr;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::layer::LayerError;

/// Where Redis listens unless the URL says otherwise.
const PORT: u16 = 6379;

/// The same of a Sentinel.
const SENTINEL_PORT: u16 = 26379;

/// The same as the default of `channels_redis`.
const PREFIX: &str = "asgi";

/// What a URL says.
#[derive(Debug)]
pub(in crate::layer) struct Options {
    pub(in crate::layer) servers: Servers,
    /// What the names of all channels begin with.
    pub(in crate::layer) prefix: String,
    pub(in crate::layer) tls: Option<TlsFiles>,
}

#[derive(Debug)]
pub(in crate::layer) enum Servers {
    /// Groups are distributed over these.
    Hosts(Vec<(Address, Login)>),
    /// The master is found by asking.
    Sentinel { sentinels: Vec<Address>, sentinel_login: Login, service: String, login: Login },
    /// Any of its nodes to begin with.
    Cluster { seeds: Vec<Address>, login: Login },
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(in crate::layer) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// As whom, and to which database.
#[derive(Clone, Default)]
pub(in crate::layer) struct Login {
    pub(super) user: Option<String>,
    pub(super) password: Option<Zeroizing<String>>,
    pub(super) db: i64,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("db", &self.db).finish_non_exhaustive()
    }
}

impl Login {
    /// `text` without the password: what a server says may quote what it was sent.
    pub(in crate::layer) fn hide_in(&self, text: &str) -> String {
        match &self.password {
            Some(password) if !password.is_empty() => text.replace(password.as_str(), "***"),
            _ => text.to_owned(),
        }
    }
}

/// Paths of PEM files.
#[derive(Default, Debug)]
pub(in crate::layer) struct TlsFiles {
    pub(super) ca: Option<String>,
    pub(super) cert: Option<String>,
    pub(super) key: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Hosts,
    Sentinel,
    Cluster,
}

const SCHEMES: [(&str, Kind, bool); 6] = [
    ("redis://", Kind::Hosts, false),
    ("rediss://", Kind::Hosts, true),
    ("redis+sentinel://", Kind::Sentinel, false),
    ("rediss+sentinel://", Kind::Sentinel, true),
    ("redis+cluster://", Kind::Cluster, false),
    ("rediss+cluster://", Kind::Cluster, true),
];

fn bad<T>(text: impl Into<String>) -> Result<T, LayerError> {
    Err(LayerError(text.into()))
}

pub(in crate::layer) fn parse(text: &str) -> Result<Options, LayerError> {
    let Some((scheme, kind, tls)) = SCHEMES.into_iter().find(|(scheme, ..)| text.starts_with(scheme)) else {
        return bad("a Redis layer's URL begins with `redis://`, `rediss://`, `redis+sentinel://`, \
                    `rediss+sentinel://`, `redis+cluster://` or `rediss+cluster://`");
    };
    if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return bad("the layer's URL contains a blank or a control character: write it percent-encoded");
    }
    let (text, query) = text.split_once('?').unwrap_or((text, ""));
    if text.contains('#') || query.contains(['#', '@']) {
        return bad(TOO_EARLY);
    }
    let mut urls = Vec::new();
    // `redis://a,redis://b`: one URL for each host.
    for url in text[scheme.len()..].split(&format!(",{scheme}")) {
        urls.push(Url::parse(url, kind)?);
    }
    if kind != Kind::Hosts && urls.len() > 1 {
        return bad(format!("behind `{scheme}` stand the hosts, separated by commas, and the scheme only once"));
    }
    let query = Query::parse(query, kind, tls)?;
    let servers = match (kind, urls.pop()) {
        (Kind::Hosts, last) => Servers::Hosts(
            urls.into_iter()
                .chain(last)
                .flat_map(|url| url.hosts.into_iter().map(move |host| (host, url.login.clone())))
                .collect(),
        ),
        (Kind::Sentinel, Some(Url { hosts, login, service })) => {
            Servers::Sentinel { sentinels: hosts, sentinel_login: query.sentinel_login, service, login }
        }
        (Kind::Cluster, Some(Url { hosts, login, .. })) => Servers::Cluster { seeds: hosts, login },
        (_, None) => return bad(NO_HOST),
    };
    Ok(Options { servers, prefix: query.prefix, tls: query.tls })
}

const NO_HOST: &str = "the layer's URL lacks a host: write `redis://user:password@host:6379/0`";

const TOO_EARLY: &str = "of the layer's URL, user and password end too early: write @ : / ? # in them percent-encoded";

struct Url {
    hosts: Vec<Address>,
    login: Login,
    service: String,
}

impl Url {
    /// `[user:password@]host[:port][,host[:port]…][/path]`
    fn parse(text: &str, kind: Kind) -> Result<Self, LayerError> {
        let (authority, path) = text.split_once('/').unwrap_or((text, ""));
        if path.contains('@') {
            return bad(TOO_EARLY);
        }
        if path.contains(',') {
            return bad("behind the last host in the layer's URL stands a database, and nothing behind that: write \
                        `redis://host,host/0`, or a scheme before every host");
        }
        let (mut login, hosts) = match authority.rsplit_once('@') {
            Some((login, hosts)) => (parse_login(login)?, hosts),
            None => (Login::default(), authority),
        };
        let port = if kind == Kind::Sentinel { SENTINEL_PORT } else { PORT };
        let hosts = hosts
            .split(',')
            .enumerate()
            .map(|(at, host)| parse_host(host, at + 1, port))
            .collect::<Result<Vec<_>, _>>()?;
        let (service, db) = match kind {
            Kind::Hosts => ("", path),
            Kind::Sentinel => path.split_once('/').unwrap_or((path, "")),
            Kind::Cluster if path.is_empty() || path == "0" => ("", ""),
            Kind::Cluster => return bad("a Redis Cluster has only database 0: leave it out of the layer's URL"),
        };
        if kind == Kind::Sentinel && service.is_empty() {
            return bad("the layer's URL lacks the name of the master as the Sentinels know it: write \
                        `redis+sentinel://host:26379/mymaster`");
        }
        if !db.is_empty() {
            login.db = match db.parse() {
                Ok(db) if db >= 0 => db,
                _ => return bad("the database in the layer's URL is a number: write `/0` behind the hosts"),
            };
        }
        Ok(Self { hosts, login, service: decoded("the master's name", service)?.to_string() })
    }
}

fn parse_login(text: &str) -> Result<Login, LayerError> {
    let Some((user, password)) = text.split_once(':') else {
        return bad("before the @ in the layer's URL stands no password: write `user:password@`, or `:password@` for \
                    Redis's default user");
    };
    if password.contains([':', '@']) || user.contains('@') {
        return bad(TOO_EARLY);
    }
    let (user, password) = (decoded("user", user)?, decoded("password", password)?);
    if password.is_empty() {
        return bad("the password in the layer's URL is empty: write `user:password@`, or leave out both and the @");
    }
    Ok(Login { user: (!user.is_empty()).then(|| user.to_string()), password: Some(password), db: 0 })
}

fn parse_host(text: &str, number: usize, default_port: u16) -> Result<Address, LayerError> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, rest)) if rest.starts_with(':') => (host, Some(&rest[1..])),
            _ => return bad(format!("host {number} in the layer's URL: an IPv6 address is written `[::1]:6379`")),
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if host.is_empty() {
        return bad(NO_HOST);
    }
    let is_good = match text.starts_with('[') {
        true => host.parse::<Ipv6Addr>().is_ok(),
        false => host.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
    };
    if !is_good {
        return bad(format!("host {number} in the layer's URL is no name in ASCII and no address"));
    }
    let port = match port.map(str::parse) {
        None => default_port,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => {
            return bad(format!(
                "the port of host {number} in the layer's URL is no number from 1 to 65535; or there is no host, and \
                 what stands before it is user and password: they end with an @"
            ));
        }
    };
    Ok(Address { host: host.to_owned(), port })
}

struct Query {
    prefix: String,
    tls: Option<TlsFiles>,
    sentinel_login: Login,
}

impl Query {
    fn parse(text: &str, kind: Kind, tls: bool) -> Result<Self, LayerError> {
        let mut query =
            Self { prefix: PREFIX.to_owned(), tls: tls.then(TlsFiles::default), sentinel_login: Login::default() };
        let mut seen = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&name) {
                return bad(format!("option `{name}` stands twice in the layer's URL"));
            }
            seen.push(name);
            let value = decoded("an option", value)?;
            if value.is_empty() {
                return bad(format!(
                    "option `{name}` in the layer's URL has no value: write `{name}=…`, or leave it out"
                ));
            }
            match (name, &mut query.tls) {
                ("prefix", _) => query.prefix = value.to_string(),
                ("ca", Some(files)) => files.ca = Some(value.to_string()),
                ("cert", Some(files)) => files.cert = Some(value.to_string()),
                ("key", Some(files)) => files.key = Some(value.to_string()),
                ("ca" | "cert" | "key", None) => {
                    return bad(format!("option `{name}` in the layer's URL is for TLS: write `rediss` for `redis`"));
                }
                ("sentinel_user", _) if kind == Kind::Sentinel => query.sentinel_login.user = Some(value.to_string()),
                ("sentinel_password", _) if kind == Kind::Sentinel => query.sentinel_login.password = Some(value),
                _ => {
                    let known = match (kind, tls) {
                        (Kind::Sentinel, true) => "prefix, sentinel_user, sentinel_password, ca, cert and key",
                        (Kind::Sentinel, false) => "prefix, sentinel_user and sentinel_password",
                        (_, true) => "prefix, ca, cert and key",
                        (_, false) => "prefix",
                    };
                    return bad(format!("option `{name}` in the layer's URL is unknown: there is {known}"));
                }
            }
        }
        if query.tls.as_ref().is_some_and(|files| files.cert.is_some() != files.key.is_some()) {
            return bad("options `cert` and `key` in the layer's URL go together: a client certificate needs both");
        }
        if query.sentinel_login.user.is_some() && query.sentinel_login.password.is_none() {
            return bad("option `sentinel_user` in the layer's URL needs `sentinel_password`");
        }
        Ok(query)
    }
}

fn decoded(part: &str, text: &str) -> Result<Zeroizing<String>, LayerError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(Zeroizing::new(text.into_owned())),
        Err(_) => bad(format!("{part} in the layer's URL is not UTF-8 in percent-encoding")),
    }
}

//! Where a host is: under a fixed address, or where Sentinels say that the master is.
//!
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{FromRedisValue, Value};

use super::connect::{Connector, Open};
use super::url::{Address, Login};

/// How long a Sentinel may take to answer, with the opening of the connection.
const SENTINEL: Duration = Duration::from_secs(1);

/// How often Sentinels are asked whether the master is still the same. When they can reach the old one they close its
/// connections, so this is for when they cannot.
const ASK: Duration = Duration::from_secs(2);

pub(super) enum Target {
    Fixed(Address, Login),
    Sentinel { sentinels: Vec<Address>, sentinel_login: Login, service: String, login: Login },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(address, _) => address.fmt(f),
            Self::Sentinel { service, .. } => write!(f, "master {service}"),
        }
    }
}

impl Target {
    pub(super) fn login(&self) -> &Login {
        match self {
            Self::Fixed(_, login) | Self::Sentinel { login, .. } => login,
        }
    }

    /// # Errors
    /// Why it cannot be said.
    pub(super) async fn find(&self, connector: &Connector) -> Result<Address, String> {
        match self {
            Self::Fixed(address, _) => Ok(address.clone()),
            Self::Sentinel { sentinels, sentinel_login, service, .. } => {
                let asked = sentinels.iter().map(|at| ask(connector, at, sentinel_login, service));
                let mut reasons = Vec::new();
                let mut newest = None;
                for (answer, at) in join_all(asked).await.into_iter().zip(sentinels) {
                    match answer {
                        Ok(master) => newest = newest.max(Some(master)),
                        Err(reason) => reasons.push(format!("{at}: {reason}")),
                    }
                }
                match newest {
                    Some((_, host, port)) => Ok(Address { host, port }),
                    None => Err(format!("no Sentinel names it ({})", reasons.join("; "))),
                }
            }
        }
    }

    /// Whether the server that was found is the right one.
    ///
    /// # Errors
    /// Why not.
    pub(super) async fn check(&self, open: &mut Open, address: &Address) -> Result<(), String> {
        if let Self::Fixed(..) = self {
            return Ok(());
        }
        let role = open.ask(&redis::cmd("ROLE")).await.map_err(|error| self.login().hide_in(&error))?;
        match role {
            Value::Array(parts) if parts.first() == Some(&Value::BulkString(b"master".to_vec())) => Ok(()),
            _ => Err(format!("{address} is not the master yet, or no longer")),
        }
    }

    /// Waits until the host is elsewhere than at `present`; how that is known.
    pub(super) async fn changes(&self, connector: &Connector, present: &Address) -> String {
        if let Self::Fixed(..) = self {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(ASK).await;
            if let Ok(address) = self.find(connector).await
                && address != *present
            {
                return format!("the master is now {address} instead of {present}");
            }
        }
    }
}

/// A Sentinel's answer: the generation of the configuration, and the master's address. The highest is the newest.
type Master = (u64, String, u16);

async fn ask(connector: &Connector, at: &Address, login: &Login, service: &str) -> Result<Master, String> {
    let asking = async {
        let mut open = connector.open(at, login, |_| {}).await?;
        let answer = open.ask(redis::cmd("SENTINEL").arg("MASTER").arg(service)).await?;
        let facts = HashMap::<String, String>::from_redis_value(answer).map_err(|error| error.to_string())?;
        let number = |name: &str| facts.get(name).and_then(|text| text.parse::<u64>().ok());
        let master = (|| {
            let port = u16::try_from(number("port")?).ok()?;
            Some((number("config-epoch")?, facts.get("ip")?.clone(), port))
        })();
        master.ok_or_else(|| "its answer lacks the master's address".to_owned())
    };
    match tokio::time::timeout(SENTINEL, asking).await {
        Ok(answer) => answer.map_err(|error| login.hide_in(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

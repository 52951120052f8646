//! Where the server is and how to log in: the settings of a SQL Server store.

mod url;

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tiberius::{AuthMethod, Config, EncryptionLevel};
use zeroize::Zeroizing;

use crate::store::StoreError;

/// How long the server may take over the login, from the first packet on.
pub(super) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a request may take. The statements wait no longer than two seconds for a lock.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest name in a login packet, and of a schema, in UTF-16 units.
const MAX_NAME: usize = 128;

/// The most lanes.
const MAX_LANES: usize = 64;

/// The most connections that read.
const MAX_POOL: usize = 1_000;

/// Settings of a SQL Server store. They are checked when the store is opened.
#[derive(Clone, Debug)]
pub struct MssqlOptions {
    /// The server's name or address; IPv6 without brackets.
    pub host: String,
    /// Its TCP port.
    pub port: u16,
    /// The database, which exists.
    pub database: String,
    /// The login, of SQL Server's own authentication.
    pub user: String,
    /// The login's password.
    pub password: Password,
    /// What is encrypted.
    pub encrypt: Encrypt,
    /// Whose certificate is taken.
    pub trust: Trust,
    /// The schema that holds Digi's tables.
    pub schema: String,
    /// How many batches are written at once, each on a connection of its own; a room's batches go through one lane.
    /// 1 to 64.
    pub lanes: usize,
    /// The most connections that read. 1 to 1,000.
    pub pool: usize,
    /// The name that the server's views show for these connections.
    pub app: String,
}

impl MssqlOptions {
    /// The settings that a URL with nothing but these parts has.
    pub fn new(
        host: impl Into<String>,
        database: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<Password>,
    ) -> Self {
        Self {
            host: host.into(),
            port: 1433,
            database: database.into(),
            user: user.into(),
            password: password.into(),
            encrypt: Encrypt::Required,
            trust: Trust::System,
            schema: "dbo".into(),
            lanes: 4,
            pool: 8,
            app: "digi".into(),
        }
    }

    /// Reads `mssql://user:password@host:1433/database?encrypt=required&schema=dbo&…`. User, password, database and the
    /// options' values are percent-encoded.
    ///
    /// # Errors
    /// `BadUrl`, naming the part that is wrong; never the password.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        url::parse(url)
    }

    /// Sets one of the options that a URL may have: encrypt, trust_ca, trust_cert, schema, lanes, pool, app.
    ///
    /// # Errors
    /// `BadUrl` for an unknown option or a value that it can't have.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), StoreError> {
        match name {
            "encrypt" => {
                self.encrypt = match value {
                    "strict" => Encrypt::Strict,
                    "required" => Encrypt::Required,
                    "off" => Encrypt::Off,
                    _ => return bad("option `encrypt` of the store is strict, required or off"),
                }
            }
            "trust_ca" if value.is_empty() => {
                return bad("option `trust_ca` of the store is the path of a certificate");
            }
            "trust_ca" => self.trust_another(Trust::Authority(value.into()))?,
            "trust_cert" => match value {
                "true" => self.trust_another(Trust::Anything)?,
                "false" => {}
                _ => return bad("option `trust_cert` of the store is true or false"),
            },
            "schema" => self.schema = value.into(),
            "lanes" => self.lanes = number(name, value, MAX_LANES)?,
            "pool" => self.pool = number(name, value, MAX_POOL)?,
            "app" => self.app = value.into(),
            _ => {
                let known = "encrypt, trust_ca, trust_cert, schema, lanes, pool, app";
                return bad(
                    if name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                        format!("the store has no option `{name}`; there are {known}")
                    } else {
                        format!("the store has an option that is unknown; there are {known}")
                    },
                );
            }
        }
        Ok(())
    }

    fn trust_another(&mut self, trust: Trust) -> Result<(), StoreError> {
        if self.trust != Trust::System {
            return bad("options `trust_ca` and `trust_cert` of the store exclude each other: leave one of them out");
        }
        self.trust = trust;
        Ok(())
    }

    /// Says what can't be right, whatever the server says.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        let names = [
            ("host", &self.host, 255),
            ("user", &self.user, MAX_NAME),
            ("database", &self.database, MAX_NAME),
            ("schema", &self.schema, MAX_NAME),
            ("app", &self.app, MAX_NAME),
        ];
        for (part, text, most) in names {
            if text.is_empty() || text.encode_utf16().count() > most || text.chars().any(char::is_control) {
                return bad(format!("the store's {part} has 1 to {most} characters, none of them a control character"));
            }
        }
        if self.schema.contains('\'') {
            return bad("the store's schema has no apostrophe in its name");
        }
        let length = self.password.0.encode_utf16().count();
        if length == 0 || length > MAX_NAME {
            return bad(format!("the store's password has 1 to {MAX_NAME} characters"));
        }
        if self.port == 0 {
            return bad("the store's port is a number from 1 to 65535");
        }
        for (name, value, most) in [("lanes", self.lanes, MAX_LANES), ("pool", self.pool, MAX_POOL)] {
            if value == 0 || value > most {
                return bad(format!("option `{name}` of the store is a number from 1 to {most}"));
            }
        }
        Ok(())
    }

    /// The driver's settings. Reads the file that `trust` names.
    pub(super) fn config(&self) -> Result<Config, StoreError> {
        self.check()?;
        let mut config = Config::new();
        config.host(&self.host);
        config.port(self.port);
        config.database(&self.database);
        config.authentication(AuthMethod::sql_server(&self.user, self.password.0.as_str()));
        config.application_name(&self.app);
        config.handshake_timeout(Some(HANDSHAKE_TIMEOUT));
        config.command_timeout(Some(COMMAND_TIMEOUT));
        config.encryption(match self.encrypt {
            Encrypt::Strict => EncryptionLevel::Strict,
            Encrypt::Required => EncryptionLevel::Required,
            Encrypt::Off => EncryptionLevel::Off,
        });
        match &self.trust {
            Trust::System => {}
            // Read here, because the driver reads it at every connection and goes by the file's extension.
            Trust::Authority(path) => config.trust_cert_ca_bundle(read_certificate(path)?),
            Trust::Anything => config.trust_cert(),
        }
        Ok(config)
    }

    /// The server as messages name it.
    pub(super) fn address(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The schema's name as it stands in statements: in brackets.
    pub(super) fn quoted_schema(&self) -> String {
        format!("[{}]", self.schema.replace(']', "]]"))
    }
}

/// What of the traffic is encrypted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Encrypt {
    /// All of it, with TLS from the first byte on (TDS 8): SQL Server 2022 and later, Azure SQL.
    Strict,
    /// All of it.
    Required,
    /// The login; the rest only if the server insists. Messages can be read and changed on the way.
    Off,
}

/// Whose certificate is taken for the server's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Trust {
    /// One that an authority known to the operating system has signed.
    System,
    /// Also one that the authority in this file has signed: PEM, several if need be, or DER.
    Authority(PathBuf),
    /// Any: whoever sits between can read along.
    Anything,
}

/// A password. `Debug` doesn't show it, and its memory is wiped.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

fn bad<T>(what: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::BadUrl(what.into()))
}

fn number(name: &str, value: &str, most: usize) -> Result<usize, StoreError> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => bad(format!("option `{name}` of the store is a number from 1 to {most}")),
    }
}

/// A certificate has a few kilobytes, all the authorities of a system together under one megabyte.
const MAX_CERTIFICATE: u64 = 4 * 1024 * 1024;

fn read_certificate(path: &Path) -> Result<Vec<u8>, StoreError> {
    let size = std::fs::metadata(path).map(|about| about.len());
    match size.and_then(|size| if size <= MAX_CERTIFICATE { std::fs::read(path) } else { Ok(Vec::new()) }) {
        Ok(bytes) if bytes.is_empty() => {
            bad(format!("there is no certificate in `{}`, the store's `trust_ca`", path.display()))
        }
        Ok(bytes) => Ok(bytes),
        Err(error) => bad(format!("`{}`, the store's `trust_ca`, can't be read: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests;

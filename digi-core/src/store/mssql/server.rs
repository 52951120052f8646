//! The server: how it is reached, and what happens while it is away.

use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::select_ok;
use parking_lot::Mutex;
use tiberius::{Client, Config};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tokio_util::compat::TokioAsyncWriteCompatExt;

use super::connection::{Connection, unlogged};
use super::failure::{Failure, Kind};
use super::options::MssqlOptions;
use super::statements::SESSION;
use crate::store::StoreError;

/// How long reaching the server may take; the login has as long again.
const REACH: Duration = Duration::from_secs(3);

/// Between two tries to reach a server that is away: the least and the most, doubled in between.
const PROBE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// Between two tries where the server has refused the login. More, and it may lock the login.
const PROBE_REFUSED: Duration = Duration::from_secs(60);

/// How often the server may send the login on to another address.
const ROUTES: usize = 3;

/// How many of a name's addresses are tried.
const ADDRESSES: usize = 16;

/// Where connections come from. While the server is away, whoever wants one is told so at once.
pub(super) struct Server {
    options: MssqlOptions,
    config: Config,
    /// Why the server could not be reached. Somebody is looking for it then.
    away: Mutex<Option<Failure>>,
}

/// However the looking ends, the next one may try again.
struct Looking(Weak<Server>);

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(server) = self.0.upgrade() {
            *server.away.lock() = None;
        }
    }
}

impl Server {
    pub(super) fn new(options: MssqlOptions) -> Result<Arc<Self>, StoreError> {
        let config = options.config()?;
        Ok(Arc::new(Self { options, config, away: Mutex::new(None) }))
    }

    /// A new connection.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Connection, Failure> {
        if let Some(failure) = self.away.lock().clone() {
            return Err(failure);
        }
        let opened = self.open().await;
        if let Err(failure) = &opened
            && self.away.lock().replace(failure.clone()).is_none()
        {
            tokio::spawn(look(Looking(Arc::downgrade(self)), failure.clone()));
        }
        opened
    }

    async fn open(&self) -> Result<Connection, Failure> {
        let options = &self.options;
        let mut config = self.config.clone();
        let mut routes = 0;
        loop {
            let tcp = match timeout(REACH, reach(&config)).await {
                Ok(reached) => reached.map_err(|error| Failure::of_tcp(&error, options))?,
                Err(_) => return Err(Failure::of_tcp(&io::ErrorKind::TimedOut.into(), options)),
            };
            let client = match unlogged(Client::connect(config.clone(), tcp.compat_write())).await {
                Ok(client) => client,
                Err(tiberius::error::Error::Routing { host, port }) if routes < ROUTES => {
                    routes += 1;
                    config.host(host);
                    config.port(port);
                    continue;
                }
                Err(error) => return Err(Failure::of_login(&error, options)),
            };
            let mut connection = Connection::new(client);
            // Nothing was asked of it yet that could have been done.
            connection.batch(SESSION).await.map_err(|failure| failure.with_kind(Kind::Away))?;
            return Ok(connection);
        }
    }
}

/// Looks for a server that is away until it is there, or the store is gone.
async fn look(looking: Looking, mut failure: Failure) {
    let mut pause = PROBE.0;
    loop {
        sleep(if failure.is_refusal() { PROBE_REFUSED } else { pause }).await;
        pause = (pause * 2).min(PROBE.1);
        let Some(server) = looking.0.upgrade() else { return };
        match server.open().await {
            Ok(_) => {
                tracing::info!(server = %server.options.address(), "the database is there again");
                return;
            }
            Err(found) => {
                *server.away.lock() = Some(found.clone());
                failure = found;
            }
        }
    }
}

/// Tries all addresses of the server's name at once: of a listener over several subnets one is answered.
async fn reach(config: &Config) -> io::Result<TcpStream> {
    let addresses: Vec<_> = lookup_host(config.get_addr()).await?.take(ADDRESSES).collect();
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    let tries = addresses.into_iter().map(|address| Box::pin(TcpStream::connect(address)));
    let (tcp, _) = select_ok(tries).await?;
    // Without it small requests wait for the acknowledgement of the one before.
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

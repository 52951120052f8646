//! Connections: how they are made, lost and found again.
//!
//! A request that was begun and not heard out leaves a connection out of step. So whoever asks owns the connection
//! while it does: an answer that is not awaited to its end takes the connection with it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, Pool, PoolError, RecycleError, RecycleResult};
use tiberius::{Client, Row, ToSql};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::compat::Compat;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::failure::{Failure, Kind};
use super::options::COMMAND_TIMEOUT;
use super::server::Server;
use super::statements::{BEGIN, COMMIT, ROLLBACK};
use super::texts::Bound;

/// A connection that was idle for longer is not trusted: what stands between drops those without a word.
const TRUSTED: Duration = Duration::from_secs(60);

/// How long a read waits for a free connection.
const WAIT: Duration = Duration::from_secs(5);

/// What a statement gives: its result sets, with their rows.
pub(super) type Answer = Result<Vec<Vec<Row>>, Failure>;

/// A connection that is between two requests.
pub(super) struct Connection {
    client: Client<Compat<TcpStream>>,
    used: Instant,
}

impl Connection {
    /// One that the server has let in.
    pub(super) fn new(client: Client<Compat<TcpStream>>) -> Self {
        Self { client, used: Instant::now() }
    }

    fn is_trusted(&self) -> bool {
        self.used.elapsed() < TRUSTED
    }

    /// Runs a statement with bound values. Cancelled, it leaves the connection unusable.
    pub(super) async fn query(&mut self, text: &str, values: &[&dyn ToSql]) -> Answer {
        let answer = in_time(async { self.client.query(text, values).await?.into_results().await }).await;
        self.used = Instant::now();
        answer
    }

    /// Runs a text without values, outside of `sp_executesql`. Cancelled, it leaves the connection unusable.
    pub(super) async fn batch(&mut self, text: &str) -> Answer {
        let answer = in_time(async { self.client.simple_query(text).await?.into_results().await }).await;
        self.used = Instant::now();
        answer
    }

    /// Whether nothing of a request that failed is left on the connection. What was locked is given back. A server that
    /// could not serve is asked for another connection: after a fail-over that is another server.
    pub(super) async fn is_clean_after(&mut self, failure: &Failure) -> bool {
        let is_of_use = failure.number.is_some() && !matches!(failure.kind, Kind::Broken | Kind::Away);
        is_of_use && self.batch(ROLLBACK).await.is_ok()
    }
}

/// Drops what the driver logs: the server's texts, as errors, with what was to be stored in them; at its finest, all rows.
pub(super) fn unlogged<F: Future>(request: F) -> impl Future<Output = F::Output> {
    request.with_subscriber(Dispatch::none())
}

/// Bounds a request. The driver's own bound is one of the silence within an answer, not of sending.
async fn in_time(request: impl Future<Output = Result<Vec<Vec<Row>>, tiberius::error::Error>>) -> Answer {
    match timeout(COMMAND_TIMEOUT, unlogged(request)).await {
        Ok(answer) => answer.map_err(|error| Failure::of_request(&error)),
        Err(_) => Err(Failure::silent(COMMAND_TIMEOUT)),
    }
}

/// A lane's own connection, made when it is wanted.
#[derive(Default)]
pub(super) struct Slot(Option<Connection>);

impl Slot {
    /// The connection, or a new one. It does not come back by itself.
    pub(super) async fn take(&mut self, server: &Arc<Server>) -> Result<Connection, Failure> {
        match self.0.take().filter(Connection::is_trusted) {
            Some(connection) => Ok(connection),
            None => server.connect().await,
        }
    }

    pub(super) fn put(&mut self, connection: Connection) {
        self.0 = Some(connection);
    }
}

/// The connections for everything that is no batch.
pub(super) struct Readers {
    pool: Pool<Manager>,
    size: usize,
}

struct Manager(Arc<Server>);

impl managed::Manager for Manager {
    type Type = Connection;
    type Error = Failure;

    async fn create(&self) -> Result<Connection, Failure> {
        self.0.connect().await
    }

    async fn recycle(&self, connection: &mut Connection, _: &Metrics) -> RecycleResult<Failure> {
        if connection.is_trusted() { Ok(()) } else { Err(RecycleError::message("idle for too long")) }
    }
}

/// A connection on loan, which goes back only if its request was heard out.
struct Loan(Option<Object<Manager>>);

impl Drop for Loan {
    fn drop(&mut self) {
        self.0.take().map(Object::take);
    }
}

impl Readers {
    pub(super) fn new(server: Arc<Server>, size: usize) -> Result<Self, Failure> {
        let pool = Pool::builder(Manager(server)).max_size(size).runtime(deadpool::Runtime::Tokio1);
        let pool = pool.wait_timeout(Some(WAIT)).build();
        let pool = pool.map_err(|error| Failure::new(Kind::Away, None, error.to_string()))?;
        Ok(Self { pool, size })
    }

    /// Runs a statement that may be run again. A connection that turns out to be broken was so before, perhaps, as the
    /// others that waited with it: then once more on a new one. For a server that keeps silent nobody waits twice.
    pub(super) async fn query(&self, text: &str, values: &[&dyn ToSql]) -> Answer {
        match self.once(text, values).await {
            Err(failure) if failure.kind == Kind::Broken && !failure.is_silence => {
                self.pool.retain(|_, _| false);
                self.once(text, values).await
            }
            Err(failure) if failure.kind == Kind::GaveWay => self.once(text, values).await,
            answer => answer,
        }
    }

    /// Runs a statement once.
    pub(super) async fn once(&self, text: &str, values: &[&dyn ToSql]) -> Answer {
        self.lend(async |connection| connection.query(text, values).await).await
    }

    /// Runs statements in one transaction.
    ///
    /// # Errors
    /// With whether it may have been committed nevertheless.
    pub(super) async fn transact(&self, statements: &[Bound<'_>]) -> Result<(), (Failure, bool)> {
        let mut is_committing = false;
        let committing = &mut is_committing;
        let work = async |connection: &mut Connection| {
            connection.batch(BEGIN).await?;
            for statement in statements {
                let (text, values) = statement.parts();
                connection.query(text, &values).await?;
            }
            *committing = true;
            connection.batch(COMMIT).await
        };
        let done = self.lend(work).await;
        done.map(drop).map_err(|failure| (failure, is_committing))
    }

    async fn lend(&self, work: impl AsyncFnOnce(&mut Connection) -> Answer) -> Answer {
        let object = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(failure) => failure,
            _ => {
                let text = format!(
                    "all {} connections for reading are busy; the URL's option `pool` sets how many",
                    self.size
                );
                Failure::new(Kind::Away, None, text)
            }
        })?;
        let mut loan = Loan(Some(object));
        let Some(connection) = loan.0.as_mut() else { return Ok(Vec::new()) };
        let answer = work(connection).await;
        let is_clean = match &answer {
            Ok(_) => true,
            Err(failure) => connection.is_clean_after(failure).await,
        };
        if is_clean {
            // Back into the pool.
            drop(loan.0.take());
        }
        answer
    }
}

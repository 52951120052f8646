//! A schema for one test.

use std::sync::atomic::{AtomicU32, Ordering};

use digi_core::store::mssql::{Encrypt, MssqlOptions};
use tiberius::{AuthMethod, Client, Config, EncryptionLevel, Row};
use tokio::net::TcpStream;
use tokio_util::compat::{Compat, TokioAsyncWriteCompatExt};

/// A schema that nobody else uses; removed when it is dropped.
pub(crate) struct Schema {
    pub(crate) options: MssqlOptions,
    url: String,
}

impl Schema {
    pub(crate) async fn make(url: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut options = MssqlOptions::parse(url).unwrap();
        // What others have set up in that database stays as it is.
        options.schema = format!("digi_test_{}_{number}", std::process::id());
        Self::remove(url, &options.schema).await;
        sql(url, &format!("CREATE SCHEMA {}", options.schema)).await;
        Self { options, url: url.to_owned() }
    }

    async fn remove(url: &str, schema: &str) {
        let tables = format!("SELECT name FROM sys.tables WHERE schema_id = SCHEMA_ID('{schema}')");
        for row in sql(url, &tables).await {
            let table: &str = row.get(0).unwrap();
            sql(url, &format!("DROP TABLE {schema}.{table}")).await;
        }
        sql(url, &format!("IF SCHEMA_ID('{schema}') IS NOT NULL EXEC('DROP SCHEMA {schema}')")).await;
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (url, schema) = (self.url.clone(), self.options.schema.clone());
        // A runtime can't wait inside another.
        let removed = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Self::remove(&url, &schema));
        });
        if removed.join().is_err() {
            eprintln!("the schema {} could not be removed", self.options.schema);
        }
    }
}

/// Runs a batch on a connection of its own; the rows of its first result.
pub(crate) async fn sql(url: &str, text: &str) -> Vec<Row> {
    let mut client = connect(url).await;
    client.simple_query(text).await.unwrap().into_first_result().await.unwrap()
}

/// A connection of the driver's own, as the URL says.
pub(crate) async fn connect(url: &str) -> Client<Compat<TcpStream>> {
    let parsed = url::Url::parse(url).unwrap();
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned();
    let options = MssqlOptions::parse(url).unwrap();
    let mut config = Config::new();
    config.host(&options.host);
    config.port(options.port);
    config.database(&options.database);
    config.authentication(AuthMethod::sql_server(&options.user, decode(parsed.password().unwrap())));
    config.trust_cert();
    config.encryption(match options.encrypt {
        Encrypt::Strict => EncryptionLevel::Strict,
        Encrypt::Required => EncryptionLevel::Required,
        Encrypt::Off => EncryptionLevel::Off,
    });
    let tcp = TcpStream::connect(config.get_addr()).await.unwrap();
    Client::connect(config, tcp.compat_write()).await.unwrap()
}

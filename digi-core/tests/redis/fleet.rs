//! Several Redis servers that belong together.

use redis::{FromRedisValue, Value};

use crate::server::{RedisServer, tls_port};
use crate::support::until_async;
use crate::tls::Authority;

fn texts(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

/// A master, a replica, and three Sentinels that know the master as `mymaster`.
pub(crate) struct SentinelSet {
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

pub(crate) const SENTINEL_PASSWORD: &str = "sentinels-secret";
pub(crate) const PASSWORD: &str = "masters-secret";

impl SentinelSet {
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// With TLS all over if there is an authority.
    pub(crate) async fn start_with(authority: Option<&Authority>) -> Self {
        let tls = authority.map(|authority| authority.lines("no").to_vec()).unwrap_or_default();
        let only_tls = ["port 0", "tls-port PORT", "tls-replication yes"].map(str::to_owned);
        let (auth, requires) = (format!("masterauth {PASSWORD}"), format!("requirepass {PASSWORD}"));
        let mut lines = vec![auth, requires, "repl-diskless-sync-delay 0".to_owned()];
        if authority.is_some() {
            lines.extend(only_tls);
            lines.extend(tls.clone());
        }
        let master = RedisServer::start(&texts(&lines));
        lines.push(format!("replicaof 127.0.0.1 {}", master.port));
        let replica = RedisServer::start(&texts(&lines));
        let mut lines = vec![
            format!("sentinel monitor mymaster 127.0.0.1 {} 2", master.port),
            format!("sentinel auth-pass mymaster {PASSWORD}"),
            "sentinel down-after-milliseconds mymaster 1000".to_owned(),
            "sentinel failover-timeout mymaster 3000".to_owned(),
            format!("requirepass {SENTINEL_PASSWORD}"),
            format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
        ];
        if authority.is_some() {
            lines.extend(["tls-port TLSPORT", "tls-replication yes"].map(str::to_owned));
            lines.extend(tls);
        }
        let sentinels = (0..3).map(|_| RedisServer::sentinel(&texts(&lines))).collect();
        let set = Self { servers: vec![master, replica], sentinels };
        for sentinel in &set.sentinels {
            until_async("the Sentinels know each other and the replica", async || {
                let text = set.masters_facts(sentinel).await;
                text.contains("num-slaves=1 ") && text.contains("num-other-sentinels=2 ")
            })
            .await;
        }
        set
    }

    /// `name=value ` of all that a Sentinel knows of the master.
    async fn masters_facts(&self, sentinel: &RedisServer) -> String {
        let client = redis::Client::open(format!("redis://:{SENTINEL_PASSWORD}@{}", sentinel.address())).unwrap();
        let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return String::new() };
        let answer = redis::cmd("SENTINEL").arg("MASTER").arg("mymaster").query_async::<Value>(&mut connection).await;
        let facts: Vec<String> = answer.and_then(|value| Ok(Vec::from_redis_value(value)?)).unwrap_or_default();
        facts.chunks(2).map(|pair| format!("{} ", pair.join("="))).collect()
    }

    pub(crate) fn url(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(RedisServer::address).collect();
        format!("redis+sentinel://:{PASSWORD}@{}/mymaster?sentinel_password={SENTINEL_PASSWORD}", sentinels.join(","))
    }

    pub(crate) fn tls_url(&self, authority: &Authority) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(RedisServer::tls_address).collect();
        let options = format!("sentinel_password={SENTINEL_PASSWORD}&ca={}", authority.file("ca.pem"));
        format!("rediss+sentinel://:{PASSWORD}@{}/mymaster?{options}", sentinels.join(","))
    }
}

/// Three masters, and as many replicas of the first as are asked for.
pub(crate) struct ClusterSet {
    pub(crate) nodes: Vec<RedisServer>,
}

impl ClusterSet {
    pub(crate) async fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[]).await
    }

    /// With a user `chat`, and TLS on a second port of each node and between the nodes.
    pub(crate) async fn start_with_tls(authority: &Authority) -> Self {
        let user = format!("user chat on >{PASSWORD} ~* &* +@all");
        let lines = ["tls-port TLSPORT".to_owned(), "tls-cluster yes".to_owned(), user];
        Self::start_with(0, &[&lines[..], &authority.lines("no")].concat()).await
    }

    async fn start_with(replicas: usize, more: &[String]) -> Self {
        let lines = ["cluster-enabled yes", "cluster-node-timeout 1500", "repl-diskless-sync-delay 0"];
        let lines: Vec<_> = lines.into_iter().chain(more.iter().map(String::as_str)).collect();
        let nodes: Vec<_> = (0..3 + replicas).map(|_| RedisServer::start(&lines)).collect();
        for (node, (first, last)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
        }
        for node in &nodes[1..] {
            let port = if more.is_empty() { node.port.to_string() } else { tls_port(node.port) };
            nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &port]).await;
        }
        let set = Self { nodes };
        set.until_all("all know each other", &format!("cluster_known_nodes:{}", 3 + replicas)).await;
        let first = set.nodes[0].text(&["CLUSTER", "MYID"]).await;
        for replica in &set.nodes[3..] {
            until_async("a replica is one", async || replica.try_ask(&["CLUSTER", "REPLICATE", &first]).await.is_ok())
                .await;
        }
        set.until_all("the cluster works", "cluster_state:ok").await;
        for replica in &set.nodes[3..] {
            until_async("the replica is in step", async || {
                replica.text(&["INFO", "replication"]).await.contains("master_link_status:up")
            })
            .await;
        }
        set
    }

    async fn until_all(&self, what: &str, text: &str) {
        for node in &self.nodes {
            until_async(what, async || node.text(&["CLUSTER", "INFO"]).await.contains(text)).await;
        }
    }

    pub(crate) fn url(&self) -> String {
        let nodes: Vec<_> = self.nodes.iter().map(RedisServer::address).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    pub(crate) fn tls_url(&self, authority: &Authority) -> String {
        let seed = self.nodes[0].tls_address();
        format!("rediss+cluster://chat:{PASSWORD}@{seed}?ca={}", authority.file("ca.pem"))
    }
}

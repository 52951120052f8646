//! Several Redis servers that belong together.

use redis::{FromRedisValue, Value};

use crate::server::RedisServer;
use crate::support::until_async;

/// A master, a replica, and three Sentinels that know the master as `mymaster`.
pub(crate) struct SentinelSet {
    pub(crate) servers: Vec<RedisServer>,
    pub(crate) sentinels: Vec<RedisServer>,
}

pub(crate) const SENTINEL_PASSWORD: &str = "sentinels-secret";
pub(crate) const PASSWORD: &str = "masters-secret";

impl SentinelSet {
    pub(crate) async fn start() -> Self {
        let (auth, requires) = (format!("masterauth {PASSWORD}"), format!("requirepass {PASSWORD}"));
        let quick = "repl-diskless-sync-delay 0";
        let master = RedisServer::start(&[&auth, &requires, quick]);
        let of = format!("replicaof 127.0.0.1 {}", master.port);
        let replica = RedisServer::start(&[&of, &auth, &requires, quick]);
        let monitor = format!("sentinel monitor mymaster 127.0.0.1 {} 2", master.port);
        let login = format!("sentinel auth-pass mymaster {PASSWORD}");
        let sentinels: Vec<_> = (0..3)
            .map(|_| {
                RedisServer::sentinel(&[
                    &monitor,
                    &login,
                    "sentinel down-after-milliseconds mymaster 1000",
                    "sentinel failover-timeout mymaster 3000",
                    &format!("requirepass {SENTINEL_PASSWORD}"),
                    &format!("sentinel sentinel-pass {SENTINEL_PASSWORD}"),
                ])
            })
            .collect();
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
}

/// Three masters, and as many replicas of the first as are asked for.
pub(crate) struct ClusterSet {
    pub(crate) nodes: Vec<RedisServer>,
}

impl ClusterSet {
    pub(crate) async fn start(replicas: usize) -> Self {
        let lines = ["cluster-enabled yes", "cluster-node-timeout 1500", "repl-diskless-sync-delay 0"];
        let nodes: Vec<_> = (0..3 + replicas).map(|_| RedisServer::start(&lines)).collect();
        for (node, (first, last)) in nodes.iter().zip([("0", "5460"), ("5461", "10922"), ("10923", "16383")]) {
            node.ask(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await;
        }
        for node in &nodes[1..] {
            nodes[0].ask(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string()]).await;
        }
        let set = Self { nodes };
        set.until_all("all know each other", &format!("cluster_known_nodes:{}", 3 + replicas)).await;
        let first = set.nodes[0].text(&["CLUSTER", "MYID"]).await;
        for replica in &set.nodes[3..] {
            until_async("a replica is one", async || {
                replica.try_ask(&["CLUSTER", "REPLICATE", &first]).await.is_ok()
            })
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
}

//! One Redis server: a connection to publish on and another to subscribe on, both kept up by themselves.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use redis::aio::MultiplexedConnection;
use redis::{PushInfo, PushKind, RedisError, Value};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::backoff::Backoff;
use super::connect::{Connector, Open};
use super::health::{Health, Role};
use super::inbox::Inbox;
use super::target::Target;
use super::url::Address;
use crate::event::Group;
use crate::id::RoomId;
use crate::layer::LayerError;

/// How many channels are subscribed to in one write.
const CHUNK: usize = 1_000;

/// How often a connection is asked whether it is alive.
const PING: Duration = Duration::from_secs(3);

/// What all hosts of a layer have in common.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) connector: Connector,
    pub(super) inbox: Arc<Inbox>,
    /// What channels' names begin with: `<prefix>__digi__`.
    pub(super) channels: Arc<str>,
    /// In a cluster: told when a group seems to have moved to another node.
    pub(super) moved: Option<Arc<Notify>>,
}

impl Common {
    fn is_sharded(&self) -> bool {
        self.moved.is_some()
    }

    fn tell_moved(&self) {
        if let Some(moved) = &self.moved {
            moved.notify_one();
        }
    }

    pub(super) fn channel(&self, group: Group) -> String {
        format!("{}{group}", self.channels)
    }

    fn group(&self, channel: &[u8]) -> Option<Group> {
        let name = std::str::from_utf8(channel).ok()?.strip_prefix(&*self.channels)?;
        match name.strip_prefix("chat_") {
            Some(room) => room.parse().ok().map(|room| Group::Room(RoomId(room))),
            None => Some(Group::Nodes).filter(|group| group.to_string() == name),
        }
    }
}

pub(super) struct Host {
    shared: Arc<Shared>,
    tasks: [AbortHandle; 2],
}

struct Shared {
    common: Common,
    target: Target,
    health: Health,
    publisher: Mutex<Option<Link>>,
    subscriptions: Mutex<Subscriptions>,
    /// Held while subscriptions change, so that Redis hears of changes in their order.
    changing: tokio::sync::Mutex<()>,
    /// Grows with all that comes in on the subscriber connection.
    heard: AtomicU64,
}

#[derive(Default)]
struct Subscriptions {
    link: Option<Link>,
    /// The groups that are wanted, and whether Redis has confirmed them.
    wanted: HashMap<Group, bool>,
}

impl Subscriptions {
    fn unconfirmed(&self) -> Vec<Group> {
        self.wanted.iter().filter(|(_, is_confirmed)| !**is_confirmed).map(|(group, _)| *group).collect()
    }
}

/// A connection that is up.
#[derive(Clone)]
struct Link {
    requests: MultiplexedConnection,
    /// Told why the connection is of no use any more.
    broken: Arc<Broken>,
}

#[derive(Default)]
struct Broken {
    reason: Mutex<Option<String>>,
    told: Notify,
}

impl Link {
    fn breaks(&self, reason: String) {
        self.broken.reason.lock().get_or_insert(reason);
        self.broken.told.notify_one();
    }
}

/// Breaks the connection unless told that the change was completed.
struct Unfinished<'a>(Option<&'a Link>);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            link.breaks("a change of subscriptions was not completed".to_owned());
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Host {
    /// Needs a tokio runtime. Connects in the background.
    pub(super) fn start(common: Common, target: Target) -> Self {
        let shared = Arc::new(Shared {
            common,
            health: Health::new(target.to_string()),
            target,
            publisher: Mutex::default(),
            subscriptions: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            heard: AtomicU64::new(0),
        });
        let tasks =
            [Role::Publisher, Role::Subscriber].map(|role| tokio::spawn(keep(shared.clone(), role)).abort_handle());
        Self { shared, tasks }
    }

    pub(super) fn name(&self) -> &str {
        self.shared.health.name()
    }

    pub(super) fn is_up(&self) -> bool {
        self.shared.health.is_up()
    }

    /// Returns once Redis has confirmed.
    pub(super) async fn subscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.want(groups);
        self.settle(groups).await
    }

    pub(super) async fn unsubscribe(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.unwant(groups);
        self.forget(groups).await
    }

    /// The first half of a subscription: it is made, now or when the host is back.
    pub(super) fn want(&self, groups: &[Group]) {
        let mut subscriptions = self.shared.subscriptions.lock();
        for group in groups {
            subscriptions.wanted.entry(*group).or_insert(false);
        }
    }

    /// The second: those of the groups that are wanted and not confirmed, now.
    pub(super) async fn settle(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.change(
            |subscriptions| {
                groups.iter().filter(|group| subscriptions.wanted.get(group) == Some(&false)).copied().collect()
            },
            async |link, groups| self.shared.confirm(&link.requests, groups).await,
        )
        .await
        .map(drop)
    }

    /// [`settle`](Self::settle) for all groups; whether there were any.
    pub(super) async fn catch_up(&self) -> Result<bool, LayerError> {
        self.change(Subscriptions::unconfirmed, async |link, groups| self.shared.confirm(&link.requests, groups).await)
            .await
    }

    /// The first half of an unsubscription.
    pub(super) fn unwant(&self, groups: &[Group]) {
        let mut subscriptions = self.shared.subscriptions.lock();
        for group in groups {
            subscriptions.wanted.remove(group);
        }
    }

    /// The second: those of the groups that are not wanted.
    pub(super) async fn forget(&self, groups: &[Group]) -> Result<(), LayerError> {
        self.change(
            |subscriptions| groups.iter().filter(|group| !subscriptions.wanted.contains_key(group)).copied().collect(),
            async |link, groups| self.shared.forget(&link.requests, groups).await.map_err(Failure::Broken),
        )
        .await
        .map(drop)
    }

    /// Changes subscriptions at Redis, one change after the other; whether there was any. What fails or is given up
    /// half-way breaks the connection, because nobody knows then what is subscribed to.
    async fn change(
        &self,
        groups: impl FnOnce(&Subscriptions) -> Vec<Group>,
        change: impl AsyncFnOnce(&Link, &[Group]) -> Result<(), Failure>,
    ) -> Result<bool, LayerError> {
        let shared = &self.shared;
        let _changing = shared.changing.lock().await;
        let (link, groups) = {
            let subscriptions = shared.subscriptions.lock();
            let Some(link) = subscriptions.link.clone() else { return Err(shared.is_away()) };
            (link, groups(&subscriptions))
        };
        let mut unfinished = Unfinished(Some(&link));
        let result = change(&link, &groups).await;
        unfinished.0 = None;
        match result {
            Ok(()) => Ok(!groups.is_empty()),
            Err(Failure::Moved) => Err(LayerError("a group is moving to another node of the Redis Cluster".to_owned())),
            Err(Failure::Broken(reason)) => {
                let error = LayerError(format!("Redis {}: {reason}", shared.health.name()));
                link.breaks(reason);
                Err(error)
            }
        }
    }

    /// All of it in one write; returns once Redis has confirmed.
    pub(super) async fn publish(&self, payloads: &[(Group, Vec<u8>)]) -> Result<(), LayerError> {
        let shared = &self.shared;
        let link = shared.publisher.lock().clone().ok_or_else(|| shared.is_away())?;
        let command = if shared.common.is_sharded() { "SPUBLISH" } else { "PUBLISH" };
        let mut pipeline = redis::Pipeline::with_capacity(payloads.len());
        for (group, payload) in payloads {
            pipeline.cmd(command).arg(shared.common.channel(*group)).arg(payload.as_slice());
        }
        let mut requests = link.requests.clone();
        let answers = match requests.send_packed_commands(&pipeline, 0, payloads.len()).await {
            Ok(answers) => answers,
            Err(error) => {
                let reason = shared.text_of(&error);
                let error = LayerError(format!("Redis {}: {reason}", shared.health.name()));
                link.breaks(reason);
                return Err(error);
            }
        };
        match refusals(answers).into_iter().next() {
            None => Ok(()),
            Some(refusal) => {
                if is_moved(&refusal) {
                    shared.common.tell_moved();
                }
                Err(LayerError(format!("Redis {}: {}", shared.health.name(), shared.text_of(&refusal))))
            }
        }
    }
}

enum Failure {
    /// To another node of the cluster.
    Moved,
    Broken(String),
}

fn refusals(answers: Vec<Value>) -> Vec<RedisError> {
    answers.into_iter().filter_map(|answer| answer.extract_error().err()).collect()
}

fn is_moved(error: &RedisError) -> bool {
    matches!(error.code(), Some("MOVED" | "ASK" | "CLUSTERDOWN" | "TRYAGAIN"))
}

impl Shared {
    fn is_away(&self) -> LayerError {
        LayerError(format!("Redis {} is away", self.health.name()))
    }

    /// Without the password.
    fn text_of(&self, error: &RedisError) -> String {
        self.target.login().hide_in(&error.to_string())
    }

    /// Takes in what the server sends of itself, and the confirmations.
    fn on_push(&self, push: PushInfo) {
        self.heard.fetch_add(1, Ordering::Relaxed);
        let mut data = push.data.into_iter();
        let (Some(Value::BulkString(channel)), second) = (data.next(), data.next()) else { return };
        match (push.kind, second) {
            (PushKind::Message | PushKind::SMessage, Some(Value::BulkString(payload))) => {
                self.common.inbox.receive(payload);
            }
            (PushKind::Subscribe | PushKind::SSubscribe, _) => self.set_confirmed(&channel, true),
            (PushKind::Unsubscribe | PushKind::SUnsubscribe, _) => self.set_confirmed(&channel, false),
            _ => {}
        }
    }

    fn set_confirmed(&self, channel: &[u8], is_confirmed: bool) {
        let Some(group) = self.common.group(channel) else { return };
        if let Some(known) = self.subscriptions.lock().wanted.get_mut(&group) {
            *known = is_confirmed;
            if !is_confirmed {
                // A cluster takes subscriptions back when their slot goes to another node.
                self.common.tell_moved();
            }
        }
    }

    /// Subscribes, and waits until all is confirmed.
    async fn confirm(&self, requests: &MultiplexedConnection, groups: &[Group]) -> Result<(), Failure> {
        let command = if self.common.is_sharded() { "SSUBSCRIBE" } else { "SUBSCRIBE" };
        let mut has_moved = false;
        for chunk in groups.chunks(CHUNK) {
            let refusals = self.send(requests, command, chunk).await.map_err(Failure::Broken)?;
            for refusal in refusals {
                match is_moved(&refusal) && self.common.is_sharded() {
                    true => has_moved = true,
                    false => return Err(Failure::Broken(self.text_of(&refusal))),
                }
            }
        }
        if has_moved {
            self.common.tell_moved();
            return Err(Failure::Moved);
        }
        Ok(())
    }

    async fn forget(&self, requests: &MultiplexedConnection, groups: &[Group]) -> Result<(), String> {
        let command = if self.common.is_sharded() { "SUNSUBSCRIBE" } else { "UNSUBSCRIBE" };
        for chunk in groups.chunks(CHUNK) {
            let refusals = self.send(requests, command, chunk).await?;
            // Of a group that has gone to another node, there is nothing to forget here.
            if let Some(refusal) = refusals.iter().find(|refusal| !is_moved(refusal)) {
                return Err(self.text_of(refusal));
            }
        }
        Ok(())
    }

    /// One command for each group, so that each has an answer of its own, in one write.
    async fn send(
        &self,
        requests: &MultiplexedConnection,
        command: &str,
        groups: &[Group],
    ) -> Result<Vec<RedisError>, String> {
        let mut pipeline = redis::Pipeline::with_capacity(groups.len());
        for group in groups {
            pipeline.cmd(command).arg(self.common.channel(*group));
        }
        let mut requests = requests.clone();
        let answers = requests.send_packed_commands(&pipeline, 0, groups.len()).await;
        answers.map(refusals).map_err(|error| self.text_of(&error))
    }
}

/// Keeps one of the two connections up, for ever.
async fn keep(shared: Arc<Shared>, role: Role) {
    let mut backoff = Backoff::new();
    loop {
        let opened = open(&shared, role).await;
        let held = opened.is_ok();
        let reason = match opened {
            Err(reason) => reason,
            Ok((Open { requests, mut driver }, address)) => {
                backoff.opened();
                let link = Link { requests, broken: Arc::default() };
                let reason = tokio::select! {
                    () = &mut driver => "the connection was closed".to_owned(),
                    reason = hold(&shared, role, &link, &address) => reason,
                };
                drop(driver);
                reason
            }
        };
        close(&shared, role);
        shared.health.away(role, &reason);
        shared.common.tell_moved();
        backoff.wait(held).await;
    }
}

async fn open(shared: &Arc<Shared>, role: Role) -> Result<(Open, Address), String> {
    let address = shared.target.find(&shared.common.connector).await?;
    let login = shared.target.login();
    let connector = &shared.common.connector;
    let mut open = match role {
        Role::Publisher => connector.open(&address, login, |_| {}).await?,
        Role::Subscriber => {
            let here = shared.clone();
            connector.open(&address, login, move |push| here.on_push(push)).await?
        }
    };
    shared.target.check(&mut open, &address).await?;
    Ok((open, address))
}

fn close(shared: &Shared, role: Role) {
    match role {
        Role::Publisher => *shared.publisher.lock() = None,
        Role::Subscriber => {
            let mut subscriptions = shared.subscriptions.lock();
            subscriptions.link = None;
            subscriptions.wanted.values_mut().for_each(|is_confirmed| *is_confirmed = false);
        }
    }
}

/// Puts a new connection to use, until it is of none; why.
async fn hold(shared: &Shared, role: Role, link: &Link, address: &Address) -> String {
    match role {
        Role::Publisher => *shared.publisher.lock() = Some(link.clone()),
        Role::Subscriber => {
            if let Err(reason) = resubscribe(shared, link).await {
                return reason;
            }
        }
    }
    shared.health.up(role);
    tokio::select! {
        reason = dies(shared, role, link) => reason,
        reason = shared.target.changes(&shared.common.connector, address) => reason,
        () = link.broken.told.notified() => {
            link.broken.reason.lock().take().unwrap_or_default()
        }
    }
}

/// Subscribes to everything that is wanted, and puts the connection to use in the moment in which nothing is missing.
async fn resubscribe(shared: &Shared, link: &Link) -> Result<(), String> {
    let mut sent = HashSet::new();
    let surplus = loop {
        let missing: Vec<_> = {
            let mut subscriptions = shared.subscriptions.lock();
            let missing: Vec<_> =
                subscriptions.unconfirmed().into_iter().filter(|group| !sent.contains(group)).collect();
            if missing.is_empty() {
                subscriptions.link = Some(link.clone());
                break sent.into_iter().filter(|group| !subscriptions.wanted.contains_key(group)).collect::<Vec<_>>();
            }
            missing
        };
        sent.extend(&missing);
        match shared.confirm(&link.requests, &missing).await {
            // The cluster looks for the others.
            Ok(()) | Err(Failure::Moved) => {}
            Err(Failure::Broken(reason)) => return Err(reason),
        }
    };
    // What was unsubscribed from meanwhile. If it is wanted again by now, its subscription comes after this.
    let has_gap = !shared.subscriptions.lock().wanted.is_empty();
    if has_gap {
        shared.common.inbox.lag();
    }
    if surplus.is_empty() {
        return Ok(());
    }
    let _changing = shared.changing.lock().await;
    let surplus: Vec<_> = {
        let subscriptions = shared.subscriptions.lock();
        surplus.into_iter().filter(|group| !subscriptions.wanted.contains_key(group)).collect()
    };
    shared.forget(&link.requests, &surplus).await
}

/// Asks now and then whether the connection is alive; why it is not.
async fn dies(shared: &Shared, role: Role, link: &Link) -> String {
    let ping = redis::cmd("PING");
    loop {
        tokio::time::sleep(PING).await;
        let before = shared.heard.load(Ordering::Relaxed);
        if let Err(error) = link.requests.clone().send_packed_command(&ping).await {
            // The answer comes behind everything else; where something comes, there is life.
            if role == Role::Subscriber && error.is_timeout() && shared.heard.load(Ordering::Relaxed) != before {
                continue;
            }
            return shared.text_of(&error);
        }
    }
}

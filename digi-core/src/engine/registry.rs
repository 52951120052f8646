//! Which sessions this node has, and whose they are.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::session::SessionCore;
use crate::error::CloseCode;
use crate::id::UserKey;
use crate::room::SessionId;

const SHARDS: usize = 32;

pub(super) struct Registry {
    next: AtomicU64,
    count: AtomicUsize,
    sessions: [Mutex<HashMap<SessionId, Arc<SessionCore>>>; SHARDS],
    users: Mutex<HashMap<UserKey, Vec<SessionId>>>,
    most: usize,
    most_per_user: usize,
}

impl Registry {
    pub(super) fn new(most: usize, most_per_user: usize) -> Self {
        Self {
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            sessions: std::array::from_fn(|_| Mutex::default()),
            users: Mutex::default(),
            most,
            most_per_user,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Makes a session under a new number, unless a bound is reached.
    pub(super) fn add(
        &self,
        user: &UserKey,
        make: impl FnOnce(SessionId) -> Arc<SessionCore>,
    ) -> Result<Arc<SessionCore>, CloseCode> {
        if self.len() >= self.most {
            return Err(CloseCode::Overloaded);
        }
        let id = SessionId(self.next.fetch_add(1, Ordering::Relaxed));
        {
            let mut users = self.users.lock();
            let of_user = users.entry(user.clone()).or_default();
            if of_user.len() >= self.most_per_user {
                return Err(CloseCode::TooManySessions);
            }
            of_user.push(id);
        }
        let session = make(id);
        self.shard(id).lock().insert(id, session.clone());
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(session)
    }

    pub(super) fn get(&self, id: SessionId) -> Option<Arc<SessionCore>> {
        self.shard(id).lock().get(&id).cloned()
    }

    pub(super) fn remove(&self, id: SessionId, user: &UserKey) {
        if self.shard(id).lock().remove(&id).is_none() {
            return;
        }
        self.count.fetch_sub(1, Ordering::Relaxed);
        let mut users = self.users.lock();
        if let Some(of_user) = users.get_mut(user) {
            of_user.retain(|other| *other != id);
            if of_user.is_empty() {
                users.remove(user);
            }
        }
    }

    pub(super) fn of_user(&self, user: &UserKey) -> Vec<Arc<SessionCore>> {
        let ids = self.users.lock().get(user).cloned().unwrap_or_default();
        ids.into_iter().filter_map(|id| self.get(id)).collect()
    }

    /// The log-ins that sessions have, each once.
    pub(super) fn logins(&self) -> BTreeSet<(UserKey, Arc<str>)> {
        let of_shard = |shard: &Mutex<HashMap<_, Arc<SessionCore>>>| {
            let sessions = shard.lock();
            let logins = sessions.values().filter_map(|session| Some((session.user.clone(), session.login.clone()?)));
            logins.collect::<Vec<_>>()
        };
        self.sessions.iter().flat_map(of_shard).collect()
    }

    pub(super) fn all(&self) -> Vec<Arc<SessionCore>> {
        self.sessions.iter().flat_map(|shard| shard.lock().values().cloned().collect::<Vec<_>>()).collect()
    }

    fn shard(&self, id: SessionId) -> &Mutex<HashMap<SessionId, Arc<SessionCore>>> {
        &self.sessions[id.0 as usize % SHARDS]
    }
}

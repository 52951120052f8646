//! Who is in a room, over all nodes: pure, and nothing that would be kept.
//!
//! Each node announces its own users of a room when they change, again at intervals, and when a node that has just
//! begun asks. What others announced expires, so that a node that died leaves nothing behind for long. Somebody who
//! comes back within a short while was never gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::id::{Millis, UserKey};

/// How many users of a room a node announces. Further ones are not shown to others.
pub const MOST_PRESENT: usize = 256;

/// How many other nodes a room's presence knows.
const NODES: usize = 256;

/// Between two announcements of the same users, in milliseconds.
const REFRESH: u64 = 20_000;

/// How long an announcement holds, in milliseconds.
const EXPIRY: u64 = 60_000;

/// How long somebody may be away without being gone, in milliseconds.
const GRACE: u64 = 5_000;

/// Users by key, with the names that others see.
pub type Users = Vec<(UserKey, Arc<str>)>;

/// What the driver has to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PresenceOutput {
    /// Tell the room's members here, but not the user, that somebody came or went.
    Show {
        /// Who.
        user: UserKey,
        /// The name that others see.
        name: Arc<str>,
        /// Came, or went.
        online: bool,
    },
    /// Tell the other nodes who is here.
    Announce {
        /// All of this node's users in the room.
        users: Users,
        /// Whether the others are to answer with theirs.
        asks: bool,
    },
}

struct Here {
    name: Arc<str>,
    sessions: usize,
    /// Without sessions: when that was noticed.
    gone_since: Option<Millis>,
}

struct Elsewhere {
    users: BTreeMap<UserKey, Arc<str>>,
    until: Millis,
}

/// Who is in one room.
#[derive(Default)]
pub struct Presence {
    here: BTreeMap<UserKey, Here>,
    elsewhere: BTreeMap<u64, Elsewhere>,
    announced_at: Option<Millis>,
}

impl Presence {
    /// A session of a user has come into the room on this node.
    #[must_use]
    pub fn enter(&mut self, user: &UserKey, name: &Arc<str>, now: Millis) -> Vec<PresenceOutput> {
        let was_online = self.is_online(user);
        let is_new = !self.here.contains_key(user);
        if is_new && self.here.len() >= MOST_PRESENT {
            return Vec::new();
        }
        let here = Here { name: name.clone(), sessions: 0, gone_since: None };
        let here = self.here.entry(user.clone()).or_insert(here);
        here.sessions += 1;
        here.gone_since = None;
        let mut outputs = self.changed(user, name, was_online);
        if is_new {
            outputs.push(self.announce(false, now));
        }
        outputs
    }

    /// From now on the others are heard: ask them who is with them.
    #[must_use]
    pub fn ask(&mut self, now: Millis) -> Vec<PresenceOutput> {
        vec![self.announce(true, now)]
    }

    /// A session of a user has gone from this node. Whether the user has, a later [`Presence::tick`] says.
    pub fn leave(&mut self, user: &UserKey, now: Millis) {
        if let Some(here) = self.here.get_mut(user) {
            here.sessions = here.sessions.saturating_sub(1);
            if here.sessions == 0 {
                here.gone_since = Some(now);
            }
        }
    }

    /// Another node has announced its users.
    #[must_use]
    pub fn hear(&mut self, node: u64, users: &Users, asks: bool, now: Millis) -> Vec<PresenceOutput> {
        let mut touched: BTreeMap<UserKey, Arc<str>> = users.iter().take(MOST_PRESENT).cloned().collect();
        let until = now.plus(EXPIRY);
        let elsewhere = Elsewhere { users: touched.clone(), until };
        let before = self.elsewhere.get(&node).map(|before| before.users.clone()).unwrap_or_default();
        touched.extend(before);
        let were_online: BTreeSet<_> = touched.keys().filter(|user| self.is_online(user)).cloned().collect();
        if elsewhere.users.is_empty() {
            self.elsewhere.remove(&node);
        } else if self.elsewhere.len() < NODES || self.elsewhere.contains_key(&node) {
            self.elsewhere.insert(node, elsewhere);
        }
        let mut outputs = Vec::new();
        for (user, name) in &touched {
            outputs.extend(self.changed(user, name, were_online.contains(user)));
        }
        if asks && !self.here.is_empty() {
            outputs.push(self.announce(false, now));
        }
        outputs
    }

    /// Time has passed: call it every second or so.
    #[must_use]
    pub fn tick(&mut self, now: Millis) -> Vec<PresenceOutput> {
        let gone = |here: &Here| here.gone_since.is_some_and(|since| since.plus(GRACE) <= now);
        let mut touched: BTreeMap<UserKey, Arc<str>> = BTreeMap::new();
        touched.extend(
            self.here.iter().filter(|(_, here)| gone(here)).map(|(user, here)| (user.clone(), here.name.clone())),
        );
        let somebody_went = !touched.is_empty();
        for node in self.elsewhere.values().filter(|node| node.until <= now) {
            touched.extend(node.users.clone());
        }
        self.here.retain(|_, here| !gone(here));
        self.elsewhere.retain(|_, node| node.until > now);
        let mut outputs = Vec::new();
        for (user, name) in &touched {
            outputs.extend(self.changed(user, name, true));
        }
        let is_due = self.announced_at.is_some_and(|at| at.plus(REFRESH) <= now) && !self.here.is_empty();
        if somebody_went || is_due {
            outputs.push(self.announce(false, now));
        }
        outputs
    }

    /// Everybody who is in the room, on whatever node.
    pub fn online(&self) -> BTreeMap<UserKey, Arc<str>> {
        let here = self.here.iter().map(|(user, here)| (user.clone(), here.name.clone()));
        let elsewhere = self.elsewhere.values().flat_map(|node| node.users.clone());
        elsewhere.chain(here).collect()
    }

    /// Whether nobody is left on this node, so that it need not know of the others.
    pub fn is_empty(&self) -> bool {
        self.here.is_empty()
    }

    fn is_online(&self, user: &UserKey) -> bool {
        self.here.contains_key(user) || self.elsewhere.values().any(|node| node.users.contains_key(user))
    }

    fn changed(&self, user: &UserKey, name: &Arc<str>, was_online: bool) -> Vec<PresenceOutput> {
        let online = self.is_online(user);
        let show = PresenceOutput::Show { user: user.clone(), name: name.clone(), online };
        if online == was_online { Vec::new() } else { vec![show] }
    }

    fn announce(&mut self, asks: bool, now: Millis) -> PresenceOutput {
        self.announced_at = Some(now);
        let users = self.here.iter().map(|(user, here)| (user.clone(), here.name.clone())).collect();
        PresenceOutput::Announce { users, asks }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Millis = Millis(1_000_000);

    fn name(user: &str) -> Arc<str> {
        format!("name of {user}").into()
    }

    fn enter(presence: &mut Presence, user: &str, now: Millis) -> Vec<PresenceOutput> {
        presence.enter(&user.into(), &name(user), now)
    }

    fn users(users: &[&str]) -> Users {
        users.iter().map(|user| (UserKey::from(*user), name(user))).collect()
    }

    fn announce(of: &[&str], asks: bool) -> PresenceOutput {
        PresenceOutput::Announce { users: users(of), asks }
    }

    fn show(user: &str, online: bool) -> PresenceOutput {
        PresenceOutput::Show { user: user.into(), name: name(user), online }
    }

    #[test]
    fn the_first_session_of_a_user_is_told_and_further_ones_are_not() {
        let mut presence = Presence::default();
        assert_eq!(enter(&mut presence, "1", START), [show("1", true), announce(&["1"], false)]);
        assert_eq!(enter(&mut presence, "1", START), []);
        assert_eq!(enter(&mut presence, "2", START), [show("2", true), announce(&["1", "2"], false)]);
        presence.leave(&"1".into(), START);
        assert_eq!(presence.tick(START.plus(GRACE)), []);
        assert_eq!(presence.online().len(), 2);
        assert_eq!(presence.ask(START), [announce(&["1", "2"], true)]);
    }

    #[test]
    fn who_comes_back_soon_was_never_gone() {
        let mut presence = Presence::default();
        let _ = enter(&mut presence, "1", START);
        presence.leave(&"1".into(), START);
        assert_eq!(presence.tick(START.plus(GRACE - 1)), []);
        assert_eq!(enter(&mut presence, "1", START.plus(GRACE - 1)), []);
        assert_eq!(presence.tick(START.plus(GRACE)), []);
        presence.leave(&"1".into(), START.plus(GRACE));
        assert_eq!(presence.tick(START.plus(2 * GRACE)), [show("1", false), announce(&[], false)]);
        assert!(presence.is_empty());
    }

    #[test]
    fn who_is_elsewhere_is_told_once_however_often_it_is_heard() {
        let mut presence = Presence::default();
        let _ = enter(&mut presence, "1", START);
        assert_eq!(presence.hear(7, &users(&["1", "2"]), false, START), [show("2", true)]);
        assert_eq!(presence.hear(8, &users(&["2"]), false, START), []);
        assert_eq!(presence.hear(7, &users(&["1", "2"]), false, START), []);
        assert_eq!(presence.hear(7, &users(&[]), false, START), [], "2 is on another node, and 1 is here");
        assert_eq!(presence.hear(8, &users(&["3"]), false, START), [show("2", false), show("3", true)]);
    }

    #[test]
    fn whoever_asks_is_answered() {
        let mut presence = Presence::default();
        assert_eq!(presence.hear(7, &users(&["2"]), true, START), [show("2", true)], "nobody is here");
        let _ = enter(&mut presence, "1", START);
        assert_eq!(presence.hear(7, &users(&["2"]), true, START), [announce(&["1"], false)]);
    }

    #[test]
    fn what_a_dead_node_left_expires_and_ones_own_is_said_again() {
        let mut presence = Presence::default();
        let _ = enter(&mut presence, "1", START);
        let _ = presence.hear(7, &users(&["2"]), false, START);
        assert_eq!(presence.tick(START.plus(REFRESH - 1)), []);
        assert_eq!(presence.tick(START.plus(REFRESH)), [announce(&["1"], false)]);
        assert_eq!(presence.tick(START.plus(REFRESH + 1)), []);
        let later = presence.tick(START.plus(EXPIRY));
        assert_eq!(later, [show("2", false), announce(&["1"], false)]);
    }

    #[test]
    fn no_more_are_announced_than_others_take() {
        let mut presence = Presence::default();
        for user in 0..MOST_PRESENT + 10 {
            let _ = enter(&mut presence, &user.to_string(), START);
        }
        assert_eq!(presence.online().len(), MOST_PRESENT);
        presence.leave(&"too many".into(), START);
        let many: Users = (0..2 * MOST_PRESENT).map(|n| (UserKey::from(format!("n{n}")), name("n"))).collect();
        let _ = presence.hear(1, &many, false, START);
        assert_eq!(presence.online().len(), 2 * MOST_PRESENT);
        for node in 0..2 * NODES as u64 {
            let _ = presence.hear(node, &users(&["x"]), false, START);
        }
        assert_eq!(presence.elsewhere.len(), NODES);
    }
}

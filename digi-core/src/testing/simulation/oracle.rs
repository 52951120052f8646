//! What must hold when a run has come to rest.

use std::collections::HashMap;

use super::client::Client;
use crate::frame::Encoder;
use crate::id::{MessageId, RoomId, UserKey};
use crate::store::memory::MemoryState;
use crate::store::model::Message;
use crate::token::Kind;

/// Compares every page with the store, and the store with what was promised.
pub(super) fn check(
    clients: &[Client],
    store: &MemoryState,
    rooms: &[RoomId],
    encoder: &Encoder,
    lost: impl Fn(&str) -> bool,
) -> Result<(), String> {
    for room in rooms {
        if let Some(seq) = store.hole(*room) {
            return Err(format!("the log of room {room} has a hole at {seq}"));
        }
        let stored = messages(store, *room)?;
        let mut uses: HashMap<(&UserKey, &str), u32> = HashMap::new();
        for client_id in stored.values().filter_map(|m| Some((&m.sender, m.client_id.as_ref()?.as_str()))) {
            *uses.entry(client_id).or_default() += 1;
        }
        if let Some(((user, id), times)) = uses.iter().find(|(_, times)| **times > 1) {
            return Err(format!("{id} of {user} is stored {times} times in room {room}"));
        }
        for client in clients.iter().filter(|client| client.room == *room) {
            for id in client.acked.iter().filter(|id| !lost(id)) {
                if !uses.contains_key(&(&client.user, id.as_str())) {
                    return Err(format!("{id} was acknowledged and is not stored"));
                }
            }
            check_page(client, &stored, store, encoder)?;
        }
    }
    Ok(())
}

fn check_page(
    client: &Client,
    stored: &HashMap<u64, Message>,
    store: &MemoryState,
    encoder: &Encoder,
) -> Result<(), String> {
    let name = &client.name;
    let is_member = store.member(client.room, &client.user).is_ok_and(|answer| answer.membership.is_some());
    if !is_member {
        return if client.connection.is_some() { Err(format!("{name} is connected and no member")) } else { Ok(()) };
    }
    if !client.connection.as_ref().is_some_and(|connection| connection.live) {
        return Err(format!("{name} is a member and not connected (barred: {})", client.barred));
    }
    if client.classic {
        return Ok(());
    }
    if !client.pending.is_empty() {
        return Err(format!("{name} still waits for {} answers", client.pending.len()));
    }
    if client.oldest == u64::MAX {
        return Err(format!("{name} never got its history"));
    }
    for (pos, message) in stored.iter().filter(|(pos, _)| **pos >= client.oldest) {
        let Some(view) = client.messages.get(pos) else { return Err(format!("{name} lacks message {pos}")) };
        let token = encoder.keyring().seal(Kind::Message, message.id.get());
        if view.body.as_deref() != message.body.as_deref() || view.token != token || view.user != *message.sender_name {
            return Err(format!("{name} shows message {pos} as {view:?}, stored is {message:?}"));
        }
    }
    match client.messages.keys().find(|pos| **pos >= client.oldest && !stored.contains_key(pos)) {
        Some(pos) => Err(format!("{name} shows message {pos}, which is not stored")),
        None => Ok(()),
    }
}

fn messages(store: &MemoryState, room: RoomId) -> Result<HashMap<u64, Message>, String> {
    let page = store.history(room, None, u32::MAX).map_err(|error| error.to_string())?;
    for message in &page.messages {
        if MessageId::own(room, message.pos) != Some(message.id) {
            return Err(format!("message {:?} stands at {}", message.id, message.pos));
        }
    }
    if page.messages.windows(2).any(|pair| pair[0].created_at > pair[1].created_at) {
        return Err(format!("times go back in room {room}"));
    }
    Ok(page.messages.into_iter().map(|message| (message.pos.0, message)).collect())
}

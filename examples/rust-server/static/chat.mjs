// The view: what the people see of a ChatClient, and what they do with it.

import { ChatClient } from "./client.mjs";

const $ = (id) => document.getElementById(id);
const me = new URLSearchParams(location.search).get("as");
/** Pixels from the end within which the list follows new messages. */
const NEAR = 80;

const STATES = {
  connecting: "Connecting …",
  online: "Connected",
  offline: "Not connected, trying again. What you write is sent later.",
  closed: "Disconnected",
};

const CLOSED = {
  4500: "This chat cannot be opened.",
  4501: "You are not a member of this chat.",
  4502: "You were removed from this chat.",
  4503: "You are no longer logged in.",
  4505: "You have this chat open in too many tabs.",
};

const FAILED = {
  unsure: "Perhaps not sent",
  body_too_long: "Too long to be sent",
  frame_too_large: "Too long to be sent",
  bad_body: "Contains a character that cannot be sent",
  message_deleted: "The message was deleted meanwhile",
};

let client;
/** The message whose text is in the composer, and what stood there before. */
let editing = null;
let draft = "";
let unread = 0;
let scheduled = false;
/** The elements of the list and what they show, by key. */
const rows = new Map();
/** The highest place that was announced; null until the first page is there. */
let announced = null;

if (me === "alice" || me === "bob") start();
else $("choose").hidden = false;

function start() {
  const peer = capital(me === "alice" ? "bob" : "alice");
  $("chat").hidden = false;
  $("peer").textContent = peer;
  $("avatar").textContent = peer[0];
  $("avatar").dataset.user = peer.toLowerCase();
  $("switch").title = `You are ${capital(me)}`;
  client = new ChatClient({ user: me, open, changed: schedule });
  client.connect();
  listen();
  title();
  render();
  $("text").focus();
}

/** Logs in anew for every connection: the login is valid for a minute. */
async function open(cursor) {
  const answer = await fetch(`join?user=${encodeURIComponent(me)}`, { cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error(`join: ${answer.status}`), { final: answer.status < 500 });
  const { path, login } = await answer.json();
  const url = new URL(path, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  if (cursor) url.searchParams.set("after", cursor);
  return new WebSocket(url, ["digi", `digi.jwt.${login}`]);
}

function listen() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("text").addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && editing) {
      stopEditing();
    } else if (event.key === "ArrowUp" && !$("text").value) {
      const last = sorted().findLast(isMine);
      if (last) event.preventDefault(), startEditing(last);
    }
  });
  $("cancel").addEventListener("click", stopEditing);
  $("older").addEventListener("click", () => client.older());
  $("newest").addEventListener("click", () => toEnd());
  $("scroller").addEventListener("scroll", () => atEnd() && ($("newest").hidden = true));
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unread = 0;
    title();
    if (client.state === "offline") client.connect();
  });
  window.addEventListener("online", () => client.state === "offline" && client.connect());
  window.addEventListener("beforeunload", (event) => client.outbox.length > 0 && event.preventDefault());
}

function submit() {
  const text = $("text").value;
  if (!text.trim()) return;
  if (!editing) {
    client.add(text);
    $("text").value = "";
    toEnd();
    return;
  }
  const { message } = editing;
  if (text !== message.text) client.edit(message, text);
  stopEditing();
}

function startEditing(message) {
  if (!editing) draft = $("text").value;
  editing = { message };
  $("editing").hidden = false;
  $("send").textContent = "Save";
  $("text").value = message.text;
  $("text").focus();
  schedule();
}

function stopEditing() {
  editing = null;
  $("editing").hidden = true;
  $("send").textContent = "Send";
  $("text").value = draft;
  draft = "";
  $("text").focus();
  schedule();
}

function askToDelete(message) {
  const dialog = $("confirm");
  $("quoted").textContent = message.text;
  dialog.returnValue = "";
  dialog.onclose = () => {
    if (dialog.returnValue === "delete") client.remove(message);
    $("text").focus();
  };
  dialog.showModal();
}

/** Once per picture, however many frames came. A hidden tab draws no pictures, but counts the unread. */
function schedule() {
  if (scheduled) return;
  scheduled = true;
  if (document.hidden) setTimeout(render, 0);
  else requestAnimationFrame(render);
}

function render() {
  scheduled = false;
  const following = atEnd();
  const before = anchor();
  status();
  announce();
  list();
  $("empty").hidden = rows.size > 0 || client.state !== "online" || client.more || announced === null;
  $("older").hidden = !client.more;
  if (editing && (client.messages.get(editing.message.pos)?.deleted ?? true)) stopEditing();
  if (following) toEnd();
  else restore(before);
}

function status() {
  const { state, closeCode } = client;
  $("chat").dataset.state = state;
  setText($("status"), STATES[state]);
  $("notice").hidden = state !== "closed";
  if (state === "closed") setText($("notice"), `${CLOSED[closeCode] ?? "The connection was closed."} Reload the page to try again.`);
}

/** Says what others wrote to those who cannot see it, and counts it for those who look elsewhere. */
function announce() {
  const highest = Math.max(-1, ...sorted().slice(-1).map((message) => message.pos));
  if (announced !== null && highest > announced) {
    const fresh = sorted().filter((message) => message.pos > announced && !message.deleted && message.user !== me);
    $("news").textContent = fresh.map((message) => `${capital(message.user)}: ${message.text}`).join("\n");
    if (document.hidden) unread += fresh.length;
    if (fresh.length > 0 && !atEnd()) $("newest").hidden = false;
    title();
  }
  if (announced !== null || client.isLoaded) announced = Math.max(announced ?? -1, highest);
}

function title() {
  document.title = `${unread ? `(${unread}) ` : ""}${capital(me)} · Digi chat`;
}

function sorted() {
  return [...client.messages.values()].sort((a, b) => a.pos - b.pos);
}

/** Brings the list in line with the client: what shows the same as before stays as it is. */
function list() {
  const wanted = [];
  let day = "";
  let author = "";
  const put = (key, shown, build) => wanted.push({ key, shown: fingerprint(shown), build: () => build(shown) });
  const bubble = (key, shown) => {
    if (dayOf(shown.at) !== day) {
      day = dayOf(shown.at);
      author = "";
      put(`day ${day}`, { day }, buildDay);
    }
    put(key, { ...shown, mine: shown.user === me, first: shown.user !== author }, buildMessage);
    author = shown.user;
  };
  for (const message of sorted()) bubble(`at ${message.pos}`, { ...message, ...pendingOn(message) });
  for (const item of client.outbox) {
    if (item.type !== "add" || client.isShown(item)) continue;
    const state = item.failed ? "failed" : item.sent && client.state === "online" ? "sending" : "waiting";
    bubble(`own ${item.clientId}`, { user: me, text: item.text, at: item.at, state, item: item.clientId, failed: item.failed });
  }

  const hadFocus = $("messages").contains(document.activeElement);
  const keys = new Set(wanted.map(({ key }) => key));
  for (const [key, row] of rows) {
    if (!keys.has(key)) row.element.remove(), rows.delete(key);
  }
  let next = $("messages").firstElementChild;
  for (const { key, shown, build } of wanted) {
    let row = rows.get(key);
    if (row && row.shown !== shown) {
      const element = build();
      if (next === row.element) next = element;
      row.element.replaceWith(element);
      rows.set(key, (row = { element, shown }));
    } else if (!row) {
      rows.set(key, (row = { element: build(), shown }));
    }
    if (row.element === next) next = next.nextElementSibling;
    else $("messages").insertBefore(row.element, next);
  }
  if (hadFocus && document.activeElement === document.body) $("text").focus();
}

/** Changes with what is to be seen only: an element that is replaced loses the focus. */
function fingerprint({ id, version, at, ...seen }) {
  return JSON.stringify([seen, at && clock(at)]);
}

/** What the user asked for and the server has not answered yet shows on the message already. */
function pendingOn(message) {
  const item = client.outbox.findLast((item) => item.type !== "add" && item.pos === message.pos);
  const marked = editing?.message.pos === message.pos ? { marked: true } : {};
  if (!item) return marked;
  if (item.failed) return { ...marked, state: "failed", item: item.clientId, failed: item.failed };
  if (item.type === "delete") return { ...marked, state: "deleting" };
  return { ...marked, text: item.text, state: "saving" };
}

function buildDay({ day }) {
  return make("li", { className: "day" }, make("span", { textContent: day }));
}

function buildMessage(shown) {
  const { pos, user, text, at, edited, deleted, state, mine, first, marked } = shown;
  const classes = ["message", mine ? "mine" : "theirs", first && "first", deleted && "deleted", marked && "marked", state];
  const time = make("time", { dateTime: at, textContent: clock(at), title: new Date(at).toLocaleString() });
  const notes = {
    sending: "Sending …",
    waiting: "Waiting for the connection …",
    saving: "Saving …",
    deleting: "Deleting …",
    failed: FAILED[shown.failed] ?? (pos ? "Could not be changed" : "Could not be sent"),
  };
  const note = notes[state] ?? (edited && !deleted ? "edited" : "");
  const element = make(
    "li",
    { className: classes.filter(Boolean).join(" ") },
    make("span", { className: first && !mine ? "author" : "aside", textContent: mine ? "You" : capital(user) }),
    make("p", { className: "text", dir: "auto", textContent: deleted ? "This message was deleted." : text }),
    make("p", { className: "meta" }, note && make("span", { className: "note", textContent: note }), time),
  );
  if (pos) element.dataset.pos = pos;
  if (state === "failed") {
    const item = () => client.outbox.find((item) => item.clientId === shown.item);
    element.append(
      actions(
        ["Try again", `Try again: ${text}`, () => client.retry(item())],
        ["Discard", `Discard: ${text}`, () => client.discard(item())],
      ),
    );
  } else if (mine && pos && !deleted && !state) {
    const message = () => client.messages.get(pos);
    element.append(
      actions(
        ["Edit", `Edit: ${text}`, () => startEditing(message())],
        ["Delete", `Delete: ${text}`, () => askToDelete(message())],
      ),
    );
  }
  return element;
}

function actions(...buttons) {
  const made = buttons.map(([textContent, ariaLabel, onclick]) => make("button", { type: "button", textContent, ariaLabel, onclick }));
  return make("div", { className: "actions" }, ...made);
}

function isMine(message) {
  return message.user === me && !message.deleted;
}

function atEnd() {
  const { scrollHeight, scrollTop, clientHeight } = $("scroller");
  return scrollHeight - scrollTop - clientHeight < NEAR;
}

function toEnd() {
  $("scroller").scrollTop = $("scroller").scrollHeight;
  $("newest").hidden = true;
}

/** The first message in sight and where it stands, so that older ones above it do not push it away. */
function anchor() {
  const top = $("scroller").getBoundingClientRect().top;
  for (const element of $("messages").querySelectorAll("[data-pos]")) {
    const box = element.getBoundingClientRect();
    if (box.bottom > top) return { key: `at ${element.dataset.pos}`, y: box.top };
  }
  return null;
}

function restore(before) {
  const element = before && rows.get(before.key)?.element;
  if (element) $("scroller").scrollTop += element.getBoundingClientRect().top - before.y;
}

function setText(element, text) {
  // A live region speaks at every assignment, also of the same text.
  if (element.textContent !== text) element.textContent = text;
}

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children.filter(Boolean));
  return element;
}

function capital(name) {
  return name.charAt(0).toUpperCase() + name.slice(1);
}

function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

function dayOf(at) {
  const day = new Date(at).toDateString();
  const ago = (days) => new Date(Date.now() - days * 86_400_000).toDateString();
  if (day === ago(0)) return "Today";
  if (day === ago(1)) return "Yesterday";
  return new Date(at).toLocaleDateString([], { weekday: "long", year: "numeric", month: "long", day: "numeric" });
}

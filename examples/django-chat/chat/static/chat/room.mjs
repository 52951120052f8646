// A room as its people see it: what DigiChat knows is drawn, what they do is passed on.

import { DigiChat } from "../digi/digi.js";
import { clock, dayOf } from "./time.mjs";

const $ = (id) => document.getElementById(id);
const { path, user: me, moderates } = JSON.parse($("data").textContent);
const chat = new DigiChat(path, { user: me });
const name = document.title;
/** Pixels from the end within which the list follows new messages. */
const NEAR = 80;
/** So many messages stay in the page while one reads the newest. */
const KEPT = 500;

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
  4504: "You were logged out here.",
  4505: "You have this chat open in too many tabs.",
};

const FAILED = {
  unsure: "Perhaps not sent",
  body_too_long: "Too long to be sent",
  frame_too_large: "Too long to be sent",
  bad_body: "Contains a character that cannot be sent",
  message_deleted: "The message was deleted meanwhile",
  not_a_member: "You are no longer a member of this chat",
  refused: "Not allowed in this chat",
};

/** The message whose text is in the composer, and what stood there before. */
let editing = null;
let draft = "";
/** What others wrote while this tab was hidden, and while one was reading further up. */
let unread = 0;
let below = 0;
let scheduled = false;
/** The elements of the list and what they show, by key. */
const rows = new Map();
/** The highest place that was announced; null until the first page is there. */
let announced = null;

chat.addEventListener("change", schedule);
chat.addEventListener("signal", others);
chat.addEventListener("error", ({ detail }) => {
  if (detail.code === "outbox_full") complain("Too much waits to be sent already. What you wrote stays here.");
});
listen();
chat.connect();
render();
$("text").focus();

function listen() {
  $("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  $("text").addEventListener("input", () => editing || chat.type());
  $("text").addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      submit();
    } else if (event.key === "Escape" && editing) {
      stopEditing();
    } else if (event.key === "ArrowUp" && !$("text").value) {
      const last = chat.sorted().findLast(isMine);
      if (last) event.preventDefault(), startEditing(last);
    }
  });
  $("cancel").addEventListener("click", stopEditing);
  $("older").addEventListener("click", () => chat.older());
  $("newest").addEventListener("click", () => toEnd());
  $("reload").addEventListener("click", () => location.reload());
  let following = true;
  $("scroller").addEventListener("scroll", () => (following = atEnd()) && seenBelow());
  // A keyboard that slides up takes room away: the newest message stays in sight.
  new ResizeObserver(() => following && toEnd()).observe($("scroller"));
  // Without a mouse, a message shows what can be done with it when it is tapped.
  $("messages").addEventListener("click", ({ target }) => {
    const message = target.closest(".message");
    for (const open of document.querySelectorAll(".open")) open !== message && open.classList.remove("open");
    if (!target.closest("button")) message?.classList.toggle("open");
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return;
    unread = 0;
    title();
  });
  window.addEventListener("beforeunload", (event) => chat.outbox.length > 0 && event.preventDefault());
}

function submit() {
  const text = $("text").value;
  if (!text.trim()) return;
  if (editing) {
    if (text === editing.message.text || chat.edit(editing.message, text)) stopEditing();
  } else if (chat.add(text)) {
    $("text").value = "";
    toEnd();
  }
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
    if (dialog.returnValue === "delete") chat.remove(message);
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
  $("empty").hidden = rows.size > 0 || chat.state !== "online" || chat.more || announced === null;
  $("older").hidden = !chat.more;
  if (editing && (chat.messages.get(editing.message.pos)?.deleted ?? true)) stopEditing();
  if (!following) return restore(before);
  toEnd();
  chat.trim(KEPT);
}

function status() {
  const { state, closeCode } = chat;
  $("chat").dataset.state = state;
  setText($("status"), STATES[state]);
  others();
  if (state === "closed") complain(CLOSED[closeCode] ?? "The connection was closed.");
  else if (chat.outbox.length === 0 || !$("reload").hidden) $("notice").hidden = true;
  $("reload").hidden = state !== "closed";
}

/** Who else is here, or is writing just now. */
function others() {
  const say = (names, one, several) => {
    if (names.length > 3) return `${names.length} ${several}`;
    return `${new Intl.ListFormat("en").format(names)} ${names.length === 1 ? one : several}`;
  };
  const [writing, here] = [[...chat.typing.keys()], [...chat.present].sort()];
  if (writing.length) setText($("others"), say(writing, "is writing …", "are writing …"));
  else setText($("others"), here.length ? say(here, "is here", "are here") : "");
}

function complain(text) {
  setText($("reason"), text);
  $("notice").hidden = false;
}

/** Says what others wrote to those who cannot see it, and counts it for those who look elsewhere. */
function announce() {
  const messages = chat.sorted();
  const highest = messages.at(-1)?.pos ?? -1;
  if (announced !== null && highest > announced) {
    const fresh = messages.filter((message) => message.pos > announced && !message.deleted && message.user !== me);
    $("news").textContent = fresh.map(({ user, text }) => `${user}: ${text}`).join("\n");
    if (document.hidden) unread += fresh.length;
    if (!atEnd()) below += fresh.length;
    setText($("newest"), below === 1 ? "1 new message" : `${below} new messages`);
    $("newest").hidden = below === 0;
    title();
  }
  if (announced !== null || chat.isLoaded) announced = Math.max(announced ?? -1, highest);
}

function seenBelow() {
  below = 0;
  $("newest").hidden = true;
}

function title() {
  document.title = `${unread ? `(${unread}) ` : ""}${name}`;
}

/** Brings the list in line with the chat: what shows the same as before stays as it is. */
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
  for (const message of chat.sorted()) bubble(`at ${message.pos}`, { ...message, ...pendingOn(message) });
  for (const item of chat.outbox) {
    if (item.type !== "add" || chat.isShown(item)) continue;
    const state = item.failed ? "failed" : item.sent && chat.state === "online" ? "sending" : "waiting";
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
  const item = chat.outbox.findLast((item) => item.type !== "add" && item.pos === message.pos);
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
    make("span", { className: first && !mine ? "author" : "aside", textContent: mine ? "You" : user }),
    make("p", { className: "text", dir: "auto", textContent: deleted ? "This message was deleted." : text }),
    make("p", { className: "meta" }, note && make("span", { className: "note", textContent: note }), time),
  );
  if (pos) element.dataset.pos = pos;
  if (state === "failed") {
    const item = () => chat.outbox.find((item) => item.clientId === shown.item);
    element.append(
      actions(
        ["Try again", `Try again: ${text}`, () => chat.retry(item())],
        ["Discard", `Discard: ${text}`, () => chat.discard(item())],
      ),
    );
  } else if ((mine || moderates) && pos && !deleted && !state) {
    const message = () => chat.messages.get(pos);
    const edit = ["Edit", `Edit: ${text}`, () => startEditing(message())];
    const remove = ["Delete", `Delete: ${text}`, () => askToDelete(message())];
    element.append(mine ? actions(edit, remove) : actions(remove));
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
  seenBelow();
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

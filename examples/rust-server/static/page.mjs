// The least that a page needs around DigiChat. examples/django-chat has one that is made for use.

import { DigiChat } from "./digi.js";

const $ = (id) => document.getElementById(id);
const me = new URLSearchParams(location.search).get("as");
const STATES = {
  connecting: "connecting …",
  online: "connected",
  offline: "not connected, trying again; what you write is sent later",
  closed: "disconnected, reload to try again",
};
/** The message whose text is being edited. */
let editing = null;

const chat = new DigiChat(null, { user: me, open });
chat.addEventListener("change", draw);

if (me) {
  $("chat").hidden = false;
  $("older").addEventListener("click", () => chat.older());
  $("composer").addEventListener("submit", submit);
  chat.connect();
  $("text").focus();
}

/** Logs in anew for every connection: the login is valid for a minute. */
async function open() {
  const answer = await fetch(`join?user=${encodeURIComponent(me)}`, { cache: "no-store" });
  if (!answer.ok) throw Object.assign(new Error(`join: ${answer.status}`), { final: answer.status < 500 });
  const { path, login } = await answer.json();
  return { url: path, protocols: ["digi", `digi.jwt.${login}`] };
}

function submit(event) {
  event.preventDefault();
  const text = $("text").value;
  if (!text.trim() || !(editing ? chat.edit(editing, text) : chat.add(text))) return;
  edit(null);
}

function edit(message) {
  editing = message;
  $("text").value = message?.text ?? "";
  $("send").textContent = message ? "Save" : "Send";
  $("text").focus();
}

function draw() {
  const atEnd = innerHeight + scrollY > document.documentElement.scrollHeight - 50;
  $("status").textContent = `You are ${me}, ${STATES[chat.state]}.`;
  $("older").hidden = !chat.more;
  const unsent = chat.outbox.filter((item) => item.type === "add" && !chat.isShown(item));
  $("messages").replaceChildren(...chat.sorted().map(stored), ...unsent.map(waiting));
  if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
}

function stored(message) {
  const { user, text, edited, deleted } = message;
  const item = chat.outbox.find(({ pos }) => pos === message.pos);
  if (deleted) return line(user, "This message was deleted.");
  if (item?.failed) return line(user, text, item.failed, ...choice(item));
  if (item) return line(user, item.text ?? text, "saving …");
  const buttons = user === me ? [button("Edit", () => edit(message)), button("Delete", () => chat.remove(message))] : [];
  return line(user, text, edited && "edited", ...buttons);
}

function waiting(item) {
  return item.failed ? line(me, item.text, item.failed, ...choice(item)) : line(me, item.text, "sending …");
}

function choice(item) {
  return [button("Try again", () => chat.retry(item)), button("Discard", () => chat.discard(item))];
}

function line(user, text, note, ...buttons) {
  const parts = [make("strong", "author", user), make("p", "text", text), note && make("span", "note", note), ...buttons];
  const element = make("li", user === me ? "message mine" : "message", "");
  element.append(...parts.filter(Boolean));
  return element;
}

function button(label, onclick) {
  return Object.assign(make("button", "", label), { type: "button", onclick });
}

function make(tag, className, textContent) {
  return Object.assign(document.createElement(tag), { className, textContent });
}

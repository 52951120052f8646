/**
 * The browser's half of Digi's protocol (docs/protocol.md): it keeps the connection, the messages, and what has not
 * been acknowledged yet. It has no view and never touches the page; show texts with `textContent`, never as HTML. One
 * ES module without dependencies, for browsers and for Node 20.
 *
 *     import { DigiChat } from "./digi.js";
 *
 *     const chat = new DigiChat("/ws/chat/<room token>/", { user: "alice" });
 *     chat.addEventListener("state", () => (status.textContent = chat.state));
 *     chat.addEventListener("change", () => {
 *       const lines = chat.sorted().map(({ user, text }) => `${user}: ${text ?? "(deleted)"}`);
 *       const waiting = chat.outbox.filter((item) => item.type === "add" && !chat.isShown(item));
 *       log.textContent = [...lines, ...waiting.map(({ text }) => `… ${text}`)].join("\n");
 *     });
 *     chat.addEventListener("error", ({ detail }) => console.warn(detail.code, detail.detail));
 *     form.addEventListener("submit", (event) => {
 *       event.preventDefault();
 *       if (chat.add(input.value)) input.value = "";
 *     });
 *     chat.connect();
 *
 * Its events are CustomEvents:
 * - `state`: connected, lost, closed; `detail` is `{state, closeCode}`.
 * - `message`: somebody's change of a message came, one's own too; `detail` is `{type, message, live}`, with the type
 *   "add", "edit" or "delete", and `live` false while what was missed is replayed. Pages of history make none.
 * - `error`: `detail` is `{code, detail, item}`: a code of docs/errors.md (or "outbox_full", "open_failed"), a text for
 *   people, and the outbox item that was refused, or null. What it waits out by itself ("busy" and so on) makes none.
 * - `signal`: somebody has begun to type or stopped, came or went: `typing` and `present` have changed.
 * - `change`: anything that can be seen here has changed; comes after the others. Draw again, at best once per frame.
 */

// Milliseconds.
const [FIRST_PAUSE, LONGEST_PAUSE] = [500, 30_000];
const [ANSWER_TIMEOUT, PROBE_TIMEOUT] = [15_000, 5_000];
const [TYPING_SHOWN, TYPING_AGAIN] = [6_000, 3_000];
const PAGE_SIZE = 50;
/** Errors that pass: wait and send again. */
const PASSING = new Set(["busy", "engine_closed", "rate_limited", "store_unavailable"]);
// Close codes.
const [NORMAL, BROKEN, UNAUTHENTICATED] = [1000, 1006, 4503];

/**
 * A message in its present state; it is replaced, never changed. `pos` is its place in the room: sort and match by it.
 * `text` is null when it was deleted, `at` tells when it was added (RFC 3339), `version` is the number of its last
 * change, `id` its token, which changes with the server's key. What a stock Channels worker has added has no number: it
 * stands where it came in, at a broken `pos`, until one with its `id` takes its place.
 * @typedef {{pos: number, version: number, id: string, user?: string, text: string | null, at: string, edited: boolean,
 *   deleted: boolean}} Message
 */

/**
 * Something that was asked for and is not acknowledged yet: a text to add, or the message at `pos` to edit or delete.
 * `sent`: it may have reached the server. `failed`: the code with which it was refused for good; "unsure" when it was
 * sent before a reset and may be stored or not, which its user should look at before `retry`.
 * @typedef {{type: "add" | "edit" | "delete", clientId: string, text?: string, pos?: number, at: string, sent: boolean,
 *   failed?: string}} Item
 */

export class DigiChat extends EventTarget {
  /** @type {"connecting" | "online" | "offline" | "closed"} At first; connected; trying again; not trying again. */
  state = "connecting";
  /** The code with which it was closed (docs/errors.md); 0 unless `state` is "closed". */
  closeCode = 0;
  /** @type {Map<number, Message>} By `pos`. */
  messages = new Map();
  /** @type {Item[]} In the order in which it is sent. */
  outbox = [];
  /** Whether the newest messages are loaded. */
  isLoaded = false;
  /** Whether there are messages older than those loaded. */
  more = false;
  /** @type {Map<string, unknown>} Whose names are those of others who are writing just now. */
  typing = new Map();
  /** @type {Set<string>} Names of others who are in the room, where the server tells. */
  present = new Set();

  #where;
  #options;
  #socket = null;
  /** Stands for the connection under way or open; another one means that answers to the former are void. */
  #attempt = null;
  #failures = 0;
  #timer = null;
  #watchdog = null;
  /** Ends the listening for the browser's wake-ups. */
  #listening = null;
  /** How far the room was seen; null before the first `resumed`. */
  #cursor = null;
  /** Whether the replay is over: from then on every frame of the room moves the cursor. */
  #live = false;
  /** From this place on every message is loaded. */
  #floor = Infinity;
  /** The places of messages without a number, by `id`. */
  #unnumbered = new Map();
  /** The page that was asked for, and the changes of unloaded messages that come while it is under way. */
  #page = null;
  #pages = 0;
  #typedAt = 0;
  #inFlight = null;
  #answerTimer = null;
  #pumpTimer = null;

  /**
   * Connects with `connect()`, not before.
   * @param {string | URL | null} where the URL or path of the room; null when `open` gives it
   * @param {object} [options]
   * @param {string} [options.user] one's own name as others see it
   * @param {string | string[]} [options.protocols] sub-protocols to offer
   * @param {() => Promise<{url?: string | URL, protocols?: string | string[]}>} [options.open] asked before every
   *   connection, for what changes from one to the next, such as a login token. When it rejects with an error whose
   *   `final` is true, the chat is closed with 4503; otherwise it tries again.
   * @param {number} [options.outboxLimit] how much may wait to be acknowledged (100)
   * @param {typeof WebSocket} [options.WebSocket] another class than the global one
   */
  constructor(where, options = {}) {
    super();
    this.#where = where;
    this.#options = { outboxLimit: 100, WebSocket: globalThis.WebSocket, ...options };
    if (where !== null) this.#address(where); // A wrong one throws here and not at every attempt.
  }

  /** Connects: at first, again after "closed", or now rather than after the pause that is under way. */
  connect() {
    if (this.#attempt) return;
    this.#attempt = {};
    clearTimeout(this.#timer);
    this.#listen();
    if (this.state === "closed") this.#become("connecting");
    this.#try(this.#attempt);
  }

  /** Leaves, and stays away until `connect()`. What was not sent stays in the outbox. */
  close() {
    this.#drop(NORMAL);
  }

  /** Sends a message. @returns {Item | null} null when the outbox is full: keep the text. */
  add(text) {
    return this.#enqueue({ type: "add", text });
  }

  /** Replaces the text of an own message. @param {Message} message @returns {Item | null} as `add` */
  edit(message, text) {
    return this.#enqueue({ type: "edit", text, id: message.id, pos: message.pos });
  }

  /** Deletes an own message. @param {Message} message @returns {Item | null} as `add` */
  remove(message) {
    return this.#enqueue({ type: "delete", id: message.id, pos: message.pos });
  }

  /** Sends once more what had failed. @param {Item} item */
  retry(item) {
    delete item.failed;
    this.#pump();
    this.#tell("change");
  }

  /** Forgets what had failed. @param {Item} item */
  discard(item) {
    this.outbox = this.outbox.filter((other) => other !== item);
    this.#tell("change");
  }

  /** To be called at every key: tells the others that a message is being written, every few seconds at the most. */
  type() {
    if (!this.#live || Date.now() < this.#typedAt + TYPING_AGAIN) return;
    this.#typedAt = Date.now();
    this.#send({ type: "typing" });
  }

  /** Loads the page before the oldest message; does nothing while one is under way or there is no connection. */
  older() {
    if (!this.#live || this.#page) return;
    this.#page = { id: `page-${++this.#pages}`, kept: [] };
    this.#send({ type: "history", before: this.#floor, limit: PAGE_SIZE, client_id: this.#page.id });
  }

  /** Forgets all but the newest `keep` messages, for a page that stays open for days; `older()` brings them back. */
  trim(keep) {
    if (this.#page || this.messages.size <= keep) return;
    const kept = this.sorted().slice(-keep);
    this.messages = new Map(kept.map((message) => [message.pos, message]));
    this.#floor = Math.ceil(kept[0].pos);
    this.more = true;
    this.#tell("change");
  }

  /** The messages from the oldest to the newest. @returns {Message[]} */
  sorted() {
    return [...this.messages.values()].sort((a, b) => a.pos - b.pos);
  }

  /** Whether the message of this outbox item has come back already, while its `ack` is still on the way. */
  isShown(item) {
    if (item.type !== "add" || !item.sent || item.failed) return false;
    const me = this.#options.user;
    const isIt = ({ pos, user, text }) => pos > item.above && text === item.text && user === (me ?? user);
    return [...this.messages.values()].some(isIt);
  }

  async #try(attempt) {
    this.#watch(ANSWER_TIMEOUT);
    try {
      const { url = this.#where, protocols = this.#options.protocols } = (await this.#options.open?.()) ?? {};
      if (attempt !== this.#attempt) return;
      const socket = (this.#socket = new this.#options.WebSocket(this.#address(url), protocols ?? []));
      socket.onmessage = (event) => this.#receive(event.data);
      socket.onclose = (event) => this.#lost(event.code);
      // The `close` that follows says all that counts, but Node ends a program that doesn't listen.
      socket.onerror = () => {};
    } catch (error) {
      if (attempt !== this.#attempt) return;
      this.#tell("error", { code: "open_failed", detail: String(error?.message ?? error), item: null });
      this.#lost(error?.final ? UNAUTHENTICATED : BROKEN);
    }
  }

  #address(where) {
    const address = new URL(where, globalThis.location?.href);
    address.protocol = address.protocol.replace(/^http/, "ws");
    if (this.#cursor) address.searchParams.set("after", `${this.#cursor.epoch}.${this.#cursor.seq}`);
    return address;
  }

  #receive(data) {
    this.#watch(this.#live ? null : ANSWER_TIMEOUT);
    const frame = JSON.parse(data);
    switch (frame.type) {
      case "add": case "edit": case "delete": this.#changed(frame); break;
      case "ack": this.#acknowledged(frame); break;
      case "resumed": this.#resumed(frame); break;
      case "history": this.#history(frame); break;
      case "reset": this.#reset(frame); break;
      case "error": this.#refused(frame); break;
      case "typing": this.#types(frame.user); break;
      case "presence": this.#presence(frame); break;
    }
    this.#tell("change");
  }

  #resumed({ cursor }) {
    this.#cursor = parseCursor(cursor);
    if (this.#floor === Infinity) this.#floor = this.#cursor.seq + 1;
    this.#goLive();
    if (!this.isLoaded) this.older();
  }

  #goLive() {
    this.#live = true;
    this.#failures = 0;
    this.#watch(null);
    this.#become("online");
    this.#pump();
  }

  #types(user) {
    clearTimeout(this.typing.get(user));
    const timer = setTimeout(() => {
      this.#stopped(user);
      this.#tell("change");
    }, TYPING_SHOWN);
    this.typing.set(user, timer);
    this.#tell("signal");
  }

  #stopped(user) {
    clearTimeout(this.typing.get(user));
    if (this.typing.delete(user)) this.#tell("signal");
  }

  /** Who is there now, the next connection says. */
  #forget() {
    for (const timer of this.typing.values()) clearTimeout(timer);
    this.typing.clear();
    this.present.clear();
  }

  #presence({ user, online }) {
    if (online) this.present.add(user);
    else this.present.delete(user);
    this.#tell("signal");
  }

  #changed(frame) {
    this.#stopped(frame.user);
    const isNumbered = frame.seq !== undefined;
    if (this.#live && isNumbered) this.#cursor.seq = frame.seq;
    const message = isNumbered ? this.#apply(frame) : this.#applyUnnumbered(frame);
    if (message) this.#tell("message", { type: frame.type, message, live: this.#live });
  }

  #apply(frame) {
    const { type, seq, pos, message_id: id, user, message: text, at } = frame;
    if (type !== "add" && pos < this.#floor) {
      this.#page?.kept.push(frame);
      return null;
    }
    const deleted = type === "delete";
    const added = (type !== "add" && this.messages.get(pos)?.at) || at;
    // Also a replayed `add` may have been edited: it shows the present text.
    const shown = { text: text ?? null, at: added, edited: !deleted && seq > pos, deleted };
    return this.#place({ pos, version: seq, id, user, ...shown });
  }

  #applyUnnumbered({ type, message_id: id, user, message: text }) {
    const known = id === undefined ? undefined : [...this.messages.values()].find((message) => message.id === id);
    if (!this.#live || (type === "add" ? known : !known)) return null;
    const changed = { text: text ?? null, edited: type === "edit", deleted: type === "delete" };
    if (known) {
      this.messages.set(known.pos, { ...known, ...changed });
      return this.messages.get(known.pos);
    }
    // Behind what is numbered so far, and before what comes.
    const { seq } = this.#cursor;
    const pos = Math.max(seq, ...this.#unnumbered.values()) + 1e-5;
    if (pos >= seq + 1) return null;
    this.#unnumbered.set(id, pos);
    return this.#place({ pos, version: seq, id, user, at: new Date().toISOString(), ...changed });
  }

  /** An upsert: an older state never replaces a newer one. Gives the message if it did anything. */
  #place(message) {
    if (this.messages.get(message.pos)?.version >= message.version) return null;
    const unnumbered = this.#unnumbered.get(message.id);
    if (unnumbered !== undefined && unnumbered !== message.pos) {
      this.messages.delete(unnumbered);
      this.#unnumbered.delete(message.id);
    }
    this.messages.set(message.pos, message);
    return message;
  }

  #history({ messages, more, through, cursor, client_id: id }) {
    // One of another epoch is void: a `reset` with a page of its own is on its way.
    if (!this.#page || this.#page.id !== id || parseCursor(cursor).epoch !== this.#cursor.epoch) return;
    for (const { pos, message_id, user, message, at, edited_at, deleted } of messages) {
      const shown = { text: message ?? null, at, edited: Boolean(edited_at), deleted: Boolean(deleted) };
      this.#place({ pos, version: through, id: message_id, user, ...shown });
    }
    const { kept } = this.#page;
    this.#page = null;
    this.isLoaded = true;
    this.more = more;
    this.#floor = more && messages.length > 0 ? messages[0].pos : 0;
    for (const frame of kept) {
      if (frame.seq > through) this.#apply(frame);
    }
  }

  #reset({ cursor }) {
    this.messages.clear();
    this.#unnumbered.clear();
    this.#cursor = parseCursor(cursor);
    this.#floor = this.#cursor.seq + 1;
    this.#page = { id: undefined, kept: [] };
    this.#idle();
    // So long after, the server may not recognise a message that it has stored: its user decides.
    for (const item of this.outbox) {
      if (item.type === "add" && item.sent) item.failed ??= "unsure";
    }
    this.#goLive();
  }

  #acknowledged({ client_id: clientId, message_id: id, seq, pos }) {
    const item = this.outbox.find((item) => item.clientId === clientId);
    if (!item) return;
    this.outbox = this.outbox.filter((other) => other !== item);
    // Until the frame comes that everybody gets, which knows the time: so its version lies just below.
    const [version, known] = [seq - 0.5, this.messages.get(pos)];
    if (item.type !== "add") {
      const deleted = item.type === "delete";
      if (known) this.#place({ ...known, version, text: deleted ? null : item.text, edited: !deleted, deleted });
    } else if (!known && pos >= this.#floor) {
      const { text, at } = item;
      this.#place({ pos, version, id, user: this.#options.user, text, at, edited: false, deleted: false });
    }
    this.#answered(item);
  }

  #refused({ code, detail, client_id: id }) {
    if (id === "probe") return;
    if (this.#page && this.#page.id === id && id !== undefined) {
      this.#page = null;
      if (!this.isLoaded) setTimeout(() => this.older(), this.#pause());
      return;
    }
    // What could not be read at all is answered without its name.
    const item = id === undefined ? this.#inFlight : this.outbox.find((item) => item.clientId === id);
    if (item && PASSING.has(code)) {
      this.#idle();
      this.#pumpTimer = setTimeout(() => this.#pump(), this.#pause());
    } else if (item?.type === "delete" && code === "message_deleted") {
      this.outbox = this.outbox.filter((other) => other !== item);
      this.#answered(item);
    } else {
      if (item) item.failed = code;
      this.#tell("error", { code, detail, item: item ?? null });
      if (item) this.#answered(item);
    }
  }

  #enqueue(wanted) {
    if (this.outbox.length >= this.#options.outboxLimit) {
      this.#tell("error", { code: "outbox_full", detail: "Too much waits to be sent already.", item: null });
      return null;
    }
    const item = { ...wanted, clientId: randomId(), at: new Date().toISOString(), sent: false };
    this.outbox.push(item);
    this.#pump();
    this.#tell("change");
    return item;
  }

  /** One at a time: so what is refused for the moment is not overtaken by what was written after it. */
  #pump() {
    if (!this.#live || this.#inFlight) return;
    clearTimeout(this.#pumpTimer);
    const item = this.outbox.find((item) => !item.failed);
    if (!item) return;
    const { type, text: message, clientId: client_id } = item;
    const message_id = this.messages.get(item.pos)?.id ?? item.id;
    item.above ??= this.#cursor.seq;
    this.#inFlight = item;
    this.#send({ type, message, message_id, client_id, resend: type === "add" && item.sent ? true : undefined });
    item.sent = true;
    this.#answerTimer = setTimeout(() => this.#drop(BROKEN), ANSWER_TIMEOUT);
  }

  #answered(item) {
    this.#failures = 0;
    if (item === this.#inFlight) this.#idle();
    this.#pump();
  }

  #idle() {
    this.#inFlight = null;
    clearTimeout(this.#answerTimer);
    clearTimeout(this.#pumpTimer);
  }

  /** Gives the connection up if nothing comes through it for so long; null: no longer. */
  #watch(timeout) {
    clearTimeout(this.#watchdog);
    this.#watchdog = timeout && setTimeout(() => this.#drop(BROKEN), timeout);
  }

  /** A tab that is looked at again, or a network that is back, is no time to wait out a pause. */
  #listen() {
    if (this.#listening) return;
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    const wake = (event) => {
      if (event.type === "visibilitychange" && document.hidden) return;
      this.#failures = 0;
      this.connect();
      // After sleep a connection may look open and lead nowhere. The page is dropped, but it is an answer.
      if (!this.#live) return;
      this.#send({ type: "history", limit: 1, client_id: "probe" });
      this.#watch(PROBE_TIMEOUT);
    };
    globalThis.addEventListener?.("online", wake, { signal });
    globalThis.document?.addEventListener("visibilitychange", wake, { signal });
  }

  /** Doesn't wait for the other end to close. */
  #drop(code) {
    if (this.#socket) {
      this.#socket.onmessage = this.#socket.onclose = null;
      this.#socket.close();
    }
    this.#lost(code);
  }

  #lost(code) {
    this.#attempt = this.#socket = this.#page = null;
    this.#live = false;
    this.#forget();
    this.#idle();
    this.#watch(null);
    clearTimeout(this.#timer);
    if (code === NORMAL || code >= 4500) {
      this.#listening?.abort();
      this.#listening = null;
      this.#become("closed", code);
    } else {
      this.#timer = setTimeout(() => this.connect(), this.#pause());
      this.#become("offline");
    }
    this.#tell("change");
  }

  #become(state, closeCode = 0) {
    const changed = state !== this.state;
    Object.assign(this, { state, closeCode });
    if (changed) this.#tell("state", { state, closeCode });
  }

  /** Doubles up to the longest, and half of it is random, so that not everybody comes back in one instant. */
  #pause() {
    return Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++) * (0.5 + Math.random() / 2);
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
  }

  #tell(type, detail = null) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function parseCursor(text) {
  const [epoch, seq] = text.split(".").map(Number);
  return { epoch, seq };
}

function randomId() {
  // randomUUID() exists in secure contexts only, which a page served over plain HTTP in a LAN is not.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

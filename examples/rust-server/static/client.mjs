// The browser's half of docs/protocol.md, without any view: it keeps the connection, the messages, and what has not
// been acknowledged yet, and says whenever something changed.

const FIRST_PAUSE = 500; // milliseconds
const LONGEST_PAUSE = 30_000;
const ANSWER_TIMEOUT = 15_000;
const PAGE_SIZE = 50;
/** Errors that pass: wait and send again. */
const PASSING = new Set(["busy", "engine_closed", "rate_limited", "store_unavailable"]);

export class ChatClient {
  /** "connecting" (the first time), "online", "offline" (it will try again) or "closed" (it will not). */
  state = "connecting";
  /** The close code, once closed. */
  closeCode = 0;
  /** By `pos`; sort by it. Each is replaced, never changed: `{pos, version, id, user, text, at, edited, deleted}`. */
  messages = new Map();
  /** What is not acknowledged yet, in order: `{type, clientId, text?, pos?, at, sent, failed?}`. */
  outbox = [];
  /** Whether there are messages older than those loaded. */
  more = false;

  #user;
  #open;
  #changed;
  #socket = null;
  #trying = false;
  #failures = 0;
  #timer = null;
  /** How far the room was seen; null before the first `resumed`. */
  #cursor = null;
  /** Whether the replay is over: from then on every frame of the room moves the cursor. */
  #live = false;
  /** From this place on every message is loaded. */
  #floor = Infinity;
  #paged = false;
  /** The page that was asked for, and the changes of unloaded messages that come while it is under way. */
  #page = null;
  #pages = 0;
  #inFlight = null;
  #answerTimer = null;
  #pumpTimer = null;

  /**
   * `open(cursor)` gives a promise of a WebSocket; rejected with an error that has `final`, nothing is tried again.
   * `changed()` is called after every change.
   */
  constructor({ user, open, changed }) {
    this.#user = user;
    this.#open = open;
    this.#changed = changed;
  }

  /** Connects, now rather than after the pause that is under way. Does nothing while connected. */
  async connect() {
    if (this.#trying) return;
    this.#trying = true;
    clearTimeout(this.#timer);
    try {
      const socket = await this.#open(this.#cursor && `${this.#cursor.epoch}.${this.#cursor.seq}`);
      this.#socket = socket;
      socket.onmessage = (event) => this.#receive(JSON.parse(event.data));
      socket.onclose = (event) => this.#lost(event.code);
    } catch (error) {
      this.#lost(error.final ? 4500 : 1006);
    }
  }

  /** Sends a message. */
  add(text) {
    this.#enqueue({ type: "add", text });
  }

  /** Replaces the text of an own message. */
  edit(message, text) {
    this.#enqueue({ type: "edit", text, id: message.id, pos: message.pos });
  }

  /** Deletes an own message. */
  remove(message) {
    this.#enqueue({ type: "delete", id: message.id, pos: message.pos });
  }

  /** Sends once more what had failed. */
  retry(item) {
    delete item.failed;
    this.#pump();
    this.#changed();
  }

  /** Forgets what had failed. */
  discard(item) {
    this.outbox = this.outbox.filter((other) => other !== item);
    this.#changed();
  }

  /** Loads the page before the oldest message. */
  older() {
    if (!this.#live || this.#page) return;
    this.#page = { id: `page-${++this.#pages}`, kept: [] };
    this.#send({ type: "history", before: this.#floor, limit: PAGE_SIZE, client_id: this.#page.id });
  }

  /** Whether the newest messages are loaded. */
  get isLoaded() {
    return this.#paged;
  }

  /** Whether the message of this outbox item has come back already, while its `ack` is still on the way. */
  isShown(item) {
    if (item.type !== "add" || !item.sent || item.failed) return false;
    for (const message of this.messages.values()) {
      if (message.pos > item.above && message.user === this.#user && message.text === item.text) return true;
    }
    return false;
  }

  #receive(frame) {
    switch (frame.type) {
      case "add":
      case "edit":
      case "delete":
        if (this.#live) this.#cursor.seq = frame.seq;
        this.#apply(frame);
        break;
      case "ack":
        this.#acknowledged(frame);
        break;
      case "history":
        this.#history(frame);
        break;
      case "resumed":
        this.#cursor = parseCursor(frame.cursor);
        if (this.#floor === Infinity) this.#floor = this.#cursor.seq + 1;
        this.#goLive();
        if (!this.#paged) this.older();
        break;
      case "reset":
        this.#reset(frame);
        break;
      case "error":
        this.#refused(frame);
        break;
    }
    this.#changed();
  }

  #goLive() {
    this.#live = true;
    this.#failures = 0;
    this.state = "online";
    this.#pump();
  }

  #apply(frame) {
    const { type, seq, pos, message_id: id, user, message: text, at } = frame;
    if (type !== "add" && pos < this.#floor) {
      this.#page?.kept.push(frame);
      return;
    }
    const known = this.messages.get(pos);
    this.#place({
      pos,
      version: seq,
      id,
      user,
      text: text ?? null,
      at: type === "add" ? at : (known?.at ?? at),
      // A replayed `add` shows the present text.
      edited: type === "edit" || (type === "add" && seq > pos),
      deleted: type === "delete",
    });
  }

  /** An upsert: an older state never replaces a newer one. */
  #place(message) {
    const known = this.messages.get(message.pos);
    if (!known || known.version < message.version) this.messages.set(message.pos, message);
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
    this.#paged = true;
    this.more = more;
    this.#floor = more && messages.length > 0 ? messages[0].pos : 0;
    for (const frame of kept) {
      if (frame.seq > through) this.#apply(frame);
    }
  }

  #reset({ cursor }) {
    this.messages.clear();
    this.#cursor = parseCursor(cursor);
    this.#floor = this.#cursor.seq + 1;
    this.#page = { id: undefined, kept: [] };
    this.#idle();
    // So long after, the server may not recognise a message that it has stored: its user decides.
    for (const item of this.outbox) {
      if (item.type === "add" && item.sent) item.failed = "unsure";
    }
    this.#goLive();
  }

  #acknowledged({ client_id: clientId, message_id: id, seq, pos }) {
    const item = this.outbox.find((item) => item.clientId === clientId);
    if (!item) return;
    this.outbox = this.outbox.filter((other) => other !== item);
    const known = this.messages.get(pos);
    if (item.type !== "add") {
      const deleted = item.type === "delete";
      if (known) this.#place({ ...known, version: seq, text: deleted ? null : item.text, edited: !deleted, deleted });
    } else if (!known && pos >= this.#floor) {
      // In the bubble's stead until the `add` comes, which knows the time.
      const shown = { user: this.#user, text: item.text, at: item.at, edited: false, deleted: false };
      this.messages.set(pos, { pos, version: pos - 1, id, ...shown });
    }
    this.#answered(item);
  }

  #refused({ code, client_id: id }) {
    if (this.#page && this.#page.id === id && id !== undefined) {
      this.#page = null;
      if (!this.#paged) setTimeout(() => this.older(), this.#pause());
      return;
    }
    // What could not be read at all is answered without its name.
    const item = id === undefined ? this.#inFlight : this.outbox.find((item) => item.clientId === id);
    if (!item) return;
    if (PASSING.has(code)) {
      this.#idle();
      this.#pumpTimer = setTimeout(() => this.#pump(), this.#pause());
      return;
    }
    if (item.type === "delete" && code === "message_deleted") this.discard(item);
    else item.failed = code;
    this.#answered(item);
  }

  #enqueue(item) {
    this.outbox.push({ ...item, clientId: randomId(), at: new Date().toISOString(), sent: false });
    this.#pump();
    this.#changed();
  }

  /** One at a time: so what is refused for the moment is not overtaken by what was written after it. */
  #pump() {
    if (!this.#live || this.#inFlight) return;
    clearTimeout(this.#pumpTimer);
    const item = this.outbox.find((item) => !item.failed);
    if (!item) return;
    const { type, text: message, id: message_id, clientId: client_id } = item;
    item.above ??= this.#cursor.seq;
    this.#inFlight = item;
    this.#send({ type, message, message_id, client_id, resend: type === "add" && item.sent ? true : undefined });
    item.sent = true;
    this.#answerTimer = setTimeout(() => this.#hangUp(), ANSWER_TIMEOUT);
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

  /** The connection looks open, but nothing comes back through it. */
  #hangUp() {
    this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
    this.#lost(1006);
  }

  #lost(code) {
    this.#trying = this.#live = false;
    this.#socket = this.#page = null;
    this.#idle();
    if (code === 1000 || code >= 4500) {
      this.state = "closed";
      this.closeCode = code;
    } else {
      this.state = "offline";
      this.#timer = setTimeout(() => this.connect(), this.#pause());
    }
    this.#changed();
  }

  /** Doubles up to the longest, and half of it is random, so that not everybody comes back in one instant. */
  #pause() {
    const pause = Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** this.#failures++);
    return pause * (0.5 + Math.random() / 2);
  }

  #send(frame) {
    this.#socket.send(JSON.stringify(frame));
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

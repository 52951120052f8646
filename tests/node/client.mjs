// digi.js on Node's WebSocket: what it knows goes out after every change, as a line of JSON; each line that comes in is
// something to do. `node client.mjs <url> <user> [<options>]`; what `<url>join?user=<user>` answers says where, unless
// the options have a `where`.

import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { DigiChat } from "../../python/digi/django/static/digi/digi.js";

const [base, user, given = "{}"] = process.argv.slice(2);
const { where = null, ...options } = JSON.parse(given);
const client = new DigiChat(where, { user, open: where ? undefined : open, WebSocket, ...options });
const heard = [];

// A browser's, as far as it is asked for here.
const browser = new EventTarget();
globalThis.addEventListener = browser.addEventListener.bind(browser);
const { setTimeout } = globalThis;

async function open() {
  const answer = await fetch(`${base}join?user=${user}`);
  if (!answer.ok) throw Object.assign(new Error(`join: ${answer.status}`), { final: answer.status < 500 });
  const { path, login } = await answer.json();
  return { url: new URL(path, base), protocols: ["digi", `digi.jwt.${login}`] };
}

function show() {
  const { state, closeCode, more } = client;
  const messages = client.sorted();
  const outbox = client.outbox.map((item) => ({ ...item, shown: client.isShown(item) }));
  const [typing, present] = [[...client.typing.keys()], [...client.present]];
  console.log(JSON.stringify({ state, closeCode, more, messages, outbox, heard, typing, present }));
}

const actions = {
  add: ({ text }) => client.add(text),
  edit: ({ pos, text }) => client.edit(client.messages.get(pos), text),
  remove: ({ pos }) => client.remove(client.messages.get(pos)),
  older: () => client.older(),
  retry: () => client.retry(client.outbox.find((item) => item.failed)),
  discard: () => client.discard(client.outbox.find((item) => item.failed)),
  type: () => client.type(),
  trim: ({ keep }) => client.trim(keep),
  connect: () => client.connect(),
  close: () => client.close(),
  // What a browser says when its network is back.
  wake: () => browser.dispatchEvent(new Event("online")),
  // From now on what waits, waits so many times as long; null: for ever.
  stretch: ({ factor }) => {
    globalThis.setTimeout = factor === null ? () => null : (done, time) => setTimeout(done, time * factor);
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    actions[order.do](order);
  })
  .on("close", () => process.exit(0));

for (const type of ["state", "message", "error"]) {
  client.addEventListener(type, ({ detail }) => heard.push([type, detail]));
}
client.addEventListener("change", show);
client.connect();

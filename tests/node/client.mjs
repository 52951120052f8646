// The demo page's client on Node's WebSocket: what it knows goes out after every change, as a line of JSON; each line
// that comes in is something to do. `node client.mjs <url> <user>`; what `<url>join?user=<user>` answers says where.

import { createInterface } from "node:readline";
import { WebSocket } from "ws";
import { ChatClient } from "../../examples/rust-server/static/client.mjs";

const [base, user] = process.argv.slice(2);
const client = new ChatClient({ user, open, changed: show });

async function open(cursor) {
  const answer = await fetch(`${base}join?user=${user}`);
  if (!answer.ok) throw Object.assign(new Error(`join: ${answer.status}`), { final: answer.status < 500 });
  const { path, login } = await answer.json();
  const url = new URL(path, base);
  url.protocol = "ws:";
  if (cursor) url.searchParams.set("after", cursor);
  const socket = new WebSocket(url, ["digi", `digi.jwt.${login}`]);
  // Without a listener Node takes it for a bug of the program; the `close` that follows says all that counts.
  socket.onerror = () => {};
  return socket;
}

function show() {
  const { state, closeCode, more } = client;
  const messages = [...client.messages.values()].sort((a, b) => a.pos - b.pos);
  const outbox = client.outbox.map((item) => ({ ...item, shown: client.isShown(item) }));
  console.log(JSON.stringify({ state, closeCode, more, messages, outbox }));
}

const actions = {
  add: ({ text }) => client.add(text),
  edit: ({ pos, text }) => client.edit(client.messages.get(pos), text),
  remove: ({ pos }) => client.remove(client.messages.get(pos)),
  older: () => client.older(),
  retry: () => client.retry(client.outbox.find((item) => item.failed)),
  discard: () => client.discard(client.outbox.find((item) => item.failed)),
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const order = JSON.parse(line);
    actions[order.do](order);
  })
  .on("close", () => process.exit(0));

client.connect();

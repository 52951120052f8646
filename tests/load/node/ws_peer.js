// What `ws` on Node can do when it does nothing else: a text goes as it came to everybody who has connected with the
// same path. No storage, no tokens, no limits.
import { WebSocketServer } from "ws";

const rooms = new Map();
const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  backlog: 2048,
  clientTracking: false,
  perMessageDeflate: false,
});

server.on("connection", (socket, request) => {
  if (!rooms.has(request.url)) rooms.set(request.url, new Set());
  const room = rooms.get(request.url);
  room.add(socket);
  socket.on("message", (text) => {
    for (const member of room) member.send(text, { binary: false });
  });
  socket.on("close", () => room.delete(socket));
  socket.on("error", () => room.delete(socket));
  // The generator waits for it, as it does for Digi's: from here on nothing is missed.
  socket.send('{"type":"resumed"}');
});
server.on("listening", () => console.log(`127.0.0.1:${server.address().port}`));

// The parent wants this peer to end, or has ended itself.
process.stdin.on("end", () => process.exit(0));
process.stdin.resume();

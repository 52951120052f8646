// A chat server in C++ with Digi inside and a store of its own.
//
//   ./server 127.0.0.1:9001
//
// prints the WebSocket address of a room for alice and bob; who connects says who it is by `?user=alice` (a real server
// looks at a cookie or token). End of input (Ctrl-D) ends it in good order.
#include <iostream>
#include <map>
#include <string>

#include "memory_store.hpp"

static std::optional<digi::identity> who(const digi::handshake &request) {
  const std::string_view query = request.get(":query");
  const std::map<std::string, std::string> users = {{"alice", "Alice"}, {"bob", "Bob"}, {"carol", "Carol"}};
  for (const auto &[key, name] : users) {
    if (query == "user=" + key) return digi::identity{key, name};
  }
  return std::nullopt;
}

int main(int argc, char **argv) try {
  const digi::cipher keys("a secret of this server, of thirty-two bytes or more");
  digi::config config(keys);
  config.set_store(std::make_unique<MemoryStore>());
  config.set_policy([](const digi_command &command, std::int32_t) -> digi::verdict {
    if (digi::view(command.text) == "spam") return {DIGI_ERR_REFUSED, "No advertising, please."};
    return {};
  });
  digi::engine engine(config);
  const std::int64_t room = engine.create_room({{"alice", "Alice"}, {"bob", "Bob"}}, "lobby");
  digi::server server(engine, argc > 1 ? argv[1] : "127.0.0.1:9001", who);
  std::cout << "ws://" << server.address() << "/ws/chat/" << keys.seal(DIGI_KIND_ROOM, room) << "/?user=alice"
            << std::endl;
  for (std::string line; std::getline(std::cin, line);) {
    // What is typed here, the host says.
    digi_command command = {};
    command.change = DIGI_CHANGE_ADD;
    command.as_host = true;
    command.room = room;
    command.user = command.user_name = digi::text("host");
    command.text = digi::text(line);
    engine.submit(command);
  }
  server.stop();
  return 0;
} catch (const digi::error &failure) {
  std::cerr << failure.name() << ": " << failure.what() << '\n';
  return 1;
}

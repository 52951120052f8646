// digi.hpp: a server whose users C++ tells apart, a policy and a clock as functions, and what is thrown in them.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

#include "../../examples/cpp-chat/memory_store.hpp"

#define CHECK(condition)                                                                     \
  do {                                                                                       \
    if (!(condition)) {                                                                      \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);           \
      std::exit(1);                                                                          \
    }                                                                                        \
  } while (0)

template <typename Work>
static digi_result thrown(Work work) {
  try {
    work();
  } catch (const digi::closed &failure) {
    CHECK(failure.code() >= 1000 && std::string(failure.name()) != "unknown");
    return failure.code();
  } catch (const digi::error &failure) {
    CHECK(failure.code() >= 100 && failure.code() < 1000 && std::string(failure.what()).size() > 5);
    return failure.code();
  }
  return DIGI_OK;
}

// A store that throws whatever it is asked.
struct broken final : digi::store {
  explicit broken(std::atomic<int> &destroyed) : destroyed_(destroyed) {}
  ~broken() override { ++destroyed_; }
  void *begin(bool) override { return this; }
  void commit(void *) override {}
  void rollback(void *) noexcept override {}
  void read(void *, const digi_query &, const digi::answer &) override { throw std::runtime_error("out of order"); }
  void write(void *, const digi_row *, std::size_t) override {}
  std::atomic<int> &destroyed_;
};

// One that is away for a while, in one of its functions.
struct moody final : digi::store {
  explicit moody(std::atomic<int> &away) : away_(away) {}
  void *begin(bool writes) override { return fail(1), inner_.begin(writes); }
  void commit(void *transaction) override {
    // The answer is lost: before it was committed, or after.
    if (away_ == 4) inner_.rollback(transaction);
    else inner_.commit(transaction);
    if (away_ == 4 || away_ == 5) throw digi::error(DIGI_ERR_STORE_UNAVAILABLE, "away");
  }
  void rollback(void *transaction) noexcept override { inner_.rollback(transaction); }
  void read(void *transaction, const digi_query &query, const digi::answer &rows) override {
    fail(2), inner_.read(transaction, query, rows);
  }
  void write(void *transaction, const digi_row *rows, std::size_t count) override {
    fail(3), inner_.write(transaction, rows, count);
  }
  void fail(int where) const {
    if (away_ == where) throw digi::error(DIGI_ERR_STORE_UNAVAILABLE, "away");
  }
  std::atomic<int> &away_;
  MemoryStore inner_;
};

static void a_store_that_comes_back(const digi::cipher &keys) {
  std::atomic<int> away{0};
  digi::config config(keys);
  config.set_store(std::make_unique<moody>(away));
  digi::engine engine(config);
  const std::int64_t room = engine.create_room({{"7", "alice"}});
  digi::session alice = engine.connect({keys.seal(DIGI_KIND_ROOM, room), "7"});
  CHECK(alice.next(30000)->text().find("resumed") != std::string_view::npos);
  digi_command command = {};
  command.room = room;
  command.user = digi::text("7");
  command.text = digi::text("hello");
  for (int where = 1; where <= 5; where++) {
    away = where;
    const digi_result result = thrown([&] { engine.submit(command); });
    away = 0;
    // The last time it was committed, and Digi has found out.
    CHECK(result == (where == 5 ? DIGI_OK : DIGI_ERR_STORE_UNAVAILABLE));
    CHECK(engine.submit(command).change == DIGI_CHANGE_ADD);
  }
  // Numbered without a gap, and everything is there that a sender was told of.
  CHECK(alice.receive(R"({"type": "history", "limit": 50})"));
  std::string last;
  while (last.find("\"history\"") == std::string::npos) last = alice.next(30000)->text();
  for (int pos = 1; pos <= 6; pos++) CHECK(last.find("\"pos\":" + std::to_string(pos)) != std::string::npos);
  engine.close();
}

int main() {
  const digi::cipher keys("a secret of at least thirty-two bytes");
  CHECK(thrown([] { digi::cipher("short"); }) == DIGI_ERR_BAD_KEY);
  CHECK(thrown([&] { keys.open(DIGI_KIND_ROOM, "nothing"); }) == DIGI_ERR_BAD_TOKEN);

  a_store_that_comes_back(keys);
  std::atomic<int> destroyed{0};
  {
    digi::config config(keys);
    config.set_store(std::make_unique<broken>(destroyed));
    digi::engine engine(config);
    CHECK(thrown([&] { engine.create_room({}); }) == DIGI_ERR_STORE_UNAVAILABLE);
    digi::session session = engine.connect({keys.seal(DIGI_KIND_ROOM, 1), "7"});
    CHECK(thrown([&] { session.next(); }) == DIGI_CLOSE_UNAVAILABLE);
    engine.close();
  }
  CHECK(destroyed == 1);

  digi::config config(keys);
  CHECK(thrown([&] { config.set("colour", "blue"); }) == DIGI_ERR_CONFIG);
  config.set_policy([](const digi_command &command, std::int32_t) -> digi::verdict {
    const std::string_view text = digi::view(command.text);
    if (text == "throw") throw digi::error(DIGI_ERR_RATE_LIMITED, "not so fast");
    if (text == "fall") throw 5;
    if (text == "loud") return {DIGI_OK, "quiet"};
    if (text == "rude") return {DIGI_ERR_REFUSED, "Be kind."};
    return {};
  });
  config.set_clock([] {
    using namespace std::chrono;
    return std::uint64_t(duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count());
  });
  digi::engine engine(config);
  const std::int64_t room = engine.create_room({{"7", "alice"}, {"8", "bob", DIGI_ROLE_MODERATOR}}, "lobby");
  const std::string token = keys.seal(DIGI_KIND_ROOM, room);
  CHECK(keys.open(DIGI_KIND_ROOM, token) == room);

  digi::session alice = engine.connect({token, "7", "alice"});
  const auto next = [&] { return std::string(alice.next(30000)->text()); };
  const auto says = [&](const char *text) { CHECK(alice.receive(std::string("{\"message\": \"") + text + "\"}")); };
  CHECK(next().find("resumed") != std::string::npos);
  says("loud");
  CHECK(next().find("\"quiet\"") != std::string::npos);
  says("rude");
  CHECK(next().find("Be kind.") != std::string::npos);
  says("throw");
  CHECK(next().find("rate_limited") != std::string::npos);
  says("fall");
  CHECK(next().find("internal") != std::string::npos);
  CHECK(!alice.next(0));
  CHECK(engine.stats().sessions == 1);

  digi_command command = {};
  command.change = DIGI_CHANGE_ADD;
  command.as_host = true;
  command.room = room;
  command.user = digi::text("0");
  command.user_name = digi::text("the host");
  command.text = digi::text("welcome");
  CHECK(engine.submit(command).pos == 2);
  CHECK(next().find("the host") != std::string::npos);

  CHECK(thrown([&] { digi::server(engine, "no address", digi_server_options{}); }) == DIGI_ERR_BAD_ARGUMENT);
  // What belongs to an authenticator is freed once, also where the server can't be started.
  CHECK(thrown([&] {
          digi::server(engine, "nowhere", [kept = std::string(100, 'x')](const digi::handshake &) {
            return std::optional<digi::identity>(digi::identity{kept});
          });
        }) == DIGI_ERR_CONFIG);
  digi::server server(engine, "127.0.0.1:0", [](const digi::handshake &request) -> std::optional<digi::identity> {
    CHECK(request.get(":path").substr(0, 9) == "/ws/chat/" && !request.get(":remote").empty());
    const std::string_view user = request.get("x-user");
    if (user == "throw") throw std::runtime_error("the database is away");
    if (user.empty()) return std::nullopt;
    return digi::identity{std::string(user), "from C++", std::nullopt};
  });
  // Until the test has seen enough.
  std::cout << server.address() << ' ' << token << std::endl;
  std::string line;
  std::getline(std::cin, line);
  server.stop();
  CHECK(thrown([&] { while (alice.next(30000)) continue; }) == DIGI_CLOSE_RESTART);
  return 0;
}

// Digi in C++17: digi.h with destructors, std::string_view and exceptions. Header only; link libdigi.
//
// What a class or function does is told in digi.h at its namesake. Here
// - a failure is thrown as digi::error, with the code and the sentence; that a session is closed, as digi::closed;
// - "not now" is an empty optional or false;
// - what owns something frees it, is moved, and is not copied;
// - callbacks may throw: what comes out of one ends in it, as an answer that says so.
#ifndef DIGI_HPP
#define DIGI_HPP

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "digi.h"

namespace digi {

/// What went wrong: a code out of digi.h, and a sentence for a person.
class error : public std::runtime_error {
 public:
  error(digi_result code, const std::string &text) : std::runtime_error(text), code_(code) {}
  digi_result code() const noexcept { return code_; }
  const char *name() const noexcept { return digi_result_name(code_); }

 private:
  digi_result code_;
};

/// The session is closed; the code is the close code for its client.
class closed : public error {
 public:
  using error::error;
};

namespace detail {

template <typename T, void (*Free)(T *)>
struct deleter {
  void operator()(T *pointer) const noexcept { Free(pointer); }
};
template <typename T, void (*Free)(T *)>
using handle = std::unique_ptr<T, deleter<T, Free>>;

/// Calls a function of digi.h whose last parameter is the error; whether it answered DIGI_OK, not DIGI_AGAIN.
template <typename Function, typename... Arguments>
bool call(Function function, Arguments... arguments) {
  digi_error *reason = nullptr;
  const digi_result result = function(arguments..., &reason);
  if (result == DIGI_OK) return true;
  if (result == DIGI_AGAIN) return false;
  const handle<digi_error, digi_error_free> owner(reason);
  const std::string text = digi_error_text(reason);
  if (result >= 1000) throw closed(result, text);
  throw error(result, text);
}

/// Runs what a callback does; an exception becomes a result.
template <typename Work>
digi_result result_of(Work work) noexcept {
  try {
    return work();
  } catch (const error &failure) {
    return failure.code();
  } catch (...) {
    return DIGI_ERR_INTERNAL;
  }
}

template <typename T>
void destroy(void *ctx) noexcept {
  delete static_cast<T *>(ctx);
}

}  // namespace detail

/// A text for a struct of digi.h; it has to live as long as the struct is used.
inline digi_text text(std::string_view view) noexcept { return {view.data() ? view.data() : "", view.size()}; }
/// The same, or none.
inline digi_text optional_text(const std::optional<std::string_view> &view) noexcept {
  return view ? text(*view) : digi_text{nullptr, 0};
}
/// A text out of a struct of digi.h; empty where there is none.
inline std::string_view view(digi_text given) noexcept {
  return given.data ? std::string_view(given.data, given.length) : std::string_view();
}

class cipher {
 public:
  explicit cipher(std::string_view secret) {
    digi_cipher *made = nullptr;
    detail::call(digi_cipher_new, secret.data(), secret.size(), &made);
    handle_.reset(made);
  }
  static cipher from_json(std::string_view json) {
    digi_cipher *made = nullptr;
    detail::call(digi_cipher_from_json, json.data(), json.size(), &made);
    return cipher(made);
  }
  std::string seal(std::uint32_t kind, std::int64_t id) const {
    char token[DIGI_TOKEN_SIZE];
    std::size_t length = 0;
    detail::call(digi_cipher_seal, get(), kind, id, &token[0], sizeof token, &length);
    return std::string(token, length);
  }
  std::int64_t open(std::uint32_t kind, std::string_view token) const {
    std::int64_t id = 0;
    detail::call(digi_cipher_open, get(), kind, token.data(), token.size(), &id);
    return id;
  }
  digi_cipher *get() const noexcept { return handle_.get(); }

 private:
  explicit cipher(digi_cipher *made) noexcept : handle_(made) {}
  detail::handle<digi_cipher, digi_cipher_free> handle_;
};

/// Where a store puts its rows.
class answer {
 public:
  explicit answer(digi_answer *given) noexcept : given_(given) {}
  void add(const digi_row &row) const { detail::call(digi_answer_add, given_, &row); }

 private:
  digi_answer *given_;
};

/// A store of the host's: see `digi_store`. Throw digi::error with one of DIGI_ERR_STORE_UNAVAILABLE, DIGI_ERR_STORE_FULL
/// and DIGI_ERR_STORE_REJECTED; anything else counts as the first.
class store {
 public:
  virtual ~store() = default;
  virtual void *begin(bool writes) = 0;
  virtual void commit(void *transaction) = 0;
  virtual void rollback(void *transaction) noexcept = 0;
  virtual void read(void *transaction, const digi_query &query, const answer &rows) = 0;
  virtual void write(void *transaction, const digi_row *rows, std::size_t count) = 0;
};

/// What a policy is shown, and says. Nothing set: let it pass.
struct verdict {
  /// Refuse it with this code.
  digi_result code = DIGI_OK;
  /// The message's new text, or the sentence of the refusal.
  std::optional<std::string> text = std::nullopt;
};
using policy = std::function<verdict(const digi_command &command, std::int32_t role)>;
using clock = std::function<std::uint64_t()>;

class config {
 public:
  explicit config(const cipher &keys) {
    digi_config *made = nullptr;
    detail::call(digi_config_new, keys.get(), &made);
    handle_.reset(made);
  }
  config &set(std::string_view name, std::string_view value) {
    detail::call(digi_config_set, get(), name.data(), name.size(), text(value).data, value.size());
    return *this;
  }
  config &set_store(std::unique_ptr<digi::store> given) {
    auto owner = std::make_unique<std::unique_ptr<digi::store>>(std::move(given));
    digi_store table = {};
    table.size = sizeof table;
    table.ctx = owner.get();
    table.destroy = detail::destroy<std::unique_ptr<digi::store>>;
    table.begin = [](void *ctx, bool writes, void **transaction) noexcept {
      return detail::result_of([&] { return *transaction = of(ctx).begin(writes), DIGI_OK; });
    };
    table.commit = [](void *ctx, void *transaction) noexcept {
      return detail::result_of([&] { return of(ctx).commit(transaction), DIGI_OK; });
    };
    table.rollback = [](void *ctx, void *transaction) noexcept { of(ctx).rollback(transaction); };
    table.read = [](void *ctx, void *transaction, const digi_query *query, digi_answer *rows) noexcept {
      return detail::result_of([&] { return of(ctx).read(transaction, *query, answer(rows)), DIGI_OK; });
    };
    table.write = [](void *ctx, void *transaction, const digi_row *rows, std::size_t count) noexcept {
      return detail::result_of([&] { return of(ctx).write(transaction, rows, count), DIGI_OK; });
    };
    detail::call(digi_config_set_store, get(), &table);
    owner.release();
    return *this;
  }
  config &set_policy(policy judge) {
    auto owner = std::make_unique<policy>(std::move(judge));
    digi_policy table = {};
    table.size = sizeof table;
    table.ctx = owner.get();
    table.destroy = detail::destroy<policy>;
    table.judge = [](void *ctx, const digi_command *command, std::int32_t role, digi_verdict *said) noexcept {
      return detail::result_of([&] {
        const verdict given = (*static_cast<policy *>(ctx))(*command, role);
        if (given.text) detail::call(digi_verdict_set_text, said, given.text->data(), given.text->size());
        return given.code;
      });
    };
    detail::call(digi_config_set_policy, get(), &table);
    owner.release();
    return *this;
  }
  /// The clock must not throw: a time of 0 is what comes of it.
  config &set_clock(clock now) {
    auto owner = std::make_unique<clock>(std::move(now));
    digi_clock table = {};
    table.size = sizeof table;
    table.ctx = owner.get();
    table.destroy = detail::destroy<clock>;
    table.now = [](void *ctx) noexcept -> std::uint64_t {
      try {
        return (*static_cast<clock *>(ctx))();
      } catch (...) {
        return 0;
      }
    };
    detail::call(digi_config_set_clock, get(), &table);
    owner.release();
    return *this;
  }
  digi_config *get() const noexcept { return handle_.get(); }

 private:
  static digi::store &of(void *ctx) noexcept { return **static_cast<std::unique_ptr<digi::store> *>(ctx); }
  detail::handle<digi_config, digi_config_free> handle_;
};

class frame {
 public:
  explicit frame(digi_frame *given) noexcept : handle_(given) {}
  std::string_view text() const noexcept {
    std::size_t length = 0;
    const char *data = digi_frame_text(handle_.get(), &length);
    return {data, length};
  }

 private:
  detail::handle<digi_frame, digi_frame_free> handle_;
};

/// What is known of a connection at its start: see `digi_scope`.
struct scope {
  std::string_view token;
  std::string_view user;
  std::optional<std::string_view> user_name = std::nullopt;
  std::optional<std::string_view> after = std::nullopt;
  std::optional<std::string_view> origin = std::nullopt;
  std::optional<std::string_view> remote = std::nullopt;
  std::optional<std::string_view> login = std::nullopt;
  void *data = nullptr;

  digi_scope get() const noexcept {
    digi_scope made = {};
    made.size = sizeof made;
    made.token = digi::text(token);
    made.user = digi::text(user);
    made.user_name = optional_text(user_name);
    made.after = optional_text(after);
    made.origin = optional_text(origin);
    made.remote = optional_text(remote);
    made.login = optional_text(login);
    made.data = data;
    return made;
  }
};

class session {
 public:
  explicit session(digi_session *given) noexcept : handle_(given) {}
  /// False: not taken within that time.
  bool receive(std::string_view said, std::int64_t timeout_ms = -1) {
    return detail::call(digi_session_receive, get(), text(said).data, said.size(), timeout_ms);
  }
  void receive_unreadable(digi_result code) { detail::call(digi_session_receive_unreadable, get(), code); }
  /// Empty: none within that time. Throws digi::closed behind the last one.
  std::optional<frame> next(std::int64_t timeout_ms = -1) {
    digi_frame *given = nullptr;
    if (!detail::call(digi_session_next, get(), timeout_ms, &given)) return std::nullopt;
    return frame(given);
  }
  void close(digi_result code = DIGI_CLOSE_NORMAL) { detail::call(digi_session_close, get(), code); }
  int descriptor() {
    int found = -1;
    detail::call(digi_session_descriptor, get(), &found);
    return found;
  }
  void *data() const noexcept { return digi_session_data(get()); }
  digi_session *get() const noexcept { return handle_.get(); }

 private:
  detail::handle<digi_session, digi_session_free> handle_;
};

/// A first member of a new room.
struct member {
  std::string_view user;
  std::string_view user_name = {};
  std::int32_t role = DIGI_ROLE_MEMBER;
};

/// Takes a frame of a session, or, without one, the code with which it is closed.
using frame_callback = std::function<void(digi_session *session, std::optional<frame> given, digi_result close_code)>;

class engine {
 public:
  explicit engine(const config &given) {
    digi_engine *made = nullptr;
    detail::call(digi_engine_new, given.get(), &made);
    handle_.reset(made);
  }
  session connect(const scope &given) {
    const digi_scope plain = given.get();
    digi_session *made = nullptr;
    detail::call(digi_engine_connect, get(), &plain, &made);
    return session(made);
  }
  /// Sessions with something to read; none within that time.
  std::vector<digi_session *> ready(std::int64_t timeout_ms = -1, std::size_t most = 256) {
    std::vector<digi_session *> found(most);
    std::size_t count = 0;
    detail::call(digi_engine_ready, get(), timeout_ms, found.data(), most, &count);
    found.resize(count);
    return found;
  }
  int descriptor() {
    int found = -1;
    detail::call(digi_engine_descriptor, get(), &found);
    return found;
  }
  /// What the callback throws is ignored.
  void on_frame(frame_callback callback) {
    auto owner = std::make_unique<frame_callback>(std::move(callback));
    const digi_frame_callback plain = [](void *ctx, digi_session *of, digi_frame *given, digi_result code) noexcept {
      try {
        std::optional<frame> owned;
        if (given) owned.emplace(given);
        (*static_cast<frame_callback *>(ctx))(of, std::move(owned), code);
      } catch (...) {
      }
    };
    detail::call(digi_engine_on_frame, get(), plain, static_cast<void *>(owner.get()),
                 detail::destroy<frame_callback>);
    owner.release();
  }
  std::int64_t create_room(const std::vector<member> &members, std::string_view name = {}, std::int64_t id = 0) {
    std::vector<digi_member> plain;
    for (const member &one : members) {
      // Without a name, the key is shown.
      const digi_text name = one.user_name.empty() ? digi_text{nullptr, 0} : text(one.user_name);
      plain.push_back({text(one.user), name, one.role});
    }
    std::int64_t room = 0;
    detail::call(digi_engine_create_room, get(), id, text(name).data, name.size(), plain.data(), plain.size(), &room);
    return room;
  }
  /// `command.size` is set here.
  digi_outcome submit(digi_command command) {
    command.size = sizeof command;
    digi_outcome outcome = {};
    detail::call(digi_engine_submit, get(), &command, &outcome);
    return outcome;
  }
  void kick(std::string_view user, std::optional<std::string_view> login = std::nullopt) {
    const digi_text plain = optional_text(login);
    detail::call(digi_engine_kick, get(), text(user).data, user.size(), plain.data, plain.length);
  }
  void restored() { detail::call(digi_engine_restored, get()); }
  std::uint64_t purge(std::int64_t room, std::uint64_t before) {
    std::uint64_t removed = 0;
    detail::call(digi_engine_purge, get(), room, before, &removed);
    return removed;
  }
  digi_stats stats() const {
    digi_stats found = {};
    found.size = sizeof found;
    detail::call(digi_engine_stats, get(), &found);
    return found;
  }
  void close() { detail::call(digi_engine_close, get()); }
  digi_engine *get() const noexcept { return handle_.get(); }

 private:
  detail::handle<digi_engine, digi_engine_free> handle_;
};

/// The request of a client that wants in.
class handshake {
 public:
  explicit handshake(const digi_handshake *given) noexcept : given_(given) {}
  /// A header by its name in lower case, or `:path`, `:query`, `:remote`; empty where there is none.
  std::string_view get(std::string_view name) const {
    digi_text value = {};
    detail::call(digi_handshake_get, given_, name.data(), name.size(), &value);
    return view(value);
  }

 private:
  const digi_handshake *given_;
};

/// Who is logged in.
struct identity {
  std::string user;
  std::optional<std::string> user_name = std::nullopt;
  std::optional<std::string> login = std::nullopt;
};
/// Says who a connection is; empty: nobody. One that throws could not find it out.
using authenticator = std::function<std::optional<identity>(const handshake &request)>;

class server {
 public:
  /// `options.size` and what names the authenticator are set here.
  server(engine &of, std::string_view address, authenticator who, digi_server_options options = {}) {
    auto owner = std::make_unique<authenticator>(std::move(who));
    options.size = sizeof options;
    options.ctx = owner.get();
    options.destroy = detail::destroy<authenticator>;
    options.authenticate = [](void *ctx, const digi_handshake *request, digi_identity *named) noexcept {
      return detail::result_of([&] {
        const auto found = (*static_cast<authenticator *>(ctx))(handshake(request));
        if (found) {
          detail::call(digi_identity_set, named, text(found->user), optional_text(found->user_name),
                       optional_text(found->login));
        }
        return DIGI_OK;
      });
    };
    start(of, address, options);
    owner.release();
  }
  /// With `options.jwt_secret`; `options.size` is set here.
  server(engine &of, std::string_view address, digi_server_options options) {
    options.size = sizeof options;
    start(of, address, options);
  }
  std::string address() const {
    char found[64];
    detail::call(digi_server_address, handle_.get(), &found[0], sizeof found);
    return found;
  }
  void stop() { detail::call(digi_server_stop, handle_.get()); }

 private:
  void start(engine &of, std::string_view address, const digi_server_options &options) {
    digi_server *made = nullptr;
    detail::call(digi_server_start, of.get(), address.data(), address.size(), &options, &made);
    handle_.reset(made);
  }
  detail::handle<digi_server, digi_server_free> handle_;
};

/// Something a consumer wants done.
class output {
 public:
  explicit output(digi_output *given) noexcept : handle_(given) {}
  const digi_output &operator*() const noexcept { return *handle_; }
  const digi_output *operator->() const noexcept { return handle_.get(); }

 private:
  detail::handle<digi_output, digi_output_free> handle_;
};

class consumer {
 public:
  consumer(const config &under, const scope &given) {
    const digi_scope plain = given.get();
    digi_consumer *made = nullptr;
    detail::call(digi_consumer_new, under.get(), &plain, &made);
    handle_.reset(made);
  }
  /// `input.size` is set here.
  void push(digi_input input) {
    input.size = sizeof input;
    detail::call(digi_consumer_push, handle_.get(), &input);
  }
  std::optional<output> pop() {
    digi_output *given = nullptr;
    if (!detail::call(digi_consumer_pop, handle_.get(), &given)) return std::nullopt;
    return output(given);
  }
  frame encode(std::uint32_t change, std::uint64_t seq, const digi_row &message) const {
    digi_frame *made = nullptr;
    detail::call(digi_consumer_encode, handle_.get(), change, seq, &message, &made);
    return frame(made);
  }

 private:
  detail::handle<digi_consumer, digi_consumer_free> handle_;
};

}  // namespace digi

#endif  // DIGI_HPP

// A store of the program's own: rows in maps. What a real one needs to know is told at digi_store in digi.h.
#ifndef MEMORY_STORE_HPP
#define MEMORY_STORE_HPP

#include <digi.hpp>

#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

class MemoryStore final : public digi::store {
 public:
  // A writing transaction keeps everybody else out; reading ones share. What was written is undone by a list of what
  // stood there before.
  void *begin(bool writes) override {
    auto made = std::make_unique<Transaction>();
    made->writes = writes;
    if (writes) {
      lock_.lock();
    } else {
      lock_.lock_shared();
    }
    return made.release();
  }

  void commit(void *given) override { end(given); }

  void rollback(void *given) noexcept override {
    auto *transaction = static_cast<Transaction *>(given);
    for (auto undo = transaction->before.rbegin(); undo != transaction->before.rend(); ++undo) {
      auto &[key, row] = *undo;
      rows_.erase(key);
      if (row) rows_.emplace(key, std::move(*row));
    }
    end(given);
  }

  void read(void *, const digi_query &query, const digi::answer &answer) override {
    switch (query.kind) {
      case DIGI_QUERY_HEADS:
        if (query.room_count == 0) {
          add(answer, {DIGI_ROW_HEAD, INT64_MIN, 0, ""}, {DIGI_ROW_HEAD, INT64_MAX, UINT64_MAX, ""}, 0);
        }
        for (std::size_t i = 0; i < query.room_count; i++) one(answer, {DIGI_ROW_HEAD, query.rooms[i], 0, ""});
        break;
      case DIGI_QUERY_LAST_HEAD:
        add(answer, {DIGI_ROW_HEAD, INT64_MIN, 0, ""}, {DIGI_ROW_HEAD, INT64_MAX, UINT64_MAX, ""}, 1);
        break;
      case DIGI_QUERY_MEMBER:
        one(answer, {DIGI_ROW_MEMBER, query.room, 0, std::string(digi::view(query.user))});
        break;
      case DIGI_QUERY_MESSAGE:
        // Digi's own ids: the room in the upper half, the place in the lower.
        one(answer, {DIGI_ROW_MESSAGE, query.message_id >> 32, std::uint64_t(query.message_id) & UINT32_MAX, ""});
        break;
      case DIGI_QUERY_MESSAGES:
      case DIGI_QUERY_LOG: {
        const std::uint32_t kind = query.kind == DIGI_QUERY_LOG ? DIGI_ROW_LOG : DIGI_ROW_MESSAGE;
        if (query.after < query.through) {
          add(answer, {kind, query.room, query.after + 1, ""}, {kind, query.room, query.through, ""}, query.limit);
        }
        break;
      }
      case DIGI_QUERY_BATCH:
        one(answer, {DIGI_ROW_BATCH, std::int64_t(query.node), query.number, ""});
        break;
    }
  }

  void write(void *given, const digi_row *rows, std::size_t count) override {
    auto *transaction = static_cast<Transaction *>(given);
    for (std::size_t i = 0; i < count; i++) {
      const digi_row &row = rows[i];
      if (!row.removes) {
        put(*transaction, key_of(row), Row(row));
      } else if (row.kind == DIGI_ROW_MESSAGE || row.kind == DIGI_ROW_LOG) {
        const auto first = rows_.lower_bound({row.kind, row.room, 0, ""});
        const std::uint64_t through = row.kind == DIGI_ROW_LOG ? row.seq : row.pos;
        remove(*transaction, first, rows_.upper_bound({row.kind, row.room, through, ""}));
      } else if (row.kind == DIGI_ROW_BATCH) {
        for (auto at = rows_.lower_bound({DIGI_ROW_BATCH, INT64_MIN, 0, ""}); at != rows_.end();) {
          at = at->second.plain.at < row.at ? remove(*transaction, at, std::next(at)) : std::next(at);
        }
      } else {
        put(*transaction, key_of(row), std::nullopt);
      }
    }
  }

 private:
  // Kind, room (or a batch's node), number, user: within a room messages and log lie in their order.
  using Key = std::tuple<std::uint32_t, std::int64_t, std::uint64_t, std::string>;

  // A row with texts of its own.
  struct Row {
    explicit Row(const digi_row &row)
        : plain(row), user(own(row.user)), name(own(row.name)), text(own(row.text)), client_id(own(row.client_id)) {}
    digi_row shown() const {
      digi_row row = plain;
      row.user = digi::optional_text(user);
      row.name = digi::optional_text(name);
      row.text = digi::optional_text(text);
      row.client_id = digi::optional_text(client_id);
      return row;
    }
    static std::optional<std::string> own(digi_text given) {
      if (!given.data) return std::nullopt;
      return std::string(digi::view(given));
    }
    digi_row plain;
    std::optional<std::string> user, name, text, client_id;
  };

  using Rows = std::map<Key, Row>;

  struct Transaction {
    bool writes = false;
    std::vector<std::pair<Key, std::optional<Row>>> before;
  };

  static Key key_of(const digi_row &row) {
    switch (row.kind) {
      case DIGI_ROW_MEMBER: return {row.kind, row.room, 0, std::string(digi::view(row.user))};
      case DIGI_ROW_MESSAGE: return {row.kind, row.room, row.pos, ""};
      case DIGI_ROW_LOG: return {row.kind, row.room, row.seq, ""};
      case DIGI_ROW_BATCH: return {row.kind, std::int64_t(row.node), row.number, ""};
      default: return {row.kind, row.room, 0, ""};
    }
  }

  void one(const digi::answer &answer, const Key &key) const {
    const auto found = rows_.find(key);
    if (found != rows_.end()) answer.add(found->second.shown());
  }

  // Those between two keys, both included; with a limit the last of them.
  void add(const digi::answer &answer, const Key &first, const Key &last, std::uint64_t limit) const {
    const auto begin = rows_.lower_bound(first);
    std::uint64_t count = 0;
    for (auto at = rows_.upper_bound(last); at != begin && (limit == 0 || count < limit); count++) {
      answer.add((--at)->second.shown());
    }
  }

  void put(Transaction &transaction, const Key &key, std::optional<Row> row) {
    const auto found = rows_.find(key);
    transaction.before.emplace_back(key, std::nullopt);
    if (found != rows_.end()) {
      transaction.before.back().second = std::move(found->second);
      rows_.erase(found);
    }
    if (row) rows_.emplace(key, std::move(*row));
  }

  Rows::iterator remove(Transaction &transaction, Rows::iterator from, Rows::iterator to) {
    for (auto at = from; at != to; ++at) transaction.before.emplace_back(at->first, at->second);
    return rows_.erase(from, to);
  }

  void end(void *given) noexcept {
    const std::unique_ptr<Transaction> transaction(static_cast<Transaction *>(given));
    if (transaction->writes) {
      lock_.unlock();
    } else {
      lock_.unlock_shared();
    }
  }

  // A transaction may end in another thread than it began in, which a std::shared_mutex does not allow.
  class Lock {
   public:
    void lock() {
      std::unique_lock<std::mutex> guard(mutex_);
      changed_.wait(guard, [this] { return readers_ == 0 && !writes_; });
      writes_ = true;
    }
    void unlock() noexcept {
      const std::lock_guard<std::mutex> guard(mutex_);
      writes_ = false;
      changed_.notify_all();
    }
    void lock_shared() {
      std::unique_lock<std::mutex> guard(mutex_);
      changed_.wait(guard, [this] { return !writes_; });
      readers_++;
    }
    void unlock_shared() noexcept {
      const std::lock_guard<std::mutex> guard(mutex_);
      readers_--;
      changed_.notify_all();
    }

   private:
    std::mutex mutex_;
    std::condition_variable changed_;
    int readers_ = 0;
    bool writes_ = false;
  };

  Lock lock_;
  Rows rows_;
};

#endif

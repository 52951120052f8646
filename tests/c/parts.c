/* The host's own parts, and what becomes of the engine when they fail or call back. */
#include "check.h"

#include <pthread.h>

static digi_engine *engine;
static digi_session *alice;
static int destroyed, logged, refused_inside;
static uint64_t time_now = 1000000;
static int clock_calls_back;

static void note_destroyed(void *ctx) {
  ++*(int *)ctx;
  destroyed++;
}

/* Every call that could wait is refused in a callback. */
static void call_back(const char *which) {
  digi_frame *frame = NULL;
  digi_stats stats;
  memset(&stats, 0, sizeof stats);
  stats.size = sizeof stats;
  FAILS(DIGI_ERR_IN_CALLBACK, which, digi_session_receive(alice, TEXT("{}"), -1, &error));
  FAILS(DIGI_ERR_IN_CALLBACK, which, digi_session_next(alice, -1, &frame, &error));
  FAILS(DIGI_ERR_IN_CALLBACK, which, digi_engine_stats(engine, &stats, &error));
  FAILS(DIGI_ERR_IN_CALLBACK, which, digi_engine_close(engine, &error));
  refused_inside++;
}

static digi_result judge(void *ctx, const digi_command *command, int32_t role, digi_verdict *verdict) {
  CHECK(ctx != NULL && command->size == sizeof *command && role == DIGI_ROLE_MEMBER);
  CHECK(command->user.length == 1 && command->user.data[0] == '7');
  if (memcmp(command->text.data, "call", 4) == 0) call_back("policy");
  if (memcmp(command->text.data, "no", 2) == 0) {
    OK(digi_verdict_set_text(verdict, TEXT("We don't say that here."), &error));
    return DIGI_ERR_REFUSED;
  }
  if (memcmp(command->text.data, "odd", 3) == 0) return 12345;
  if (memcmp(command->text.data, "loud", 4) == 0) OK(digi_verdict_set_text(verdict, TEXT("quiet"), &error));
  return DIGI_OK;
}

static uint64_t now(void *ctx) {
  (void)ctx;
  if (clock_calls_back) {
    clock_calls_back = 0;
    call_back("clock");
  }
  return time_now += 5;
}

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;

static void on_log(void *ctx, int32_t level, const char *target, size_t target_length, const char *text, size_t length) {
  CHECK(ctx != NULL && level >= DIGI_LOG_ERROR && level <= DIGI_LOG_DEBUG && target_length >= 4 && length > 0);
  CHECK(memcmp(target, "digi", 4) == 0 && text != NULL);
  pthread_mutex_lock(&log_lock);
  logged++;
  pthread_mutex_unlock(&log_lock);
}

static void a_policy_and_a_clock(void) {
  int policies = 0, clocks = 0;
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_policy policy = {sizeof policy, &policies, note_destroyed, judge};
  digi_clock clock = {sizeof clock, &clocks, note_destroyed, now};
  int64_t room;

  OK(digi_config_set_policy(config, &policy, &error));
  OK(digi_config_set_clock(config, &clock, &error));
  engine = new_engine(config);
  digi_config_free(config);
  room = new_room(engine);
  alice = join(engine, cipher, room, "7", "alice");
  expect(alice, "resumed", "");
  say(alice, "{\"type\": \"add\", \"message\": \"loud words\"}");
  expect(alice, "\"quiet\"", "1970-01-01T00:16:40");
  say(alice, "{\"type\": \"add\", \"message\": \"no way\"}");
  expect(alice, "refused", "We don't say that here.");
  say(alice, "{\"type\": \"add\", \"message\": \"odd\"}");
  expect(alice, "refused", "error");
  say(alice, "{\"type\": \"add\", \"message\": \"call back\"}");
  expect(alice, "add", "call back");
  CHECK(refused_inside == 1);
  clock_calls_back = 1;
  say(alice, "{\"type\": \"add\", \"message\": \"hello\"}");
  expect(alice, "add", "hello");
  CHECK(refused_inside == 2);
  OK(digi_engine_close(engine, &error));
  CHECK(policies == 0 && clocks == 0);
  digi_session_free(alice);
  digi_engine_free(engine);
  CHECK(policies == 1 && clocks == 1);
  digi_cipher_free(cipher);
}

/* A store that always fails in one of its functions; the engine says so and lives. */
static const char *failing;

static digi_result fail(const char *where) { return strcmp(failing, where) == 0 ? DIGI_ERR_STORE_UNAVAILABLE : DIGI_OK; }

static digi_result begin(void *ctx, bool writes, void **transaction) {
  (void)ctx, (void)writes;
  *transaction = NULL;
  return fail("begin");
}
static digi_result commit(void *ctx, void *transaction) {
  (void)ctx, (void)transaction;
  return fail("commit");
}
static void rollback(void *ctx, void *transaction) { (void)ctx, (void)transaction; }
static digi_result reads(void *ctx, void *transaction, const digi_query *query, digi_answer *answer) {
  digi_row row;
  (void)ctx, (void)transaction, (void)query;
  call_back("store");
  memset(&row, 0, sizeof row);
  row.kind = 99;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "row.kind", digi_answer_add(answer, &row, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "row", digi_answer_add(answer, NULL, &error));
  row.kind = DIGI_ROW_MESSAGE;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "row.user", digi_answer_add(answer, &row, &error));
  return fail("read");
}
static digi_result writes(void *ctx, void *transaction, const digi_row *rows, size_t count) {
  (void)ctx, (void)transaction, (void)rows, (void)count;
  return fail("write");
}

static void a_store_that_fails(void) {
  static const char *places[] = {"begin", "read", "write", "commit"};
  size_t i;
  for (i = 0; i < sizeof places / sizeof *places; i++) {
    int stores = 0;
    digi_cipher *cipher = new_cipher();
    digi_config *config = new_config(cipher, NULL);
    digi_store store = {sizeof store, &stores, note_destroyed, begin, commit, rollback, reads, writes};
    digi_frame *frame = NULL;
    int64_t room = 0;

    failing = places[i];
    OK(digi_config_set_store(config, &store, &error));
    engine = new_engine(config);
    alice = join(engine, cipher, 5, "7", "alice");
    CHECK(digi_engine_create_room(engine, 0, NULL, 0, NULL, 0, &room, NULL) == DIGI_ERR_STORE_UNAVAILABLE);
    /* No such room, for all that the store says, or it can't be asked. */
    digi_result result = digi_session_next(alice, -1, &frame, NULL);
    CHECK(result == DIGI_CLOSE_UNAVAILABLE || result == DIGI_CLOSE_NOT_A_MEMBER);
    digi_session_free(alice);
    alice = NULL;
    OK(digi_engine_close(engine, &error));
    digi_engine_free(engine);
    digi_config_free(config);
    CHECK(stores == 1);
    digi_cipher_free(cipher);
  }
}

int main(void) {
  int logs = 0;
  OK(digi_log(DIGI_LOG_DEBUG, on_log, &logs, note_destroyed, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "level", digi_log(99, on_log, &logs, note_destroyed, &error));
  a_policy_and_a_clock();
  a_store_that_fails();
  CHECK(logged > 0 && logs == 0);
  OK(digi_log(DIGI_LOG_ERROR, NULL, NULL, NULL, &error));
  CHECK(logs == 1);
  CHECK(destroyed == 3 + 4);
  return 0;
}

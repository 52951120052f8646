/* Frames out: by waiting, by the ready list and its descriptor, by a session's own descriptor, by callback. */
#include "check.h"

#include <poll.h>
#include <pthread.h>

#define MANY 20

static int is_readable(int descriptor, int timeout_ms) {
  struct pollfd one = {descriptor, POLLIN, 0};
  return poll(&one, 1, timeout_ms) == 1;
}

/* Reads up to the message with that text, in all sessions of the ready list, by epoll's rule: until there is nothing. */
static void read_ready(digi_engine *engine, int descriptor, int expected) {
  int got = 0;
  while (got < expected) {
    digi_session *ready[4];
    size_t count = 0, i;
    CHECK(is_readable(descriptor, 30000));
    digi_result result = digi_engine_ready(engine, 0, ready, 4, &count, NULL);
    if (result == DIGI_AGAIN) continue;
    CHECK(result == DIGI_OK && count > 0 && count <= 4);
    for (i = 0; i < count; i++) {
      /* One at a time: the session comes again until it is empty. */
      digi_frame *frame = NULL;
      result = digi_session_next(ready[i], 0, &frame, NULL);
      CHECK(result == DIGI_OK || result == DIGI_AGAIN);
      if (result == DIGI_OK) {
        size_t length = 0;
        const char *text = digi_frame_text(frame, &length);
        CHECK(length > 2 && text[0] == '{');
        CHECK(digi_session_data(ready[i]) != NULL);
        ++*(int *)digi_session_data(ready[i]);
        got++;
        digi_frame_free(frame);
      }
    }
  }
}

static void by_list(digi_cipher *cipher, digi_config *config) {
  digi_engine *engine = new_engine(config);
  int64_t room = new_room(engine);
  char token[DIGI_TOKEN_SIZE];
  digi_session *sessions[MANY], *ready[2];
  int counts[MANY], i, descriptor = -1;
  size_t count = 0;
  digi_frame *frame = NULL;

  OK(digi_cipher_seal(cipher, DIGI_KIND_ROOM, room, token, sizeof token, NULL, &error));
  for (i = 0; i < MANY; i++) {
    digi_scope scope = new_scope(token, i % 2 ? "7" : "8", NULL);
    counts[i] = 0;
    scope.data = &counts[i];
    /* Half of them are there before anybody asks for the list. */
    if (i == MANY / 2) OK(digi_engine_descriptor(engine, &descriptor, &error));
    OK(digi_engine_connect(engine, &scope, &sessions[i], &error));
  }
  read_ready(engine, descriptor, MANY);
  for (i = 0; i < MANY; i++) CHECK(counts[i] == 1);
  /* A session stays on the list until it has said that there is nothing. */
  while (digi_engine_ready(engine, 0, ready, 2, &count, NULL) == DIGI_OK) {
    size_t at;
    for (at = 0; at < count; at++) CHECK(digi_session_next(ready[at], 0, &frame, NULL) == DIGI_AGAIN);
  }
  CHECK(digi_engine_ready(engine, 20, ready, 2, &count, NULL) == DIGI_AGAIN);
  CHECK(!is_readable(descriptor, 0));
  CHECK(digi_session_next(sessions[0], 20, &frame, NULL) == DIGI_AGAIN);
  CHECK(frame == NULL);

  for (i = 0; i < 3; i++) say(sessions[i], "{\"type\": \"add\", \"message\": \"hello\"}");
  read_ready(engine, descriptor, 3 * MANY);
  for (i = 0; i < MANY; i++) CHECK(counts[i] == 4);

  /* Who is given a session and doesn't read it is given it again, in its turn, and the descriptor says so. */
  say(sessions[0], "{\"type\": \"add\", \"message\": \"hello\"}");
  for (i = 0; i < 3 * MANY; i++) {
    CHECK(digi_engine_ready(engine, 30000, ready, 1, &count, NULL) == DIGI_OK && count == 1);
    CHECK(is_readable(descriptor, 0));
  }
  read_ready(engine, descriptor, MANY);
  for (i = 0; i < MANY; i++) CHECK(counts[i] == 5);

  /* Freed sessions are on no list, and a closing engine's sessions all are, until they have said so. */
  for (i = 0; i < MANY / 2; i++) digi_session_free(sessions[i]);
  OK(digi_engine_close(engine, &error));
  for (i = MANY / 2; i < MANY;) {
    size_t at;
    CHECK(digi_engine_ready(engine, 30000, ready, 2, &count, NULL) == DIGI_OK);
    for (at = 0; at < count; at++) {
      digi_result result = digi_session_next(ready[at], 0, &frame, NULL);
      CHECK((int *)digi_session_data(ready[at]) >= &counts[MANY / 2]);
      CHECK(result == DIGI_CLOSE_RESTART || result == DIGI_AGAIN);
      if (result == DIGI_CLOSE_RESTART) i++;
    }
  }
  FAILS(DIGI_ERR_ENGINE_CLOSED, "clos", digi_engine_ready(engine, -1, ready, 2, &count, &error));
  CHECK(!is_readable(descriptor, 0));
  for (i = MANY / 2; i < MANY; i++) digi_session_free(sessions[i]);
  digi_engine_free(engine);
}

static void by_own_descriptor(digi_cipher *cipher, digi_config *config) {
  digi_engine *engine = new_engine(config);
  int64_t room = new_room(engine);
  digi_session *alice = join(engine, cipher, room, "7", "alice"), *bob = join(engine, cipher, room, "8", "bob");
  int descriptor = -1, round, got = 0;

  OK(digi_session_descriptor(alice, &descriptor, &error));
  expect(bob, "resumed", "");
  expect(alice, "resumed", "");
  for (round = 0; round < 50; round++) {
    int n;
    for (n = 0; n < 5; n++) say(bob, "{\"type\": \"add\", \"message\": \"hello\"}");
    while (got < (round + 1) * 5) {
      digi_frame *frames[3];
      size_t count = 0, i;
      /* Readable until all is read, however little is taken at once. */
      CHECK(is_readable(descriptor, 30000));
      digi_result result = digi_session_next_many(alice, 0, frames, 1 + (size_t)round % 3, &count, NULL);
      CHECK(result == DIGI_OK || result == DIGI_AGAIN);
      if (result == DIGI_AGAIN) continue;
      for (i = 0; i < count; i++) digi_frame_free(frames[i]);
      got += (int)count;
    }
    digi_frame *frame = NULL;
    CHECK(digi_session_next(alice, 0, &frame, NULL) == DIGI_AGAIN);
    CHECK(!is_readable(descriptor, 0));
  }
  OK(digi_session_close(alice, DIGI_CLOSE_NORMAL, &error));
  CHECK(is_readable(descriptor, 30000));
  digi_session_free(alice);
  digi_session_free(bob);
  OK(digi_engine_close(engine, &error));
  digi_engine_free(engine);
}

typedef struct {
  pthread_mutex_t lock;
  pthread_cond_t changed;
  digi_engine *engine;
  int frames, closed, destroyed, answered;
} seen;

static void on_frame(void *ctx, digi_session *session, digi_frame *frame, digi_result code) {
  seen *state = ctx;
  if (frame != NULL) {
    size_t length = 0;
    const char *text = digi_frame_text(frame, &length);
    /* Calling back is allowed: an echo, and a look at the engine. */
    if (memchr(text, '?', length) != NULL) {
      digi_stats stats;
      memset(&stats, 0, sizeof stats);
      stats.size = sizeof stats;
      OK(digi_engine_stats(state->engine, &stats, &error));
      CHECK(stats.sessions >= 1);
      say(session, "{\"type\": \"add\", \"message\": \"an answer\"}");
    }
    digi_frame_free(frame);
  }
  pthread_mutex_lock(&state->lock);
  if (frame == NULL) {
    CHECK(code == DIGI_CLOSE_KICKED);
    state->closed++;
    digi_session_free(session); /* its own */
  } else {
    state->frames++;
  }
  pthread_cond_broadcast(&state->changed);
  pthread_mutex_unlock(&state->lock);
}

static void destroy(void *ctx) {
  seen *state = ctx;
  pthread_mutex_lock(&state->lock);
  state->destroyed++;
  pthread_cond_broadcast(&state->changed);
  pthread_mutex_unlock(&state->lock);
}

#define UNTIL(condition)                                                          \
  do {                                                                            \
    pthread_mutex_lock(&state.lock);                                              \
    while (!(condition)) pthread_cond_wait(&state.changed, &state.lock);          \
    pthread_mutex_unlock(&state.lock);                                            \
  } while (0)

static void by_callback(digi_cipher *cipher, digi_config *config) {
  seen state = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, new_engine(config), 0, 0, 0, 0};
  int64_t room = new_room(state.engine);
  digi_session *alice = join(state.engine, cipher, room, "7", "alice");

  FAILS(DIGI_ERR_BAD_ARGUMENT, "callback", digi_engine_on_frame(state.engine, NULL, NULL, NULL, &error));
  OK(digi_engine_on_frame(state.engine, on_frame, &state, destroy, &error));
  FAILS(DIGI_ERR_CONFIG, "already", digi_engine_on_frame(state.engine, on_frame, &state, NULL, &error));
  join(state.engine, cipher, room, "8", "bob");
  UNTIL(state.frames == 2);
  say(alice, "{\"type\": \"add\", \"message\": \"who is there?\"}");
  /* The question to both, and both answers to both. */
  UNTIL(state.frames == 2 + 2 + 4);
  OK(digi_engine_kick(state.engine, TEXT("7"), NULL, 0, &error));
  OK(digi_engine_kick(state.engine, TEXT("8"), NULL, 0, &error));
  UNTIL(state.closed == 2);
  OK(digi_engine_close(state.engine, &error));
  digi_engine_free(state.engine);
  UNTIL(state.destroyed == 1);
}

/* The engine freed within its own callback. */
static void on_last_frame(void *ctx, digi_session *session, digi_frame *frame, digi_result code) {
  seen *state = ctx;
  (void)code;
  digi_frame_free(frame);
  digi_session_free(session);
  digi_engine_free(state->engine);
}

static void freed_in_its_callback(digi_cipher *cipher, digi_config *config) {
  seen state = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, new_engine(config), 0, 0, 0, 0};
  int64_t room = new_room(state.engine);
  OK(digi_engine_on_frame(state.engine, on_last_frame, &state, destroy, &error));
  join(state.engine, cipher, room, "7", "alice");
  UNTIL(state.destroyed == 1);
}

int main(void) {
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  OK(digi_config_set(config, TEXT("frames_burst"), TEXT("1000"), &error));
  by_list(cipher, config);
  by_own_descriptor(cipher, config);
  by_callback(cipher, config);
  freed_in_its_callback(cipher, config);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return 0;
}

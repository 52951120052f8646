/* Eight threads in the same engine and the same sessions at once, then a fork. */
#include "check.h"

#include <pthread.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define THREADS 8
#define ROUNDS 50

static digi_engine *engine;
static digi_cipher *cipher;
static int64_t room;
static digi_session *shared;
static int received[THREADS];

static void *chat(void *given) {
  int me = *(int *)given, round;
  for (round = 0; round < ROUNDS; round++) {
    char frame[128], token[DIGI_TOKEN_SIZE];
    digi_session *own = join(engine, cipher, room, "7", "alice");
    digi_frame *frames[64];
    size_t count = 0, i;
    digi_result result;

    snprintf(frame, sizeof frame, "{\"type\": \"add\", \"message\": \"%d of %d\"}", round, me);
    while ((result = digi_session_receive(shared, frame, strlen(frame), 5, NULL)) == DIGI_AGAIN) {
    }
    CHECK(result == DIGI_OK);
    expect(own, "resumed", "");
    OK(digi_cipher_seal(cipher, DIGI_KIND_ROOM, round, token, sizeof token, NULL, &error));
    result = digi_session_next_many(shared, 1, frames, 64, &count, NULL);
    CHECK(result == DIGI_OK || result == DIGI_AGAIN);
    if (result == DIGI_OK) {
      for (i = 0; i < count; i++) digi_frame_free(frames[i]);
      received[me] += (int)count;
    }
    digi_session_free(own);
  }
  return NULL;
}

static void forked(void) {
  int status = 0;
  pid_t child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    digi_frame *frame = NULL;
    digi_session *session = NULL;
    digi_scope scope = new_scope("x", "7", NULL);
    int descriptor;
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_session_next(shared, -1, &frame, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_session_receive(shared, TEXT("{}"), -1, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_session_close(shared, DIGI_CLOSE_NORMAL, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_engine_connect(engine, &scope, &session, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_engine_descriptor(engine, &descriptor, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_engine_close(engine, &error));
    FAILS(DIGI_ERR_ENGINE_FORKED, "fork", digi_engine_kick(engine, TEXT("7"), NULL, 0, &error));
    digi_session_free(shared);
    digi_engine_free(engine);
    /* A new one works. */
    {
      digi_config *config = new_config(cipher, NULL);
      digi_session *alice;
      engine = new_engine(config);
      alice = join(engine, cipher, new_room(engine), "7", "alice");
      expect(alice, "resumed", "");
      digi_session_free(alice);
      OK(digi_engine_close(engine, &error));
      digi_engine_free(engine);
      digi_config_free(config);
    }
    _exit(0);
  }
  CHECK(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void) {
  pthread_t threads[THREADS];
  int numbers[THREADS], i, total = 0;
  digi_config *config;

  cipher = new_cipher();
  config = new_config(cipher, NULL);
  OK(digi_config_set(config, TEXT("frames_per_second"), TEXT("1000000"), &error));
  OK(digi_config_set(config, TEXT("frames_burst"), TEXT("1000000"), &error));
  OK(digi_config_set(config, TEXT("in_flight"), TEXT("100000"), &error));
  engine = new_engine(config);
  room = new_room(engine);
  shared = join(engine, cipher, room, "8", "bob");
  for (i = 0; i < THREADS; i++) {
    numbers[i] = i;
    CHECK(pthread_create(&threads[i], NULL, chat, &numbers[i]) == 0);
  }
  for (i = 0; i < THREADS; i++) {
    CHECK(pthread_join(threads[i], NULL) == 0);
    total += received[i];
  }
  /* What nobody had time for. */
  while (total < 1 + THREADS * ROUNDS) {
    digi_frame *frame = NULL;
    OK(digi_session_next(shared, 30000, &frame, &error));
    digi_frame_free(frame);
    total++;
  }
  CHECK(digi_session_next(shared, 0, NULL, NULL) == DIGI_ERR_BAD_ARGUMENT);
  forked();
  say(shared, "{\"type\": \"add\", \"message\": \"the parent goes on\"}");
  expect(shared, "add", "goes on");
  digi_session_free(shared);
  OK(digi_engine_close(engine, &error));
  digi_engine_free(engine);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return 0;
}

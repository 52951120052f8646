/*
 * What digi-load does with a session in Rust, by include/digi.h. For every line on the standard input it does one round,
 * and prints the nanoseconds per frame of each of its parts.
 */
#include <digi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BATCH 64

static void check(digi_result result, digi_error **error) {
  if (result == DIGI_OK) return;
  fprintf(stderr, "%s: %s\n", digi_result_name(result), digi_error_text(*error));
  exit(1);
}

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static digi_session *session;
static size_t bytes;

static void in(digi_text text) {
  digi_error *error = NULL;
  check(digi_session_receive(session, text.data, text.length, -1, &error), &error);
}

static void out(digi_frame *frame) {
  size_t length;
  const char *text = digi_frame_text(frame, &length);
  bytes += length + (size_t)(text[0] != '{');
  digi_frame_free(frame);
}

static void next(void) {
  digi_error *error = NULL;
  digi_frame *frame;
  check(digi_session_next(session, -1, &frame, &error), &error);
  out(frame);
}

/* Frames that are answered at once; one message after the other; messages in batches. */
static void round_of(int count) {
  digi_text read = DIGI_TEXT("{\"type\": \"read\", \"seq\": 1}");
  digi_text add = DIGI_TEXT("{\"type\": \"add\", \"message\": \"A message of a length as people write them\"}");
  digi_frame *frames[BATCH];
  double times[4];
  int i;

  times[0] = now();
  for (i = 0; i < count * 10; i++) in(read), next();
  times[1] = now();
  for (i = 0; i < count; i++) in(add), next();
  times[2] = now();
  for (i = 0; i < count * 10; i += BATCH) {
    size_t got, all = 0, at;
    int n;
    for (n = 0; n < BATCH; n++) in(add);
    while (all < BATCH) {
      digi_error *error = NULL;
      check(digi_session_next_many(session, -1, frames, BATCH, &got, &error), &error);
      for (at = 0; at < got; at++) out(frames[at]);
      all += got;
    }
  }
  times[3] = now();
  printf("%.1f %.1f %.1f\n", (times[1] - times[0]) / (count * 10), (times[2] - times[1]) / count,
         (times[3] - times[2]) / (count * 10));
  fflush(stdout);
}

int main(int argc, char **argv) {
  static const char *settings[] = {"frames_per_second",   "frames_burst",   "refusals_per_second",
                                   "refusals_burst",      "threads"};
  static const char *values[] = {"1000000000", "1000000000", "1000000000", "1000000000", "2"};
  digi_error *error = NULL;
  digi_text secret = DIGI_TEXT("a secret of at least thirty-two bytes"), me = DIGI_TEXT("7");
  digi_member member = {me, me, DIGI_ROLE_MEMBER};
  digi_scope scope = {.size = sizeof scope};
  digi_cipher *cipher;
  digi_config *config;
  digi_engine *engine;
  int64_t room;
  char token[DIGI_TOKEN_SIZE], line[16];
  int count = argc > 1 ? atoi(argv[1]) : 1000;
  size_t i;

  check(digi_cipher_new(secret.data, secret.length, &cipher, &error), &error);
  check(digi_config_new(cipher, &config, &error), &error);
  for (i = 0; i < sizeof settings / sizeof *settings; i++) {
    check(digi_config_set(config, settings[i], strlen(settings[i]), values[i], strlen(values[i]), &error), &error);
  }
  check(digi_engine_new(config, &engine, &error), &error);
  check(digi_engine_create_room(engine, 0, NULL, 0, &member, 1, &room, &error), &error);
  check(digi_cipher_seal(cipher, DIGI_KIND_ROOM, room, token, sizeof token, NULL, &error), &error);
  scope.token = digi_text_of(token);
  scope.user = me;
  check(digi_engine_connect(engine, &scope, &session, &error), &error);
  next();
  while (fgets(line, sizeof line, stdin) != NULL) round_of(count);
  digi_session_free(session);
  digi_engine_free(engine);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return bytes == 0;
}

/* What the C tests share: checks that say where they failed, and a chat of alice and bob. */
#ifndef CHECK_H
#define CHECK_H

#include <digi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                     \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      exit(1);                                                               \
    }                                                                        \
  } while (0)

/* The call's last argument is &error. */
#define OK(call)                                                                        \
  do {                                                                                  \
    digi_error *error = NULL;                                                           \
    digi_result result_ = (call);                                                       \
    if (result_ != DIGI_OK) {                                                           \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call,                  \
              digi_result_name(result_), digi_error_text(error));                       \
      exit(1);                                                                          \
    }                                                                                   \
    CHECK(error == NULL);                                                               \
  } while (0)

/* It answers that number, and says why, with the word in it. */
#define FAILS(number, word, call)                                                       \
  do {                                                                                  \
    digi_error *error = NULL;                                                           \
    digi_result result_ = (call);                                                       \
    if (result_ != (number) || digi_error_code(error) != (number) ||                    \
        strstr(digi_error_text(error), (word)) == NULL) {                               \
      fprintf(stderr, "%s:%d: %s: %d %s: %s\n", __FILE__, __LINE__, #call, result_,      \
              digi_result_name(result_), digi_error_text(error));                       \
      exit(1);                                                                          \
    }                                                                                   \
    digi_error_free(error);                                                             \
  } while (0)

#define TEXT(literal) (literal), sizeof(literal) - 1

static inline digi_cipher *new_cipher(void) {
  digi_cipher *cipher = NULL;
  OK(digi_cipher_new(TEXT("a secret of at least thirty-two bytes"), &cipher, &error));
  return cipher;
}

static inline digi_config *new_config(const digi_cipher *cipher, const char *store) {
  digi_config *config = NULL;
  OK(digi_config_new(cipher, &config, &error));
  if (store) OK(digi_config_set(config, TEXT("store"), store, strlen(store), &error));
  return config;
}

static inline digi_engine *new_engine(digi_config *config) {
  digi_engine *engine = NULL;
  OK(digi_engine_new(config, &engine, &error));
  return engine;
}

/* A room of alice (key 7) and bob (key 8). */
static inline int64_t new_room(digi_engine *engine) {
  digi_member members[2] = {{DIGI_TEXT("7"), DIGI_TEXT("alice"), DIGI_ROLE_MEMBER},
                            {DIGI_TEXT("8"), DIGI_TEXT("bob"), DIGI_ROLE_MEMBER}};
  int64_t room = 0;
  OK(digi_engine_create_room(engine, 0, TEXT("lobby"), members, 2, &room, &error));
  return room;
}

static inline digi_scope new_scope(const char *token, const char *user, const char *name) {
  digi_scope scope;
  memset(&scope, 0, sizeof scope);
  scope.size = sizeof scope;
  scope.token = digi_text_of(token);
  scope.user = digi_text_of(user);
  scope.user_name = digi_text_of(name);
  return scope;
}

static inline digi_session *join(digi_engine *engine, const digi_cipher *cipher, int64_t room, const char *user,
                                 const char *name) {
  char token[DIGI_TOKEN_SIZE];
  digi_session *session = NULL;
  digi_scope scope;
  OK(digi_cipher_seal(cipher, DIGI_KIND_ROOM, room, token, sizeof token, NULL, &error));
  scope = new_scope(token, user, name);
  OK(digi_engine_connect(engine, &scope, &session, &error));
  return session;
}

static inline void say(digi_session *session, const char *frame) {
  OK(digi_session_receive(session, frame, strlen(frame), -1, &error));
}

/* The next frame has all these words. */
static inline void expect(digi_session *session, const char *word, const char *other) {
  digi_frame *frame = NULL;
  size_t length = 0;
  const char *text;
  char *copy;
  OK(digi_session_next(session, 30000, &frame, &error));
  text = digi_frame_text(frame, &length);
  copy = calloc(1, length + 1);
  CHECK(copy != NULL);
  memcpy(copy, text, length);
  if (strstr(copy, word) == NULL || strstr(copy, other) == NULL) {
    fprintf(stderr, "no %s with %s: %s\n", word, other, copy);
    exit(1);
  }
  free(copy);
  digi_frame_free(frame);
}

#endif

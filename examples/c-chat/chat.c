/*
 * A chat in the terminal: epoll over the keyboard and the engine's descriptor.
 *
 *   ./chat chat.db alice        and in another terminal        ./chat chat.db bob
 *
 * Both are in one room, through one SQLite file: no server, no other process. What you write is a message; `/edit text` and
 * `/delete` change your last one; Ctrl-D ends.
 */
#include <digi.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#define ROOM 1

static digi_engine *engine;
static digi_session *session;
/* The token of my last message, to edit or delete it. */
static char last[DIGI_TOKEN_SIZE];

static void check(digi_result result, digi_error **error) {
  if (result == DIGI_OK) return;
  fprintf(stderr, "%s: %s\n", digi_result_name(result), digi_error_text(*error));
  exit(1);
}

/* A member of a frame that is a text, as it stands in the JSON; empty where there is none. Digi writes frames without
 * spaces. A real program has a JSON library. */
static const char *member(const char *frame, const char *name, char *out, size_t size) {
  char wanted[32];
  const char *at;
  size_t length = 0;
  snprintf(wanted, sizeof wanted, "\"%s\":\"", name);
  at = strstr(frame, wanted);
  for (at = at ? at + strlen(wanted) : ""; *at && *at != '"' && length + 2 < size; at++) {
    if (*at == '\\' && at[1]) out[length++] = *at++;
    out[length++] = *at;
  }
  out[length] = 0;
  return out;
}

/* What a line becomes in a JSON text. */
static void append(char *frame, size_t size, const char *text) {
  size_t length = strlen(frame);
  for (; *text && length + 8 < size; text++) {
    if (*text == '"' || *text == '\\') frame[length++] = '\\';
    if ((unsigned char)*text >= ' ') frame[length++] = *text;
  }
  frame[length] = 0;
}

static void show(const char *frame) {
  char type[16], user[128], text[4096], own[DIGI_TOKEN_SIZE];
  member(frame, "type", type, sizeof type);
  member(frame, "user", user, sizeof user);
  member(frame, "message", text, sizeof text);
  if (strcmp(type, "ack") == 0) strcpy(last, member(frame, "message_id", own, sizeof own));
  else if (strcmp(type, "add") == 0) printf("%s: %s\n", user, text);
  else if (strcmp(type, "edit") == 0) printf("%s means: %s\n", user, text);
  else if (strcmp(type, "delete") == 0) printf("%s has deleted a message\n", user);
  else if (strcmp(type, "error") == 0) printf("! %s\n", member(frame, "detail", text, sizeof text));
  fflush(stdout);
}

/* Everything that there is; whether the session goes on. */
static int read_frames(void) {
  digi_session *ready[1];
  size_t count;
  while (digi_engine_ready(engine, 0, ready, 1, &count, NULL) == DIGI_OK) {
    for (;;) {
      digi_frame *frame;
      size_t length;
      char *text;
      const char *data;
      digi_result result = digi_session_next(session, 0, &frame, NULL);
      if (result == DIGI_AGAIN) break;
      if (result != DIGI_OK) {
        fprintf(stderr, "closed: %s\n", digi_result_name(result));
        return 0;
      }
      data = digi_frame_text(frame, &length);
      text = malloc(length + 1);
      if (text == NULL) exit(1);
      memcpy(text, data, length);
      text[length] = 0;
      show(text);
      free(text);
      digi_frame_free(frame);
    }
  }
  return 1;
}

static void send_line(char *line) {
  digi_error *error = NULL;
  char frame[8192];
  if (strncmp(line, "/edit ", 6) == 0) {
    snprintf(frame, sizeof frame, "{\"type\":\"edit\",\"message_id\":\"%s\",\"message\":\"", last);
    append(frame, sizeof frame, line + 6);
  } else if (strcmp(line, "/delete") == 0) {
    snprintf(frame, sizeof frame, "{\"type\":\"delete\",\"message_id\":\"%s", last);
  } else {
    static int number;
    snprintf(frame, sizeof frame, "{\"type\":\"add\",\"client_id\":\"%ld-%d\",\"message\":\"", (long)getpid(), number++);
    append(frame, sizeof frame, line);
  }
  strcat(frame, "\"}");
  check(digi_session_receive(session, frame, strlen(frame), -1, &error), &error);
}

/* The keyboard, line by line; whether there is more to come. */
static int read_keyboard(void) {
  static char line[4096];
  static size_t length;
  ssize_t got = read(STDIN_FILENO, line + length, sizeof line - 1 - length);
  char *end;
  if (got <= 0) return got < 0 && errno == EINTR;
  length += (size_t)got;
  line[length] = 0;
  while ((end = strchr(line, '\n')) != NULL) {
    *end = 0;
    if (end > line) send_line(line);
    length -= (size_t)(end + 1 - line);
    memmove(line, end + 1, length + 1);
  }
  if (length == sizeof line - 1) length = 0; /* longer than any message here */
  return 1;
}

/* Makes the room, if nobody has yet, and lets the user in. */
static void enter_room(const char *name) {
  digi_error *error = NULL;
  int64_t room;
  digi_command join = {.size = sizeof join};
  digi_result result = digi_engine_create_room(engine, ROOM, "lobby", 5, NULL, 0, &room, &error);
  if (result == DIGI_ERR_ROOM_EXISTS) digi_error_free(error);
  else check(result, &error);
  error = NULL;
  join.change = DIGI_CHANGE_JOIN;
  join.as_host = true;
  join.room = ROOM;
  join.user = join.user_name = digi_text_of(name);
  check(digi_engine_submit(engine, &join, NULL, &error), &error);
}

int main(int argc, char **argv) {
  static const char secret[] = "everybody who has the file has this";
  digi_error *error = NULL;
  digi_cipher *cipher;
  digi_config *config;
  char store[4096], token[DIGI_TOKEN_SIZE];
  int descriptor, loop, goes_on = 1;
  struct epoll_event keyboard = {EPOLLIN, {.fd = STDIN_FILENO}}, frames = {EPOLLIN, {.fd = 0}}, event;

  if (argc != 3) {
    fprintf(stderr, "usage: %s file.db name\n", argv[0]);
    return 2;
  }
  snprintf(store, sizeof store, "sqlite:%s", argv[1]);
  check(digi_cipher_new(secret, sizeof secret - 1, &cipher, &error), &error);
  check(digi_config_new(cipher, &config, &error), &error);
  check(digi_config_set(config, "store", 5, store, strlen(store), &error), &error);
  check(digi_config_set(config, "close_spread_ms", 15, "0", 1, &error), &error);
  check(digi_engine_new(config, &engine, &error), &error);
  enter_room(argv[2]);

  check(digi_cipher_seal(cipher, DIGI_KIND_ROOM, ROOM, token, sizeof token, NULL, &error), &error);
  digi_scope scope = {.size = sizeof scope};
  scope.token = digi_text_of(token);
  scope.user = digi_text_of(argv[2]);
  check(digi_engine_connect(engine, &scope, &session, &error), &error);

  check(digi_engine_descriptor(engine, &descriptor, &error), &error);
  frames.data.fd = descriptor;
  loop = epoll_create1(EPOLL_CLOEXEC);
  if (loop < 0 || epoll_ctl(loop, EPOLL_CTL_ADD, descriptor, &frames) < 0 ||
      epoll_ctl(loop, EPOLL_CTL_ADD, STDIN_FILENO, &keyboard) < 0) {
    perror("epoll");
    return 1;
  }
  while (goes_on) {
    if (epoll_wait(loop, &event, 1, -1) < 0) {
      if (errno == EINTR) continue;
      perror("epoll_wait");
      return 1;
    }
    goes_on = event.data.fd == descriptor ? read_frames() : read_keyboard();
  }
  close(loop);
  /* Stores what is on its way. */
  check(digi_engine_close(engine, &error), &error);
  digi_session_free(session);
  digi_engine_free(engine);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return 0;
}

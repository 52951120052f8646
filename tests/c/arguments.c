/* Whatever is wrong with an argument, an order or a moment: a code and a text, and nothing is written. */
#include "check.h"

static void ciphers(void) {
  digi_cipher *cipher = NULL, *other = NULL;
  char token[DIGI_TOKEN_SIZE], small[8];
  size_t length = 7;
  int64_t id = -5;

  FAILS(DIGI_ERR_BAD_KEY, "32", digi_cipher_new(TEXT("too short"), &cipher, &error));
  CHECK(cipher == NULL);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "secret", digi_cipher_new(NULL, 40, &cipher, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "cipher", digi_cipher_new(TEXT("a secret of at least thirty-two bytes"), NULL, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "secret", digi_cipher_new("x", (size_t)-1, &cipher, &error));
  FAILS(DIGI_ERR_BAD_KEY, "line 1", digi_cipher_from_json(TEXT("{\"keys\": 5, \"password\": \"hidden\"}"), &cipher, &error));
  CHECK(cipher == NULL);

  cipher = new_cipher();
  OK(digi_cipher_from_json(TEXT("{\"keys\": {\"1\": \"another secret of enough bytes, old\","
                                "\"0\": \"a secret of at least thirty-two bytes\"}, \"seal_with\": 0}"),
                           &other, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "token", digi_cipher_seal(cipher, DIGI_KIND_ROOM, 42, small, sizeof small, &length, &error));
  CHECK(length == 7);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "kind", digi_cipher_seal(cipher, 9, 42, token, sizeof token, NULL, &error));
  OK(digi_cipher_seal(cipher, DIGI_KIND_ROOM, 42, token, sizeof token, &length, &error));
  CHECK(length == strlen(token));
  OK(digi_cipher_open(other, DIGI_KIND_ROOM, token, length, &id, &error));
  CHECK(id == 42);
  id = -5;
  FAILS(DIGI_ERR_BAD_TOKEN, "token", digi_cipher_open(cipher, DIGI_KIND_MESSAGE, token, length, &id, &error));
  FAILS(DIGI_ERR_BAD_TOKEN, "token", digi_cipher_open(cipher, DIGI_KIND_ROOM, token, 0, &id, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "UTF-8", digi_cipher_open(cipher, DIGI_KIND_ROOM, "\xff\xfe", 2, &id, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "cipher", digi_cipher_open(NULL, DIGI_KIND_ROOM, token, length, &id, &error));
  CHECK(id == -5);
  digi_cipher_free(other);
  digi_cipher_free(cipher);
}

static void configs(void) {
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_engine *engine = NULL;
  digi_policy policy;
  digi_store store;

  FAILS(DIGI_ERR_CONFIG, "colour", digi_config_set(config, TEXT("colour"), TEXT("blue"), &error));
  FAILS(DIGI_ERR_CONFIG, "body_bytes", digi_config_set(config, TEXT("body_bytes"), TEXT("-1"), &error));
  FAILS(DIGI_ERR_CONFIG, "threads", digi_config_set(config, TEXT("threads"), TEXT("0"), &error));
  FAILS(DIGI_ERR_CONFIG, "strict", digi_config_set(config, TEXT("strict"), TEXT("perhaps"), &error));
  OK(digi_config_set(config, TEXT("strict"), TEXT("true"), &error));
  memset(&policy, 0, sizeof policy);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "size", digi_config_set_policy(config, &policy, &error));
  policy.size = sizeof policy;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "judge", digi_config_set_policy(config, &policy, &error));
  policy.size = 100 * sizeof policy;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "newer", digi_config_set_policy(config, &policy, &error));
  memset(&store, 0, sizeof store);
  store.size = sizeof store;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "begin", digi_config_set_store(config, &store, &error));
  OK(digi_config_set(config, TEXT("store"), TEXT("nowhere:"), &error));
  FAILS(DIGI_ERR_BAD_URL, "store", digi_engine_new(config, &engine, &error));
  OK(digi_config_set(config, TEXT("store"), TEXT("sqlite:/no/such/folder/chat.db"), &error));
  CHECK(digi_engine_new(config, &engine, NULL) != DIGI_OK);
  CHECK(engine == NULL);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "config", digi_engine_new(NULL, &engine, &error));
  digi_config_free(config);
  digi_cipher_free(cipher);
}

static void sessions(void) {
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_engine *engine = new_engine(config);
  int64_t room = new_room(engine), other = 77;
  digi_session *alice = join(engine, cipher, room, "7", "alice"), *eve, *none = NULL;
  digi_frame *frame = NULL, *frames[4];
  digi_session *ready[4];
  size_t count = 99;
  digi_scope scope;
  digi_stats stats;
  digi_command command;
  digi_outcome outcome;
  int descriptor = -7;

  memset(&scope, 0, sizeof scope);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "size", digi_engine_connect(engine, &scope, &none, &error));
  scope.size = sizeof scope;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "scope.user", digi_engine_connect(engine, &scope, &none, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "scope", digi_engine_connect(engine, NULL, &none, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "engine", digi_engine_connect(NULL, &scope, &none, &error));
  CHECK(none == NULL);

  /* A token that does not open, and somebody who is no member: the close code comes in place of frames. */
  scope = new_scope("no token", "7", "alice");
  OK(digi_engine_connect(engine, &scope, &none, &error));
  FAILS(DIGI_CLOSE_BAD_TOKEN, "token", digi_session_next(none, -1, &frame, &error));
  FAILS(DIGI_CLOSE_BAD_TOKEN, "token", digi_session_receive(none, TEXT("{}"), -1, &error));
  digi_session_free(none);
  eve = join(engine, cipher, room, "9", "eve");
  FAILS(DIGI_CLOSE_NOT_A_MEMBER, "member", digi_session_next(eve, -1, &frame, &error));
  FAILS(DIGI_CLOSE_NOT_A_MEMBER, "member", digi_session_next_many(eve, 0, frames, 4, &count, &error));
  digi_session_free(eve);

  FAILS(DIGI_ERR_BAD_ARGUMENT, "text", digi_session_receive(alice, NULL, 5, -1, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "UTF-8", digi_session_receive(alice, "\xc3\x28", 2, -1, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "length", digi_session_receive(alice, "x", (size_t)-1 / 2, -1, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "session", digi_session_receive(NULL, TEXT("{}"), -1, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "frame", digi_session_next(alice, 0, NULL, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "frames", digi_session_next_many(alice, 0, frames, 0, &count, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "sessions", digi_engine_ready(engine, 0, ready, 0, &count, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "code", digi_session_close(alice, 42, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "code", digi_session_receive_unreadable(alice, 42, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "descriptor", digi_session_descriptor(alice, NULL, &error));
  CHECK(frame == NULL && count == 99 && descriptor == -7);
  CHECK(digi_session_data(NULL) == NULL);

  /* What a client sends wrongly is told to the client. */
  expect(alice, "resumed", "");
  OK(digi_session_receive(alice, TEXT(""), -1, &error));
  expect(alice, "error", "bad_json");
  say(alice, "{\"type\": \"dance\"}");
  expect(alice, "error", "unknown_type");
  OK(digi_session_receive_unreadable(alice, DIGI_ERR_NOT_TEXT, &error));
  expect(alice, "error", "not_text");

  memset(&stats, 0, sizeof stats);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "size", digi_engine_stats(engine, &stats, &error));
  stats.size = sizeof(size_t) + sizeof(uint64_t); /* a program of long ago */
  stats.rooms = 12345;
  OK(digi_engine_stats(engine, &stats, &error));
  CHECK(stats.sessions == 1 && stats.rooms == 12345);

  FAILS(DIGI_ERR_ROOM_EXISTS, "room", digi_engine_create_room(engine, room, NULL, 0, NULL, 0, &other, &error));
  FAILS(DIGI_ERR_STORE_REJECTED, "between", digi_engine_create_room(engine, -3, NULL, 0, NULL, 0, &other, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "members", digi_engine_create_room(engine, 0, NULL, 0, NULL, 2, &other, &error));
  CHECK(other == 77);
  memset(&command, 0, sizeof command);
  command.size = sizeof command;
  command.room = room;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "command.user", digi_engine_submit(engine, &command, &outcome, &error));
  command.user = digi_text_of("9");
  FAILS(DIGI_ERR_BAD_ARGUMENT, "command.text", digi_engine_submit(engine, &command, &outcome, &error));
  command.text = digi_text_of("hello");
  FAILS(DIGI_ERR_NOT_A_MEMBER, "member", digi_engine_submit(engine, &command, &outcome, &error));
  command.change = 99;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "command.change", digi_engine_submit(engine, &command, NULL, &error));

  /* After the end. */
  OK(digi_session_close(alice, DIGI_CLOSE_NORMAL, &error));
  OK(digi_session_close(alice, DIGI_CLOSE_KICKED, &error));
  FAILS(DIGI_CLOSE_NORMAL, "closed", digi_session_next(alice, -1, &frame, &error));
  FAILS(DIGI_CLOSE_NORMAL, "closed", digi_session_receive(alice, TEXT("{}"), -1, &error));
  OK(digi_engine_close(engine, &error));
  OK(digi_engine_close(engine, &error));
  command.change = DIGI_CHANGE_ADD;
  FAILS(DIGI_ERR_ENGINE_CLOSED, "clos", digi_engine_submit(engine, &command, NULL, &error));
  scope = new_scope("x", "7", "alice");
  FAILS(DIGI_CLOSE_RESTART, "restart", digi_engine_connect(engine, &scope, &none, &error));
  digi_engine_free(engine);

  /* A session that outlives its engine. */
  CHECK(digi_session_next(alice, 0, &frame, NULL) == DIGI_CLOSE_NORMAL);
  digi_session_free(alice);
  digi_config_free(config);
  digi_cipher_free(cipher);
}

static void outliving(void) {
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_engine *engine = new_engine(config);
  digi_session *alice = join(engine, cipher, new_room(engine), "7", "alice");
  digi_frame *frame = NULL;

  expect(alice, "resumed", "");
  digi_engine_free(engine); /* without digi_engine_close */
  FAILS(DIGI_CLOSE_RESTART, "restart", digi_session_next(alice, -1, &frame, &error));
  FAILS(DIGI_ERR_ENGINE_CLOSED, "closed", digi_session_receive(alice, TEXT("{}"), -1, &error));
  digi_session_free(alice);
  digi_config_free(config);
  digi_cipher_free(cipher);
}

static void servers(void) {
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_engine *engine = new_engine(config);
  digi_server *server = NULL, *other = NULL;
  digi_server_options options;
  char address[64], small[4];

  memset(&options, 0, sizeof options);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "size", digi_server_start(engine, TEXT("127.0.0.1:0"), &options, &server, &error));
  options.size = sizeof options;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "jwt_secret", digi_server_start(engine, TEXT("127.0.0.1:0"), &options, &server, &error));
  options.jwt_secret = digi_text_of("short");
  FAILS(DIGI_ERR_BAD_KEY, "32", digi_server_start(engine, TEXT("127.0.0.1:0"), &options, &server, &error));
  options.jwt_secret = digi_text_of("a secret of the application, long enough");
  FAILS(DIGI_ERR_CONFIG, "nowhere", digi_server_start(engine, TEXT("nowhere"), &options, &server, &error));
  CHECK(server == NULL);
  OK(digi_server_start(engine, TEXT("127.0.0.1:0"), &options, &server, &error));
  FAILS(DIGI_ERR_BAD_ARGUMENT, "address", digi_server_address(server, small, sizeof small, &error));
  OK(digi_server_address(server, address, sizeof address, &error));
  CHECK(strncmp(address, "127.0.0.1:", 10) == 0 && strcmp(address, "127.0.0.1:0") != 0);
  FAILS(DIGI_ERR_CONFIG, address, digi_server_start(engine, address, strlen(address), &options, &other, &error));
  OK(digi_server_stop(server, &error));
  OK(digi_server_stop(server, &error));
  digi_server_free(server);
  digi_engine_free(engine);
  digi_config_free(config);
  digi_cipher_free(cipher);
}

static void nothing(void) {
  digi_error_free(NULL);
  digi_cipher_free(NULL);
  digi_config_free(NULL);
  digi_engine_free(NULL);
  digi_session_free(NULL);
  digi_frame_free(NULL);
  digi_server_free(NULL);
  digi_output_free(NULL);
  digi_consumer_free(NULL);
  CHECK(digi_error_code(NULL) == DIGI_OK);
  CHECK(strcmp(digi_error_text(NULL), "") == 0);
  CHECK(strcmp(digi_result_name(4501), "not_a_member") == 0);
  CHECK(strcmp(digi_result_name(-1), "unknown") == 0);
  CHECK(strcmp(digi_version(), DIGI_VERSION) == 0);
}

int main(void) {
  nothing();
  ciphers();
  configs();
  sessions();
  outliving();
  servers();
  return 0;
}

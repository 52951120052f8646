/* A connection without an engine: the host has the store, the clock and the loop. Here one room in one array. */
#include "check.h"

static digi_config *config;
static int64_t room = 1;
static digi_row messages[8];
static uint64_t epoch = 3, last;

typedef struct {
  digi_consumer *consumer;
  char frames[8][512];
  int count, live, accepted;
  digi_result code;
} connection;

static void tell(connection *to, digi_input input) {
  input.size = sizeof input;
  OK(digi_consumer_push(to->consumer, &input, &error));
}

static void keep(connection *to, const char *text, size_t length) {
  CHECK(to->count < 8 && length < sizeof to->frames[0]);
  memcpy(to->frames[to->count], text, length);
  to->frames[to->count++][length] = 0;
}

/* What a host does with what a consumer says; `all` are the room's connections. */
static void carry_out(connection *one, connection **all, int count) {
  digi_output *output = NULL;
  for (;;) {
    digi_result result = digi_consumer_pop(one->consumer, &output, NULL);
    digi_input answer;
    if (result == DIGI_AGAIN) return;
    CHECK(result == DIGI_OK);
    memset(&answer, 0, sizeof answer);
    answer.ticket = output->ticket;
    answer.epoch = epoch;
    answer.seq = last;
    switch (output->kind) {
      case DIGI_OUTPUT_ASK_MEMBER:
        CHECK(output->room == room);
        answer.kind = DIGI_INPUT_MEMBER;
        answer.role = DIGI_ROLE_MEMBER;
        tell(one, answer);
        break;
      case DIGI_OUTPUT_JOIN:
        CHECK(output->role == DIGI_ROLE_MEMBER);
        answer.kind = DIGI_INPUT_JOINED;
        tell(one, answer);
        break;
      case DIGI_OUTPUT_ACCEPT:
        one->accepted++;
        break;
      case DIGI_OUTPUT_GO_LIVE:
        CHECK(output->epoch == epoch && output->seq == last);
        one->live = 1;
        break;
      case DIGI_OUTPUT_SEND:
        keep(one, output->frame.data, output->frame.length);
        break;
      case DIGI_OUTPUT_SUBMIT: {
        digi_row *row = &messages[last++];
        digi_frame *frame = NULL;
        size_t length = 0;
        const char *text;
        int i;
        CHECK(output->command.change == DIGI_CHANGE_ADD && output->command.user.data[0] == '7');
        memset(row, 0, sizeof *row);
        row->kind = DIGI_ROW_MESSAGE;
        row->room = room;
        row->message_id = 100 + (int64_t)last;
        row->pos = row->seq = last;
        row->user = digi_text_of("7");
        row->name = digi_text_of("alice");
        row->text = digi_text_of(memchr(output->command.text.data, '2', output->command.text.length) ? "message 2" : "message 1");
        row->at = 86400000;
        OK(digi_consumer_encode(one->consumer, DIGI_CHANGE_ADD, last, row, &frame, &error));
        text = digi_frame_text(frame, &length);
        for (i = 0; i < count; i++) {
          if (all[i]->live) keep(all[i], text, length);
        }
        digi_frame_free(frame);
        answer.kind = DIGI_INPUT_OUTCOME;
        answer.outcome.change = DIGI_CHANGE_ADD;
        answer.outcome.epoch = epoch;
        answer.outcome.seq = answer.outcome.pos = last;
        answer.outcome.message_id = row->message_id;
        tell(one, answer);
        break;
      }
      case DIGI_OUTPUT_LOAD_CHANGES:
        answer.kind = DIGI_INPUT_CHANGES;
        answer.through = last;
        answer.rows = &messages[output->after];
        answer.row_count = (size_t)(last - output->after);
        tell(one, answer);
        break;
      case DIGI_OUTPUT_LOAD_HISTORY:
        answer.kind = DIGI_INPUT_HISTORY;
        answer.rows = messages;
        answer.row_count = (size_t)last;
        tell(one, answer);
        break;
      case DIGI_OUTPUT_CLOSE:
        one->code = output->code;
        break;
      default:
        CHECK(output->kind == DIGI_OUTPUT_LEAVE || output->kind == DIGI_OUTPUT_LISTEN);
    }
    digi_output_free(output);
  }
}

static void begin(connection *one, const char *token, const char *user, const char *after) {
  digi_scope scope = new_scope(token, user, "alice");
  digi_input input;
  memset(one, 0, sizeof *one);
  scope.after = digi_text_of(after);
  OK(digi_consumer_new(config, &scope, &one->consumer, &error));
  memset(&input, 0, sizeof input);
  input.kind = DIGI_INPUT_CONNECT;
  tell(one, input);
}

static void client(connection *one, const char *text) {
  digi_input input;
  memset(&input, 0, sizeof input);
  input.kind = DIGI_INPUT_FRAME;
  input.text = digi_text_of(text);
  input.now = 86400000;
  tell(one, input);
}

int main(void) {
  digi_cipher *cipher = new_cipher();
  char token[DIGI_TOKEN_SIZE];
  connection alice, bob, late, lost, *all[] = {&alice, &bob};
  digi_input input;

  config = new_config(cipher, NULL);
  OK(digi_cipher_seal(cipher, DIGI_KIND_ROOM, room, token, sizeof token, NULL, &error));
  begin(&alice, token, "7", NULL);
  begin(&bob, token, "8", NULL);
  carry_out(&alice, all, 2);
  carry_out(&bob, all, 2);
  CHECK(alice.accepted == 1 && alice.live && strstr(alice.frames[0], "\"cursor\":\"3.0\"") != NULL);

  client(&alice, "{\"type\": \"add\", \"message\": \"message 1\", \"client_id\": \"one\"}");
  client(&alice, "{\"type\": \"add\", \"message\": \"message 2\"}");
  carry_out(&alice, all, 2);
  CHECK(alice.count == 4 && bob.count == 3);
  CHECK(strstr(bob.frames[1], "message 1") != NULL && strstr(bob.frames[1], "1970-01-02T00:00:00.000Z") != NULL);
  CHECK(strstr(bob.frames[2], "message 2") != NULL);
  CHECK(strstr(alice.frames[3], "ack") != NULL && strstr(alice.frames[3], "\"client_id\":\"one\"") != NULL);

  /* Who comes back gets what was missed, then lives on; of another epoch, the history. */
  begin(&late, token, "8", "3.1");
  carry_out(&late, all, 2);
  CHECK(late.count == 2 && strstr(late.frames[0], "message 2") != NULL && strstr(late.frames[1], "\"3.2\"") != NULL);
  begin(&lost, token, "8", "2.9");
  carry_out(&lost, all, 2);
  CHECK(lost.count == 2 && strstr(lost.frames[0], "reset") != NULL && strstr(lost.frames[1], "message 1") != NULL);

  /* What is wrong, and the end. */
  memset(&input, 0, sizeof input);
  FAILS(DIGI_ERR_BAD_ARGUMENT, "size", digi_consumer_push(alice.consumer, &input, &error));
  input.size = sizeof input;
  input.kind = 99;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "input.kind", digi_consumer_push(alice.consumer, &input, &error));
  input.kind = DIGI_INPUT_OUTCOME; /* to no question */
  input.ticket = 12345;
  OK(digi_consumer_push(alice.consumer, &input, &error));
  input.kind = DIGI_INPUT_CHANGES;
  input.row_count = 3;
  FAILS(DIGI_ERR_BAD_ARGUMENT, "input.rows", digi_consumer_push(alice.consumer, &input, &error));
  input.kind = DIGI_INPUT_CLOSE;
  input.code = DIGI_CLOSE_KICKED;
  OK(digi_consumer_push(alice.consumer, &input, &error));
  carry_out(&alice, all, 2);
  CHECK(alice.code == DIGI_CLOSE_KICKED);
  client(&alice, "{\"type\": \"add\", \"message\": \"too late\"}");
  carry_out(&alice, all, 2);
  CHECK(alice.count == 4);
  digi_consumer_free(alice.consumer);
  digi_consumer_free(bob.consumer);
  digi_consumer_free(late.consumer);
  digi_consumer_free(lost.consumer);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return 0;
}

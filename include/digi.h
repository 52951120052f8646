/*
 * Digi: a chat engine. Rooms, members, messages that are stored before anybody sees them, in one order for all.
 *
 * A complete program: a room of two, and a message from one to the other. Compile it with
 * `cc usage.c $(pkg-config --cflags --libs digi)`; statically, docs/c.md tells how.
 *
 * usage:
 *   #include <digi.h>
 *   #include <stdio.h>
 *   #include <stdlib.h>
 *
 *   // Every function that can fail says so, and why.
 *   static void check(digi_result result, digi_error **error) {
 *     if (result == DIGI_OK) return;
 *     fprintf(stderr, "%s: %s\n", digi_result_name(result), digi_error_text(*error));
 *     digi_error_free(*error);
 *     exit(1);
 *   }
 *
 *   // What a browser would get next.
 *   static void show(const digi_member *member, digi_session *session) {
 *     digi_error *error = NULL;
 *     digi_frame *frame;
 *     size_t length;
 *     check(digi_session_next(session, -1, &frame, &error), &error);
 *     const char *text = digi_frame_text(frame, &length);
 *     printf("%s: %.*s\n", member->user_name.data, (int)length, text);
 *     digi_frame_free(frame);
 *   }
 *
 *   int main(void) {
 *     digi_error *error = NULL;
 *     digi_text secret = DIGI_TEXT("a secret of at least thirty-two bytes");
 *     digi_text store = DIGI_TEXT("memory:");  // or sqlite:chat.db
 *
 *     digi_cipher *cipher;
 *     check(digi_cipher_new(secret.data, secret.length, &cipher, &error), &error);
 *     digi_config *config;
 *     check(digi_config_new(cipher, &config, &error), &error);
 *     check(digi_config_set(config, "store", 5, store.data, store.length, &error), &error);
 *     digi_engine *engine;
 *     check(digi_engine_new(config, &engine, &error), &error);
 *     digi_config_free(config);
 *
 *     digi_member members[2] = {{DIGI_TEXT("7"), DIGI_TEXT("alice"), DIGI_ROLE_MEMBER},
 *                               {DIGI_TEXT("8"), DIGI_TEXT("bob"), DIGI_ROLE_MEMBER}};
 *     int64_t room;
 *     check(digi_engine_create_room(engine, 0, "lobby", 5, members, 2, &room, &error), &error);
 *
 *     // What stands in a URL in place of the room's id, and comes back with a connection.
 *     char token[DIGI_TOKEN_SIZE];
 *     check(digi_cipher_seal(cipher, DIGI_KIND_ROOM, room, token, sizeof token, NULL, &error), &error);
 *     digi_session *sessions[2];
 *     for (int i = 0; i < 2; i++) {
 *       digi_scope scope = {.size = sizeof scope};
 *       scope.token = digi_text_of(token);
 *       scope.user = members[i].user;
 *       scope.user_name = members[i].user_name;
 *       check(digi_engine_connect(engine, &scope, &sessions[i], &error), &error);
 *     }
 *
 *     // Connecting doesn't wait. Who has had the first frame is in the room, and gets what comes from then on.
 *     for (int i = 0; i < 2; i++) show(&members[i], sessions[i]);
 *
 *     // What a browser would send, and both would get.
 *     digi_text hello = DIGI_TEXT("{\"type\": \"add\", \"message\": \"hello\"}");
 *     check(digi_session_receive(sessions[0], hello.data, hello.length, -1, &error), &error);
 *
 *     for (int i = 0; i < 2; i++) {
 *       show(&members[i], sessions[i]);
 *       digi_session_free(sessions[i]);
 *     }
 *     check(digi_engine_close(engine, &error), &error);
 *     digi_engine_free(engine);
 *     digi_cipher_free(cipher);
 *     return 0;
 *   }
 * end of usage
 *
 * What clients send. "type" is "add" where it is left out, and any frame may have a "client_id" of 1 to 64 bytes:
 *
 *   {"type":"add","message":"..."}                       {"type":"history","before":17,"limit":50}
 *   {"type":"edit","message_id":"...","message":"..."}   {"type":"resume","after":"1.41"}
 *   {"type":"delete","message_id":"..."}                 {"type":"typing"}
 *
 * What they get. Unknown keys are to be ignored; docs/protocol.md tells all, also how to write a client:
 *
 *   {"type":"add","message":"...","user":"alice","message_id":"...","seq":42,"pos":42,"at":"2026-03-01T12:00:00.123Z"}
 *   {"type":"edit","message":"...","user":"alice","message_id":"...","seq":43,"pos":42,"at":"..."}
 *   {"type":"delete","user":"alice","message_id":"...","seq":44,"pos":42,"at":"..."}
 *   {"type":"ack","client_id":"...","message_id":"...","seq":42,"pos":42}
 *   {"type":"error","code":"empty_body","detail":"...","client_id":"..."}
 *   {"type":"resumed","cursor":"1.44"}
 *   {"type":"reset","cursor":"1.2044"}
 *   {"type":"history","messages":[...],"more":true,"through":44,"cursor":"1.44","client_id":"..."}; in "messages":
 *     {"message":"...","user":"alice","message_id":"...","pos":42,"at":"...","edited_at":"..."}, or of a deleted one
 *     {"user":"alice","message_id":"...","pos":42,"at":"...","deleted":true}
 *   {"type":"typing","user":"bob"}
 *   {"type":"presence","user":"bob","online":true}
 *
 * - add, edit and delete go to everybody in the room, the sender too, once they are stored. "seq" is the number of the
 *   change in its room; it may jump. "pos" is the message's place, the seq of the change that added it: match and sort
 *   by it. "user" is the name of who added the message, "at" when it was added (so too in a history), edited or
 *   deleted. (What a stock Channels worker has stored, see the setting "bridge", has no seq, pos and at.)
 * - ack answers an add, edit or delete that has a client_id, beside the frame for everybody, before or after it. An
 *   add whose client_id the user has used in this room, within its last 1,000 changes, is not stored again, and has
 *   the first one's ack. An edit that is sent again is made again; a delete gets the error message_deleted. A history
 *   has the client_id of its question, an error that of the frame it refuses, if there was one; resumed and reset have
 *   none.
 * - error: nothing of that frame was stored, and the connection stays. busy, rate_limited and store_unavailable pass:
 *   send the frame again. {"type":"read","seq":42} is refused as unsupported.
 * - A cursor is "<epoch>.<seq>". Without scope.after the first frame is resumed. With it, or after a resume, come the
 *   changes since the cursor, in order of seq, one frame for each message that changed: an add if it was added since,
 *   with its present text, the seq of its last change and its old pos (so adds need not come in order of pos); an edit
 *   if it is older; a delete if it was deleted. Then resumed, then what is new. Until that resumed, nothing but it and
 *   reset moves the client's cursor; afterwards every add, edit and delete does too, to "<its epoch>.<seq of the
 *   frame>". ack and history never do.
 * - reset: the client's cursor is of no use. It is of another epoch, ahead of the room, older than the log, more than
 *   1,000 changes behind, or replay_bytes; or scope.after was no cursor, as an error says before. It may come at any
 *   time. A client forgets its messages and takes this cursor; a history of the newest follows, no resumed, then what
 *   is new.
 * - history is a page of messages, oldest first: the newest "limit" ones (1 to 200; the setting history where left
 *   out) with a pos below "before", if that is given. "more": there are older ones; ask with the lowest pos. The
 *   changes up to the seq "through" are in it.
 * - typing and presence are not stored and have no seq. They go to clients that have used scope.after, a client_id or
 *   a type other than add, edit and delete, but not to the user they name; presence only with the setting "presence".
 * - A message_id is a token in frames, and a number in functions and structs. digi_cipher_open makes the number of the
 *   token, digi_cipher_seal the token of the number, with DIGI_KIND_MESSAGE; for rooms with DIGI_KIND_ROOM. The
 *   numbers are stored and stay; so do tokens, as long as the cipher seals with the same key.
 *
 * Conventions, which every function keeps:
 *
 * - Results. A function that can fail answers a digi_result: DIGI_OK, DIGI_AGAIN ("not now"), or the number of what
 *   went wrong, out of one table (below, and in docs/errors.md). Its last parameter is where the reason goes, as a
 *   digi_error to be freed; NULL: nobody asks. DIGI_OK and DIGI_AGAIN leave it as it is, everything else writes a new
 *   one there. What a function gives goes to pointers that are written only if it succeeds.
 * - Handles. What digi_<type>_new and its kin give is opaque and belongs to the caller, until digi_<type>_free, once;
 *   NULL may be freed. Use of a handle after that is a bug that nothing can catch.
 * - Order of freeing. A server before its engine; sessions before their engine or after it (digi_engine_free says what
 *   those hear that are left); all else in any order: a config keeps what it needs of its cipher, an engine or
 *   consumer of its config, and frames, outputs and errors stand alone. A store is closed, and a "destroy" called,
 *   when all that use it are freed: config, engine, server, sessions, consumers.
 * - Texts are UTF-8 with an explicit length in bytes, and need no NUL at the end. Digi copies what it keeps: an
 *   argument need not live longer than the call. NULL, text that is not UTF-8, a length beyond any text:
 *   DIGI_ERR_BAD_ARGUMENT, and the reason names the argument.
 * - Structs begin with their size (digi_scope scope = {.size = sizeof scope}); what is not set is zero, and means
 *   "none" or "the default". So programs go on with a newer library whose structs have grown. Without a size, and
 *   never to grow under the same soname: digi_text, digi_member, digi_outcome, digi_row, digi_query. (Outputs are made
 *   by Digi alone: a digi_output may grow at its end.)
 * - Threads. Every function may be called in any thread, at once with any other, but those that free. Functions that
 *   wait say so, and take a timeout where it matters: 0 not at all, -1 for ever.
 * - Callbacks come in threads of Digi's and must not unwind (no C++ exception, no longjmp). Where a callback must not
 *   call back, a function answers DIGI_ERR_IN_CALLBACK instead of waiting for ever.
 * - After a fork, the child has none of Digi's threads: what was made before answers DIGI_ERR_ENGINE_FORKED, and may
 *   be freed. Make new ones there.
 * - Valgrind takes a block of 48 bytes per calling thread for "possibly lost": Rust's name for it, kept to its end.
 * - No panic of Rust's crosses: it ends as DIGI_ERR_INTERNAL, and is a bug.
 *
 * C++: digi.hpp has all this with destructors, std::string_view and exceptions. Generated by `make header`; don't edit.
 */

#ifndef DIGI_H
#define DIGI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The version that this header belongs to. */
#define DIGI_VERSION "0.1.0"

/* The frame is not a JSON object. */
#define DIGI_ERR_BAD_JSON 100
/* A key of the frame is missing or has the wrong type; the detail names it. */
#define DIGI_ERR_BAD_FRAME 101
/* The frame's `type` is none that Digi knows. */
#define DIGI_ERR_UNKNOWN_TYPE 102
/* A token does not open; ask the application for a new link. */
#define DIGI_ERR_BAD_TOKEN 103
/* A message needs at least one character that is not white space. */
#define DIGI_ERR_EMPTY_BODY 104
/* The message is longer than this server takes; shorten it. */
#define DIGI_ERR_BODY_TOO_LONG 105
/* A message must not contain the character U+0000. */
#define DIGI_ERR_BAD_BODY 106
/* A `client_id` has 1 to 64 bytes and no U+0000. */
#define DIGI_ERR_BAD_CLIENT_ID 107
/* The frame is larger than this server takes. */
#define DIGI_ERR_FRAME_TOO_LARGE 108
/* Frames are JSON text; binary frames are not understood. */
#define DIGI_ERR_NOT_TEXT 109
/* A cursor is `<epoch>.<seq>` as a frame gave it. */
#define DIGI_ERR_BAD_CURSOR 110
/* This server does not offer that frame type. */
#define DIGI_ERR_UNSUPPORTED 111
/* The frame speaks for another user than the one who is logged in. */
#define DIGI_ERR_USER_MISMATCH 120
/* The user is not a member of the room. */
#define DIGI_ERR_NOT_A_MEMBER 121
/* Only its sender may edit a message, only its sender or a moderator delete it. */
#define DIGI_ERR_NOT_SENDER 122
/* The room has no such message. */
#define DIGI_ERR_NO_SUCH_MESSAGE 123
/* The message has been deleted. */
#define DIGI_ERR_MESSAGE_DELETED 124
/* There is no such room. */
#define DIGI_ERR_NO_SUCH_ROOM 125
/* This session is not in that room (or not yet, or no longer). */
#define DIGI_ERR_NOT_JOINED 126
/* The host's policy refuses this. */
#define DIGI_ERR_REFUSED 127
/* There is a room with that id already. */
#define DIGI_ERR_ROOM_EXISTS 128
/* The room has used up its message numbers. */
#define DIGI_ERR_ROOM_FULL 129
/* Too many frames; wait a moment. */
#define DIGI_ERR_RATE_LIMITED 130
/* Too much is waiting to be stored; try again in a moment. */
#define DIGI_ERR_BUSY 131
/* The store cannot be reached just now; try again in a moment. */
#define DIGI_ERR_STORE_UNAVAILABLE 140
/* The database refuses this message; sending it again will not help. */
#define DIGI_ERR_STORE_REJECTED 141
/* The database has no room left; nothing was stored. */
#define DIGI_ERR_STORE_FULL 142
/* The engine is closed or closing. */
#define DIGI_ERR_ENGINE_CLOSED 150
/* The engine was made before a fork; make one in this process. */
#define DIGI_ERR_ENGINE_FORKED 151
/* The session is closed. */
#define DIGI_ERR_SESSION_CLOSED 152
/* A callback called back into Digi where it may not; the detail says which. */
#define DIGI_ERR_IN_CALLBACK 153
/* A setting is missing or wrong; the detail names it. */
#define DIGI_ERR_CONFIG 160
/* A key or secret is unusable; the detail says why, never the key. */
#define DIGI_ERR_BAD_KEY 161
/* A store or layer URL is wrong; the detail names the part. */
#define DIGI_ERR_BAD_URL 162
/* The database's schema is not one that this version works on. */
#define DIGI_ERR_SCHEMA 163
/* Another copy of SQLite in this process has the database file open. */
#define DIGI_ERR_FILE_IN_USE 164
/* An argument is missing, not UTF-8 or out of range; the detail names it. */
#define DIGI_ERR_BAD_ARGUMENT 165
/* A bug in Digi; please report it. */
#define DIGI_ERR_INTERNAL 199
/* The session was closed on request. */
#define DIGI_CLOSE_NORMAL 1000
/* The server is restarting; reconnect in a moment. */
#define DIGI_CLOSE_RESTART 1012
/* The client did not read fast enough; reconnect and resume. */
#define DIGI_CLOSE_TOO_SLOW 4000
/* The store could not be asked; reconnect in a moment. */
#define DIGI_CLOSE_UNAVAILABLE 4001
/* The client answered no ping; reconnect and resume. */
#define DIGI_CLOSE_PING_TIMEOUT 4002
/* This server or room holds as many sessions as it may; reconnect in a moment. */
#define DIGI_CLOSE_OVERLOADED 4003
/* The token in the URL does not open. */
#define DIGI_CLOSE_BAD_TOKEN 4500
/* The user is not a member of the room. */
#define DIGI_CLOSE_NOT_A_MEMBER 4501
/* The user was removed from the room. */
#define DIGI_CLOSE_REMOVED 4502
/* Nobody is logged in on this connection, or no longer. */
#define DIGI_CLOSE_UNAUTHENTICATED 4503
/* The host closed this user's sessions. */
#define DIGI_CLOSE_KICKED 4504
/* This user has as many sessions open as one may. */
#define DIGI_CLOSE_TOO_MANY_SESSIONS 4505
/* Too many frames were refused on this connection. */
#define DIGI_CLOSE_ABUSE 4506
/* The client broke the WebSocket protocol or its limits. */
#define DIGI_CLOSE_PROTOCOL_VIOLATION 4507


// The id of a room.
#define DIGI_KIND_ROOM 0

// The id of a message.
#define DIGI_KIND_MESSAGE 1

// Bytes that every token fits into, with a NUL behind it.
#define DIGI_TOKEN_SIZE 192

// A plain member.
#define DIGI_ROLE_MEMBER 0

// A member who may also delete the messages of others.
#define DIGI_ROLE_MODERATOR 1

// In answers about a membership: there is none.
#define DIGI_ROLE_NONE -1

// A message was added, or is to be.
#define DIGI_CHANGE_ADD 0

// A message's text was replaced, or is to be.
#define DIGI_CHANGE_EDIT 1

// A message was deleted, or is to be.
#define DIGI_CHANGE_DELETE 2

// A user has become a member or got another role, or is to.
#define DIGI_CHANGE_JOIN 3

// A membership has ended, or is to.
#define DIGI_CHANGE_LEAVE 4

// In outcomes: an add whose `client_id` the sender had used already; nothing changed.
#define DIGI_CHANGE_DUPLICATE 5

// In outcomes: it was so already; nothing changed.
#define DIGI_CHANGE_NONE 6

// A room's head: `room` (the key), `epoch`, `seq` (the last number), `floor`, `at` (of the last change).
#define DIGI_ROW_HEAD 0

// A room: `room` (the key), `name`, `text` (its kind), `at`.
#define DIGI_ROW_ROOM 1

// A membership: `room` and `user` (the key), `name`, `role`, `at`.
#define DIGI_ROW_MEMBER 2

// A message: `message_id` (the key; `room << 32 | pos`), `room`, `pos`, `user`, `name`, `text` (none: deleted), `client_id`,
// `at`, `edited_at`, `deleted_at`.
#define DIGI_ROW_MESSAGE 3

// A row of the log, which has every change but the adds: `room` and `seq` (the key), `change`, `message_id` or `user`, `at`.
#define DIGI_ROW_LOG 4

// A batch that was carried out: `node` and `number` (the key), `text` (none: it never will be), `at`. The text names users
// and `client_id`s; the row is removed after an hour or so, while others are written.
#define DIGI_ROW_BATCH 5

// The heads (`DIGI_ROW_HEAD`) of the `rooms`, or of all rooms where `room_count` is 0. In a writing transaction they
// stay as they are, for everybody else, until it ends.
#define DIGI_QUERY_HEADS 0

// The head of the room with the highest id, if there is any room.
#define DIGI_QUERY_LAST_HEAD 1

// The membership (`DIGI_ROW_MEMBER`) of `user` in `room`, if there is one.
#define DIGI_QUERY_MEMBER 2

// The message (`DIGI_ROW_MESSAGE`) with `message_id`, if there is one.
#define DIGI_QUERY_MESSAGE 3

// The messages of `room` with a `pos` above `after` and up to `through`; where `limit` is not 0, only those of them with
// the `limit` highest. In any order.
#define DIGI_QUERY_MESSAGES 4

// The rows of the log (`DIGI_ROW_LOG`) of `room` with a `seq` above `after` and up to `through`. In any order.
#define DIGI_QUERY_LOG 5

// The batch (`DIGI_ROW_BATCH`) with `node` and `number`, if there is one.
#define DIGI_QUERY_BATCH 6

// Something is broken.
#define DIGI_LOG_ERROR 1

// Something went wrong, and Digi went on.
#define DIGI_LOG_WARNING 2

// What operators want to know, such as who comes and goes at a server.
#define DIGI_LOG_INFO 3

// More.
#define DIGI_LOG_DEBUG 4

// The connection has begun. The first input.
#define DIGI_INPUT_CONNECT 0

// The client has sent `text`, at `now`.
#define DIGI_INPUT_FRAME 1

// The client has sent something that is no text, at `now`: `code` says what (`DIGI_ERR_NOT_TEXT`, ...).
#define DIGI_INPUT_UNREADABLE 2

// The answer to `DIGI_OUTPUT_ASK_MEMBER`: `role` (`DIGI_ROLE_NONE`: no member), and the room's head, read before it, in
// `epoch` and `seq`; or a `code`.
#define DIGI_INPUT_MEMBER 3

// The answer to `DIGI_OUTPUT_JOIN`: `epoch` and `seq` are the room's head when its frames began to be held back; or `code`:
// `DIGI_AGAIN`, the membership was read too long ago, or `DIGI_CLOSE_OVERLOADED`, the room is full.
#define DIGI_INPUT_JOINED 4

// The answer to `DIGI_OUTPUT_LOAD_CHANGES`: the head in `epoch` and `seq`, `floor`, `through` (the smaller of `after` +
// `limit` and the head: from there it is asked again), and `rows`: one
// `DIGI_ROW_MESSAGE` for each message that changed, with the number of its last change in `seq`, and `DIGI_ROW_LOG` for
// each membership that did, in order of `seq`; or a `code`.
#define DIGI_INPUT_CHANGES 5

// The answer to `DIGI_OUTPUT_LOAD_HISTORY`: the head in `epoch` and `seq`, and `rows` (`DIGI_ROW_MESSAGE`), oldest first;
// or a `code`.
#define DIGI_INPUT_HISTORY 6

// The answer to `DIGI_OUTPUT_SUBMIT`: `outcome`, with a `code` in it where it was refused.
#define DIGI_INPUT_OUTCOME 7

// What this session was shown of `room` is void: the epoch is a new one.
#define DIGI_INPUT_RESET 8

// The host closes the connection with the `DIGI_CLOSE_...` in `code`.
#define DIGI_INPUT_CLOSE 9

// The client has gone.
#define DIGI_INPUT_DISCONNECT 10

// Ask whether the consumer's user is a member of `room`: `DIGI_INPUT_MEMBER`.
#define DIGI_OUTPUT_ASK_MEMBER 0

// Put the connection into `room`, and hold its frames back until `DIGI_OUTPUT_GO_LIVE`: `DIGI_INPUT_JOINED`. `epoch`, `seq` and
// `role` are those of the answer about its membership.
#define DIGI_OUTPUT_JOIN 1

// The connection is let in.
#define DIGI_OUTPUT_ACCEPT 2

// Store `command`, and tell everybody in the room (`digi_consumer_encode`): `DIGI_INPUT_OUTCOME`. Frame, text and policy have
// been looked at; the host looks at the rest, and refuses with `DIGI_ERR_NOT_A_MEMBER` (no longer),
// `DIGI_ERR_NO_SUCH_MESSAGE` (not in this room), `DIGI_ERR_NOT_SENDER` (but a moderator may delete) and
// `DIGI_ERR_MESSAGE_DELETED`. An add with a `client_id` that this user has used is `DIGI_CHANGE_DUPLICATE`, with the first
// one's `message_id` and `pos`, and nobody is told.
#define DIGI_OUTPUT_SUBMIT 3

// Read the changes of `room` above `after`, at most `limit` numbers: `DIGI_INPUT_CHANGES`.
#define DIGI_OUTPUT_LOAD_CHANGES 4

// Read the newest `limit` messages of `room` placed before `before` (0: of all): `DIGI_INPUT_HISTORY`.
#define DIGI_OUTPUT_LOAD_HISTORY 5

// Send `frame` to this client.
#define DIGI_OUTPUT_SEND 6

// From now on hand this client the changes of `room` above `epoch` and `seq`, those that were held back first.
#define DIGI_OUTPUT_GO_LIVE 7

// Send `frame` to the others in `room` who listen. It is not stored.
#define DIGI_OUTPUT_SIGNAL 8

// This client of `room` listens: from now on it gets signals, too.
#define DIGI_OUTPUT_LISTEN 9

// Take the connection out of `room`, if it is in there.
#define DIGI_OUTPUT_LEAVE 10

// Close the connection with `code`, a `DIGI_CLOSE_...`. The last output; after `DIGI_INPUT_DISCONNECT` there is none.
#define DIGI_OUTPUT_CLOSE 11

// Where a store puts the rows that it was asked for. Lives until `read` returns.
typedef struct digi_answer digi_answer;

// Seals ids into tokens, which stand in URLs and frames, and opens them. Immutable; any number of threads may use one.
typedef struct digi_cipher digi_cipher;

// How an engine is to be: keys, store, channel layer, bounds, and the host's own parts. Any thread may use one; an engine
// keeps nothing of it that later changes would reach.
typedef struct digi_config digi_config;

// The state machine of one connection, without threads, clock or store. The host tells it what happened
// (`digi_consumer_push`), does what it says (`digi_consumer_pop`), and owns everything else: the store, the room's order,
// the sockets. Any thread may use one; calls take turns. What goes in (>) and comes out (<), from the beginning to the first
// message:
//
// ```text
// > CONNECT                          < ASK_MEMBER (ticket)
// > MEMBER (ticket, role, head)      < JOIN (ticket)
// > JOINED (ticket, position)        < ACCEPT, SEND `resumed`, GO_LIVE
// > FRAME `add`                      < SUBMIT (ticket, command)
//   the host stores it, and sends its frame to all who are live, the sender among them
// > OUTCOME (ticket, outcome)        < SEND `ack`, if the client gave a `client_id`
// ```
//
// With `scope.after`, LOAD_CHANGES or LOAD_HISTORY come before `resumed`. Inputs before CONNECT and after the end are
// ignored.
typedef struct digi_consumer digi_consumer;

// A chat engine: rooms, sessions, one store and one channel layer, on threads of its own. Any number of threads may use
// one at once. A process that was forked off has none of the threads: every function says `DIGI_ERR_ENGINE_FORKED` there.
typedef struct digi_engine digi_engine;

// What went wrong, as a code and a sentence for a person. Freed with `digi_error_free`.
typedef struct digi_error digi_error;

// A frame for a client: JSON text, to be sent as one WebSocket text message or however the host's clients are spoken to.
// It is shared with everybody else who gets the same one, and lives until it is freed, whatever happens to the session.
// Immutable; any number of threads may use one.
typedef struct digi_frame digi_frame;

// The request of a client that wants in. Lives until the callback returns.
typedef struct digi_handshake digi_handshake;

// Where the callback says who it is. Lives until it returns.
typedef struct digi_identity digi_identity;

// A WebSocket server in front of an engine, on the engine's threads: `/ws/chat/<token>/`, the client's cursor as
// `?after=`. Any thread may use one.
typedef struct digi_server digi_server;

// One connection to an engine, made by `digi_engine_connect`. Any number of threads may use one at once; of those who
// read, each frame goes to one. Free it when no other thread is in a function with it.
typedef struct digi_session digi_session;

// What a policy says beside its result. Lives until `judge` returns.
typedef struct digi_verdict digi_verdict;

// What a function answers: `DIGI_OK`, `DIGI_AGAIN`, one of the `DIGI_ERR_...` above or, from functions that deal with a
// session, one of the `DIGI_CLOSE_...`: the session is closed, and that is why.
typedef int32_t digi_result;

// A text in UTF-8 with its length in bytes; it need not end with NUL. `data` NULL: none, where one may be left out.
//
// What Digi gives to a callback lives until the callback returns. `DIGI_TEXT("literal")` initialises one with a literal,
// `digi_text_of(string)` makes one of what ends with NUL.
typedef struct digi_text {
  // The first byte.
  const char *data;
  // How many bytes.
  size_t length;
} digi_text;

/* Texts of the program's own: of a literal, and of what ends with NUL (NULL: none). */
#define DIGI_TEXT(literal) {(literal), sizeof(literal) - 1}
static inline digi_text digi_text_of(const char *string) {
  digi_text text = {string, string ? strlen(string) : 0};
  return text;
}

// What is known of a connection at its start.
typedef struct digi_scope {
  // `sizeof(digi_scope)`.
  size_t size;
  // The room's token, out of the URL that the client came by.
  struct digi_text token;
  // Who is logged in: an immutable key. That it is this user is the host's to know.
  struct digi_text user;
  // The name that others see. None: the key.
  struct digi_text user_name;
  // Where the client stopped last time: the cursor that it gives. May be left out.
  struct digi_text after;
  // The page's origin and the client's address, for the log. May be left out.
  struct digi_text origin;
  // See `origin`.
  struct digi_text remote;
  // By what the host knows this log-in again, to end it by `digi_engine_kick`; not a secret. May be left out.
  struct digi_text login;
  // What `digi_session_data` gives back.
  void *data;
} digi_scope;

// Takes a frame of a session (to be freed, there or later), or, with `frame` NULL, that it is closed with that
// `DIGI_CLOSE_...` number; nothing comes for it any more. See `digi_engine_on_frame`.
typedef void (*digi_frame_callback)(void *ctx,
                                    struct digi_session *session,
                                    struct digi_frame *frame,
                                    digi_result close_code);

// A first member of a new room.
typedef struct digi_member {
  // The user's key.
  struct digi_text user;
  // The name that others see. None: the key.
  struct digi_text user_name;
  // `DIGI_ROLE_...`.
  int32_t role;
} digi_member;

// One change that is asked for. What a kind of change doesn't need stays zero.
typedef struct digi_command {
  // `sizeof(digi_command)`.
  size_t size;
  // `DIGI_CHANGE_ADD` to `DIGI_CHANGE_LEAVE`.
  uint32_t change;
  // Whether the host's rights count, not the user's. Joins and leaves need it: only the host changes memberships.
  bool as_host;
  // The room's id.
  int64_t room;
  // Who does it: an immutable key. For joins and leaves: whose membership it is.
  struct digi_text user;
  // The name that others see.
  struct digi_text user_name;
  // The message's text, to add and to edit.
  struct digi_text text;
  // To add: makes it safe to ask again, as long as the first message is among the room's last 1,000 changes and not
  // purged. 1 to 64 bytes, of the user's own in this room. May be left out.
  struct digi_text client_id;
  // The message's id, to edit and to delete.
  int64_t message_id;
  // To join: `DIGI_ROLE_...`.
  int32_t role;
} digi_command;

// What became of a change.
typedef struct digi_outcome {
  // `DIGI_CHANGE_...`.
  uint32_t change;
  // `DIGI_OK`; where an outcome is told to a consumer, also the code with which it was refused.
  int32_t code;
  // The generation of the room's numbering. 0 where nothing changed.
  uint64_t epoch;
  // The change's number in the room. 0 where nothing changed.
  uint64_t seq;
  // The message's id; of a duplicate, the first one's.
  int64_t message_id;
  // The message's place in the room: the number of the change that added it.
  uint64_t pos;
} digi_outcome;

// What an engine has done since it was made; what says "now" is as it is now.
typedef struct digi_stats {
  // `sizeof(digi_stats)`, set before the call.
  size_t size;
  // Sessions, now.
  uint64_t sessions;
  // Rooms that are loaded, now.
  uint64_t rooms;
  // Commands that wait to be stored, now.
  uint64_t queued;
  // Changes that were committed.
  uint64_t committed;
  // Commands that were refused by the store's rules or could not be stored.
  uint64_t refused;
  // Resends that were recognised.
  uint64_t duplicates;
  // Batches that were given to the store.
  uint64_t batches;
  // Frames of rooms that were handed to sessions.
  uint64_t deliveries;
  // Whether the channel layer can be reached, now.
  bool layer_up;
} digi_stats;

// What a store is asked; which members a kind uses is told at its `DIGI_QUERY_...`.
typedef struct digi_query {
  // `DIGI_QUERY_...`.
  uint32_t kind;
  // A room's id.
  int64_t room;
  // Several, ascending.
  const int64_t *rooms;
  // How many they are.
  size_t room_count;
  // A user's key.
  struct digi_text user;
  // A message's id.
  int64_t message_id;
  // Above this number.
  uint64_t after;
  // Up to this number; `UINT64_MAX` for no bound.
  uint64_t through;
  // At most so many; 0: all.
  uint64_t limit;
  // Names a batch, with `number`.
  uint64_t node;
  // Names a batch, with `node`.
  uint64_t number;
} digi_query;

// A row of the tables behind a chat; which members a kind of row uses is told at its `DIGI_ROW_...`, the others are zero.
// Times are milliseconds since 1970-01-01T00:00:00Z, 0 for none. A text that is none (`data` NULL) comes back as none, an
// empty one as empty. `node` uses all 64 bits: where a table has signed numbers only, keep the bits. All other numbers are
// below 2^63.
typedef struct digi_row {
  // `DIGI_ROW_...`.
  uint32_t kind;
  // In writes: rows are to be removed. Of memberships the one with this key; of messages and log rows those of `room`
  // with a `pos` (messages) or `seq` (log) up to this row's; of batches those with `at` before this row's.
  bool removes;
  // The room's id.
  int64_t room;
  // A number in the room.
  uint64_t seq;
  // The generation of the numbering.
  uint64_t epoch;
  // Numbers up to here can no longer be read.
  uint64_t floor;
  // The message's id.
  int64_t message_id;
  // The message's place.
  uint64_t pos;
  // `DIGI_CHANGE_...`.
  uint32_t change;
  // `DIGI_ROLE_...`.
  int32_t role;
  // A user's key.
  struct digi_text user;
  // A name.
  struct digi_text name;
  // A text.
  struct digi_text text;
  // The sender's own name for a message.
  struct digi_text client_id;
  // When it began or happened.
  uint64_t at;
  // When it was edited last.
  uint64_t edited_at;
  // When it was deleted.
  uint64_t deleted_at;
  // Names a batch, with `number`.
  uint64_t node;
  // Names a batch, with `node`.
  uint64_t number;
} digi_row;

// A store of the host's own: five functions over tables of six kinds of rows (`DIGI_ROW_...`). What becomes of a command,
// which numbers it takes and who may do what is Digi's business; a store keeps rows and has transactions.
//
// All functions answer `DIGI_OK` or one of `DIGI_ERR_STORE_UNAVAILABLE` (whoever waits is told so, and may ask again),
// `DIGI_ERR_STORE_FULL` and `DIGI_ERR_STORE_REJECTED` (a row can't be stored; Digi finds out whose it is, and refuses that
// one); any other number counts as the first. Where `digi_answer_add` fails, `read` answers with its result.
//
// **Transactions.** Each that `begin` gave ends with one call of `commit` or `rollback`, and `commit` ends it also where
// it fails: release everything there. After an error of `read` or `write` Digi calls `rollback`; after one of `begin`
// nothing. If `commit` fails, Digi looks by the batch's row whether it was committed after all, and repeats it otherwise,
// for some seconds: so it is safe not to know.
//
// **Must hold.** A transaction is all or nothing, and committed is on stable storage, as far as the store has one. The
// heads that a writing transaction has read nobody else changes before it ends. A reading transaction sees what was
// committed before it began; it may see of what is committed meanwhile, but not a head without the rows up to it.
//
// **Threads.** Called in threads of Digi's. Writing transactions of one engine come one at a time, and calls within one
// transaction one after the other, but not always in the same thread. Reading ones may come beside them and each
// other. The functions may block, for as long as a request may take. They must not call Digi but for `digi_answer_add`.
typedef struct digi_store {
  // `sizeof(digi_store)`.
  size_t size;
  // The host's own; NULL is fine.
  void *ctx;
  // Called once with `ctx` when nothing will use it any more; may be NULL.
  void (*destroy)(void *ctx);
  // Begins a transaction, for writing or only for reading. What is put into `transaction` comes back in the other
  // calls; NULL is fine.
  digi_result (*begin)(void *ctx, bool writes, void **transaction);
  // Commits a transaction that wrote, and ends it, whatever it answers.
  digi_result (*commit)(void *ctx, void *transaction);
  // Ends a transaction without its writes, and every one that only read.
  void (*rollback)(void *ctx, void *transaction);
  // Answers a query by calling `digi_answer_add` for every row.
  digi_result (*read)(void *ctx, void *transaction, const struct digi_query *query, struct digi_answer *answer);
  // Writes rows, each in place of one with the same key where there is one; or removes them.
  digi_result (*write)(void *ctx, void *transaction, const struct digi_row *rows, size_t count);
} digi_store;

// The host's say in what may be stored: `judge` is asked about every command of a member before it is stored, and about
// none of the host's own.
//
// It answers `DIGI_OK` to let it pass, or a `DIGI_ERR_...` to refuse it: the client gets that code
// (`DIGI_ERR_REFUSED` is meant for this; another number counts as it). `digi_verdict_set_text` replaces the message's
// text, or is the sentence that goes with a refusal. `role` is the member's `DIGI_ROLE_...`.
//
// It is called in any thread, several at once, with locks held: it must not block, and must not call Digi but for the
// verdict and ciphers.
typedef struct digi_policy {
  // `sizeof(digi_policy)`.
  size_t size;
  // The host's own; NULL is fine.
  void *ctx;
  // Called once with `ctx` when nothing will use it any more; may be NULL.
  void (*destroy)(void *ctx);
  // See above.
  digi_result (*judge)(void *ctx,
                       const struct digi_command *command,
                       int32_t role,
                       struct digi_verdict *verdict);
} digi_policy;

// The host's clock: `now` gives milliseconds since 1970-01-01T00:00:00Z. Called in any thread, several at once, with
// locks held: it must not block, and must not call Digi. It may go back; times of a room never do.
typedef struct digi_clock {
  // `sizeof(digi_clock)`.
  size_t size;
  // The host's own; NULL is fine.
  void *ctx;
  // Called once with `ctx` when nothing will use it any more; may be NULL.
  void (*destroy)(void *ctx);
  // See above.
  uint64_t (*now)(void *ctx);
} digi_clock;

// Takes one line of the log: its level (`DIGI_LOG_...`), which part of Digi says it, and the text, which holds no secret
// and no message's text. Called in any thread, several at once, with locks held: it must not block and must not call Digi.
typedef void (*digi_log_callback)(void *ctx,
                                  int32_t level,
                                  const char *target,
                                  size_t target_length,
                                  const char *text,
                                  size_t text_length);

// Says who a connection is: reads the handshake (`digi_handshake_get`), names the user (`digi_identity_set`) and answers
// `DIGI_OK`. Without a name, nobody is logged in: the connection is closed with `DIGI_CLOSE_UNAUTHENTICATED`. Another
// answer: it could not be found out, `DIGI_CLOSE_UNAVAILABLE`.
//
// Called in threads of Digi's, up to 32 at once. It may block for some seconds; it must not call functions that take an
// engine, session or server.
typedef digi_result (*digi_authenticate)(void *ctx,
                                         const struct digi_handshake *handshake,
                                         struct digi_identity *identity);

// How a server is to be. What stays zero is left at its default.
typedef struct digi_server_options {
  // `sizeof(digi_server_options)`.
  size_t size;
  // What precedes the token in the path. None: `/ws/chat/`.
  struct digi_text route;
  // The origins whose pages may connect, such as `https://chat.example`. None: pages of the host that the request is for.
  const struct digi_text *origins;
  // How many they are.
  size_t origin_count;
  // Who logs in by a JSON Web Token (HS256): the secret that signs it. The user is its `sub`, the name its `name`.
  struct digi_text jwt_secret;
  // Or the host says who it is: see `digi_authenticate`. One of the two is needed.
  digi_authenticate authenticate;
  // The host's own, for `authenticate`.
  void *ctx;
  // Called once with `ctx` when nothing will use it any more; may be NULL.
  void (*destroy)(void *ctx);
  // Sockets at once; 0: 20,000.
  uint32_t max_connections;
  // Whether other processes may listen on the same address (`SO_REUSEPORT`).
  bool reuse_port;
} digi_server_options;

// Something that happened; which members a kind uses is told at its `DIGI_INPUT_...`.
typedef struct digi_input {
  // `sizeof(digi_input)`.
  size_t size;
  // `DIGI_INPUT_...`.
  uint32_t kind;
  // In answers: what went wrong, or 0.
  digi_result code;
  // In answers: of the question.
  uint64_t ticket;
  // Milliseconds since 1970-01-01T00:00:00Z.
  uint64_t now;
  // What the client sent.
  struct digi_text text;
  // A room's id.
  int64_t room;
  // A generation of the numbering.
  uint64_t epoch;
  // A number in it.
  uint64_t seq;
  // Numbers up to here can no longer be read.
  uint64_t floor;
  // The rows cover every number up to here.
  uint64_t through;
  // `DIGI_ROLE_...`.
  int32_t role;
  // Rows.
  const struct digi_row *rows;
  // How many they are.
  size_t row_count;
  // What became of a command.
  struct digi_outcome outcome;
} digi_input;

// Something to do; which members a kind uses is told at its `DIGI_OUTPUT_...`. Everything in it lives until it is freed.
typedef struct digi_output {
  // `DIGI_OUTPUT_...`.
  uint32_t kind;
  // A `DIGI_CLOSE_...`.
  digi_result code;
  // To be given back with the answer; 0 where there is none.
  uint64_t ticket;
  // A room's id.
  int64_t room;
  // A generation of the numbering.
  uint64_t epoch;
  // A number in it.
  uint64_t seq;
  // Above this number.
  uint64_t after;
  // Before this place; 0: from the newest on.
  uint64_t before;
  // At most so many.
  uint64_t limit;
  // In joins: the member's `DIGI_ROLE_...`.
  int32_t role;
  // What to send; not ended by NUL.
  struct digi_text frame;
  // What to store. Last, because it may grow.
  struct digi_command command;
} digi_output;

// Done.
#define DIGI_OK 0

// Not done, nothing went wrong: there is nothing yet, or no space yet. Ask again later.
#define DIGI_AGAIN 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Digi's version: what the library is, where the header says what the program was compiled against. Lives for ever.
const char *digi_version(void);

// The stable name of a result, such as `not_a_member`, as it also stands in frames; `unknown` for a number that is none.
// Lives for ever.
const char *digi_result_name(digi_result result);

// The code of an error, the same as the function's result; `DIGI_OK` for NULL.
digi_result digi_error_code(const struct digi_error *error);

// The sentence of an error, ended by NUL; the empty text for NULL. Lives as long as the error.
const char *digi_error_text(const struct digi_error *error);

// Frees an error. NULL is fine.
void digi_error_free(struct digi_error *error);

// Makes a cipher out of one secret of at least 32 bytes (any bytes); the same secret gives the same tokens again.
//
// Errors: `DIGI_ERR_BAD_KEY` for one that is shorter.
digi_result digi_cipher_new(const char *secret,
                            size_t length,
                            struct digi_cipher **cipher,
                            struct digi_error **error);

// Makes a cipher out of several keys, as a JSON object:
//
// ```text
// {"keys": {"1": "last year's secret, long enough", "2": "this year's"}, "seal_with": 2}
// ```
//
// `keys` by their ids (0 to 255; never give an id to another secret), `seal_with` the one that seals, where there are
// several. `django`: a list of `SECRET_KEY` and its fallbacks, for a process beside a Django project. `fernet`: the keys
// of a classic app, whose links open then (`fernet_kinds`: `["room"]` by default); `"emit": "fernet"` seals for it, too.
//
// Errors: `DIGI_ERR_BAD_KEY`, `DIGI_ERR_CONFIG`; the text names the key, never a secret.
digi_result digi_cipher_from_json(const char *json,
                                  size_t length,
                                  struct digi_cipher **cipher,
                                  struct digi_error **error);

// Writes the token of an id (`kind`: `DIGI_KIND_...`) into `token`, ended by NUL, and its length without that into
// `length`, which may be NULL. `size` is that of `token`; `DIGI_TOKEN_SIZE` is enough. Of a message's id it is what
// frames have as `message_id`.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` when the token does not fit.
digi_result digi_cipher_seal(const struct digi_cipher *cipher,
                             uint32_t kind,
                             int64_t id,
                             char *token,
                             size_t size,
                             size_t *length,
                             struct digi_error **error);

// Opens a token of that kind and writes the id into `id`: of a frame's `message_id` (`DIGI_KIND_MESSAGE`) the number
// for `digi_command.message_id`.
//
// Errors: `DIGI_ERR_BAD_TOKEN`, whatever the reason.
digi_result digi_cipher_open(const struct digi_cipher *cipher,
                             uint32_t kind,
                             const char *token,
                             size_t length,
                             int64_t *id,
                             struct digi_error **error);

// Frees a cipher; engines and consumers made with it keep what they need. NULL is fine.
void digi_cipher_free(struct digi_cipher *cipher);

// The text, which is not ended by NUL, and its length in bytes. Lives as long as the frame.
const char *digi_frame_text(const struct digi_frame *frame, size_t *length);

// Frees a frame. NULL is fine.
void digi_frame_free(struct digi_frame *frame);

// A text that the client has sent (the frames are listed at the header's top). Whatever is wrong with it, also that there
// are too many, the client is told in a frame, and the answer is `DIGI_OK`.
//
// `timeout_ms` is how long to wait where the session is not in its room yet, or too much waits to be stored already:
// 0 not at all, -1 for ever. `DIGI_AGAIN`: not taken, give it again.
//
// Errors: a `DIGI_CLOSE_...` when the session is closed; instead `DIGI_ERR_ENGINE_CLOSED` once its engine is closing
// or freed (if the session has been in its room); `DIGI_ERR_ENGINE_FORKED`; `DIGI_ERR_BAD_ARGUMENT` (also for what is
// not UTF-8; see `digi_session_receive_unreadable`).
digi_result digi_session_receive(struct digi_session *session,
                                 const char *text,
                                 size_t length,
                                 int64_t timeout_ms,
                                 struct digi_error **error);

// The client has sent what is no readable text: it gets an `error` frame with this code (`DIGI_ERR_NOT_TEXT`,
// `DIGI_ERR_FRAME_TOO_LARGE`, ...). Before the session is in its room it does nothing.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` for a number that is no code.
digi_result digi_session_receive_unreadable(struct digi_session *session,
                                            digi_result code,
                                            struct digi_error **error);

// The next frame for the client, to be freed with `digi_frame_free`. `timeout_ms` is how long to wait for it: 0 not at
// all, -1 for ever. `DIGI_AGAIN`: there is none yet.
//
// Errors: a `DIGI_CLOSE_...` once the session is closed and every frame has been handed out: close the client's connection
// with this number, and free the session. `DIGI_ERR_ENGINE_FORKED`.
digi_result digi_session_next(struct digi_session *session,
                              int64_t timeout_ms,
                              struct digi_frame **frame,
                              struct digi_error **error);

// As `digi_session_next`, for several frames with one call: up to `most` into `frames`, and how many into `count`. It
// waits for the first only.
digi_result digi_session_next_many(struct digi_session *session,
                                   int64_t timeout_ms,
                                   struct digi_frame **frames,
                                   size_t most,
                                   size_t *count,
                                   struct digi_error **error);

// A descriptor of this session alone that is readable while there is something to read (and once the session is
// closed), for poll, epoll or kqueue: don't read from it, call `digi_session_next` until it says `DIGI_AGAIN`. Made at the
// first call, and closed with `digi_session_free`. With many sessions `digi_engine_descriptor` costs one for all.
//
// Errors: `DIGI_ERR_CONFIG` when the system has no descriptor left.
digi_result digi_session_descriptor(struct digi_session *session,
                                    int *descriptor,
                                    struct digi_error **error);

// The pointer that `digi_engine_connect` was given with the scope; NULL for NULL.
void *digi_session_data(const struct digi_session *session);

// Closes the session with one of the `DIGI_CLOSE_...` numbers (`DIGI_CLOSE_NORMAL` when the client has gone). Frames that
// wait are still handed out, then this number. A session that is closed already keeps its own.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` for a number that is no close code.
digi_result digi_session_close(struct digi_session *session,
                               digi_result code,
                               struct digi_error **error);

// Ends the session, if it is open, and frees it; it leaves its room at once. NULL is fine. May be called for a session
// within its own callback, and after its engine was freed.
void digi_session_free(struct digi_session *session);

// Opens the store, brings its schema up to date and starts the engine.
//
// Errors: `DIGI_ERR_CONFIG`, `DIGI_ERR_BAD_URL`, `DIGI_ERR_SCHEMA`, `DIGI_ERR_FILE_IN_USE`,
// `DIGI_ERR_STORE_UNAVAILABLE` (also for a SQLite file that can't be opened; the text says why),
// `DIGI_ERR_STORE_FULL`.
digi_result digi_engine_new(const struct digi_config *config,
                            struct digi_engine **engine,
                            struct digi_error **error);

// Takes a connection in, without waiting for the store: the session comes at once. Its first frame (`resumed`, or with
// `scope.after` what was missed) says that it is in its room, and gets what is stored from then on. If it may not enter, or
// its token does not open, `digi_session_next` gives the close code, and no frame.
//
// Errors: a `DIGI_CLOSE_...` to close the connection with where that is known at once (too many sessions, closing);
// `DIGI_ERR_BAD_ARGUMENT`, `DIGI_ERR_ENGINE_FORKED`. There is no session then.
digi_result digi_engine_connect(struct digi_engine *engine,
                                const struct digi_scope *scope,
                                struct digi_session **session,
                                struct digi_error **error);

// Sessions that have something to read, up to `most` into `sessions` and how many into `count`; call `digi_session_next` for
// them. A session stays on this list until `digi_session_next` has said `DIGI_AGAIN` or a close code for it, and those that
// were not given come first the next time; so nothing is lost if not all are read at once. One may also be given that
// has nothing (more) to read. `timeout_ms` is how long to wait for the first: 0 not at all, -1 for ever. `DIGI_AGAIN`: none.
//
// Errors: `DIGI_ERR_ENGINE_CLOSED` after `digi_engine_close`, once every session on the list has said its close code.
//
// Threads: free a session in the thread that calls this, or while no thread does; else it may be given to one that has
// just lost it.
digi_result digi_engine_ready(struct digi_engine *engine,
                              int64_t timeout_ms,
                              struct digi_session **sessions,
                              size_t most,
                              size_t *count,
                              struct digi_error **error);

// A descriptor that is readable while `digi_engine_ready` has sessions to give, for poll, epoll, kqueue or libuv. Don't
// read from it: call `digi_engine_ready` with timeout 0, which may also say `DIGI_AGAIN`. One for all sessions; it belongs to the
// engine.
//
// Errors: `DIGI_ERR_CONFIG` when the system has no descriptor left.
digi_result digi_engine_descriptor(struct digi_engine *engine,
                                   int *descriptor,
                                   struct digi_error **error);

// Hands every frame of every session to `callback`, from a thread of Digi's that does nothing else: one call at a time,
// a session's frames in their order. The callback may call everything, also free its session or the engine; while it
// blocks, nobody gets frames. Once per engine, and instead of `digi_engine_ready` and `digi_session_next`. `destroy`, which
// may be NULL, is called with `ctx` after the last call; if this function fails, `ctx` stays the host's.
//
// Threads: free sessions within the callback; elsewhere it may just be called with the one that is freed.
//
// Errors: `DIGI_ERR_CONFIG` where there is one already, or the system gives no thread.
digi_result digi_engine_on_frame(struct digi_engine *engine,
                                 digi_frame_callback callback,
                                 void *ctx,
                                 void (*destroy)(void *ctx),
                                 struct digi_error **error);

// Makes a room and writes its id into `room`: `id`, between 1 and 2147483647, or with 0 one above the highest that
// there is. `members` are its first members; of several with the same user the last counts. Waits for the store.
//
// Room, id and members stay in the store, and no function finds a room by its `name`, which may be empty. So remember
// the id, or give one of your own and make the room at every start: `DIGI_ERR_ROOM_EXISTS` then says that it is there,
// and leaves everything as it is, its members too (`digi_engine_submit` as host, with `DIGI_CHANGE_JOIN`, adds some).
//
// Errors: `DIGI_ERR_ROOM_EXISTS`, `DIGI_ERR_STORE_UNAVAILABLE`, `DIGI_ERR_STORE_FULL`, `DIGI_ERR_STORE_REJECTED` (such
// as an id out of range), `DIGI_ERR_BAD_ARGUMENT`.
digi_result digi_engine_create_room(struct digi_engine *engine,
                                    int64_t id,
                                    const char *name,
                                    size_t name_length,
                                    const struct digi_member *members,
                                    size_t member_count,
                                    int64_t *room,
                                    struct digi_error **error);

// Has a change stored, in a user's name or the host's, and waits until it is. `outcome` may be NULL. The room is told of
// messages; that a membership has ended, its own sessions are told by `DIGI_CLOSE_REMOVED`, and that one has begun, nobody.
// Without `as_host` a join or leave is `DIGI_ERR_REFUSED`.
//
// Errors: what the change is refused with, such as `DIGI_ERR_NOT_A_MEMBER`, `DIGI_ERR_NO_SUCH_MESSAGE`,
// `DIGI_ERR_EMPTY_BODY`; `DIGI_ERR_STORE_UNAVAILABLE`; `DIGI_ERR_ENGINE_CLOSED`.
digi_result digi_engine_submit(struct digi_engine *engine,
                               const struct digi_command *command,
                               struct digi_outcome *outcome,
                               struct digi_error **error);

// Closes every session of a user with `DIGI_CLOSE_KICKED`, on every node that the channel layer reaches; with a `login`
// those only that were begun by it (`digi_scope.login`), with `DIGI_CLOSE_UNAUTHENTICATED`. Who must not come back is to
// lose the membership, too.
digi_result digi_engine_kick(struct digi_engine *engine,
                             const char *user,
                             size_t user_length,
                             const char *login,
                             size_t login_length,
                             struct digi_error **error);

// To be called once after every restore of a backup, before anybody writes: raises the epoch of every room, so that no
// client takes new messages for old ones.
digi_result digi_engine_restored(struct digi_engine *engine,
                                 struct digi_error **error);

// Removes a room's messages that were added before a time (milliseconds since 1970-01-01T00:00:00Z), for good, and
// writes how many they were into `removed`, which may be NULL. Clients that show them are not told; a `client_id` of one
// of them counts as new from now on.
//
// Errors: `DIGI_ERR_NO_SUCH_ROOM`, `DIGI_ERR_STORE_UNAVAILABLE`.
digi_result digi_engine_purge(struct digi_engine *engine,
                              int64_t room,
                              uint64_t before,
                              uint64_t *removed,
                              struct digi_error **error);

// Writes what the engine has done into `stats`, whose member `size` the caller has set.
digi_result digi_engine_stats(const struct digi_engine *engine,
                              struct digi_stats *stats,
                              struct digi_error **error);

// Ends in good order, and waits for it: takes nothing new in, stores and hands out what is queued, then closes the
// sessions with `DIGI_CLOSE_RESTART`, spread over `close_spread_ms`. What they have to read can still be read. From
// its beginning on `digi_engine_submit` and (for sessions that are in their room) `digi_session_receive` answer
// `DIGI_ERR_ENGINE_CLOSED`, and `digi_engine_connect` `DIGI_CLOSE_RESTART`.
digi_result digi_engine_close(struct digi_engine *engine,
                              struct digi_error **error);

// Ends the engine at once and frees it, after `digi_engine_close` if nothing is to be lost that was taken in. Servers
// are to be freed before. NULL is fine.
//
// Sessions that are left are closed with `DIGI_CLOSE_RESTART`, unless they were already, and whoever waits in them
// waits no longer: `digi_session_next` gives what there is to read and then the close code, `digi_session_receive`
// answers `DIGI_ERR_ENGINE_CLOSED`. They are to be freed; the last one that is closes the store (a SQLite file is open
// until then).
void digi_engine_free(struct digi_engine *engine);

// Makes a configuration with these keys and the defaults for everything else: messages in memory, no other nodes.
digi_result digi_config_new(const struct digi_cipher *cipher,
                            struct digi_config **config,
                            struct digi_error **error);

// Sets what has a name, as text:
//
// | name | value |
// |---|---|
// | `store` | `memory:`, `sqlite:path`, `mssql://user:password@host/database` |
// | `layer` | `local:`, `redis://host:6379/0` and its kin, for several nodes |
// | `bridge` | `pubsub redis://...` or `core redis://...`: to stock Django Channels workers |
// | `strict` | `true`: refuse frames that claim another user instead of ignoring the claim |
// | `presence` | `true`: tell members who comes and goes |
// | `threads` | of the engine's own; by default as many as the machine has cores, up to 4 |
// | a bound, see below | a whole number |
//
// What is not set: `memory:`, `local:`, no bridge, `false`. A path of `sqlite:` is relative to the directory that the
// process is in when `digi_engine_new` is called, and ends at the first `?`. `?max_mb=500&readers=4&busy_ms=5000` may
// follow, all or some: the file's bound in MiB (left out: none), reads at once, milliseconds to wait for another
// process that writes. The file is made if it is not there; its directory is not (`DIGI_ERR_BAD_URL`). Several engines
// may have it open, in one process or in several on the same machine; but no other copy of SQLite in the same process
// (`DIGI_ERR_FILE_IN_USE`), and it belongs on a local disk. The files `-wal` and `-shm` beside it are part of it.
//
// The bounds with their defaults (docs/deployment.md says what happens at each): `frame_bytes` 131072, `body_bytes`
// 16384, `in_flight` 256, `history` 50, `replay_bytes` 1048576, `frames_per_second` 50, `frames_burst` 200,
// `refusals_per_second` 2, `refusals_burst` 100, `outbox_frames` 4096, `outbox_bytes` 4194304, `room_sessions` 100000,
// `sessions` 100000, `sessions_per_user` 100, `queued` 10000, `batch` 1000, `close_spread_ms` 3000.
//
// Errors: `DIGI_ERR_CONFIG` for an unknown name or a wrong value. URLs are looked at by `digi_engine_new`.
digi_result digi_config_set(struct digi_config *config,
                            const char *name,
                            size_t name_length,
                            const char *value,
                            size_t value_length,
                            struct digi_error **error);

// Lets the host keep the rooms: see `digi_store`. The struct is copied, and its `ctx` belongs to Digi once this has
// succeeded; if it fails, it stays the host's.
digi_result digi_config_set_store(struct digi_config *config,
                                  const struct digi_store *store,
                                  struct digi_error **error);

// Asks the host before anything is stored: see `digi_policy`. The struct is copied, and its `ctx` belongs to Digi from
// here on, as with `digi_config_set_store`.
digi_result digi_config_set_policy(struct digi_config *config,
                                   const struct digi_policy *policy,
                                   struct digi_error **error);

// Lets the host say what time it is: see `digi_clock`. The struct is copied, and its `ctx` belongs to Digi from here on,
// as with `digi_config_set_store`.
digi_result digi_config_set_clock(struct digi_config *config,
                                  const struct digi_clock *clock,
                                  struct digi_error **error);

// Frees a configuration; engines and consumers made with it stay. NULL is fine.
void digi_config_free(struct digi_config *config);

// Sets the text that goes with a policy's answer: the message's new text, or the sentence of a refusal.
digi_result digi_verdict_set_text(struct digi_verdict *verdict,
                                  const char *text,
                                  size_t length,
                                  struct digi_error **error);

// Adds a row to an answer; it is copied.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` where the row is none that was asked for, or lacks something.
digi_result digi_answer_add(struct digi_answer *answer,
                            const struct digi_row *row,
                            struct digi_error **error);

// Hands the log of the whole process to `callback`: lines up to `level`. NULL: to nobody, as at first. `destroy`, which
// may be NULL, is called with `ctx` once the callback is no longer used.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` for a level that is none.
digi_result digi_log(int32_t level,
                     digi_log_callback callback,
                     void *ctx,
                     void (*destroy)(void *ctx),
                     struct digi_error **error);

// Starts a server on an address such as `127.0.0.1:9001` (port 0: any that is free). `options` are copied, and their `ctx`
// belongs to Digi once this has succeeded; if it fails, it stays the host's.
//
// Errors: `DIGI_ERR_CONFIG` when a setting is wrong or the address cannot be bound, `DIGI_ERR_BAD_KEY` for a secret below 32
// bytes.
digi_result digi_server_start(struct digi_engine *engine,
                              const char *address,
                              size_t address_length,
                              const struct digi_server_options *options,
                              struct digi_server **server,
                              struct digi_error **error);

// What a handshake says, into `value`, which lives until the callback returns: a header by its name in lower case
// (`cookie`), or `:path`, `:query`, `:remote` (the client's address, behind a proxy the proxy's). A header that is not
// there, or is not readable text, gives none (`data` NULL), and `DIGI_OK`.
digi_result digi_handshake_get(const struct digi_handshake *handshake,
                               const char *name,
                               size_t name_length,
                               struct digi_text *value,
                               struct digi_error **error);

// Names the user behind a connection: an immutable key, the name that others see (NULL: the key), and by what the host
// knows this log-in again (NULL: nothing; see `digi_scope.login`).
digi_result digi_identity_set(struct digi_identity *identity,
                              struct digi_text user,
                              struct digi_text user_name,
                              struct digi_text login,
                              struct digi_error **error);

// Writes the address that is listened on, with its port, into `address`, ended by NUL; 64 bytes are enough.
digi_result digi_server_address(const struct digi_server *server,
                                char *address,
                                size_t size,
                                struct digi_error **error);

// Closes the engine, as `digi_engine_close` does, and then the server: from now on nobody is let in, what is queued is
// stored, every client is told to reconnect, and this returns when the last socket is closed. From the second time on it
// does nothing.
digi_result digi_server_stop(struct digi_server *server,
                             struct digi_error **error);

// Stops listening, if it does, and frees the server; sockets that are connected stay as long as the engine. NULL is fine.
void digi_server_free(struct digi_server *server);

// Makes a consumer for a connection, under the keys, bounds and policy of `config`; its store and layer are not used.
digi_result digi_consumer_new(const struct digi_config *config,
                              const struct digi_scope *scope,
                              struct digi_consumer **consumer,
                              struct digi_error **error);

// Tells a consumer what happened. An answer to a question that is no longer open is ignored.
//
// Errors: `DIGI_ERR_BAD_ARGUMENT` for an input that is none.
digi_result digi_consumer_push(struct digi_consumer *consumer,
                               const struct digi_input *input,
                               struct digi_error **error);

// What to do next, in this order; to be freed with `digi_output_free`. `DIGI_AGAIN`: nothing until the next input.
digi_result digi_consumer_pop(struct digi_consumer *consumer,
                              struct digi_output **output,
                              struct digi_error **error);

// The frame that everybody in the room gets for a change of a message: `change` is one of `DIGI_CHANGE_ADD`, `..._EDIT` and
// `..._DELETE`, `seq` the change's number, `message` the message after it (`DIGI_ROW_MESSAGE`). Encode once, send to all.
digi_result digi_consumer_encode(const struct digi_consumer *consumer,
                                 uint32_t change,
                                 uint64_t seq,
                                 const struct digi_row *message,
                                 struct digi_frame **frame,
                                 struct digi_error **error);

// Frees an output and what it points to. NULL is fine.
void digi_output_free(struct digi_output *output);

// Frees a consumer. NULL is fine.
void digi_consumer_free(struct digi_consumer *consumer);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* DIGI_H */

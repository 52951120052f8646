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

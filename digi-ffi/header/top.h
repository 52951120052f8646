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
 * What clients send (docs/protocol.md tells all of it, and what they get): {"type":"add","message":"..."},
 * {"type":"edit","message_id":"...","message":"..."}, {"type":"delete","message_id":"..."}, {"type":"history","limit":50},
 * {"type":"resume","after":"<cursor>"}, {"type":"typing"}. With a "client_id" an answer comes back.
 *
 * Conventions, which every function keeps:
 *
 * - Results. A function that can fail answers a digi_result: DIGI_OK, DIGI_AGAIN ("not now"), or the number of what went
 *   wrong, out of one table (below, and in docs/errors.md). Its last parameter is where the reason goes, as a digi_error
 *   to be freed; NULL: nobody asks. DIGI_OK and DIGI_AGAIN leave it as it is, everything else writes a new one there. What a function gives goes to pointers that are written only if it succeeds.
 * - Handles. What digi_<type>_new and its kin give is opaque and belongs to the caller, until digi_<type>_free, once;
 *   NULL may be freed. Use of a handle after that is a bug that nothing can catch.
 * - Texts are UTF-8 with an explicit length in bytes, and need no NUL at the end. Digi copies what it keeps: an argument
 *   need not live longer than the call. NULL, text that is not UTF-8, a length beyond any text: DIGI_ERR_BAD_ARGUMENT, and
 *   the reason names the argument.
 * - Structs of the caller's begin with their size (digi_scope scope = {.size = sizeof scope}); what is not set is zero, and means
 *   "none" or "the default". So programs go on with a newer library whose structs have grown.
 * - Threads. Every function may be called in any thread, at once with any other, but those that free. Functions that
 *   wait say so, and take a timeout where it matters: 0 not at all, -1 for ever.
 * - Callbacks come in threads of Digi's and must not unwind (no C++ exception, no longjmp). Where a callback must not call
 *   back, a function answers DIGI_ERR_IN_CALLBACK instead of waiting for ever.
 * - After a fork, the child has none of Digi's threads: what was made before answers DIGI_ERR_ENGINE_FORKED, and may be
 *   freed. Make new ones there.
 * - Valgrind takes a block of 48 bytes per calling thread for "possibly lost": Rust's name for the thread, kept to its end.
 * - No panic of Rust's crosses: it ends as DIGI_ERR_INTERNAL, and is a bug.
 *
 * C++: digi.hpp has all this with destructors, std::string_view and exceptions. Generated by `make header`; do not edit.
 */

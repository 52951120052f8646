/* So many sessions one after the other, in waves of a hundred in one room; the memory it has afterwards, in KiB, after a
 * first tenth and at the end. */
#include "check.h"

#include <unistd.h>

static long resident(void) {
  long pages = 0;
  FILE *file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%*s %ld", &pages) == 1);
  fclose(file);
  return pages * sysconf(_SC_PAGESIZE) / 1024;
}

int main(int argc, char **argv) {
  int many = argc > 1 ? atoi(argv[1]) : 1000, done, i;
  long before = 0;
  digi_cipher *cipher = new_cipher();
  digi_config *config = new_config(cipher, NULL);
  digi_engine *engine;
  int64_t room;

  OK(digi_config_set(config, TEXT("sessions_per_user"), TEXT("1000"), &error));
  engine = new_engine(config);
  room = new_room(engine);
  for (done = 0; done < many; done += 100) {
    digi_session *sessions[100];
    for (i = 0; i < 100; i++) sessions[i] = join(engine, cipher, room, i % 2 ? "7" : "8", "somebody");
    for (i = 0; i < 100; i++) expect(sessions[i], "resumed", "");
    say(sessions[0], "{\"type\": \"add\", \"message\": \"hello\"}");
    for (i = 1; i < 100; i++) expect(sessions[i], "add", "hello");
    for (i = 0; i < 100; i++) digi_session_free(sessions[i]);
    if (done == many / 10 / 100 * 100) before = resident();
  }
  printf("%ld %ld\n", before, resident());
  OK(digi_engine_close(engine, &error));
  digi_engine_free(engine);
  digi_config_free(config);
  digi_cipher_free(cipher);
  return 0;
}

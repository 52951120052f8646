/* A disk that fails, under a process that has this loaded by LD_PRELOAD: for chat.db and chat.db-wal.
 *
 * What would be left of each after a power cut is kept beside it, in a file whose name has ".disk" behind. What is
 * written gets there with the next fsync, page by page, as in Linux; cutting a file off is taken for durable at once.
 * While there is a file with ".fail" behind its name, fsync fails, once for each byte of that. It forgets then which
 * pages were to be written, as Linux does: the next one succeeds and never brings them to the disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PAGE = 4096, PAGES = 1 << 14 };

static struct file {
    const char *name;
    bool dirty[PAGES];
} files[] = {{.name = "/chat.db"}, {.name = "/chat.db-wal"}};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The file that is open there, if it is one of the two, and its path. */
static struct file *find(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    int saved = errno;
    ssize_t length = readlink(link, path, PATH_MAX - 8);
    errno = saved;
    path[length < 0 ? 0 : length] = '\0';
    const char *name = strrchr(path, '/');
    for (int i = 0; name && i < 2; i++)
        if (!strcmp(name, files[i].name)) return &files[i];
    return NULL;
}

static int open_shadow(char path[PATH_MAX]) {
    int fd = open(strcat(path, ".disk"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) abort();
    return fd;
}

/* Whether to fail this time. */
static bool is_told_to_fail(const char *path) {
    char told[PATH_MAX + 8];
    struct stat status;
    snprintf(told, sizeof told, "%s.fail", path);
    if (stat(told, &status) < 0) return false;
    if (status.st_size > 1 ? truncate(told, status.st_size - 1) : unlink(told)) abort();
    return true;
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t at) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_pwrite64, fd, bytes, size, at);
    struct file *file = find(fd, path);
    if (file && written > 0) {
        if ((at + written) / PAGE >= PAGES) abort();
        for (off64_t page = at / PAGE; page <= (at + written - 1) / PAGE; page++) file->dirty[page] = true;
    }
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t at) { return pwrite64(fd, bytes, size, at); }

int ftruncate64(int fd, off64_t size) {
    char path[PATH_MAX];
    pthread_mutex_lock(&lock);
    int done = syscall(SYS_ftruncate, fd, size);
    struct file *file = done ? NULL : find(fd, path);
    if (file) {
        int shadow = open_shadow(path);
        if (syscall(SYS_ftruncate, shadow, size)) abort();
        close(shadow);
        for (off64_t page = (size + PAGE - 1) / PAGE; page < PAGES; page++) file->dirty[page] = false;
    }
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int fsync(int fd) {
    char path[PATH_MAX], page[PAGE];
    pthread_mutex_lock(&lock);
    struct file *file = find(fd, path);
    int done = file && is_told_to_fail(path) ? (errno = EIO, -1) : syscall(SYS_fsync, fd);
    if (file && !done) {
        int shadow = open_shadow(path);
        for (off64_t i = 0; i < PAGES; i++) {
            ssize_t size = file->dirty[i] ? pread(fd, page, PAGE, i * PAGE) : 0;
            if (size < 0 || (size && syscall(SYS_pwrite64, shadow, page, size, i * PAGE) != size)) abort();
        }
        close(shadow);
    }
    if (file) memset(file->dirty, false, sizeof file->dirty);
    pthread_mutex_unlock(&lock);
    return done;
}

int fdatasync(int fd) { return fsync(fd); }

/* Makes the K-th open, write, sync or truncate below a folder fail, in processes of asyncq only.
 *
 * Preloaded. `$SHIM_FOLDER` is the folder, `$SHIM_CONTROL` a file that holds a `struct control`, which the test writes and
 * reads while the program runs, and `$SHIM_LOG` is told of every call that counts. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

struct control {
    uint32_t first;   /* the number of the first call that fails, from 1; 0: none */
    uint32_t last;    /* the number of the last one */
    int32_t error;    /* errno, or 0 for a write that is cut short */
    uint32_t count;   /* how many calls there were */
    uint32_t fired;   /* how many of them failed */
};

static struct control *control;
static const char *folder;
static const char *log_path;

__attribute__((constructor)) static void begin(void) {
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    const char *path = getenv("SHIM_CONTROL");
    if (length < 7 || !path || memcmp(program + length - 7, "/asyncq", 7) != 0) return;
    folder = getenv("SHIM_FOLDER");
    log_path = getenv("SHIM_LOG");
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
    void *memory = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (memory != MAP_FAILED) control = memory;
}

static int below(const char *path) {
    return control && strncmp(path, folder, strlen(folder)) == 0;
}

static int path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return 1;
}

static void tell(const char *what, const char *path, const char *outcome) {
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%s %s %s\n", what, outcome, path);
    int file = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    syscall(SYS_write, file, line, length);
    syscall(SYS_close, file);
}

/* Counts a call; says whether it is to fail. */
static int fails(const char *what, const char *path) {
    uint32_t number = __atomic_add_fetch(&control->count, 1, __ATOMIC_SEQ_CST);
    uint32_t first = __atomic_load_n(&control->first, __ATOMIC_SEQ_CST);
    int hit = first && number >= first && number <= control->last;
    if (hit) __atomic_add_fetch(&control->fired, 1, __ATOMIC_SEQ_CST);
    tell(what, path, hit ? "fails" : "works");
    errno = hit ? control->error : errno;
    return hit;
}

static int file_fails(const char *what, int file) {
    char path[PATH_MAX];
    int saved = errno;
    if (!control || !path_of(file, path) || !below(path)) {
        errno = saved;
        return 0;
    }
    errno = saved;
    /* Only writes can be short. */
    if (control->error == 0 && strcmp(what, "write") != 0) return 0;
    return fails(what, path);
}

static int open_file(int at, const char *path, int flags, mode_t mode) {
    if (path[0] == '/' && below(path) && control->error != 0 && fails("open", path)) return -1;
    return syscall(SYS_openat, at, path, flags, mode);
}

#define MODE(flags) ({ va_list list; va_start(list, flags); \
    mode_t mode = (flags) & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; va_end(list); mode; })

int open(const char *path, int flags, ...) { return open_file(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_file(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int at, const char *path, int flags, ...) { return open_file(at, path, flags, MODE(flags)); }
int openat64(int at, const char *path, int flags, ...) { return open_file(at, path, flags, MODE(flags)); }

/* How much to write: all, half of it, or nothing because that fails. */
static ssize_t share(int file, size_t count) {
    if (control && control->error == 0 && count < 2) return count;
    if (!file_fails("write", file)) return count;
    return control->error == 0 ? (ssize_t)(count / 2) : -1;
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t some = share(file, count);
    return some < 0 ? -1 : syscall(SYS_write, file, bytes, some);
}
ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t at) {
    ssize_t some = share(file, count);
    return some < 0 ? -1 : syscall(SYS_pwrite64, file, bytes, some, at);
}
ssize_t pwrite(int file, const void *bytes, size_t count, off_t at) { return pwrite64(file, bytes, count, at); }

/* Nobody cuts the power here, so that the disk need not work. */
int fsync(int file) { return file_fails("sync", file) ? -1 : 0; }
int fdatasync(int file) { return file_fails("sync", file) ? -1 : 0; }
int ftruncate64(int file, off64_t size) { return file_fails("truncate", file) ? -1 : syscall(SYS_ftruncate, file, size); }
int ftruncate(int file, off_t size) { return ftruncate64(file, size); }

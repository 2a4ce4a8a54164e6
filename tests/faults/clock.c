/* The clock of the machine as a test wants it, for the programs that are started with this in LD_PRELOAD: all of them see the
 * same one, and can be shown another one while they run. The clock that only counts on is left alone, as by whoever sets a
 * machine's clock.
 *
 * CLOCK names a file that begins with the number of the setting which holds; each setting is three numbers: the moment from
 * which it holds, the moment that it shows then, and how much faster it goes; all in microseconds since 1970.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t *file;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("CLOCK");
    int descriptor = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *memory = descriptor < 0 ? MAP_FAILED : mmap(NULL, 4096, PROT_READ, MAP_SHARED, descriptor, 0);
    if (memory == MAP_FAILED) abort();
    close(descriptor);
    file = memory;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (result != 0 || !file || (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE)) return result;
    const int64_t *setting = file + 1 + 3 * __atomic_load_n(file, __ATOMIC_ACQUIRE);
    int64_t now = time->tv_sec * 1000000LL + time->tv_nsec / 1000;
    int64_t shown = setting[1] + (now - setting[0]) * setting[2];
    time->tv_sec = shown / 1000000;
    time->tv_nsec = shown % 1000000 * 1000;
    return 0;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where) *where = now.tv_sec;
    return now.tv_sec;
}

/* Cron sleeps until the next minute in whole seconds. */
unsigned int sleep(unsigned int seconds) {
    int64_t speed = file ? (file + 1 + 3 * __atomic_load_n(file, __ATOMIC_ACQUIRE))[2] : 1;
    int64_t nanoseconds = seconds * 1000000000LL / (speed < 1 ? 1 : speed) + 1;
    struct timespec left = {nanoseconds / 1000000000, nanoseconds % 1000000000};
    return nanosleep(&left, &left) == 0 ? 0 : (unsigned int)(left.tv_sec * speed) + 1;
}

/* A function that does not want to end, in the shape that its first word names. Every process of it notes itself, with the
 * time of its start, in the file that is named for its job in the folder PIDS, so that a test can see what is left.
 *
 * hostile SHAPE [COUNT]      COUNT: how many processes or threads, where there are many; how many bytes, for a flood
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char notes[4096];
static int count = 200;

static void fail(const char *what) { perror(what); _exit(99); }

static void write_down(const char *format, ...) {
    char line[200];
    va_list words;
    va_start(words, format);
    int length = vsnprintf(line, sizeof line, format, words);
    va_end(words);
    /* Opened each time: a process may have closed everything that it had. */
    int file = open(notes, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (file < 0 || write(file, line, length) != length) fail(notes);
    close(file);
}

/* Notes this process, as `PID START`: the number and the 22nd field of its stat (proc(5)). */
static void note(void) {
    char stat[4096];
    int file = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    ssize_t length = file < 0 ? -1 : read(file, stat, sizeof stat - 1);
    if (length <= 0) fail("/proc/self/stat");
    close(file);
    stat[length] = 0;
    /* The number as the outermost namespace has it, which has mounted this /proc. */
    long pid = atol(stat);
    char *field = strrchr(stat, ')') + 1;
    for (int number = 2; number < 21; number++) field = strchr(field + 1, ' ');
    write_down("%ld %llu\n", pid, strtoull(field, NULL, 10));
}

static void ready(void) { write_down("READY\n"); }

/* The system does not allow this shape. */
static void unable(const char *why) { write_down("UNABLE %s: %s\n", why, strerror(errno)); ready(); }

static void deaf(void) {
    int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE, SIGUSR1, SIGTTOU};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_IGN);
}

static void stay(void) { for (;;) pause(); }

static void microseconds(long number) {
    struct timespec time = {number / 1000000, number % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* Forks; the child is noted before the parent goes on. */
static pid_t noted_fork(void) {
    int line[2];
    char byte;
    if (pipe2(line, O_CLOEXEC) != 0) fail("pipe");
    pid_t child = fork();
    if (child < 0) fail("fork");
    close(line[child == 0 ? 0 : 1]);
    if (child == 0) note();
    else (void)!read(line[0], &byte, 1);
    close(line[child == 0 ? 1 : 0]);
    return child;
}

/* Until the processor, too, has gone on after it has started this: what forks in that very moment is a limit of its own, if
 * it also gives up its environment (docs/reliability.md). */
static void settle(void) {
    for (int score = 0; score < 500; microseconds(1000)) {
        FILE *file = fopen("/proc/self/oom_score_adj", "r");
        if (!file || fscanf(file, "%d", &score) != 1) fail("oom_score_adj");
        fclose(file);
    }
}

/* Goes on in a process that nobody is the parent of, in a session of its own; the one that calls this stays, obediently. */
static void daemonize(void) {
    if (noted_fork() != 0) {
        wait(NULL);
        stay();
    }
    setsid();
    if (noted_fork() != 0) _exit(0);
    deaf();
}

static void *thread(void *_) { (void)_; stay(); return NULL; }

static void start_thread(void *(*what)(void *)) {
    pthread_t id;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    if (pthread_create(&id, &small, what, NULL) != 0) fail("thread");
}

static void *outlive(void *_) { (void)_; microseconds(50000); ready(); stay(); return NULL; }

static void reborn(int _) {
    (void)_;
    if (fork() != 0) _exit(0);
    note();
    setsid();
}

/* Keeps `count` processes alive: each makes new ones while there are too few, and now and then ends. */
static void storm(int scatter) {
    int *living = mmap(NULL, sizeof *living, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (living == MAP_FAILED) fail("memory");
    deaf();
    signal(SIGCHLD, SIG_IGN);
    *living = 1;
    int told = 0;
    pid_t first = getpid();
    unsigned seed = first;
    for (;;) {
        if (__sync_fetch_and_add(living, 1) < count) {
            pid_t child = fork();
            if (child < 0) __sync_fetch_and_sub(living, 1);
            if (child == 0) {
                if (scatter) setsid();
                seed = getpid();
                note();
            }
            continue;
        }
        __sync_fetch_and_sub(living, 1);
        if (getpid() == first) {
            if (!told++) ready();
        } else if (rand_r(&seed) % 20 == 0) {
            __sync_fetch_and_sub(living, 1);
            _exit(0);
        }
        microseconds(20000);
    }
}

static void flood(long long bytes) {
    static char block[64 * 1024];
    for (unsigned i = 0; i < sizeof block; i++) block[i] = i % 256 == '\n' ? 0 : i % 256;
    for (long long done = 0, turn = 0; bytes < 0 || done < bytes; turn++) {
        long long size = bytes < 0 || bytes - done > (long long)sizeof block ? (long long)sizeof block : bytes - done;
        ssize_t written = write(1 + turn % 2, block, size);
        if (written < 0) fail("flood");
        done += written;
    }
}

/* Writes so little at once, in turns to both streams. */
static void drip(long long bytes) {
    for (long long turn = 0; turn < bytes / 16; turn++)
        if (write(1 + turn % 2, "\0one little drop", 16) != 16) fail("drip");
}

/* What `daemon_without` goes on as, after it has lost its environment. */
static void inner(const char *what) {
    deaf();
    note();
    if (strcmp(what, "closed") == 0) for (int fd = 0; fd < 1024; fd++) close(fd);
    ready();
    stay();
}

int main(int words, char **word) {
    const char *shape = word[1];
    if (strcmp(shape, "flood") == 0) return flood(atoll(word[2])), 0;
    if (strcmp(shape, "drip") == 0) return drip(atoll(word[2])), 0;
    if (strcmp(shape, "inner") == 0) {
        snprintf(notes, sizeof notes, "%s", word[3]);
        inner(word[2]);
    }
    if (strcmp(shape, "quick") == 0) {
        /* One in ten leaves a child behind that soon ends by itself. */
        if (atol(getenv("ASYNCQ_JOB")) % 10 == 0 && fork() == 0) microseconds(1000);
        return 0;
    }
    if (words > 2) count = atoi(word[2]);
    snprintf(notes, sizeof notes, "%s/%s", getenv("PIDS"), getenv("ASYNCQ_JOB"));
    note();

    if (strcmp(shape, "obedient") == 0) {
        ready();
        stay();
    } else if (strcmp(shape, "deaf") == 0) {
        deaf();
        ready();
        stay();
    } else if (strcmp(shape, "blocked") == 0) {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, NULL);
        ready();
        stay();
    } else if (strcmp(shape, "reborn") == 0) {
        signal(SIGTERM, reborn);
        ready();
        stay();
    } else if (strcmp(shape, "pipe_holder") == 0) {
        if (noted_fork() == 0) { deaf(); ready(); }
        stay();
    } else if (strcmp(shape, "daemon") == 0) {
        daemonize();
        ready();
        stay();
    } else if (strcmp(shape, "session") == 0 || strcmp(shape, "own_group") == 0) {
        deaf();
        if (noted_fork() == 0) {
            if (shape[0] == 's') setsid();
            else setpgid(0, 0);
            ready();
        }
        stay();
    } else if (strcmp(shape, "stopped") == 0) {
        ready();
        raise(SIGSTOP);
        stay();
    } else if (strcmp(shape, "stopped_group") == 0) {
        deaf();
        for (int i = 0; i < 5; i++) if (noted_fork() == 0) stay();
        ready();
        for (;;) kill(0, SIGSTOP);
    } else if (strcmp(shape, "stopped_daemon") == 0) {
        daemonize();
        ready();
        for (;;) raise(SIGSTOP);
    } else if (strcmp(shape, "traced") == 0) {
        /* Whoever traces a process can stop it on its way out, and keeps its parent from learning how it ended. */
        prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
        pid_t traced = getpid();
        if (noted_fork() == 0) {
            setsid();
            deaf();
            if (ptrace(PTRACE_SEIZE, traced, NULL, (void *)PTRACE_O_TRACEEXIT) != 0) unable("ptrace");
            ready();
        }
        stay();
    } else if (strcmp(shape, "zombies") == 0) {
        deaf();
        for (int i = 0; i < count; i++) if (noted_fork() == 0) _exit(0);
        ready();
        stay();
    } else if (strcmp(shape, "orphan_zombies") == 0) {
        deaf();
        for (int i = 0; i < count; i++) {
            if (fork() == 0) {
                if (noted_fork() == 0) microseconds(2000);
                _exit(0);
            }
            wait(NULL);
        }
        ready();
        stay();
    } else if (strcmp(shape, "storm") == 0) {
        storm(0);
    } else if (strcmp(shape, "scattered_storm") == 0) {
        storm(1);
    } else if (strcmp(shape, "chain") == 0) {
        if (noted_fork() != 0) stay();
        deaf();
        for (int link = 0;; link++) {
            if (link == 20) ready();
            if (fork() != 0) _exit(0);
            setsid();
            note();
            microseconds(1000);
        }
    } else if (strcmp(shape, "deep") == 0) {
        deaf();
        for (int depth = 0; depth < count; depth++) {
            if (noted_fork() != 0) stay();
            setsid();
        }
        ready();
        stay();
    } else if (strcmp(shape, "vfork") == 0) {
        deaf();
        ready();
        for (;;) {
            if (vfork() == 0) { execl("/bin/true", "true", NULL); _exit(127); }
            wait(NULL);
        }
    } else if (strcmp(shape, "threads") == 0) {
        deaf();
        for (int i = 0; i < count; i++) start_thread(thread);
        ready();
        stay();
    } else if (strcmp(shape, "headless") == 0) {
        /* The process lives on in its other thread, while its first one is dead. */
        daemonize();
        start_thread(outlive);
        pthread_exit(NULL);
    } else if (strcmp(shape, "cleared") == 0 || strcmp(shape, "closed") == 0) {
        settle();
        daemonize();
        execve("/proc/self/exe", (char *[]){"inner", "inner", (char *)shape, notes, NULL}, (char *[]){NULL});
        fail("execve");
    } else if (strcmp(shape, "renamed") == 0) {
        settle();
        daemonize();
        prctl(PR_SET_NAME, ") Z 1 (true");
        /* As many daemons do to show what they are at: over their words and their environment. */
        extern char **environ;
        char *end = word[0];
        for (char **entry = environ; *entry; entry++) end = *entry + strlen(*entry);
        memset(word[0], 'x', end - word[0]);
        ready();
        stay();
    } else if (strcmp(shape, "subreaper") == 0) {
        daemonize();
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        for (int i = 0; i < 10; i++) {
            if (noted_fork() != 0) continue;
            setsid();
            if (noted_fork() != 0) _exit(0);
            stay();
        }
        ready();
        stay();
    } else if (strcmp(shape, "fifo") == 0) {
        char path[5000];
        snprintf(path, sizeof path, "%s.fifo", notes);
        if (mkfifo(path, 0600) != 0) fail(path);
        deaf();
        ready();
        for (;;) open(path, O_RDONLY);
    } else if (strcmp(shape, "stdin") == 0) {
        char bytes[512];
        while (read(0, bytes, sizeof bytes) > 0) {}
        deaf();
        ready();
        stay();
    } else if (strcmp(shape, "busy") == 0) {
        deaf();
        ready();
        for (;;) __asm__ volatile("");
    } else if (strcmp(shape, "talker") == 0) {
        deaf();
        ready();
        flood(-1);
    } else if (strcmp(shape, "namespace") == 0) {
        deaf();
        if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
            unable("unshare");
            stay();
        }
        if (noted_fork() == 0) {
            for (int i = 0; i < 5; i++) if (noted_fork() == 0) { setsid(); stay(); }
            ready();
        }
        stay();
    }
    fprintf(stderr, "no shape `%s`\n", shape);
    return 99;
}

/* A function that keeps the books: what it does is written outside the store, each line by one write, so that a referee
 * can compare it with what the store says. It holds a lock on its job's byte of a file for as long as it or anything that it
 * started lives: whoever finds it taken runs at the same time as another attempt.
 *
 * job MODE [ARG]...        BOOK and LOCKS, recorded with the function, name the two files
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int book;
static const char *job, *attempt;

static void fail(const char *what) { perror(what); exit(99); }

static void note(const char *word) {
    char line[200];
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int length = snprintf(line, sizeof line, "%s %s %s %d %lld\n", word, job, attempt, (int)getpid(),
                          now.tv_sec * 1000000LL + now.tv_nsec / 1000);
    if (write(book, line, length) != length) fail("book");
}

static void milliseconds(long count) {
    struct timespec time = {count / 1000, count % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {}
}

static void be_deaf(void) {
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
}

/* Leaves a process behind that nobody is the parent of, in a session of its own, that wants to stay; with `bare` it has
 * no environment any more, and that word on its command line. */
static void daemonize(int stubborn, char *bare) {
    int ready[2];
    char byte;
    if (pipe2(ready, O_CLOEXEC) != 0) fail("pipe");
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            if (stubborn) be_deaf();
            note("DAEMON");
            if (bare) execve("/proc/self/exe", (char *[]){"job", "stay", bare, NULL}, (char *[]){NULL});
            close(ready[0]);
            close(ready[1]);
            for (;;) pause();
        }
        _exit(0);
    }
    close(ready[1]);
    (void)!read(ready[0], &byte, 1); /* until the daemon has noted itself */
    close(ready[0]);
    wait(NULL);
}

static pid_t parent_of(pid_t pid) {
    char path[40];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *stat = fopen(path, "r");
    if (!stat || fscanf(stat, "%*d (%*[^)]) %*c %d", &parent) != 1) fail("stat");
    fclose(stat);
    return parent;
}

static int is_asyncq(pid_t pid) {
    char path[40], name[20] = "";
    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    FILE *comm = fopen(path, "r");
    if (comm && !fgets(name, sizeof name, comm)) *name = 0;
    if (comm) fclose(comm);
    return strcmp(name, "asyncq\n") == 0;
}

/* Kills what runs it: the engine, its supervisor, both, or the process group that the engine leads. */
static void poison(const char *whom) {
    pid_t engine = getppid(), supervisor = is_asyncq(engine) ? parent_of(engine) : 0;
    /* Somebody else may have killed them just now. */
    if (!is_asyncq(supervisor)) for (;;) pause();
    if (strcmp(whom, "group") == 0) {
        kill(-engine, SIGKILL);
    } else {
        if (strcmp(whom, "engine") != 0) kill(supervisor, SIGKILL);
        if (strcmp(whom, "supervisor") != 0) kill(engine, SIGKILL);
    }
    for (;;) pause();
}

static void take(size_t bytes) {
    char *piece = malloc(bytes);
    if (!piece) for (;;) pause();
    memset(piece, 1, bytes);
}

/* Offers the engine to the kernel before itself, and spreads over many what it takes. */
static void eat_slyly(void) {
    char path[40];
    snprintf(path, sizeof path, "/proc/%d/oom_score_adj", (int)getppid());
    int score = open(path, O_WRONLY);
    if (score < 0) fail(path);
    /* Again and again, as the processor sets its own score whenever it has started a program. */
    do {
        if (pwrite(score, "1000", 4, 0) < 0) fail(path);
        milliseconds(1);
    } while (fork() > 0);
    take(2 << 20);
    for (;;) pause();
}

/* Waits for a child; gives 0 if it ended well. */
static int await(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 98;
}

static void until(const char *file) {
    while (access(file, F_OK) != 0) milliseconds(1);
}

/* Grows a tree of processes that get away from whoever ends the program, as the letters of `shape` say: the program
 * works in a `s`ession of its own, has a `c`hild in a process group of its own, and daemons that `h`old the pipes, are
 * `q`uiet, or have a `b`are environment; all of them may be `d`eaf. */
static void grow(const char *shape, char *name) {
    int deaf = strchr(shape, 'd') != NULL;
    if (deaf) be_deaf();
    if (strchr(shape, 's')) {
        pid_t child = fork();
        if (child != 0) exit(await(child));
        setsid();
        note("CHILD");
    }
    if (strchr(shape, 'c') && fork() == 0) {
        setpgid(0, 0);
        note("CHILD");
        for (;;) pause();
    }
    if (strchr(shape, 'h')) daemonize(deaf, NULL);
    if (strchr(shape, 'b')) daemonize(deaf, name);
    if (strchr(shape, 'q')) {
        close(0);
        close(1);
        close(2);
        daemonize(deaf, NULL);
    }
    note("GROWN");
}

int main(int count, char **words) {
    const char *mode = count > 1 ? words[1] : "";
    long number = count > 2 ? atol(words[2]) : 0;
    if (strcmp(mode, "stay") == 0) for (;;) pause();
    job = getenv("ASYNCQ_JOB");
    attempt = getenv("ASYNCQ_ATTEMPT");
    book = open(getenv("BOOK"), O_WRONLY | O_APPEND | O_CLOEXEC);
    int locks = open(getenv("LOCKS"), O_RDWR);
    if (book < 0 || locks < 0) fail("books");

    /* A tree grows where its file is not there yet, at its first start. */
    int grows = strcmp(mode, "tree") == 0 && access(words[3], F_OK) != 0;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = atoll(job), .l_len = 1};
    if (fcntl(locks, F_OFD_SETLK, &lock) != 0) note("OVERLAP");
    note("START");

    int code = 0;
    int first = strcmp(attempt, "1") == 0;
    if (strcmp(mode, "sleep") == 0) {
        milliseconds(number);
    } else if (strcmp(mode, "fail") == 0) {
        code = 3;
    } else if (strcmp(mode, "conflict") == 0) {
        code = first ? 75 : 0;
    } else if (strcmp(mode, "daemon") == 0 || strcmp(mode, "stubborn") == 0) {
        daemonize(mode[0] == 's', NULL);
        if (first) for (;;) pause();
    } else if (strcmp(mode, "waits") == 0) {
        if (first) for (;;) pause();
    } else if (strcmp(mode, "poison") == 0) {
        poison(words[2]);
    } else if (strcmp(mode, "eat") == 0) {
        for (;;) take(1 << 20);
    } else if (strcmp(mode, "slyly") == 0) {
        eat_slyly();
    } else if (strcmp(mode, "session") == 0) {
        if (first) { setsid(); signal(SIGTERM, SIG_IGN); for (;;) pause(); }
    } else if (strcmp(mode, "until") == 0) {
        until(words[2]);
    } else if (grows) {
        until(words[3]);
        grow(words[2], words[3]);
        /* Deaf ones, in their time of grace, outlive a program that `e`nds. */
        if (!strchr(words[2], 'e')) for (;;) pause();
    } else if (strcmp(mode, "around") == 0) {
        pid_t child = fork();
        if (child == 0) { execv(words[2], words + 2); _exit(127); }
        if (await(child) != 0) return 98;
    }
    const char *result = getenv("ASYNCQ_RESULT");
    int file = result ? open(result, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : -1;
    if (file >= 0 && write(file, attempt, strlen(attempt)) < 0) fail("result");
    note(code == 0 ? "END" : code == 75 ? "CONFLICT" : "FAIL");
    return code;
}

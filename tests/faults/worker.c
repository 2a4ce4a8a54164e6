/* A worker that keeps the books, as `job.c` does for commands: what its functions do is written outside the store, each line
 * by one write. For each call that runs it holds a lock on its job's byte of a file, under a description of the file that
 * what the call starts shares.
 *
 * worker BYTES [CALLS]     reads so many bytes of its line at once; runs calls one after another, or so many at once, which
 *                          are answered in any order. BOOK and LOCKS, recorded with the function, name the two files.
 *
 * The name of a function says what it does, up to its first `-`.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { LINE = 3, MOST = 64, LONGEST = 4 << 20 };

struct call {
    char id[24], job[24], attempt[24], token[200], service[300], function[300], argument[300];
    int lock;
    long long due;
};

static int book, several;
static long long printed;
static unsigned seed;

static void fail(const char *what) { perror(what); exit(99); }

static long long now(int clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

static void milliseconds(long count) {
    struct timespec time = {count / 1000, count % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0) {}
}

static void note(const char *word, const struct call *call) {
    char line[200];
    int length = snprintf(line, sizeof line, "%s %s %s %d %lld\n", word, call->job, call->attempt, (int)getpid(),
                          now(CLOCK_REALTIME));
    if (write(book, line, length) != length) fail("book");
}

static void say(const char *format, ...) {
    static char line[4096];
    va_list words;
    va_start(words, format);
    int length = vsnprintf(line, sizeof line, format, words);
    va_end(words);
    for (int done = 0; done < length;) {
        ssize_t count = send(LINE, line + done, length - done, MSG_NOSIGNAL);
        /* Nobody is there any more. */
        if (count < 0) exit(0);
        done += count;
    }
}

/* Copies what follows `name` in a frame, up to one of the characters in `ends`. */
static void member(const char *frame, const char *name, const char *ends, char *into, size_t size) {
    const char *at = strstr(frame, name);
    if (!at) fail("member");
    at += strlen(name);
    size_t length = strcspn(at, ends);
    if (length >= size) length = size - 1;
    memcpy(into, at, length);
    into[length] = 0;
}

/* Waits for a child; gives 0 if it ended well. */
static int await(pid_t child) {
    int status;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {}
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : 98;
}

/* Becomes another program, in the environment of a call. */
static void become(const struct call *call, char **words) {
    setenv("ASYNCQ_JOB", call->job, 1);
    setenv("ASYNCQ_ATTEMPT", call->attempt, 1);
    setenv("ASYNCQ_TOKEN", call->token, 1);
    execvp(words[0], words);
    _exit(127);
}

/* Forks a child that lets go of the line, and prints nothing: what others print is not counted. */
static pid_t begin(void) {
    pid_t child = fork();
    if (child < 0) fail("fork");
    if (child == 0) {
        close(LINE);
        dup2(open("/dev/null", O_WRONLY | O_CLOEXEC), 1);
    }
    return child;
}

static int is(const struct call *call, const char *what) {
    size_t length = strlen(what);
    return strncmp(call->function, what, length) == 0 && strchr("-", call->function[length]) != NULL;
}

static int first(const struct call *call) { return strcmp(call->attempt, "1") == 0; }

/* What a call does; gives 0, 75 or another code. */
static int run(const struct call *call) {
    if (is(call, "fail")) return 3;
    if (is(call, "meet")) return first(call) ? 75 : 0;
    if (is(call, "print")) {
        char line[100];
        int length = snprintf(line, sizeof line, "%s %s", call->job, call->attempt);
        if (several) {
            say("{\"jsonrpc\":\"2.0\",\"method\":\"output\",\"params\":{\"job\":%s,\"stream\":\"out\",\"text\":\"%s\\n\"}}\n",
                call->job, line);
        } else {
            line[length++] = '\n';
            if (write(1, line, length) != length) fail("stdout");
            printed += length;
        }
    } else if (is(call, "slow") && !several) {
        milliseconds(10);
    } else if (is(call, "own")) {
        /* The program that completes it stands in OWN, with its words. */
        pid_t child = begin();
        if (child == 0) become(call, (char *[]){"sh", "-c", getenv("OWN"), NULL});
        return await(child);
    } else if (is(call, "nests")) {
        pid_t child = begin();
        if (child == 0) become(call, (char *[]){"asyncq", "enqueue", (char *)call->service, "quick", NULL});
        return await(child);
    } else if (is(call, "child")) {
        /* The work is done in a session of its own, by a program with the environment of the call. */
        pid_t child = begin();
        if (child == 0) {
            setsid();
            become(call, (char *[]){"sleep", "0.05", NULL});
        }
        return await(child);
    } else if (is(call, "leaves")) {
        /* A daemon that stays, in a session of its own, with the environment of the call. */
        pid_t child = begin();
        if (child == 0) {
            setsid();
            if (fork() == 0) become(call, (char *[]){"/proc/self/exe", "stay", (char *)call->argument, NULL});
            _exit(0);
        }
        await(child);
    } else if (is(call, "waits")) {
        /* Works at its first attempt until it is killed, in a program of its own and in itself, both deaf. */
        signal(SIGTERM, SIG_IGN);
        if (first(call)) {
            if (begin() == 0) {
                setsid();
                become(call, (char *[]){"/proc/self/exe", "stay", (char *)call->argument, NULL});
            }
            for (;;) pause();
        }
    }
    return 0;
}

static void start(struct call *call) {
    call->lock = open(getenv("LOCKS"), O_RDWR);
    if (call->lock < 0) fail("locks");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = atoll(call->job), .l_len = 1};
    if (fcntl(call->lock, F_OFD_SETLK, &lock) != 0) note("OVERLAP", call);
    note("START", call);
}

static void finish(struct call *call, int code) {
    char output[64] = "";
    if (!several) snprintf(output, sizeof output, ",\"output\":[%lld,0]", printed);
    printed = 0;
    note(code == 0 ? "END" : code == 75 ? "CONFLICT" : "FAIL", call);
    close(call->lock);
    if (code == 0) {
        const char *by_itself = is(call, "own") ? ",\"completed\":true" : "";
        say("{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"value\":%s%s%s}}\n", call->id, call->attempt, output, by_itself);
    } else {
        say("{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":{\"code\":%d,\"message\":\"it was to\",\"data\":{\"pause\":0.001%s}}}\n",
            call->id, code, output);
    }
}

static struct call open_calls[MOST];
static int count;

/* A call has come. */
static void take(const char *frame) {
    struct call call;
    member(frame, "\"id\":", ",", call.id, sizeof call.id);
    member(frame, "\"job\":", ",", call.job, sizeof call.job);
    member(frame, "\"attempt\":", ",", call.attempt, sizeof call.attempt);
    member(frame, "\"token\":\"", "\"", call.token, sizeof call.token);
    member(frame, "\"service\":\"", "\"", call.service, sizeof call.service);
    member(frame, "\"function\":\"", "\"", call.function, sizeof call.function);
    member(frame, "\"args\":", "]", call.argument, sizeof call.argument);
    /* Its first argument, if that is a text. */
    char *text = strchr(call.argument, '"');
    if (text) { memmove(call.argument, text + 1, strlen(text)); call.argument[strcspn(call.argument, "\"")] = 0; }
    start(&call);
    if (!several) { finish(&call, run(&call)); return; }
    /* Most are answered a moment later, some at once. */
    call.due = now(CLOCK_MONOTONIC) + (is(&call, "slow") ? 10000 : rand_r(&seed) % 1000);
    if (count == MOST) fail("more calls than were asked for");
    open_calls[count++] = call;
}

/* Answers what is due; gives how many milliseconds later the next one is. */
static int answer_those_that_are_due(void) {
    for (;;) {
        int next = -1;
        for (int i = 0; i < count; i++) if (next < 0 || open_calls[i].due < open_calls[next].due) next = i;
        if (next < 0) return -1;
        long long left = open_calls[next].due - now(CLOCK_MONOTONIC);
        if (left > 0) return left / 1000 + 1;
        struct call call = open_calls[next];
        open_calls[next] = open_calls[--count];
        finish(&call, run(&call));
    }
}

int main(int words, char **word) {
    static char line[LONGEST];
    size_t have = 0, bytes = words > 1 ? atol(word[1]) : sizeof line;
    int calls = words > 2 ? atoi(word[2]) : 1;
    if (words > 1 && strcmp(word[1], "stay") == 0) for (;;) pause();
    several = calls > 1;
    seed = getpid();
    book = open(getenv("BOOK"), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (book < 0) fail("book");
    say("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"protocol\":1,\"calls\":%d%s}}\n", calls,
        several ? "" : ",\"output\":\"counted\"");
    for (;;) {
        struct pollfd ready = {.fd = LINE, .events = POLLIN};
        if (poll(&ready, 1, answer_those_that_are_due()) <= 0) continue;
        if (have == sizeof line) fail("a line that is too long");
        ssize_t got = read(LINE, line + have, bytes < sizeof line - have ? bytes : sizeof line - have);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return 0;
        have += got;
        size_t from = 0;
        for (char *end; (end = memchr(line + from, '\n', have - from)); from = end + 1 - line) {
            *end = 0;
            if (strstr(line + from, "\"method\":\"call\"")) take(line + from);
        }
        memmove(line, line + from, have - from);
        have -= from;
    }
}

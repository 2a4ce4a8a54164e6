/* Workers that do not keep to the protocol, or do not want to end.
 *
 * hostile_worker SHAPE
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LINE = 3 };

static const char *shape;
static char id[24], job[24], attempt[24];

static int is(const char *name) { return strcmp(shape, name) == 0; }

static void stay(void) { for (;;) pause(); }

static void deaf(void) {
    int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGPIPE};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], SIG_IGN);
}

static void write_all(int file, const char *text, size_t length) {
    while (length > 0) {
        ssize_t count = write(file, text, length);
        if (count <= 0) _exit(0);
        text += count;
        length -= count;
    }
}

static void say(const char *text) { write_all(LINE, text, strlen(text)); }

static void hello(int protocol, int calls) {
    char line[200];
    snprintf(line, sizeof line,
             "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"protocol\":%d,\"calls\":%d%s}}\n", protocol,
             calls, calls > 1 ? "" : ",\"output\":\"counted\"");
    say(line);
}

/* Reads the next call, byte by byte, so that the rest stays on the line. */
static void read_call(void) {
    static char line[1 << 21];
    do {
        size_t length = 0;
        do {
            if (length == sizeof line - 1 || read(LINE, line + length, 1) != 1) exit(0);
        } while (line[length++] != '\n');
        line[length] = 0;
    } while (!strstr(line, "\"method\":\"call\""));
    sscanf(strstr(line, "\"id\":") + 5, "%20[0-9]", id);
    sscanf(strstr(line, "\"job\":") + 6, "%20[0-9]", job);
    sscanf(strstr(line, "\"attempt\":") + 10, "%20[0-9]", attempt);
}

static void answer(const char *members) {
    char line[300];
    snprintf(line, sizeof line, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{%s}}\n", id, members);
    say(line);
}

/* Leaves a process behind that is nobody's child, in a session of its own, deaf, with everything that it inherited. */
static void daemonize(void) {
    if (fork() == 0) {
        setsid();
        deaf();
        if (fork() == 0) stay();
        _exit(0);
    }
    wait(NULL);
}

static void asked(int signal) {
    (void)signal;
    close(creat("asked", 0600));
    _exit(0);
}

static void flood(int file, const char *text) {
    size_t length = strlen(text), many = 65536 / length + 1;
    char *block = malloc(many * length);
    for (size_t i = 0; i < many; i++) memcpy(block + i * length, text, length);
    for (;;) write_all(file, block, many * length);
}

int main(int count, char **words) {
    char text[2000];
    shape = count > 1 ? words[1] : "";

    if (is("no_hello")) return 3;
    if (is("killed")) raise(SIGKILL);
    if (is("silent")) stay();
    if (is("mute")) { deaf(); daemonize(); stay(); }
    if (is("listens")) {
        say("{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"protocol\":1,\"calls\":2,\"cancel\":true}}\n");
        read_call();
        /* Does not do what it is told to, with two calls in its hands. */
        if (strcmp(attempt, "1") == 0) { read_call(); deaf(); daemonize(); stay(); }
        for (;; read_call()) answer("\"value\":\"at last\"");
    }
    hello(is("versions") ? 99 : 1, is("several") ? 4 : 1);
    if (is("leaves")) return 0;
    if (is("killed_later")) raise(SIGKILL);
    if (is("unread")) stay();
    if (is("closes")) { close(LINE); stay(); }
    if (is("versions")) { deaf(); stay(); }

    read_call();
    if (is("dies")) return 3;
    if (is("half_an_answer")) { say("{\"jsonrpc\":\"2.0\",\"id\":"); return 0; }
    if (is("half_and_silence")) { say("{\"jsonrpc\":\"2.0\",\"id\":"); stay(); }
    if (is("closes_later")) { close(LINE); stay(); }
    if (is("hands_on")) {
        /* What it has started answers for it. */
        pid_t child = fork();
        if (child != 0) { close(LINE); waitpid(child, NULL, 0); return 0; }
        sleep(8);
    }
    /* Nobody but root may look which descriptors it has. */
    if (is("hides")) { prctl(PR_SET_DUMPABLE, 0); sleep(8); }
    if (is("moves")) {
        int other = fcntl(LINE, F_DUPFD, 70);
        close(LINE);
        sleep(8);
        dup2(other, LINE);
        close(other);
    }
    if (is("nonsense")) { deaf(); say("what?\n"); stay(); }
    if (is("hello_again")) { hello(1, 1); stay(); }
    if (is("no_such_call")) { say("{\"jsonrpc\":\"2.0\",\"id\":999999,\"result\":{}}\n"); stay(); }
    if (is("long")) {
        size_t length = 5 << 20;
        char *line = malloc(length);
        memset(line, 'x', length);
        write_all(LINE, line, length);
        stay();
    }
    if (is("hangs")) {
        deaf();
        daemonize();
        if (fork() == 0) { setsid(); stay(); }
        stay();
    }
    if (is("survived")) { daemonize(); return 3; }
    if (is("stops")) { raise(SIGSTOP); stay(); }
    if (is("shuts")) { deaf(); shutdown(LINE, SHUT_RDWR); stay(); }
    if (is("progress")) {
        snprintf(text, sizeof text,
                 "{\"jsonrpc\":\"2.0\",\"method\":\"progress\",\"params\":{\"job\":%s,\"done\":1,\"note\":\"%0900d\"}}\n", job, 1);
        flood(LINE, text);
    }
    if (is("unknown")) flood(LINE, "{\"jsonrpc\":\"2.0\",\"method\":\"later\",\"params\":[1,2,3]}\n");
    if (is("output")) {
        snprintf(text, sizeof text,
                 "{\"jsonrpc\":\"2.0\",\"method\":\"output\",\"params\":{\"job\":%s,\"stream\":\"out\",\"text\":\"%0900d\\n\"}}\n",
                 job, 1);
        flood(LINE, text);
    }
    if (is("endless")) {
        say("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"value\":[");
        flood(LINE, "[\"one\",{\"little\":\"drop\"}],");
    }
    if (is("talks")) flood(1, "one little drop\n");
    if (is("miscounts")) {
        if (fork() == 0) { close(LINE); flood(1, "one little drop\n"); }
        usleep(50000);
        answer("\"output\":[9000000000000000000,9000000000000000000]");
        read_call();
    }
    if (is("stays")) { deaf(); answer("\"output\":[0,0]"); stay(); }
    /* Both do not mind that their line has ended; one of them not even what it is told then. */
    if (is("lingers")) { deaf(); daemonize(); answer("\"output\":[0,0]"); stay(); }
    if (is("dawdles")) { signal(SIGTERM, asked); answer("\"output\":[0,0]"); stay(); }
    if (is("twice")) { answer(""); answer(""); stay(); }
    if (is("several") && strcmp(attempt, "1") == 0) {
        for (int open = 1; open < 4; open++) read_call();
        return 3;
    }
    /* `slow`, and whatever else does as it should. */
    for (;; read_call()) {
        if (is("slow")) usleep(300000);
        answer("\"output\":[0,0]");
    }
}

// A setuid program: it becomes root altogether, says so, and goes on until a file is there; as a worker once it has read
// something behind the welcome, which is a call.
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

int main(int count, char **words) {
    if (count < 2 || setgid(0) || setuid(0)) return 126;
    signal(SIGTERM, SIG_IGN);
    if (count > 2) {
        dprintf(3, "{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"hello\",\"params\":{\"protocol\":1}}\n");
        for (char byte = 0, lines = 0; lines < 2;) {
            if (read(3, &byte, 1) != 1) return 1;
            lines += byte == '\n';
        }
    }
    FILE *book = fopen("begun", "a");
    fprintf(book, "%d\n", getpid());
    fclose(book);
    while (access(words[1], F_OK)) usleep(5000);
    return 0;
}

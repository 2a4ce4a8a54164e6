/* The shell of SQLite, as far as documents and tests use it, for any version of the library:
 * sqlite3 [-batch] [-bail] [-plans] [-cmd '.timeout MS'] FILE [SQL]. Without SQL it reads statements from standard input. With
 * -plans each statement is an EXPLAIN QUERY PLAN, and the plans of the triggers that it would fire are printed, too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sqlite3.h"

static sqlite3 *db;
static int plans, failed;

static void fail(void) {
    fflush(stdout);
    fprintf(stderr, "Error: %s (%d)\n", sqlite3_errmsg(db), sqlite3_errcode(db));
    failed = 1;
}

/* Tells whether all statements have been run. */
static int run(const char *sql) {
    while (*sql) {
        sqlite3_stmt *statement;
        if (sqlite3_prepare_v2(db, sql, -1, &statement, &sql) != SQLITE_OK) return fail(), 0;
        if (!statement) continue;
        int result, columns = sqlite3_column_count(statement);
        while ((result = sqlite3_step(statement)) == SQLITE_ROW) {
            for (int column = plans ? 3 : 0; column < columns; column++) {
                const unsigned char *text = sqlite3_column_text(statement, column);
                printf("%s%s", column > (plans ? 3 : 0) ? "|" : "", text ? (const char *)text : "");
            }
            printf("\n");
        }
        if (result != SQLITE_DONE) fail();
        sqlite3_finalize(statement);
        if (result != SQLITE_DONE) return 0;
    }
    return 1;
}

static void command(const char *line) {
    if (strncmp(line, ".timeout ", 9) == 0) sqlite3_busy_timeout(db, atoi(line + 9));
    else if (strncmp(line, ".dbconfig enable_trigger off", 28) == 0) sqlite3_db_config(db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
    else fprintf(stderr, "Error: unknown command: %s\n", line), exit(2);
}

static void run_input(int bail) {
    char *line = NULL, *text = calloc(1, 1);
    size_t room = 0, length = 0;
    while (getline(&line, &room, stdin) >= 0 && !(bail && failed)) {
        if (length == 0 && line[0] == '.') {
            command(line);
            continue;
        }
        text = realloc(text, length + strlen(line) + 1);
        strcpy(text + length, line);
        length += strlen(line);
        if (!sqlite3_complete(text)) continue;
        run(text);
        text[length = 0] = 0;
    }
    if (!(bail && failed)) run(text);
}

int main(int count, char **words) {
    const char *file = NULL, *sql = NULL, *first = NULL;
    int bail = 0;
    for (int at = 1; at < count; at++) {
        if (strcmp(words[at], "-batch") == 0) continue;
        else if (strcmp(words[at], "-bail") == 0) bail = 1;
        else if (strcmp(words[at], "-plans") == 0) plans = 1;
        else if (strcmp(words[at], "-cmd") == 0) first = words[++at];
        else if (!file) file = words[at];
        else sql = words[at];
    }
    if (!file || sqlite3_open(file, &db) != SQLITE_OK) return fprintf(stderr, "Error: unable to open\n"), 1;
    if (plans) sqlite3_db_config(db, SQLITE_DBCONFIG_TRIGGER_EQP, 1, NULL);
    if (first) command(first);
    if (sql) run(sql);
    else run_input(bail);
    sqlite3_close(db);
    return failed;
}

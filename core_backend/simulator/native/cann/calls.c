// The list of functions that were called, the last error, and settings from the environment.
#include <pthread.h>
#include "cann.h"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *names;
static size_t names_length;

void note_call(const char *function) {
    pthread_mutex_lock(&lock);
    size_t length = strlen(function);
    names = realloc(names, names_length + length + 2);
    memcpy(names + names_length, function, length);
    names[names_length + length] = '\n';
    names_length += length + 1;
    names[names_length] = 0;
    pthread_mutex_unlock(&lock);
}

// Newline-separated names of the functions called so far in this process.
const char *stand_in_calls(void) { return names ? names : ""; }

static const char *last_error = "";

void set_error(const char *message) { last_error = message; }

const char *aclGetRecentErrMsg(void) { return last_error; }

int setting(const char *environment_variable, int otherwise) {
    const char *given = getenv(environment_variable);
    return given && *given ? atoi(given) : otherwise;
}

void *new_handle(void) { return calloc(1, 64); }

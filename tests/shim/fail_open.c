/* Makes the first open of a file whose path contains PENHOLDER_FAIL_OPEN fail with EIO. To be put into LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

static atomic_flag failed = ATOMIC_FLAG_INIT;

int open64(const char *path, int flags, ...)
{
    static int (*next)(const char *, int, ...);
    const char *wanted = getenv("PENHOLDER_FAIL_OPEN");
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    if (wanted && strstr(path, wanted) && !atomic_flag_test_and_set(&failed)) {
        errno = EIO;
        return -1;
    }
    if (!next)
        next = dlsym(RTLD_NEXT, "open64");
    return next(path, flags, mode);
}

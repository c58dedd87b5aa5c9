/* Makes one call fail with EIO: the first open of a file whose path contains PENHOLDER_FAIL_OPEN, the first look at one
 * whose path ends in PENHOLDER_FAIL_STAT. With PENHOLDER_FAIL_WATCH, every watch of inotify fails as where there are no
 * more. To be put into LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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

static int is_wanted(const char *path)
{
    const char *wanted = getenv("PENHOLDER_FAIL_STAT");
    /* Asked with no path whether the call is there at all. */
    if (!wanted || !path || strlen(path) < strlen(wanted))
        return 0;
    return !strcmp(path + strlen(path) - strlen(wanted), wanted);
}

int statx(int directory, const char *restrict path, int flags, unsigned int mask, struct statx *restrict result)
{
    static int (*next)(int, const char *, int, unsigned int, struct statx *);
    if (is_wanted(path) && !atomic_flag_test_and_set(&failed)) {
        errno = EIO;
        return -1;
    }
    if (!next)
        next = dlsym(RTLD_NEXT, "statx");
    return next(directory, path, flags, mask, result);
}

int inotify_add_watch(int queue, const char *path, uint32_t mask)
{
    static int (*next)(int, const char *, uint32_t);
    if (getenv("PENHOLDER_FAIL_WATCH")) {
        errno = ENOSPC;
        return -1;
    }
    if (!next)
        next = dlsym(RTLD_NEXT, "inotify_add_watch");
    return next(queue, path, mask);
}

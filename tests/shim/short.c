/* Makes chosen writes to files take only a part of their bytes, as a system may at any time.
 *
 * PENHOLDER_SHORT=N shortens the Nth write of the process, N+ every one from it on; the file PENHOLDER_SHORT_LOG
 * appears when it has happened. To be put into LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static atomic_ulong writes;

/* How many of `count` bytes the next write may take; only files take a part. */
static size_t allowed(int fd, size_t count)
{
    struct stat status;
    const char *wanted = getenv("PENHOLDER_SHORT"), *log = getenv("PENHOLDER_SHORT_LOG");
    if (!wanted || !log || count < 2 || fstat(fd, &status) || !S_ISREG(status.st_mode))
        return count;
    unsigned long nth = strtoul(wanted, NULL, 10), now = atomic_fetch_add(&writes, 1) + 1;
    if (now != nth && !(now > nth && strchr(wanted, '+')))
        return count;
    int file = open(log, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (file >= 0)
        close(file);
    return (count + 1) / 2;
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    static ssize_t (*next)(int, const void *, size_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "write");
    return next(fd, bytes, allowed(fd, count));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (!next)
        next = dlsym(RTLD_NEXT, "pwrite64");
    return next(fd, bytes, allowed(fd, count), offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(fd, bytes, count, offset);
}

/* Writes down everything that a process does to the files below PENHOLDER_RECORD_ROOT, in the one order in which all
 * processes with the same PENHOLDER_RECORD_TRACE do it. What stands in a mapped receipt page is looked at after each
 * step. The boot id is read from PENHOLDER_RECORD_BOOT. To be put into LD_PRELOAD.
 *
 * PENHOLDER_RECORD_FAIL="<end of a path>:<n>" lets the nth sync of such a file fail with EIO, once in each process; with
 * ":die" behind it, the process dies of that.
 *
 * A record is a header, the path, a second path, and the bytes; see tests/src/disk. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_DIRECTORY, RENAME, UNLINK, MKDIR, SYNC_FAILED, FORGET };

struct header {
    uint32_t kind, first, second, length;
    uint64_t inode, offset;
};

#define RECEIPT_PAGE 4096
#define RECEIPTS 64

static pthread_mutex_t one_thread = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1, turn = -1;
static struct { int fd; uint64_t inode; char page[RECEIPT_PAGE]; } receipts[RECEIPTS];

static void die(const char *what)
{
    perror(what);
    abort();
}

/* Whose turn it is to do something, over all threads and processes. */
static void begin(void)
{
    pthread_mutex_lock(&one_thread);
    if (trace < 0) {
        const char *path = getenv("PENHOLDER_RECORD_TRACE");
        trace = syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        turn = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
        if (trace < 0 || turn < 0)
            die("record: open the trace");
    }
    if (flock(turn, LOCK_EX))
        die("record: lock the trace");
}

static void put(uint32_t kind, uint64_t inode, uint64_t offset, const char *first, const char *second,
                const void *bytes, size_t length)
{
    struct header header = {kind, strlen(first), strlen(second), length, inode, offset};
    struct iovec parts[] = {{&header, sizeof header}, {(void *)first, header.first},
                            {(void *)second, header.second}, {(void *)bytes, length}};
    ssize_t whole = sizeof header + header.first + header.second + length;
    if (syscall(SYS_writev, trace, parts, 4) != whole)
        die("record: write the trace");
}

static void look_at_receipts(void)
{
    char page[RECEIPT_PAGE];
    for (int i = 0; i < RECEIPTS; i++) {
        if (!receipts[i].inode || syscall(SYS_pread64, receipts[i].fd, page, sizeof page, 0L) != sizeof page ||
            !memcmp(page, receipts[i].page, sizeof page))
            continue;
        memcpy(receipts[i].page, page, sizeof page);
        put(WRITE, receipts[i].inode, 0, "", "", page, sizeof page);
    }
}

static void end(void)
{
    look_at_receipts();
    flock(turn, LOCK_UN);
    pthread_mutex_unlock(&one_thread);
}

static int is_ours(const char *path)
{
    const char *root = getenv("PENHOLDER_RECORD_ROOT");
    size_t length = strlen(path);
    if (!root || strncmp(path, root, strlen(root)))
        return 0;
    return !(length > 4 && !strcmp(path + length - 4, "-shm"));
}

/* The inode of an open file that is ours, or 0. */
static uint64_t inode_of(int fd, char *path)
{
    char link[64];
    struct stat status;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    if (!is_ours(path) || fstat(fd, &status))
        return 0;
    return status.st_ino;
}

static int do_open(const char *path, int flags, int mode)
{
    const char *boot = getenv("PENHOLDER_RECORD_BOOT");
    if (boot && !strcmp(path, "/proc/sys/kernel/random/boot_id"))
        path = boot;
    if (!is_ours(path))
        return syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    begin();
    int is_new = (flags & O_CREAT) && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int fd = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    struct stat status;
    if (fd >= 0 && !fstat(fd, &status)) {
        if (is_new)
            put(CREATE, status.st_ino, 0, path, "", "", 0);
        else if (flags & O_TRUNC)
            put(TRUNCATE, status.st_ino, 0, "", "", "", 0);
        if (strstr(path, "/receipts/") && (flags & O_ACCMODE) == O_RDWR)
            for (int i = 0; i < RECEIPTS; i++)
                if (!receipts[i].inode) {
                    receipts[i].fd = dup(fd);
                    receipts[i].inode = status.st_ino;
                    break;
                }
    }
    end();
    return fd;
}

int open64(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return do_open(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list more;
    va_start(more, flags);
    int mode = va_arg(more, int);
    va_end(more);
    return do_open(path, flags, mode);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset)
{
    char path[PATH_MAX];
    uint64_t inode = inode_of(fd, path);
    if (!inode)
        return syscall(SYS_pwrite64, fd, bytes, count, offset);
    begin();
    ssize_t written = syscall(SYS_pwrite64, fd, bytes, count, offset);
    if (written > 0)
        put(WRITE, inode, offset, "", "", bytes, written);
    end();
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count)
{
    char path[PATH_MAX];
    uint64_t inode = fd > 2 ? inode_of(fd, path) : 0;
    if (!inode)
        return syscall(SYS_write, fd, bytes, count);
    begin();
    ssize_t written = syscall(SYS_write, fd, bytes, count);
    if (written > 0)
        put(WRITE, inode, lseek(fd, 0, SEEK_CUR) - written, "", "", bytes, written);
    end();
    return written;
}

int ftruncate64(int fd, off64_t length)
{
    char path[PATH_MAX];
    uint64_t inode = inode_of(fd, path);
    if (!inode)
        return syscall(SYS_ftruncate, fd, length);
    begin();
    int result = syscall(SYS_ftruncate, fd, length);
    if (!result)
        put(TRUNCATE, inode, length, "", "", "", 0);
    end();
    return result;
}

int ftruncate(int fd, off_t length)
{
    return ftruncate64(fd, length);
}

/* Whether the sync of this file is the one that fails; `dies` says of what the process dies then. */
static int is_to_fail(const char *path, int *dies)
{
    static long syncs;
    const char *fail = getenv("PENHOLDER_RECORD_FAIL"), *colon = fail ? strchr(fail, ':') : NULL;
    if (!colon)
        return 0;
    size_t length = strlen(path), end = colon - fail;
    if (length < end || strncmp(path + length - end, fail, end) || ++syncs != atol(colon + 1))
        return 0;
    *dies = strstr(colon, ":die") != NULL;
    return 1;
}

static int do_sync(int fd, long call)
{
    char path[PATH_MAX];
    struct stat status;
    uint64_t inode = inode_of(fd, path);
    if (!inode)
        return syscall(call, fd);
    begin();
    int dies = 0;
    if (is_to_fail(path, &dies)) {
        put(SYNC_FAILED, inode, 0, path, "", "", 0);
        if (dies)
            raise(SIGKILL);
        end();
        errno = EIO;
        return -1;
    }
    int result = syscall(call, fd);
    if (!result && !fstat(fd, &status))
        put(S_ISDIR(status.st_mode) ? SYNC_DIRECTORY : SYNC, inode, 0, path, "", "", 0);
    end();
    return result;
}

int fsync(int fd)
{
    return do_sync(fd, SYS_fsync);
}

int fdatasync(int fd)
{
    return do_sync(fd, SYS_fdatasync);
}

int posix_fadvise64(int fd, off64_t offset, off64_t length, int advice)
{
    char path[PATH_MAX];
    uint64_t inode = inode_of(fd, path);
    if (!inode)
        return syscall(SYS_fadvise64, fd, offset, length, advice) ? errno : 0;
    begin();
    int result = syscall(SYS_fadvise64, fd, offset, length, advice) ? errno : 0;
    if (!result && !offset && !length && advice == POSIX_FADV_DONTNEED)
        put(FORGET, inode, 0, "", "", "", 0);
    end();
    return result;
}

int posix_fadvise(int fd, off_t offset, off_t length, int advice)
{
    return posix_fadvise64(fd, offset, length, advice);
}

int rename(const char *from, const char *to)
{
    if (!is_ours(from))
        return syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    begin();
    int result = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    if (!result)
        put(RENAME, 0, 0, from, to, "", 0);
    end();
    return result;
}

int unlink(const char *path)
{
    if (!is_ours(path))
        return syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    begin();
    int result = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!result)
        put(UNLINK, 0, 0, path, "", "", 0);
    end();
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    if (!is_ours(path))
        return syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    begin();
    int result = syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (!result)
        put(MKDIR, 0, 0, path, "", "", 0);
    end();
    return result;
}

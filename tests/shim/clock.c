/* A wall clock that jumps by ten years, back and forth, a few times a second; the monotonic clock goes on.
 * To be put into LD_PRELOAD. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static int (*real)(clockid_t, struct timespec *);

static int read_clock(clockid_t id, struct timespec *time)
{
    if (!real)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, time);
}

/* Seconds that the wall clock is wrong by at the moment: ten years behind, right, or ten years ahead. */
static long error_now(void)
{
    struct timespec steady;
    read_clock(CLOCK_MONOTONIC, &steady);
    long turn = (steady.tv_sec * 1000 + steady.tv_nsec / 1000000) / 70 % 3;
    return (turn - 1) * 10 * 365 * 86400L;
}

int clock_gettime(clockid_t id, struct timespec *time)
{
    int result = read_clock(id, time);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        time->tv_sec += error_now();
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *where)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (where)
        *where = now.tv_sec;
    return now.tv_sec;
}

/* A folder that fails, for programs that load this library first (LD_PRELOAD). It does nothing until it is told to.

   folder_fails: from then on, calls that open, make, rename or flush a file below one folder take some time, and fail at
   random with EIO or ESTALE, as on a network file system that loses its server.
   folder_full: from then on, so many bytes can be written below the folder, as on a disk that is nearly full. The write
   that meets the end is cut short, all later ones fail with ENOSPC. Nothing that is deleted makes room. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096];
static double probability;
static unsigned int state;
static unsigned int pause_us;
static long failures;
static long long room = -1; /* bytes; below zero: as much as there is */

void folder_full(const char *path, long long bytes) {
    snprintf(folder, sizeof folder, "%s", path);
    room = bytes;
}

void folder_fails(const char *path, double chance, unsigned int seed, unsigned int microseconds) {
    snprintf(folder, sizeof folder, "%s", path);
    probability = chance;
    state = seed;
    pause_us = microseconds;
}

long folder_failures(void) { return failures; }

/* Whether a path lies in the folder; relative paths are those below the working directory. */
static int inside(const char *path) {
    char here[4096];
    if (!folder[0] || !path) return 0;
    if (path[0] == '/') return !strncmp(path, folder, strlen(folder));
    return getcwd(here, sizeof here) && !strncmp(here, folder, strlen(folder));
}

static int inside_fd(int fd) {
    char link[64], path[4096];
    ssize_t size;
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    size = readlink(link, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return inside(path);
}

/* Wait, and say whether this call fails; errno then tells how. */
static int lost(void) {
    if (pause_us) usleep(pause_us);
    if (rand_r(&state) >= probability * ((double)RAND_MAX + 1)) return 0;
    failures++;
    errno = rand_r(&state) % 2 ? EIO : ESTALE;
    return 1;
}

#define REAL(name, kind) \
    static kind real; \
    if (!real) real = (kind)dlsym(RTLD_NEXT, name)

typedef int (*open_call)(const char *, int, ...);
typedef int (*openat_call)(int, const char *, int, ...);
typedef FILE *(*fopen_call)(const char *, const char *);
typedef int (*rename_call)(const char *, const char *);
typedef int (*renameat_call)(int, const char *, int, const char *);
typedef int (*mkdir_call)(const char *, mode_t);
typedef int (*fsync_call)(int);

static mode_t mode_of(int flags, va_list more) {
    return flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list more; \
        REAL(#name, open_call); \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        return inside(path) && lost() ? -1 : real(path, flags, mode); \
    }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list more; \
        REAL(#name, openat_call); \
        va_start(more, flags); \
        mode_t mode = mode_of(flags, more); \
        va_end(more); \
        return inside(path) && lost() ? -1 : real(at, path, flags, mode); \
    }
#define FOPEN(name) \
    FILE *name(const char *path, const char *how) { \
        REAL(#name, fopen_call); \
        return inside(path) && lost() ? NULL : real(path, how); \
    }
#define FSYNC(name) \
    int name(int fd) { \
        REAL(#name, fsync_call); \
        return inside_fd(fd) && lost() ? -1 : real(fd); \
    }

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
FOPEN(fopen)
FOPEN(fopen64)
FSYNC(fsync)
FSYNC(fdatasync)

int rename(const char *from, const char *to) {
    REAL("rename", rename_call);
    return inside(to) && lost() ? -1 : real(from, to);
}

int renameat(int at, const char *from, int there, const char *to) {
    REAL("renameat", renameat_call);
    return inside(to) && lost() ? -1 : real(at, from, there, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL("mkdir", mkdir_call);
    return inside(path) && lost() ? -1 : real(path, mode);
}

/* How many of these bytes a write into this file may take: fewer than asked for at the end of the room, then -1. */
static ssize_t granted(int fd, size_t wanted) {
    if (room < 0 || !wanted || !inside_fd(fd)) return (ssize_t)wanted;
    if (room == 0) {
        failures++;
        errno = ENOSPC;
        return -1;
    }
    return room < (long long)wanted ? (ssize_t)room : (ssize_t)wanted;
}

/* Count what was written. */
static ssize_t taken(int fd, ssize_t written) {
    if (room > 0 && written > 0 && inside_fd(fd)) room = room > written ? room - written : 0;
    return written;
}

typedef ssize_t (*write_call)(int, const void *, size_t);
typedef ssize_t (*pwrite_call)(int, const void *, size_t, off_t);
typedef ssize_t (*writev_call)(int, const struct iovec *, int);

ssize_t write(int fd, const void *bytes, size_t size) {
    REAL("write", write_call);
    ssize_t most = granted(fd, size);
    return most < 0 ? -1 : taken(fd, real(fd, bytes, (size_t)most));
}

#define PWRITE(name) \
    ssize_t name(int fd, const void *bytes, size_t size, off_t place) { \
        REAL(#name, pwrite_call); \
        ssize_t most = granted(fd, size); \
        return most < 0 ? -1 : taken(fd, real(fd, bytes, (size_t)most, place)); \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

/* Piece by piece, so that each is counted. */
ssize_t writev(int fd, const struct iovec *pieces, int count) {
    ssize_t all = 0, most, written;
    int number;
    REAL("writev", writev_call);
    if (room < 0 || !inside_fd(fd)) return real(fd, pieces, count);
    for (number = 0; number < count; number++) {
        most = granted(fd, pieces[number].iov_len);
        written = most < 0 ? -1 : write(fd, pieces[number].iov_base, (size_t)most);
        if (written < 0) return all ? all : -1;
        all += written;
        if ((size_t)written < pieces[number].iov_len) break;
    }
    return all;
}

/* Makes writes fail as on a faulty disk, whichever library writes; test_writes.py loads it with LD_PRELOAD.
 *
 * FAULT_AT is a pattern of paths (fnmatch), FAULT is what happens to them:
 *   full    half of a write arrives, then every later write below FAULT_ROOT fails (ENOSPC)
 *   broken  writing to such a file or renaming to it fails (EIO)
 *   short   each write takes at most half of its bytes and succeeds; the file must still be complete
 *   rename  renaming to such a path fails (EIO)
 *   fsync   syncing such a file fails (EIO)
 * FAULT_SEEN is a file that is made at the first error, so that a test knows that there was one.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

static int disk_is_full = 0;

static int matches(const char *fault, const char *path) {
    const char *chosen = getenv("FAULT"), *at = getenv("FAULT_AT"), *seen = getenv("FAULT_SEEN");
    if (!chosen || !at || !seen || strcmp(chosen, fault) || fnmatch(at, path, 0)) return 0;
    int fd = open(seen, O_CREAT | O_WRONLY, 0600);
    if (fd >= 0) close(fd);
    return 1;
}

static const char *path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, PATH_MAX - 1);
    path[n < 0 ? 0 : n] = 0;
    return path;
}

/* Returns how many of `size` bytes a write may take, or -1 with errno if it fails. */
static ssize_t allowed(int fd, size_t size) {
    char path[PATH_MAX];
    if (!getenv("FAULT")) return size;
    path_of(fd, path);
    const char *root = getenv("FAULT_ROOT");
    int full = disk_is_full && root && !strncmp(path, root, strlen(root));
    if (!full && matches("full", path)) {
        disk_is_full = 1;
        if (size > 1) return size / 2;
        full = 1;
    }
    if (full) {
        errno = ENOSPC;
        return -1;
    }
    if (matches("broken", path)) {
        errno = EIO;
        return -1;
    }
    if (size > 1 && matches("short", path)) return size / 2;
    return size;
}

#define REAL(result, name, ...) static result (*real)(__VA_ARGS__); if (!real) real = dlsym(RTLD_NEXT, name)
#define LIMITED(fd, size) ssize_t n = allowed(fd, size); if (n < 0) return -1;

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, "write", int, const void *, size_t);
    LIMITED(fd, size);
    return real(fd, data, n);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(ssize_t, "pwrite", int, const void *, size_t, off_t);
    LIMITED(fd, size);
    return real(fd, data, n, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off64_t);
    LIMITED(fd, size);
    return real(fd, data, n, at);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, "writev", int, const struct iovec *, int);
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    LIMITED(fd, size);
    return (size_t)n == size ? real(fd, parts, count) : write(fd, parts[0].iov_base, parts[0].iov_len);
}

ssize_t sendfile64(int to, int from, off64_t *at, size_t size) {
    REAL(ssize_t, "sendfile64", int, int, off64_t *, size_t);
    LIMITED(to, size);
    return real(to, from, at, n);
}

ssize_t sendfile(int to, int from, off_t *at, size_t size) {
    REAL(ssize_t, "sendfile", int, int, off_t *, size_t);
    LIMITED(to, size);
    return real(to, from, at, n);
}

/* glibc's own writing of a FILE cannot be reached from here. */
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(size_t, "fwrite", const void *, size_t, size_t, FILE *);
    if (file != stdout && file != stderr && getenv("FAULT") && allowed(fileno(file), size * count) < 0)
        return 0;
    return real(data, size, count, file);
}

#define SYNCING(name)                                                  \
    int name(int fd) {                                                 \
        REAL(int, #name, int);                                         \
        char path[PATH_MAX];                                           \
        if (getenv("FAULT") && matches("fsync", path_of(fd, path))) {  \
            errno = EIO;                                               \
            return -1;                                                 \
        }                                                              \
        return real(fd);                                               \
    }
SYNCING(fsync)
SYNCING(fdatasync)

static int full_path(const char *path, char *whole) {
    char folder[PATH_MAX];
    if (path[0] == '/') return snprintf(whole, PATH_MAX, "%s", path);
    return getcwd(folder, sizeof folder) ? snprintf(whole, PATH_MAX, "%s/%s", folder, path) : 0;
}

#define RENAMING(to)                                                            \
    char whole[PATH_MAX];                                                       \
    if (getenv("FAULT") && full_path(to, whole) && (matches("rename", whole) || matches("broken", whole))) {  \
        errno = EIO;                                                            \
        return -1;                                                              \
    }

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    RENAMING(to);
    return real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, "renameat", int, const char *, int, const char *);
    RENAMING(to);
    return real(a, from, b, to);
}

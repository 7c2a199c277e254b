/* Faults in files: preloaded (LD_PRELOAD), this library counts the file operations of a process below a folder and
 * makes the N-th of them fail.
 *
 *   fault_arm(folder, n, kind, log)   from now on the n-th operation below the folder that `kind` can befall fails;
 *                                     with n = 0 none does, and each is logged: its kinds, its name, its path
 *   fault_disarm(), fault_count()
 *
 * Kinds: EIO, EACCES, EMFILE, ENOSPC (once), FULL (this and every later write finds no room), SHORT (half is written),
 * KILL (SIGKILL; of a write one half reaches the file). A process that is not armed by a call may be by its environment:
 * VAELAB_FAULT_DIR, _N, _KIND, _LOG, and with VAELAB_FAULT_SCOPE=all its children as well, each with a count of its own.
 *
 * The path of a descriptor is asked from the system, so that it is right whoever opened, copied or renamed it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { EIO_ = 1, EACCES_ = 2, EMFILE_ = 4, ENOSPC_ = 8, FULL_ = 16, SHORT_ = 32, KILL_ = 64 };

/* What an operation can suffer. */
#define LOOKS (EIO_ | EACCES_)                              /* at a name */
#define OPENS (EIO_ | EACCES_ | EMFILE_)                    /* what is there */
#define MAKES (EIO_ | EACCES_ | ENOSPC_ | FULL_ | KILL_)    /* a name */
#define CREATES (MAKES | EMFILE_)                           /* a file, and opens it */
#define REMOVES (EIO_ | EACCES_ | KILL_)
#define READS (EIO_)
#define WRITES (EIO_ | ENOSPC_ | FULL_ | SHORT_ | KILL_)
#define KEEPS (EIO_ | ENOSPC_ | FULL_ | KILL_)              /* what was written: fsync, ftruncate, ... */

static const struct { const char *name; int bit, code; } KINDS[] = {
    {"EIO", EIO_, EIO}, {"EACCES", EACCES_, EACCES}, {"EMFILE", EMFILE_, EMFILE}, {"ENOSPC", ENOSPC_, ENOSPC},
    {"FULL", FULL_, ENOSPC}, {"SHORT", SHORT_, 0}, {"KILL", KILL_, 0},
};
enum { NKINDS = sizeof KINDS / sizeof *KINDS };

static atomic_int armed;
static atomic_long counted;
static long wanted;
static int kind = -1, logged = -1;
static char folder[PATH_MAX];
static size_t length;

enum { PASS, FAIL, HALF, DIE_HALF };

static void put(const char *text) {
    if (logged >= 0) syscall(SYS_write, logged, text, strlen(text));
}

static int below(const char *path) {
    return !strncmp(path, folder, length) && (path[length] == '/' || !path[length]);
}

static int of_fd(int fd, char *out) {
    char link[40];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (n < 0) return 0;
    out[n] = 0;
    return out[0] == '/' && below(out);
}

static int of_name(int at, const char *path, char *out) {
    if (!path || !*path) return path && at != AT_FDCWD && of_fd(at, out);
    if (*path == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return below(out);
    }
    char base[PATH_MAX];
    if (at == AT_FDCWD) {
        if (syscall(SYS_getcwd, base, sizeof base) < 0) return 0;
    } else {
        char link[40];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        long n = syscall(SYS_readlinkat, AT_FDCWD, link, base, sizeof base - 1);
        if (n < 0) return 0;
        base[n] = 0;
    }
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
    return below(out);
}

/* What happens to an operation on a path below the folder. */
static int fate(int mask, const char *name, const char *path) {
    char line[PATH_MAX + 200];
    if (!wanted) {
        char names[64] = "";
        for (int i = 0; i < NKINDS; i++)
            if (mask & KINDS[i].bit) strcat(strcat(names, *names ? "," : ""), KINDS[i].name);
        snprintf(line, sizeof line, "%s %s %s\n", names, name, path + length);
        put(line);
        atomic_fetch_add(&counted, 1);
        return PASS;
    }
    if (kind < 0 || !(mask & KINDS[kind].bit)) return PASS;
    long mine = atomic_fetch_add(&counted, 1) + 1;
    int lasting = KINDS[kind].bit == FULL_;
    if (lasting ? mine < wanted : mine != wanted) return PASS;
    if (mine == wanted) {
        snprintf(line, sizeof line, "%s %s %s\n", KINDS[kind].name, name, path + length);
        put(line);
    }
    switch (KINDS[kind].bit) {
    case SHORT_: return HALF;
    case KILL_:
        if (mask == WRITES) return DIE_HALF;
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    errno = KINDS[kind].code;
    return FAIL;
}

static int named(int mask, const char *name, int at, const char *path) {
    if (!atomic_load(&armed)) return PASS;
    int kept = errno;
    char full[PATH_MAX];
    int hit = of_name(at, path, full);
    errno = kept;
    return hit ? fate(mask, name, full) : PASS;
}

static int opened(int mask, const char *name, int fd) {
    if (!atomic_load(&armed)) return PASS;
    int kept = errno;
    char full[PATH_MAX];
    int hit = of_fd(fd, full);
    errno = kept;
    return hit ? fate(mask, name, full) : PASS;
}

void fault_disarm(void) { atomic_store(&armed, 0); }
long fault_count(void) { return atomic_load(&counted); }

int fault_arm(const char *where, long n, const char *what, const char *log) {
    fault_disarm();
    kind = -1;
    for (int i = 0; i < NKINDS; i++)
        if (!strcmp(KINDS[i].name, what)) kind = i;
    if (kind < 0 && n) return -1;
    snprintf(folder, sizeof folder, "%s", where);
    length = strlen(folder);
    wanted = n;
    atomic_store(&counted, 0);
    if (logged >= 0) syscall(SYS_close, logged);
    logged = -1;
    if (log && *log) {
        int fd = syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        logged = fcntl(fd, F_DUPFD_CLOEXEC, 900);
        if (logged >= 0) syscall(SYS_close, fd);
        else logged = fd;
    }
    atomic_store(&armed, 1);
    return 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("VAELAB_FAULT_DIR"), *n = getenv("VAELAB_FAULT_N"), *what = getenv("VAELAB_FAULT_KIND");
    const char *scope = getenv("VAELAB_FAULT_SCOPE");
    if (!where || !n) return;
    fault_arm(where, atol(n), what ? what : "", getenv("VAELAB_FAULT_LOG"));
    if (!scope || strcmp(scope, "all")) unsetenv("VAELAB_FAULT_N");
}

/* The operations. A wrapper asks for its fate before it calls what it wraps. */
#define REAL(name)                                                                                                     \
    static __typeof__(&name) real;                                                                                     \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define NAMED(mask, name, at, path, failed) if (named(mask, #name, at, path) == FAIL) return failed
#define OPENED(mask, name, fd, failed) if (opened(mask, #name, fd) == FAIL) return failed

#define MODE(flags)                                                                                                    \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                           \
        va_list rest;                                                                                                  \
        va_start(rest, flags);                                                                                         \
        mode = va_arg(rest, mode_t);                                                                                   \
        va_end(rest);                                                                                                  \
    }
#define OPEN(name)                                                                                                     \
    int name(const char *path, int flags, ...) {                                                                       \
        MODE(flags)                                                                                                    \
        REAL(name);                                                                                                    \
        NAMED(flags & (O_CREAT | O_TRUNC) ? CREATES : OPENS, name, AT_FDCWD, path, -1);                                \
        return real(path, flags, mode);                                                                                \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                                                                   \
    int name(int at, const char *path, int flags, ...) {                                                               \
        MODE(flags)                                                                                                    \
        REAL(name);                                                                                                    \
        NAMED(flags & (O_CREAT | O_TRUNC) ? CREATES : OPENS, name, at, path, -1);                                      \
        return real(at, path, flags, mode);                                                                            \
    }
OPENAT(openat)
OPENAT(openat64)
#define CREAT(name)                                                                                                    \
    int name(const char *path, mode_t mode) {                                                                          \
        REAL(name);                                                                                                    \
        NAMED(CREATES, name, AT_FDCWD, path, -1);                                                                      \
        return real(path, mode);                                                                                       \
    }
CREAT(creat)
CREAT(creat64)
#define FOPEN(name)                                                                                                    \
    FILE *name(const char *path, const char *mode) {                                                                   \
        REAL(name);                                                                                                    \
        NAMED(strchr(mode, 'r') ? OPENS : CREATES, name, AT_FDCWD, path, NULL);                                        \
        return real(path, mode);                                                                                       \
    }
FOPEN(fopen)
FOPEN(fopen64)

DIR *opendir(const char *path) {
    REAL(opendir);
    NAMED(OPENS, opendir, AT_FDCWD, path, NULL);
    return real(path);
}
DIR *fdopendir(int fd) {
    REAL(fdopendir);
    OPENED(EIO_, fdopendir, fd, NULL);
    return real(fd);
}
#define READDIR(name, entry)                                                                                           \
    entry *name(DIR *from) {                                                                                           \
        REAL(name);                                                                                                    \
        OPENED(READS, name, dirfd(from), NULL);                                                                        \
        return real(from);                                                                                             \
    }
READDIR(readdir, struct dirent)
READDIR(readdir64, struct dirent64)

/* Reading and writing. */
ssize_t read(int fd, void *into, size_t count) {
    REAL(read);
    OPENED(READS, read, fd, -1);
    return real(fd, into, count);
}
#define PREAD(name, offset)                                                                                            \
    ssize_t name(int fd, void *into, size_t count, offset at) {                                                        \
        REAL(name);                                                                                                    \
        OPENED(READS, name, fd, -1);                                                                                   \
        return real(fd, into, count, at);                                                                              \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

static void die(void) {
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;) pause();
}
ssize_t write(int fd, const void *from, size_t count) {
    REAL(write);
    int fated = opened(WRITES, "write", fd);
    if (fated == FAIL) return -1;
    ssize_t done = real(fd, from, fated == PASS || count < 2 ? count : count / 2);
    if (fated == DIE_HALF) die();
    return done;
}
#define PWRITE(name, offset)                                                                                           \
    ssize_t name(int fd, const void *from, size_t count, offset at) {                                                  \
        REAL(name);                                                                                                    \
        int fated = opened(WRITES, #name, fd);                                                                         \
        if (fated == FAIL) return -1;                                                                                  \
        ssize_t done = real(fd, from, fated == PASS || count < 2 ? count : count / 2, at);                             \
        if (fated == DIE_HALF) die();                                                                                  \
        return done;                                                                                                   \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)
ssize_t writev(int fd, const struct iovec *from, int count) {
    REAL(writev);
    int fated = opened(WRITES, "writev", fd);
    if (fated == FAIL) return -1;
    ssize_t done = real(fd, from, fated == PASS || count < 2 ? count : count / 2);
    if (fated == DIE_HALF) die();
    return done;
}
#define SENDFILE(name, offset)                                                                                         \
    ssize_t name(int to, int from, offset *at, size_t count) {                                                         \
        REAL(name);                                                                                                    \
        OPENED(KEEPS, name, to, -1);                                                                                   \
        OPENED(READS, name, from, -1);                                                                                 \
        return real(to, from, at, count);                                                                              \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *where, size_t count, unsigned flags) {
    REAL(copy_file_range);
    OPENED(KEEPS, copy_file_range, to, -1);
    OPENED(READS, copy_file_range, from, -1);
    return real(from, at, to, where, count, flags);
}
#define MMAP(name, offset)                                                                                             \
    void *name(void *at, size_t count, int allowed, int flags, int fd, offset from) {                                  \
        REAL(name);                                                                                                    \
        if (fd >= 0 && opened(READS, #name, fd) == FAIL) {                                                             \
            errno = ENOMEM;                                                                                            \
            return MAP_FAILED;                                                                                         \
        }                                                                                                              \
        return real(at, count, allowed, flags, fd, from);                                                              \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

/* Keeping. */
#define ON_FD(name, mask)                                                                                              \
    int name(int fd) {                                                                                                 \
        REAL(name);                                                                                                    \
        OPENED(mask, name, fd, -1);                                                                                    \
        return real(fd);                                                                                               \
    }
ON_FD(fsync, KEEPS)
ON_FD(fdatasync, KEEPS)
#define FTRUNCATE(name, offset)                                                                                        \
    int name(int fd, offset size) {                                                                                    \
        REAL(name);                                                                                                    \
        OPENED(KEEPS, name, fd, -1);                                                                                   \
        return real(fd, size);                                                                                         \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)
#define TRUNCATE(name, offset)                                                                                         \
    int name(const char *path, offset size) {                                                                          \
        REAL(name);                                                                                                    \
        NAMED(MAKES, name, AT_FDCWD, path, -1);                                                                        \
        return real(path, size);                                                                                       \
    }
TRUNCATE(truncate, off_t)
TRUNCATE(truncate64, off64_t)
#define FALLOCATE(name, offset, failed)                                                                                \
    int name(int fd, offset from, offset size) {                                                                       \
        REAL(name);                                                                                                    \
        OPENED(KEEPS, name, fd, failed);                                                                               \
        return real(fd, from, size);                                                                                   \
    }
FALLOCATE(posix_fallocate, off_t, errno)
FALLOCATE(posix_fallocate64, off64_t, errno)
int flock(int fd, int how) {
    REAL(flock);
    OPENED(EIO_, flock, fd, -1);
    return real(fd, how);
}
int fchmod(int fd, mode_t mode) {
    REAL(fchmod);
    OPENED(EIO_, fchmod, fd, -1);
    return real(fd, mode);
}

/* Names. */
int rename(const char *from, const char *to) {
    REAL(rename);
    NAMED(MAKES, rename, AT_FDCWD, to, -1);
    return real(from, to);
}
int renameat(int a, const char *from, int b, const char *to) {
    REAL(renameat);
    NAMED(MAKES, renameat, b, to, -1);
    return real(a, from, b, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    REAL(renameat2);
    NAMED(MAKES, renameat2, b, to, -1);
    return real(a, from, b, to, flags);
}
int link(const char *from, const char *to) {
    REAL(link);
    NAMED(MAKES, link, AT_FDCWD, to, -1);
    return real(from, to);
}
int linkat(int a, const char *from, int b, const char *to, int flags) {
    REAL(linkat);
    NAMED(MAKES, linkat, b, to, -1);
    return real(a, from, b, to, flags);
}
int symlink(const char *from, const char *to) {
    REAL(symlink);
    NAMED(MAKES, symlink, AT_FDCWD, to, -1);
    return real(from, to);
}
int unlink(const char *path) {
    REAL(unlink);
    NAMED(REMOVES, unlink, AT_FDCWD, path, -1);
    return real(path);
}
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    NAMED(REMOVES, unlinkat, at, path, -1);
    return real(at, path, flags);
}
int rmdir(const char *path) {
    REAL(rmdir);
    NAMED(REMOVES, rmdir, AT_FDCWD, path, -1);
    return real(path);
}
int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    NAMED(MAKES, mkdir, AT_FDCWD, path, -1);
    return real(path, mode);
}
int mkdirat(int at, const char *path, mode_t mode) {
    REAL(mkdirat);
    NAMED(MAKES, mkdirat, at, path, -1);
    return real(at, path, mode);
}
int chmod(const char *path, mode_t mode) {
    REAL(chmod);
    NAMED(LOOKS, chmod, AT_FDCWD, path, -1);
    return real(path, mode);
}
int fchmodat(int at, const char *path, mode_t mode, int flags) {
    REAL(fchmodat);
    NAMED(LOOKS, fchmodat, at, path, -1);
    return real(at, path, mode, flags);
}
int utimensat(int at, const char *path, const struct timespec times[2], int flags) {
    REAL(utimensat);
    NAMED(LOOKS, utimensat, at, path, -1);
    return real(at, path, times, flags);
}
ssize_t readlink(const char *path, char *into, size_t size) {
    REAL(readlink);
    NAMED(LOOKS, readlink, AT_FDCWD, path, -1);
    return real(path, into, size);
}
int access(const char *path, int how) {
    REAL(access);
    NAMED(LOOKS, access, AT_FDCWD, path, -1);
    return real(path, how);
}
#define STAT(name, kind_of)                                                                                            \
    int name(const char *path, struct kind_of *into) {                                                                 \
        REAL(name);                                                                                                    \
        NAMED(LOOKS, name, AT_FDCWD, path, -1);                                                                        \
        return real(path, into);                                                                                       \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)
#define FSTAT(name, kind_of)                                                                                           \
    int name(int fd, struct kind_of *into) {                                                                           \
        REAL(name);                                                                                                    \
        OPENED(READS, name, fd, -1);                                                                                   \
        return real(fd, into);                                                                                         \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)
#define FSTATAT(name, kind_of)                                                                                         \
    int name(int at, const char *path, struct kind_of *into, int flags) {                                              \
        REAL(name);                                                                                                    \
        NAMED(LOOKS, name, at, path, -1);                                                                              \
        return real(at, path, into, flags);                                                                            \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)
int statx(int at, const char *path, int flags, unsigned mask, struct statx *into) {
    REAL(statx);
    NAMED(LOOKS, statx, at, path, -1);
    return real(at, path, flags, mask, into);
}

// A disk that misbehaves, for a program that is started with this in LD_PRELOAD: stands in for pread where the file is a model.
// What is wrong is asked before each read of the file that FAULT_CONTROL names, so that a test can change it at any time:
//   eio      reads fail             short    at most 777 bytes arrive
//   eio once the next read fails    slow     a read takes 2 ms more
//   hang     reads do not return until this changes; a file FAULT_CONTROL.hung says that one has begun
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static ssize_t (*real_pread)(int, void *, size_t, off_t);

__attribute__((constructor)) static void find(void) { real_pread = dlsym(RTLD_NEXT, "pread64"); }

static int is_model(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    path[n > 0 ? n : 0] = 0;
    return strstr(path, ".gguf") != NULL;
}

static void ask(char *fault, size_t size) {
    const char *control = getenv("FAULT_CONTROL");
    int fd = control ? open(control, O_RDONLY) : -1;
    ssize_t n = fd >= 0 ? real_pread(fd, fault, size - 1, 0) : 0;
    fault[n > 0 ? n : 0] = 0;
    if (fd >= 0) close(fd);
}

static void tell(void) {
    char path[4200];
    snprintf(path, sizeof path, "%s.hung", getenv("FAULT_CONTROL"));
    close(open(path, O_CREAT | O_WRONLY, 0600));
}

ssize_t pread64(int fd, void *buf, size_t len, off_t offset) {
    char fault[16];
    if (!is_model(fd)) return real_pread(fd, buf, len, offset);
    int told = 0;
    for (ask(fault, sizeof fault); !strcmp(fault, "hang"); ask(fault, sizeof fault)) {
        if (!told++) tell();
        usleep(1000);
    }
    // Of several threads, one only succeeds in removing the order to fail once.
    if (!strcmp(fault, "eio") || (!strcmp(fault, "eio once") && !unlink(getenv("FAULT_CONTROL")))) {
        memset(buf, 0xFF, len);
        errno = EIO;
        return -1;
    }
    if (!strcmp(fault, "slow")) usleep(2000);
    return real_pread(fd, buf, !strcmp(fault, "short") && len > 777 ? 777 : len, offset);
}

// What the page cache has: nothing, so that all reads come here.
ssize_t preadv2(int fd, const struct iovec *to, int n, off_t offset, int flags) {
    (void)fd, (void)to, (void)n, (void)offset, (void)flags;
    errno = EAGAIN;
    return -1;
}

// A disk that misbehaves under io_uring, for a program that is started with this in LD_PRELOAD. The ring is the kernel's: what goes
// wrong is asked of it. Just before reads are submitted, those of registered files, which are the model's, are turned into
//   eio      reads of an address of this process where nothing is: the kernel answers EIO
//   short    reads of 64 KiB at most
// and "slow" takes 2 ms more for each submission; "eio once" is for the next read only. What is wrong is in the file that FAULT_CONTROL names; see
// bad_disk.c.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RINGS = 64, SHORT = 65536 };

// Rings by their descriptor: where their queues are.
static struct {
    struct io_sqring_offsets offsets;
    char *queue;
    struct io_uring_sqe *entries;
} rings[RINGS];

static long (*real_syscall)(long, ...);
static void *(*real_mmap)(void *, size_t, int, int, int, off_t);

static void find(void) {
    if (real_syscall) return;
    real_mmap = dlsym(RTLD_NEXT, "mmap");
    real_syscall = dlsym(RTLD_NEXT, "syscall");
}

static void ask(char *fault, size_t size) {
    const char *control = getenv("FAULT_CONTROL");
    int fd = control ? open(control, O_RDONLY) : -1;
    ssize_t n = fd >= 0 ? read(fd, fault, size - 1) : 0;
    fault[n > 0 ? n : 0] = 0;
    if (fd >= 0) close(fd);
}

static void spoil(struct io_uring_sqe *entry, const char *fault) {
    static int nowhere = -1;
    if (entry->opcode != IORING_OP_READ || !(entry->flags & IOSQE_FIXED_FILE)) return;
    if (!strcmp(fault, "short") && entry->len > SHORT) entry->len = SHORT;
    if (!strcmp(fault, "eio") || (!strcmp(fault, "eio once") && !unlink(getenv("FAULT_CONTROL")))) {
        if (nowhere < 0) nowhere = open("/proc/self/mem", O_RDONLY);
        entry->fd = nowhere;
        entry->flags &= ~IOSQE_FIXED_FILE;
        entry->off = 0;
    }
}

static void submit(int fd, unsigned n) {
    char fault[16];
    if (fd < 0 || fd >= RINGS || !rings[fd].queue || !rings[fd].entries) return;
    struct io_sqring_offsets *at = &rings[fd].offsets;
    char *queue = rings[fd].queue;
    unsigned head = __atomic_load_n((unsigned *)(queue + at->head), __ATOMIC_ACQUIRE);
    unsigned mask = *(unsigned *)(queue + at->ring_mask), *array = (unsigned *)(queue + at->array);
    ask(fault, sizeof fault);
    if (!strcmp(fault, "slow")) usleep(2000);
    for (unsigned i = 0; fault[0] && i < n; i++)
        spoil(&rings[fd].entries[array[(head + i) & mask]], fault);
}

void *mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset) {
    find();
    char *mapped = real_mmap(address, len, protection, flags, fd, offset);
    if (fd >= 0 && fd < RINGS && rings[fd].offsets.array && mapped != MAP_FAILED) {
        if (offset == IORING_OFF_SQ_RING) rings[fd].queue = mapped;
        if (offset == IORING_OFF_SQES) rings[fd].entries = (struct io_uring_sqe *)mapped;
    }
    return mapped;
}

long syscall(long number, ...) {
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++) a[i] = va_arg(list, long);
    va_end(list);
    find();
    if (number == SYS_io_uring_enter) submit((int)a[0], (unsigned)a[1]);
    long result = real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_io_uring_setup && result >= 0 && result < RINGS) {
        memset(&rings[result], 0, sizeof rings[result]);
        rings[result].offsets = ((struct io_uring_params *)a[1])->sq_off;
    }
    return result;
}

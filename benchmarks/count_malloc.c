/* Counts the bytes that a process takes from malloc and its kin: LD_PRELOAD it, and ask counted_bytes(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

static uint64_t counted;

uint64_t counted_bytes(void) { return __atomic_load_n(&counted, __ATOMIC_RELAXED); }

static void count(size_t size) { __atomic_fetch_add(&counted, size, __ATOMIC_RELAXED); }

/* glibc's own names: what is preloaded cannot ask dlsym for them, which may itself allocate. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t number, size_t size);
void *__libc_realloc(void *pointer, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    count(size);
    return __libc_malloc(size);
}
void *calloc(size_t number, size_t size) {
    count(number * size);
    return __libc_calloc(number, size);
}
void *realloc(void *pointer, size_t size) {
    count(size);
    return __libc_realloc(pointer, size);
}
void *memalign(size_t alignment, size_t size) {
    count(size);
    return __libc_memalign(alignment, size);
}
void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }
int posix_memalign(void **pointer, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (found == NULL) {
        return ENOMEM;
    }
    *pointer = found;
    return 0;
}

/* platform.h: threads, clocks and dynamic libraries, where systems differ. Nothing else does so. */
#ifndef FERRULE_PLATFORM_H
#define FERRULE_PLATFORM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
#include <winsock2.h>
#include <windows.h>

typedef SRWLOCK fh_mutex;
typedef CONDITION_VARIABLE fh_condition;
#define FH_MUTEX_INIT SRWLOCK_INIT
#define FH_CONDITION_INIT CONDITION_VARIABLE_INIT

static inline void fh_mutex_init(fh_mutex *mutex) { InitializeSRWLock(mutex); }
static inline void fh_mutex_free(fh_mutex *mutex) { (void)mutex; }
static inline void fh_mutex_lock(fh_mutex *mutex) { AcquireSRWLockExclusive(mutex); }
static inline void fh_mutex_unlock(fh_mutex *mutex) { ReleaseSRWLockExclusive(mutex); }
static inline void fh_condition_init(fh_condition *condition) { InitializeConditionVariable(condition); }
static inline void fh_condition_free(fh_condition *condition) { (void)condition; }
static inline void fh_condition_wake(fh_condition *condition) { WakeAllConditionVariable(condition); }
/* Waits at most timeout_ms (-1: without end); may return early. */
static inline void fh_condition_wait(fh_condition *condition, fh_mutex *mutex, int64_t timeout_ms) {
    SleepConditionVariableSRW(condition, mutex, timeout_ms < 0 ? INFINITE : (DWORD)timeout_ms, 0);
}
static inline int64_t fh_wall_ns(void) {
    FILETIME time;
    GetSystemTimePreciseAsFileTime(&time);
    int64_t ticks = ((int64_t)time.dwHighDateTime << 32) | time.dwLowDateTime;
    return (ticks - INT64_C(116444736000000000)) * 100; /* 1601 to 1970, in units of 100 ns */
}
static inline int64_t fh_monotonic_ms(void) { return (int64_t)GetTickCount64(); }

#else
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

typedef pthread_mutex_t fh_mutex;
typedef pthread_cond_t fh_condition;
#define FH_MUTEX_INIT PTHREAD_MUTEX_INITIALIZER
#define FH_CONDITION_INIT PTHREAD_COND_INITIALIZER

static inline void fh_mutex_init(fh_mutex *mutex) { pthread_mutex_init(mutex, NULL); }
static inline void fh_mutex_free(fh_mutex *mutex) { pthread_mutex_destroy(mutex); }
static inline void fh_mutex_lock(fh_mutex *mutex) { pthread_mutex_lock(mutex); }
static inline void fh_mutex_unlock(fh_mutex *mutex) { pthread_mutex_unlock(mutex); }
static inline void fh_condition_init(fh_condition *condition) { pthread_cond_init(condition, NULL); }
static inline void fh_condition_free(fh_condition *condition) { pthread_cond_destroy(condition); }
static inline void fh_condition_wake(fh_condition *condition) { pthread_cond_broadcast(condition); }
/* Waits at most timeout_ms (-1: without end); may return early. A step of the wall clock only moves the
 * end of a bounded wait, which every caller loops on. */
static inline void fh_condition_wait(fh_condition *condition, fh_mutex *mutex, int64_t timeout_ms) {
    struct timespec until;
    if (timeout_ms < 0) {
        pthread_cond_wait(condition, mutex);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += timeout_ms / 1000;
    until.tv_nsec += (timeout_ms % 1000) * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_sec += 1;
        until.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(condition, mutex, &until);
}
static inline int64_t fh_wall_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
static inline int64_t fh_monotonic_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
#endif

/* Sequentially consistent, but for fh_put64, which has no order: for what no other thread waits for. */
#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#define FH_LIKELY(condition) (condition)
#define FH_UNLIKELY(condition) (condition)
#define FH_COLD
#define FH_THREAD_LOCAL __declspec(thread)
static inline int32_t fh_load32(const int32_t *p) { return (int32_t)_InterlockedOr((volatile long *)p, 0); }
static inline void fh_store32(int32_t *p, int32_t value) { _InterlockedExchange((volatile long *)p, value); }
static inline int32_t fh_add32(int32_t *p, int32_t value) { return _InterlockedExchangeAdd((volatile long *)p, value); }
static inline uint64_t fh_load64(const uint64_t *p) { return (uint64_t)_InterlockedOr64((volatile __int64 *)p, 0); }
static inline void fh_put64(uint64_t *p, uint64_t value) { *(volatile uint64_t *)p = value; }
static inline uint64_t fh_add64(uint64_t *p, uint64_t value) {
    return (uint64_t)_InterlockedExchangeAdd64((volatile __int64 *)p, (__int64)value);
}
static inline void *fh_swap_pointer(void *p, void *value) { return _InterlockedExchangePointer((void *volatile *)p, value); }
#else
#define FH_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define FH_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define FH_COLD __attribute__((noinline, cold))
#define FH_THREAD_LOCAL __thread
static inline int32_t fh_load32(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void fh_store32(int32_t *p, int32_t value) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }
static inline int32_t fh_add32(int32_t *p, int32_t value) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
static inline uint64_t fh_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void fh_put64(uint64_t *p, uint64_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
static inline uint64_t fh_add64(uint64_t *p, uint64_t value) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
/* `p`: where a pointer lies. Returns what lay there. */
static inline void *fh_swap_pointer(void *p, void *value) {
    return __atomic_exchange_n((void **)p, value, __ATOMIC_SEQ_CST);
}
#endif

/* ---- a sticky bit that one thread at a time sleeps on ---------------------------------------------- */

#if defined(__linux__) && defined(__LP64__)
#include <linux/futex.h>
#include <sys/syscall.h>

/* A sleep ends early at a signal that came to the thread, unless its handler was set with SA_RESTART. */
#define FH_SIGNALS_END_SLEEP 1
typedef struct fh_bit {
    int32_t state;                             /* 0 clear, 1 set, -1 clear and somebody sleeps */
} fh_bit;
static inline void fh_bit_init(fh_bit *bit) { bit->state = 0; }
static inline void fh_bit_free(fh_bit *bit) { (void)bit; }
static inline int fh_bit_is_set(const fh_bit *bit) { return fh_load32(&bit->state) == 1; }
static inline int fh_bit_take(fh_bit *bit) {
    int32_t set = 1;
    return __atomic_compare_exchange_n(&bit->state, &set, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}
static inline void fh_bit_set(fh_bit *bit) {
    if (__atomic_exchange_n(&bit->state, 1, __ATOMIC_SEQ_CST) == -1) {
        syscall(SYS_futex, &bit->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
    }
}
/* Waits at most timeout_ms (-1: without end) until the bit is set; may return early. */
static inline void fh_bit_wait(fh_bit *bit, int64_t timeout_ms) {
    const struct timespec time = {timeout_ms / 1000, timeout_ms % 1000 * 1000000};
    int32_t expected = 0;
    if (__atomic_compare_exchange_n(&bit->state, &expected, -1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        syscall(SYS_futex, &bit->state, FUTEX_WAIT_PRIVATE, -1, timeout_ms < 0 ? NULL : &time, NULL, 0);
        expected = -1;
        __atomic_compare_exchange_n(&bit->state, &expected, 0, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
}
#else
#define FH_SIGNALS_END_SLEEP 0
typedef struct fh_bit {
    int32_t set;
    fh_mutex mutex;
    fh_condition changed;
} fh_bit;
static inline void fh_bit_init(fh_bit *bit) {
    bit->set = 0;
    fh_mutex_init(&bit->mutex);
    fh_condition_init(&bit->changed);
}
static inline void fh_bit_free(fh_bit *bit) {
    fh_mutex_free(&bit->mutex);
    fh_condition_free(&bit->changed);
}
static inline int fh_bit_is_set(const fh_bit *bit) { return fh_load32(&bit->set); }
static inline int fh_bit_take(fh_bit *bit) {
    fh_mutex_lock(&bit->mutex);
    int set = bit->set;
    fh_store32(&bit->set, 0);
    fh_mutex_unlock(&bit->mutex);
    return set;
}
static inline void fh_bit_set(fh_bit *bit) {
    fh_mutex_lock(&bit->mutex);
    fh_store32(&bit->set, 1);
    fh_condition_wake(&bit->changed);
    fh_mutex_unlock(&bit->mutex);
}
static inline void fh_bit_wait(fh_bit *bit, int64_t timeout_ms) {
    fh_mutex_lock(&bit->mutex);
    if (!bit->set) {
        fh_condition_wait(&bit->changed, &bit->mutex, timeout_ms);
    }
    fh_mutex_unlock(&bit->mutex);
}
#endif

/* When a wait of timeout_ms (-1: without end) is over, by the monotonic clock, and what is left of it. */
static inline int64_t fh_until(int64_t timeout_ms) { return timeout_ms < 0 ? -1 : fh_monotonic_ms() + timeout_ms; }
static inline int64_t fh_left(int64_t until) {
    const int64_t left = until < 0 ? -1 : until - fh_monotonic_ms();
    return until >= 0 && left < 0 ? 0 : left;
}
static inline int64_t fh_sooner(int64_t left, int64_t other) { return left < 0 || (other >= 0 && other < left) ? other : left; }

/* Makes an eventfd, or the socket that stands for one, readable on its other side. A full one is that already. */
static inline void fh_tell(int32_t fd) {
    static const uint64_t one = 1;
#if defined(_WIN32)
    (void)send((SOCKET)fd, (const char *)&one, (int)sizeof one, 0); /* write knows no sockets there */
#else
    if (write(fd, &one, sizeof one) < 0) {
        return;
    }
#endif
}

#endif

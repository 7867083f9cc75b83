/* platform.h: threads, clocks and dynamic libraries, where systems differ. Nothing else does so. */
#ifndef FERRULE_PLATFORM_H
#define FERRULE_PLATFORM_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define WIN32_LEAN_AND_MEAN
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
#define FH_THREAD_LOCAL __declspec(thread)
static inline int32_t fh_load32(const int32_t *p) { return (int32_t)_InterlockedOr((volatile long *)p, 0); }
static inline void fh_store32(int32_t *p, int32_t value) { _InterlockedExchange((volatile long *)p, value); }
static inline int32_t fh_add32(int32_t *p, int32_t value) { return _InterlockedExchangeAdd((volatile long *)p, value); }
static inline uint64_t fh_load64(const uint64_t *p) { return (uint64_t)_InterlockedOr64((volatile __int64 *)p, 0); }
static inline void fh_put64(uint64_t *p, uint64_t value) { *(volatile uint64_t *)p = value; }
static inline uint64_t fh_add64(uint64_t *p, uint64_t value) {
    return (uint64_t)_InterlockedExchangeAdd64((volatile __int64 *)p, (__int64)value);
}
#else
#define FH_LIKELY(condition) __builtin_expect(!!(condition), 1)
#define FH_UNLIKELY(condition) __builtin_expect(!!(condition), 0)
#define FH_THREAD_LOCAL __thread
static inline int32_t fh_load32(const int32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void fh_store32(int32_t *p, int32_t value) { __atomic_store_n(p, value, __ATOMIC_SEQ_CST); }
static inline int32_t fh_add32(int32_t *p, int32_t value) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
static inline uint64_t fh_load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
static inline void fh_put64(uint64_t *p, uint64_t value) { __atomic_store_n(p, value, __ATOMIC_RELAXED); }
static inline uint64_t fh_add64(uint64_t *p, uint64_t value) { return __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST); }
#endif

#endif

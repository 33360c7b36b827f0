/* Preloaded before libc: counts the calls of its allocator, so that a test can tell whether a loop makes any. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>

extern void* __libc_malloc(size_t);
extern void* __libc_calloc(size_t, size_t);
extern void* __libc_realloc(void*, size_t);
extern void* __libc_memalign(size_t, size_t);

static _Atomic unsigned long count;

unsigned long allocations(void) { return count; }

void* malloc(size_t n) { return count++, __libc_malloc(n); }
void* calloc(size_t n, size_t size) { return count++, __libc_calloc(n, size); }
void* realloc(void* p, size_t n) { return count++, __libc_realloc(p, n); }
void* aligned_alloc(size_t a, size_t n) { return count++, __libc_memalign(a, n); }
int posix_memalign(void** out, size_t a, size_t n) {
  count++;
  *out = __libc_memalign(a, n);
  return *out == NULL;
}

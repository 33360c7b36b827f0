#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace on_host {

int64_t bytes = 0;
int processors = 1, launches = 0;
std::vector<Wait> waits;
thread_local int current = 0;
std::set<int> started;
int launched_on = 0;
int driver = 13000, count_code = 0, count = 1, capability = 90;

namespace {

constexpr size_t kStack = 256 * 1024;

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  ucontext_t context{};
  dim3 thread;
  bool started = false, done = false;
  void* fake_stack = nullptr;
};

std::set<const void*> host_memory;

// The queued work, and the tape of the current capture.
std::recursive_mutex device;
std::deque<Work> queue;
std::unique_ptr<Tape> tape;
bool capturing = false;
thread_local cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;

struct Allocation {
  size_t bytes;
  int device;
};
std::map<const char*, Allocation> allocated;

const std::function<void()>* body = nullptr;
ucontext_t walker;
Fiber* running = nullptr;
const void* walker_stack = nullptr;
size_t walker_size = 0;
void* walker_fake = nullptr;

// Tells AddressSanitizer about the switch of stacks.
void leave_for(void** fake, const void* stack, size_t size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(fake, stack, size);
#else
  static_cast<void>(fake), static_cast<void>(stack), static_cast<void>(size);
#endif
}
void arrived(void* fake, const void** stack, size_t* size) {
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, stack, size);
#else
  static_cast<void>(fake), static_cast<void>(stack), static_cast<void>(size);
#endif
}

void to_walker(bool for_good) {
  Fiber* fiber = running;
  leave_for(for_good ? nullptr : &fiber->fake_stack, walker_stack, walker_size);
  swapcontext(&fiber->context, &walker);
  arrived(fiber->fake_stack, &walker_stack, &walker_size);
}

void fiber_main() {
  arrived(nullptr, &walker_stack, &walker_size);
  for (;;) {  // a fiber is reused for another thread
    (*body)();
    running->done = true;
    to_walker(false);
  }
}

void resume(Fiber& fiber) {
  running = &fiber;
  threadIdx = fiber.thread;
  if (!fiber.started) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    fiber.started = true;
  }
  leave_for(&walker_fake, fiber.stack.get(), kStack);
  swapcontext(&walker, &fiber.context);
  arrived(walker_fake, nullptr, nullptr);
  running = nullptr;
}

uint64_t chance() {
  static uint64_t state = 1;
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state;
}

void shuffle(std::vector<Fiber*>& fibers) {
  for (size_t i = fibers.size(); i > 1; --i) std::swap(fibers[i - 1], fibers[chance() % i]);
}

void walk_block(std::vector<std::unique_ptr<Fiber>>& idle) {
  std::vector<unsigned> order(blockDim.x);
  for (unsigned i = 0; i < blockDim.x; ++i) order[i] = i;
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[chance() % i]);
  std::vector<std::unique_ptr<Fiber>> waiting;
  unsigned ended = 0;
  for (const unsigned thread : order) {
    if (idle.empty()) idle.push_back(std::make_unique<Fiber>());
    Fiber& fiber = *idle.back();
    fiber.thread = dim3(thread, 0, 0);
    fiber.done = false;
    resume(fiber);
    if (fiber.done) {
      ++ended;
      continue;
    }
    waiting.push_back(std::move(idle.back()));
    idle.pop_back();
  }
  while (!waiting.empty()) {
    if (ended != 0) {
      std::fprintf(stderr, "%u of %u threads of a block wait at a barrier that the others do not reach\n",
                   static_cast<unsigned>(waiting.size()), blockDim.x);
      std::abort();
    }
    std::vector<Fiber*> fibers;
    for (const auto& fiber : waiting) fibers.push_back(fiber.get());
    shuffle(fibers);
    for (Fiber* fiber : fibers) {
      resume(*fiber);
      ended += fiber->done;
    }
    if (ended == blockDim.x) {
      for (auto& fiber : waiting) idle.push_back(std::move(fiber));
      waiting.clear();
    }
  }
}

}  // namespace

void barrier() { to_walker(false); }

void start() {
  const std::lock_guard lock(device);
  started.insert(current);
}

void declare_host_memory(const void* memory) { host_memory.insert(memory); }

void enqueue(Work work) {
  const std::lock_guard lock(device);
  if (!capturing)
    queue.push_back(std::move(work));
  else if (tape)
    tape->push_back(std::move(work));
}

void finish() {
  const std::lock_guard lock(device);
  while (!queue.empty()) {
    queue.front()();
    queue.pop_front();
  }
}

void begin_capture() {
  const std::lock_guard lock(device);
  capturing = true;
  tape = std::make_unique<Tape>();
}

std::unique_ptr<Tape> end_capture() {
  const std::lock_guard lock(device);
  capturing = false;
  return std::move(tape);
}

void replay(const Tape& replayed) {
  for (const Work& work : replayed) enqueue(work);
}

// Whether a call that a capture does not allow invalidates one.
bool breaks_capture() {
  const std::lock_guard lock(device);
  if (capturing) tape.reset();
  return capturing;
}

void walk(dim3 grid, dim3 block, const std::function<void()>& thread) {
  static std::vector<std::unique_ptr<Fiber>> idle;
  ++launches;
  gridDim = grid;
  blockDim = block;
  body = &thread;
  for (unsigned y = 0; y < grid.y; ++y)
    for (unsigned x = 0; x < grid.x; ++x) {
      blockIdx = dim3(x, y, 0);
      walk_block(idle);
    }
  body = nullptr;
}

}  // namespace on_host

const char* cudaGetErrorString(cudaError_t code) {
  return code == cudaErrorInvalidValue       ? "invalid argument"
         : code == cudaErrorMemoryAllocation ? "out of memory"
                                             : "operation not permitted when stream is capturing";
}
const char* cudaGetErrorName(cudaError_t code) {
  return code == cudaErrorInvalidValue       ? "cudaErrorInvalidValue"
         : code == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
                                             : "cudaErrorStreamCaptureUnsupported";
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) {
  *version = on_host::driver;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int* count) {
  *count = on_host::count;
  return static_cast<cudaError_t>(on_host::count_code);
}
cudaError_t cudaGetDevice(int* device) {
  *device = on_host::current;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= on_host::count) return cudaErrorInvalidValue;
  on_host::current = device;
  on_host::start();
  return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr which, int device) {
  if (device < 0 || device >= on_host::count) return cudaErrorInvalidValue;
  *value = which == cudaDevAttrMultiProcessorCount      ? on_host::processors
           : which == cudaDevAttrComputeCapabilityMajor ? on_host::capability / 10
                                                        : on_host::capability % 10;
  return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  on_host::start();
  *attributes = {on_host::host_memory.count(memory) != 0 ? cudaMemoryTypeUnregistered : cudaMemoryTypeDevice, 0};
  const std::lock_guard lock(on_host::device);
  const auto after = on_host::allocated.upper_bound(static_cast<const char*>(memory));
  if (after == on_host::allocated.begin()) return cudaSuccess;
  const auto& [start, it] = *std::prev(after);
  if (static_cast<const char*>(memory) < start + it.bytes) attributes->device = it.device;
  return cudaSuccess;
}
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  on_host::start();
  if (on_host::mode != cudaStreamCaptureModeRelaxed && on_host::breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  if (bytes > size_t{1} << 36) return cudaErrorMemoryAllocation;
  *memory = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (*memory == nullptr) return cudaErrorMemoryAllocation;
  const std::lock_guard lock(on_host::device);
  on_host::allocated[static_cast<const char*>(*memory)] = {bytes, on_host::current};
  return cudaSuccess;
}
cudaError_t cudaFree(void* memory) {
  on_host::start();
  if (on_host::mode != cudaStreamCaptureModeRelaxed && on_host::breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  on_host::finish();
  {
    const std::lock_guard lock(on_host::device);
    on_host::allocated.erase(static_cast<const char*>(memory));
  }
  std::free(memory);
  return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  on_host::start();
  if (on_host::breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  on_host::enqueue([=] { std::memcpy(to, from, bytes); });
  return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  on_host::start();
  on_host::enqueue([=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  on_host::start();
  static uintptr_t last = 0;
  *stream = reinterpret_cast<cudaStream_t>(last += 16);
  return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t) {
  on_host::start();
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
  on_host::start();
  if (on_host::breaks_capture()) return cudaErrorStreamCaptureUnsupported;
  on_host::finish();
  return cudaSuccess;
}
// An event is identified by the stream that recorded it.
struct CUevent_st {
  cudaStream_t after;
};
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  on_host::start();
  *event = new CUevent_st{nullptr};
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  on_host::start();
  event->after = stream;
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  on_host::start();
  delete event;
  return cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  on_host::start();
  on_host::waits.push_back({reinterpret_cast<uintptr_t>(stream), reinterpret_cast<uintptr_t>(event->after)});
  return cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, on_host::mode);
  return cudaSuccess;
}

namespace {
int primary_context_state(int device, unsigned* flags, int* active) {
  const std::lock_guard lock(on_host::device);
  *flags = 0;
  *active = on_host::started.count(device) != 0;
  return 0;
}
}  // namespace
cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** found, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* result) {
  const bool known = std::strcmp(symbol, "cuDevicePrimaryCtxGetState") == 0;
  *found = known ? reinterpret_cast<void*>(&primary_context_state) : nullptr;
  *result = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  return cudaSuccess;
}

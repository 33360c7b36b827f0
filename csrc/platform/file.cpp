#include "platform/file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

namespace df {
namespace {

[[noreturn]] void fail(int error, const std::string& path) {
  throw std::system_error(error, std::generic_category(), "'" + path + "' cannot be read");
}

}  // namespace

File::File(const std::string& path) : path_(path) {
  // Without O_NONBLOCK, opening a pipe would wait for its writer.
  descriptor_ = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail(errno, path);
  struct stat found{};
  const int error = fstat(descriptor_, &found) != 0 ? errno : S_ISDIR(found.st_mode) ? EISDIR : S_ISREG(found.st_mode) ? 0 : EINVAL;
  if (error != 0) {
    close(descriptor_);
    fail(error, path);
  }
  size_ = static_cast<uint64_t>(found.st_size);
}

File::~File() { close(descriptor_); }

void File::read(uint64_t offset, void* to, size_t bytes) const {
  constexpr size_t kMost = size_t{1} << 30;  // some systems read less than 2 GiB at once
  auto* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t count = pread(descriptor_, at, std::min(bytes, kMost), static_cast<off_t>(offset));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) fail(errno, path_);
    if (count == 0) fail(EIO, path_);  // it was truncated
    at += count;
    offset += static_cast<uint64_t>(count);
    bytes -= static_cast<size_t>(count);
  }
}

}  // namespace df

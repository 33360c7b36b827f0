// A file that is read at any offset.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace df {

class File {
 public:
  // Throws std::system_error if the file cannot be opened, or is not a regular file.
  explicit File(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  uint64_t size() const { return size_; }  // when it was opened
  // Throws std::system_error if the file cannot be read, also where it is shorter than it was.
  void read(uint64_t offset, void* to, size_t bytes) const;

 private:
  const std::string path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

}  // namespace df

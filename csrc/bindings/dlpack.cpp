// DLPack (dmlc/dlpack, version 0.8): device memory passed between libraries without a copy.
#include "bindings/dlpack.h"

#include <pybind11/stl.h>

#include <utility>

namespace py = pybind11;
namespace cuda = df::cuda;

namespace {

struct DlTensor {
  void* data;
  int32_t device_type, device_id;
  int32_t rank;
  uint8_t code, bits;
  uint16_t lanes;
  int64_t *shape, *strides;
  uint64_t byte_offset;
};

struct DlManaged {
  DlTensor tensor;
  void* context;
  void (*deleter)(DlManaged*);
};

constexpr int32_t kDlCuda = 2;

// A managed tensor and what it points to.
struct Shared {
  DlManaged managed;
  std::shared_ptr<cuda::Memory> memory;
  std::vector<int64_t> shape, strides;
};

}  // namespace

py::capsule to_dlpack(const std::shared_ptr<cuda::Memory>& memory, std::vector<int64_t> shape, uint8_t code, uint8_t bits) {
  auto shared = std::make_unique<Shared>();
  shared->memory = memory;
  shared->shape = std::move(shape);
  shared->strides.assign(shared->shape.size(), 1);
  for (size_t i = shared->shape.size(); i-- > 1;) shared->strides[i - 1] = shared->strides[i] * shared->shape[i];
  DlTensor& t = shared->managed.tensor;
  t = {memory->data(), kDlCuda, memory->device(), static_cast<int32_t>(shared->shape.size()), code, bits, 1, nullptr, nullptr, 0};
  t.shape = shared->shape.data();
  t.strides = shared->strides.data();
  shared->managed.context = shared.get();
  shared->managed.deleter = [](DlManaged* managed) { delete static_cast<Shared*>(managed->context); };
  // The consumer renames the capsule and calls the deleter. A capsule that was never consumed calls it itself.
  PyObject* capsule = PyCapsule_New(&shared->managed, "dltensor", [](PyObject* self) {
    if (!PyCapsule_IsValid(self, "dltensor")) return;
    auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(self, "dltensor"));
    managed->deleter(managed);
  });
  if (capsule == nullptr) throw py::error_already_set();
  shared.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

py::tuple from_dlpack(const py::object& capsule) {
  auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
  if (managed == nullptr) throw py::error_already_set();
  if (PyCapsule_SetName(capsule.ptr(), "used_dltensor") != 0) throw py::error_already_set();
  const std::shared_ptr<void> owner(managed, [](void* taken) {
    auto* given = static_cast<DlManaged*>(taken);
    if (given->deleter != nullptr) given->deleter(given);
  });
  const DlTensor& t = managed->tensor;
  const std::vector<int64_t> shape(t.shape, t.shape + t.rank);
  int64_t bytes = (int64_t{t.bits} * t.lanes + 7) / 8;
  for (const int64_t n : shape) bytes *= n;
  py::object strides = py::none();
  if (t.strides != nullptr) strides = py::tuple(py::cast(std::vector<int64_t>(t.strides, t.strides + t.rank)));
  std::shared_ptr<cuda::Memory> memory =
      cuda::borrow(static_cast<unsigned char*>(t.data) + t.byte_offset, bytes, t.device_id, owner);
  return py::make_tuple(std::move(memory), t.device_type, py::tuple(py::cast(shape)), strides, t.code, t.bits, t.lanes);
}

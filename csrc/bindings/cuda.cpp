#include "bindings/cuda.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "step/cuda.h"

namespace py = pybind11;
namespace cuda = df::cuda;

namespace {

using Seeds = py::array_t<uint64_t, py::array::c_style | py::array::forcecast>;
using Indices = py::array_t<uint32_t, py::array::c_style | py::array::forcecast>;
using Numbers = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Times = py::array_t<float, py::array::c_style | py::array::forcecast>;

struct Table {
  const df::Row* rows;
  int64_t count;
};

// Rows arrive as bytes of a NumPy record array of the layout of df::Row (diffuse_fast/kernels/rows.py).
Table table_of(const py::buffer_info& info) {
  if (info.ndim != 1 || info.itemsize != static_cast<py::ssize_t>(sizeof(df::Row)) || info.strides[0] != info.itemsize)
    throw std::invalid_argument("rows must be a contiguous 1-D array of row records");
  return {static_cast<const df::Row*>(info.ptr), info.shape[0]};
}

const float* times_of(const std::optional<Times>& times, int64_t rows) {
  if (!times) return nullptr;
  if (times->size() != rows) throw std::invalid_argument("times must hold one time per row");
  return times->data();
}

void check_size(py::ssize_t size, int64_t samples, const char* name) {
  if (size != samples)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(size) + " entries; it must have one per sample (" +
                                std::to_string(samples) + ")");
}

py::tuple variant_tuple(const cuda::Variant& v) { return py::make_tuple(cuda::kCoverNames[static_cast<int>(v.cover)], v.reduces); }

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

std::unique_ptr<cuda::DeviceStep> make_step(const py::buffer& rows, const std::optional<Times>& times, int64_t capacity,
                                            int64_t elements, uint64_t element_offset, int state, int output, uintptr_t x,
                                            uintptr_t out, const std::vector<uintptr_t>& outputs, int64_t output_stride,
                                            int64_t variance_offset, uintptr_t registers, int register_count, uintptr_t y,
                                            uintptr_t mask, uintptr_t t, int time_type, const Seeds& seeds, const Indices& indices,
                                            cuda::StreamHandle stream) {
  if (outputs.size() > df::kMaxOutputs) throw std::invalid_argument("at most three network outputs");
  if (state < 0 || state > 2 || output < 0 || output > 2 || time_type < 0 || time_type > 3)
    throw std::invalid_argument("unknown dtype code");
  check_size(indices.size(), seeds.size(), "indices");
  cuda::Binding binding;
  df::Buffers& b = binding.buffers;
  b.x = pointer<void>(x);
  b.out = pointer<void>(out);
  for (size_t j = 0; j < outputs.size(); ++j) b.outputs[j] = pointer<void>(outputs[j]);
  b.output_stride = output_stride;
  b.variance_offset = variance_offset;
  b.registers = pointer<float>(registers);
  b.register_count = register_count;
  b.y = pointer<float>(y);
  b.mask = pointer<float>(mask);
  binding.samples = seeds.size();
  binding.elements = elements;
  binding.element_offset = element_offset;
  binding.state = static_cast<df::DType>(state);
  binding.output = static_cast<df::DType>(output);
  binding.t = pointer<void>(t);
  binding.time_type = static_cast<cuda::TimeType>(time_type);
  binding.capacity = capacity;
  const py::buffer_info info = rows.request();
  const Table table = table_of(info);
  return cuda::bind(binding, table.rows, table.count, times_of(times, table.count), seeds.data(), indices.data(), stream);
}

// ---- DLPack (dmlc/dlpack, version 0.8) ---------------------------------------------------------------------

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

struct Shared {
  DlManaged managed;
  std::shared_ptr<cuda::Memory> memory;
  std::vector<int64_t> shape, strides;
};

py::capsule dlpack(const std::shared_ptr<cuda::Memory>& memory, std::vector<int64_t> shape, uint8_t code, uint8_t bits) {
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
  // Whoever takes the tensor renames the capsule; one that nobody took frees it.
  PyObject* capsule = PyCapsule_New(&shared->managed, "dltensor", [](PyObject* self) {
    if (!PyCapsule_IsValid(self, "dltensor")) return;
    auto* managed = static_cast<DlManaged*>(PyCapsule_GetPointer(self, "dltensor"));
    managed->deleter(managed);
  });
  if (capsule == nullptr) throw py::error_already_set();
  shared.release();
  return py::reinterpret_steal<py::capsule>(capsule);
}

// What is in a capsule of another library: (memory, which holds it; device type, shape, strides or None, code, bits, lanes).
py::tuple take_dlpack(const py::object& capsule) {
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

// Bytes [at, at + bytes) of memory, which they hold.
std::shared_ptr<cuda::Memory> part_of(const std::shared_ptr<cuda::Memory>& memory, int64_t at, int64_t bytes) {
  if (at < 0 || bytes < 0 || at > memory->bytes() - bytes) throw std::invalid_argument("the part is not in the memory");
  return cuda::borrow(static_cast<unsigned char*>(memory->data()) + at, bytes, memory->device(), memory);
}

void raise(const char* name, const char* message) { py::set_error(py::module_::import("diffuse_fast.errors").attr(name), message); }

}  // namespace

void bind_cuda(py::module_& m) {
  py::register_local_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const cuda::Unavailable& e) {
      raise("KernelUnavailableError", (std::string("CUDA cannot be used: ") + e.what() + ".").c_str());
    } catch (const cuda::Error& e) {
      raise("DeviceError", (std::string("CUDA: ") + e.what() + ".").c_str());
    }
  });

  // module_local: tests have these classes twice, of this module and of one over the host.
  py::class_<cuda::DeviceStep>(m, "DeviceStep", py::module_local(), "The step bound to device buffers. Addresses must outlive it.")
      .def(py::init(&make_step), py::arg("rows"), py::kw_only(), py::arg("times"), py::arg("capacity"), py::arg("elements"),
           py::arg("element_offset"), py::arg("state_dtype"), py::arg("output_dtype"), py::arg("x"), py::arg("out"),
           py::arg("outputs"), py::arg("output_stride"), py::arg("variance_offset"), py::arg("registers"),
           py::arg("register_count"), py::arg("y"), py::arg("mask"), py::arg("t"), py::arg("time_dtype"), py::arg("seeds"),
           py::arg("indices"), py::arg("stream"))
      .def(
          "load",
          [](cuda::DeviceStep& self, const py::buffer& rows, const std::optional<Times>& times, cuda::StreamHandle stream) {
            const py::buffer_info info = rows.request();
            const Table table = table_of(info);
            const float* at = times_of(times, table.count);
            py::gil_scoped_release release;
            self.load(table.rows, table.count, at, stream);
          },
          py::arg("rows"), py::arg("times"), py::arg("stream"), "Another table in the place of the one that is there.")
      .def(
          "seed",
          [](cuda::DeviceStep& self, const Seeds& seeds, const Indices& indices, cuda::StreamHandle stream) {
            check_size(seeds.size(), self.samples(), "seeds");
            check_size(indices.size(), self.samples(), "indices");
            py::gil_scoped_release release;
            self.seed(seeds.data(), indices.data(), stream);
          },
          py::arg("seeds"), py::arg("indices"), py::arg("stream"), "Other keys of the noise from here on.")
      .def(
          "place",
          [](cuda::DeviceStep& self, const Numbers& rows, const Indices& noise_rows, cuda::StreamHandle stream) {
            check_size(rows.size(), self.samples(), "rows");
            check_size(noise_rows.size(), self.samples(), "noise_rows");
            py::gil_scoped_release release;
            self.place(rows.data(), noise_rows.data(), stream);
          },
          py::arg("rows"), py::arg("noise_rows"), py::arg("stream"), "The row that each sample is at; a negative one: none.")
      .def(
          "launch",
          [](cuda::DeviceStep& self, cuda::StreamHandle stream, const std::optional<std::vector<uintptr_t>>& outputs) {
            const void* addresses[df::kMaxOutputs] = {};
            if (outputs && outputs->size() != self.outputs())
              throw std::invalid_argument("as many outputs as were bound are wanted");
            for (size_t j = 0; outputs && j < outputs->size(); ++j) addresses[j] = pointer<void>((*outputs)[j]);
            py::gil_scoped_release release;
            self.launch(stream, outputs ? addresses : nullptr);
          },
          py::arg("stream"), py::arg("outputs"), "Every sample its row, and on to the next. Asynchronous.")
      .def(
          "first_bad_rows",
          [](const cuda::DeviceStep& self, cuda::StreamHandle stream) {
            std::vector<int32_t> bad;
            {
              py::gil_scoped_release release;
              bad = self.first_bad_rows(stream);
            }
            return py::array_t<int32_t>(static_cast<py::ssize_t>(bad.size()), bad.data());
          },
          py::arg("stream"), "The first row of each sample whose model output held NaN or Inf, or -1. Waits.")
      .def_property_readonly("variant", [](const cuda::DeviceStep& self) { return variant_tuple(self.variant()); })
      .def_property_readonly("capacity", &cuda::DeviceStep::capacity)
      .def_property_readonly("rows", &cuda::DeviceStep::rows);

  py::class_<cuda::Memory, std::shared_ptr<cuda::Memory>>(m, "DeviceMemory", py::module_local(), "Bytes on a device.")
      .def(py::init([](int64_t bytes, int device) { return std::shared_ptr<cuda::Memory>(cuda::allocate(bytes, device)); }),
           py::arg("bytes"), py::arg("device"))
      .def_property_readonly("address", [](const cuda::Memory& self) { return reinterpret_cast<uintptr_t>(self.data()); })
      .def_property_readonly("bytes", &cuda::Memory::bytes)
      .def_property_readonly("device", &cuda::Memory::device)
      .def(
          "upload",
          [](cuda::Memory& self, const py::buffer& host, cuda::StreamHandle stream) {
            const py::buffer_info info = host.request();
            py::gil_scoped_release release;
            self.upload(info.ptr, info.size * info.itemsize, stream);
          },
          py::arg("host"), py::arg("stream"))
      .def(
          "download",
          [](const cuda::Memory& self, const py::buffer& host, cuda::StreamHandle stream) {
            const py::buffer_info info = host.request(true);
            py::gil_scoped_release release;
            self.download(info.ptr, info.size * info.itemsize, stream);
          },
          py::arg("host"), py::arg("stream"))
      .def(
          "copy",
          [](cuda::Memory& self, const cuda::Memory& from, cuda::StreamHandle stream) {
            py::gil_scoped_release release;
            self.copy(from, stream);
          },
          py::arg("other"), py::arg("stream"), "All bytes of other memory of the same device and size. Asynchronous.")
      .def("part", &part_of, py::arg("at"), py::arg("bytes"), "Bytes of this memory; they hold it.")
      .def(
          "dlpack",
          [](const std::shared_ptr<cuda::Memory>& self, std::vector<int64_t> shape, uint8_t code, uint8_t bits) {
            return dlpack(self, std::move(shape), code, bits);
          },
          py::arg("shape"), py::arg("code"), py::arg("bits"), "A DLPack capsule of a contiguous array in this memory.");

  py::class_<cuda::Stream>(m, "DeviceStream", py::module_local(), "A stream of a device.")
      .def(py::init([](int device) { return cuda::make_stream(device); }), py::arg("device"))
      .def_property_readonly("handle", &cuda::Stream::handle)
      .def("synchronize", &cuda::Stream::synchronize, py::call_guard<py::gil_scoped_release>());

  m.def(
      "device_normals",
      [](uintptr_t out, int64_t elements, uint64_t element_offset, const Seeds& seeds, const Indices& indices, uint32_t row,
         uint32_t stream_number, float scale, cuda::StreamHandle stream) {
        check_size(indices.size(), seeds.size(), "indices");
        cuda::normals(pointer<float>(out), seeds.size(), elements, element_offset, seeds.data(), indices.data(), row, stream_number,
                      scale, stream);
      },
      py::arg("out"), py::arg("elements"), py::arg("element_offset"), py::arg("seeds"), py::arg("indices"), py::arg("row"),
      py::arg("stream_number"), py::arg("scale"), py::arg("stream"), "Fill float32 device memory with scaled normals.");
  m.def(
      "take_dlpack", &take_dlpack, py::arg("capsule"),
      "What a DLPack capsule holds: (memory, device type, shape, strides or None, code, bits, lanes). The memory holds the rest.");
  m.def("order_streams", &cuda::order, py::arg("waiting"), py::arg("after"), py::arg("device"),
        "What a stream is given from now on waits for what the other was given until now. The host does not wait.");
  m.def(
      "cuda_variant",
      [](const py::buffer& rows, bool masked) {
        const py::buffer_info info = rows.request();
        const Table table = table_of(info);
        return variant_tuple(cuda::variant_of(table.rows, table.count, masked));
      },
      py::arg("rows"), py::arg("masked"), "What a captured launch fixes about a table: (cover, whether there is a reduction).");
  m.def(
      "cuda_unavailable_reason",
      []() -> std::optional<std::string> {
        const std::string why = cuda::unavailable_reason();
        return why.empty() ? std::nullopt : std::optional<std::string>(why);
      },
      "None where the CUDA kernel can run, else why not.");
}

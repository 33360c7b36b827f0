// The CUDA step, device memory and streams.
#include "bindings/cuda.h"

#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/dlpack.h"
#include "step/cuda/device_step.h"

namespace py = pybind11;
namespace cuda = df::cuda;
using namespace df::bindings;

namespace {

using Numbers = py::array_t<int32_t, py::array::c_style | py::array::forcecast>;
using Times = py::array_t<float, py::array::c_style | py::array::forcecast>;

cuda::TimeType time_type_named(const std::string& name) {
  if (name == "float32") return cuda::TimeType::kFloat32;
  if (name == "float64") return cuda::TimeType::kFloat64;
  if (name == "int32") return cuda::TimeType::kInt32;
  if (name == "int64") return cuda::TimeType::kInt64;
  throw std::invalid_argument("time dtype is '" + name + "'; it must be float32, float64, int32 or int64");
}

const float* times_of(const std::optional<Times>& times, size_t rows) {
  if (!times) return nullptr;
  if (static_cast<size_t>(times->size()) != rows) throw std::invalid_argument("times must hold one time per row");
  return times->data();
}

py::tuple variant_tuple(const cuda::Variant& v) {
  return py::make_tuple(cuda::kTermSetNames[static_cast<int>(v.term_set)], v.reduces);
}

std::unique_ptr<cuda::DeviceStep> make_step(const py::buffer& rows, const std::optional<Times>& times, int64_t capacity,
                                            int64_t elements, uint64_t element_offset, const std::string& state,
                                            const std::string& output, uintptr_t x, uintptr_t out,
                                            const std::vector<uintptr_t>& outputs, int64_t output_stride, int64_t variance_offset,
                                            uintptr_t registers, int register_count, uintptr_t y, uintptr_t mask, uintptr_t t,
                                            const std::string& time_type, const Seeds& seeds, const Indices& indices,
                                            cuda::StreamHandle stream) {
  check_keys(seeds, indices);
  cuda::Binding binding;
  binding.buffers = buffers_of(x, out, outputs, output_stride, variance_offset, registers, register_count, y, mask);
  binding.samples = seeds.size();
  binding.elements = elements;
  binding.element_offset = element_offset;
  binding.state = dtype_named(state);
  binding.output = dtype_named(output);
  binding.t = pointer<void>(t);
  binding.time_type = time_type_named(time_type);
  binding.capacity = capacity;
  const py::buffer_info info = rows.request();
  const auto table = rows_of(info);
  return cuda::bind(binding, table.data(), static_cast<int64_t>(table.size()), times_of(times, table.size()), seeds.data(),
                    indices.data(), stream);
}

// Bytes [at, at + bytes) of the memory, which they keep alive.
std::shared_ptr<cuda::Memory> part_of(const std::shared_ptr<cuda::Memory>& memory, int64_t at, int64_t bytes) {
  if (at < 0 || bytes < 0 || at > memory->bytes() - bytes) throw std::invalid_argument("the part is outside the memory");
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

  // module_local: tests load these classes twice, from this module and from one that runs on the host.
  py::class_<cuda::DeviceStep>(m, "DeviceStep", py::module_local(),
                               "The step bound to device buffers. The buffers must outlive it.")
      .def(py::init(&make_step), py::arg("rows"), py::kw_only(), py::arg("times"), py::arg("capacity"), py::arg("elements"),
           py::arg("element_offset"), py::arg("state_dtype"), py::arg("output_dtype"), py::arg("x"), py::arg("out"),
           py::arg("outputs"), py::arg("output_stride"), py::arg("variance_offset"), py::arg("registers"),
           py::arg("register_count"), py::arg("y"), py::arg("mask"), py::arg("t"), py::arg("time_dtype"), py::arg("seeds"),
           py::arg("indices"), py::arg("stream"))
      .def(
          "load",
          [](cuda::DeviceStep& self, const py::buffer& rows, const std::optional<Times>& times, cuda::StreamHandle stream) {
            const py::buffer_info info = rows.request();
            const auto table = rows_of(info);
            const float* at = times_of(times, table.size());
            py::gil_scoped_release release;
            self.load(table.data(), static_cast<int64_t>(table.size()), at, stream);
          },
          py::arg("rows"), py::arg("times"), py::arg("stream"), "Replace the table of rows.")
      .def(
          "seed",
          [](cuda::DeviceStep& self, const Seeds& seeds, const Indices& indices, cuda::StreamHandle stream) {
            check_per_sample(seeds.size(), self.samples(), "seeds");
            check_per_sample(indices.size(), self.samples(), "indices");
            py::gil_scoped_release release;
            self.seed(seeds.data(), indices.data(), stream);
          },
          py::arg("seeds"), py::arg("indices"), py::arg("stream"), "Set the noise keys.")
      .def(
          "place",
          [](cuda::DeviceStep& self, const Numbers& rows, const Indices& noise_rows, cuda::StreamHandle stream) {
            check_per_sample(rows.size(), self.samples(), "rows");
            check_per_sample(noise_rows.size(), self.samples(), "noise_rows");
            py::gil_scoped_release release;
            self.place(rows.data(), noise_rows.data(), stream);
          },
          py::arg("rows"), py::arg("noise_rows"), py::arg("stream"),
          "Set each sample's row and noise row; a negative row makes it inactive.")
      .def(
          "launch",
          [](cuda::DeviceStep& self, cuda::StreamHandle stream, const std::optional<std::vector<uintptr_t>>& outputs) {
            const void* addresses[df::kMaxOutputs] = {};
            if (outputs && outputs->size() != self.outputs()) throw std::invalid_argument("outputs must be as many as were bound");
            for (size_t j = 0; outputs && j < outputs->size(); ++j) addresses[j] = pointer<void>((*outputs)[j]);
            py::gil_scoped_release release;
            self.launch(stream, outputs ? addresses : nullptr);
          },
          py::arg("stream"), py::arg("outputs"), "Apply to every sample its row and advance it. Asynchronous.")
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
          py::arg("stream"), "For each sample the first row whose model output held NaN or Inf, or -1. Waits for the stream.")
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
          py::arg("other"), py::arg("stream"), "Copy all bytes of other memory of the same device and size. Asynchronous.")
      .def("part", &part_of, py::arg("at"), py::arg("bytes"), "A part of this memory, which it keeps alive.")
      .def(
          "dlpack",
          [](const std::shared_ptr<cuda::Memory>& self, std::vector<int64_t> shape, uint8_t code, uint8_t bits) {
            return to_dlpack(self, std::move(shape), code, bits);
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
        check_keys(seeds, indices);
        cuda::normals(pointer<float>(out), seeds.size(), elements, element_offset, seeds.data(), indices.data(), row, stream_number,
                      scale, stream);
      },
      py::arg("out"), py::arg("elements"), py::arg("element_offset"), py::arg("seeds"), py::arg("indices"), py::arg("row"),
      py::arg("stream_number"), py::arg("scale"), py::arg("stream"), "Fill float32 device memory with scaled normals.");
  m.def("take_dlpack", &from_dlpack, py::arg("capsule"),
        "Consume a DLPack capsule: (memory, device type, shape, strides or None, code, bits, lanes).");
  m.def("order_streams", &cuda::order, py::arg("waiting"), py::arg("after"), py::arg("device"),
        "Let later work on stream `waiting` wait for the work queued on `after` so far. The host does not wait.");
  m.def(
      "cuda_variant",
      [](const py::buffer& rows, bool masked) {
        const py::buffer_info info = rows.request();
        const auto table = rows_of(info);
        return variant_tuple(cuda::variant_of(table.data(), static_cast<int64_t>(table.size()), masked));
      },
      py::arg("rows"), py::arg("masked"),
      "The properties of a table that a captured launch fixes: (term set, whether it reduces).");
  m.def(
      "cuda_unavailable_reason",
      []() -> std::optional<std::string> {
        const std::string why = cuda::unavailable_reason();
        return why.empty() ? std::nullopt : std::optional<std::string>(why);
      },
      "None if the CUDA kernel can run, else the reason why not.");
}

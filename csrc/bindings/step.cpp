#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "random/normal.h"
#include "step/forward.h"
#include "step/kernels.h"
#include "step/stepper.h"
#include "threads/pool.h"

namespace py = pybind11;

namespace {

using Seeds = py::array_t<uint64_t, py::array::c_style>;
using Numbers = py::array_t<int64_t, py::array::c_style>;
using Indices = py::array_t<uint32_t, py::array::c_style>;
using Coefficients = py::array_t<float, py::array::c_style>;

const df::Kernel& kernel_named(const std::string& name) {
  const df::Kernel* kernel = df::find_kernel(name.c_str());
  if (kernel == nullptr) throw std::invalid_argument("no kernel '" + name + "' in this build");
  if (const char* why = kernel->unavailable()) throw std::runtime_error("kernel '" + name + "': " + why);
  return *kernel;
}

// Rows arrive as bytes of a NumPy record array of the layout of df::Row (diffuse_fast/kernels/rows.py).
std::vector<df::Row> rows_from(const py::buffer& buffer) {
  const py::buffer_info info = buffer.request();
  if (info.ndim != 1 || info.itemsize != static_cast<py::ssize_t>(sizeof(df::Row)) || info.strides[0] != info.itemsize)
    throw std::invalid_argument("rows must be a contiguous 1-D array of row records");
  const auto* first = static_cast<const df::Row*>(info.ptr);
  return {first, first + info.shape[0]};
}

template <class T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

std::unique_ptr<df::Stepper> make_stepper(const std::string& kernel, const py::buffer& rows, int64_t elements,
                                          uint64_t element_offset, int state, int output, uintptr_t x, uintptr_t out,
                                          const std::vector<uintptr_t>& outputs, int64_t output_stride, int64_t output_count,
                                          int64_t variance_offset, uintptr_t registers, int register_count, uintptr_t y,
                                          uintptr_t mask, const Seeds& seeds, const Indices& indices) {
  if (seeds.ndim() != 1 || indices.ndim() != 1 || seeds.size() != indices.size())
    throw std::invalid_argument("seeds and indices must be 1-D and of one length");
  if (outputs.size() > df::kMaxOutputs) throw std::invalid_argument("at most three network outputs");
  if (state < 0 || state > 2 || output < 0 || output > 2) throw std::invalid_argument("unknown dtype code");
  const std::vector<df::Row> table = rows_from(rows);
  df::Buffers b;
  b.x = pointer<void>(x);
  b.out = pointer<void>(out);
  for (size_t j = 0; j < outputs.size(); ++j) b.outputs[j] = pointer<void>(outputs[j]);
  b.output_stride = output_stride;
  b.output_count = output_count;
  b.variance_offset = variance_offset;
  b.registers = pointer<float>(registers);
  b.register_count = register_count;
  b.y = pointer<float>(y);
  b.mask = pointer<float>(mask);
  return std::make_unique<df::Stepper>(kernel_named(kernel), table.data(), static_cast<int64_t>(table.size()), seeds.size(),
                                       elements, element_offset, static_cast<df::DType>(state), static_cast<df::DType>(output), b,
                                       seeds.data(), indices.data());
}

void check_row(const df::Stepper& stepper, int64_t row) {
  if (row >= stepper.rows()) throw py::index_error("row " + std::to_string(row) + " of " + std::to_string(stepper.rows()));
}

}  // namespace

void bind_step(py::module_& m) {
  py::class_<df::Stepper>(m, "Stepper", "The step bound to the buffers of one sampling run. Addresses must outlive it.")
      .def(py::init(&make_stepper), py::arg("kernel"), py::arg("rows"), py::kw_only(), py::arg("elements"),
           py::arg("element_offset"), py::arg("state_dtype"), py::arg("output_dtype"), py::arg("x"), py::arg("out"),
           py::arg("outputs"), py::arg("output_stride"), py::arg("output_count"), py::arg("variance_offset"), py::arg("registers"),
           py::arg("register_count"), py::arg("y"), py::arg("mask"), py::arg("seeds"), py::arg("indices"))
      .def(
          "run",
          [](df::Stepper& self, int64_t row, uint32_t noise_row) {
            check_row(self, row);
            if (row < 0) throw py::index_error("row must not be negative");
            py::gil_scoped_release release;
            return self.run(row, noise_row);
          },
          py::arg("row"), py::arg("noise_row"), "Apply one row to every sample; the first bad sample, or -1.")
      .def(
          "run_each",
          [](df::Stepper& self, const Numbers& rows, const Indices& noise_rows, const std::optional<Numbers>& outputs) {
            if (rows.size() != self.samples() || noise_rows.size() != self.samples())
              throw std::invalid_argument("one row and one noise row per sample");
            if (outputs && outputs->size() != self.samples() * df::kMaxOutputs)
              throw std::invalid_argument("three output numbers per sample");
            for (py::ssize_t i = 0; i < rows.size(); ++i) check_row(self, rows.data()[i]);
            py::gil_scoped_release release;
            return self.run_each(rows.data(), noise_rows.data(), outputs ? outputs->data() : nullptr);
          },
          py::arg("rows"), py::arg("noise_rows"), py::arg("outputs") = py::none(),
          "Apply a row to each sample (negative: none), with the outputs of those numbers; the first bad sample, or -1.")
      .def(
          "seed",
          [](df::Stepper& self, const Seeds& seeds, const Indices& indices) {
            if (seeds.size() != self.samples() || indices.size() != self.samples())
              throw std::invalid_argument("one seed and one index per sample");
            self.seed(seeds.data(), indices.data());
          },
          py::arg("seeds"), py::arg("indices"), "Other keys of the noise from here on.")
      .def(
          "bad_samples",
          [](const df::Stepper& self) {
            std::vector<int64_t> bad;
            for (int64_t i = 0; i < self.samples(); ++i)
              if (self.bad(i)) bad.push_back(i);
            return bad;
          },
          "Samples whose model output held NaN or Inf in the last run.");

  m.def(
      "normals",
      [](const std::string& kernel, uintptr_t out, int64_t elements, uint64_t element_offset, const Seeds& seeds,
         const Indices& indices, uint32_t row, uint32_t stream, float scale) {
        if (seeds.ndim() != 1 || indices.ndim() != 1 || seeds.size() != indices.size())
          throw std::invalid_argument("seeds and indices must be 1-D and of one length");
        const df::Kernel& k = kernel_named(kernel);
        py::gil_scoped_release release;
        df::run_normals(k, pointer<float>(out), seeds.size(), elements, element_offset, seeds.data(), indices.data(), row, stream,
                        scale);
      },
      py::arg("kernel"), py::arg("out"), py::arg("elements"), py::arg("element_offset"), py::arg("seeds"), py::arg("indices"),
      py::arg("row"), py::arg("stream"), py::arg("scale"), "Fill float32 memory with scaled normals, one sample per seed.");

  m.def(
      "forward",
      [](const std::string& kernel, uintptr_t x0, uintptr_t noise, uintptr_t x_t, uintptr_t target, int64_t elements,
         const Coefficients& coefficients, uint64_t seed, uint32_t row, const Indices& indices) {
        const py::ssize_t count = indices.size();
        if (coefficients.ndim() != 2 || coefficients.shape(0) != 4 || coefficients.shape(1) != count)
          throw std::invalid_argument("coefficients must be (4, samples): alpha, sigma and the target's of x0 and noise");
        const df::Kernel& k = kernel_named(kernel);
        const float* c = coefficients.data();
        const df::Forward what{pointer<float>(x0),
                               pointer<float>(noise),
                               pointer<float>(x_t),
                               pointer<float>(target),
                               c,
                               c + count,
                               c + 2 * count,
                               c + 3 * count,
                               indices.data(),
                               seed,
                               row,
                               elements};
        py::gil_scoped_release release;
        df::run_forward(k, what, count);
      },
      py::arg("kernel"), py::arg("x0"), py::arg("noise"), py::arg("x_t"), py::arg("target"), py::arg("elements"),
      py::arg("coefficients"), py::arg("seed"), py::arg("row"), py::arg("indices"),
      "The forward process of float32 memory: x_t and, where its address is not 0, the target.");

  m.def(
      "philox",
      [](const std::string& kernel, uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream,
         int64_t counters) {
        py::array_t<uint32_t> out({counters, int64_t{4}});
        kernel_named(kernel).philox(seed, first, row, index, stream, counters, out.mutable_data());
        return out;
      },
      py::arg("kernel"), py::arg("seed"), py::arg("first"), py::arg("row"), py::arg("index"), py::arg("stream"),
      py::arg("counters"), "Philox4x32-10 words of consecutive counters, shape (counters, 4).");

  m.def(
      "kernels",
      [] {
        std::vector<std::pair<std::string, std::optional<std::string>>> list;
        int count = 0;
        const df::Kernel* const* table = df::kernels(count);
        for (int i = 0; i < count; ++i) {
          const char* why = table[i]->unavailable();
          list.emplace_back(table[i]->name, why ? std::optional<std::string>(why) : std::nullopt);
        }
        return list;
      },
      "Compiled kernels, best first: (name, None or the reason why this machine cannot run it).");
  m.def("num_threads", &df::num_threads, "Threads a call of the compiled core may use.");
  m.def("set_num_threads", &df::set_num_threads, py::arg("threads"));
  m.attr("NOISE_VERSION") = df::kNoiseVersion;
  m.attr("ROW_BYTES") = sizeof(df::Row);
}

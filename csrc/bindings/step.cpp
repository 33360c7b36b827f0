// The CPU step, the noise and the forward process.
#include <pybind11/stl.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "random/normal.h"
#include "step/cpu/kernels.h"
#include "step/cpu/stepper.h"
#include "threads/pool.h"

namespace py = pybind11;
using namespace df::bindings;

namespace {

using Numbers = py::array_t<int64_t, py::array::c_style>;
using Coefficients = py::array_t<float, py::array::c_style>;

std::unique_ptr<df::Stepper> make_stepper(const std::string& kernel, const py::buffer& rows, int64_t elements,
                                          uint64_t element_offset, const std::string& state, const std::string& output, uintptr_t x,
                                          uintptr_t out, const std::vector<uintptr_t>& outputs, int64_t output_stride,
                                          int64_t output_count, int64_t variance_offset, uintptr_t registers, int register_count,
                                          uintptr_t y, uintptr_t mask, const Seeds& seeds, const Indices& indices) {
  check_keys(seeds, indices);
  const py::buffer_info info = rows.request();
  const auto table = rows_of(info);
  df::Buffers buffers = buffers_of(x, out, outputs, output_stride, variance_offset, registers, register_count, y, mask);
  buffers.output_count = output_count;
  return std::make_unique<df::Stepper>(df::require_kernel(kernel.c_str()), table.data(), static_cast<int64_t>(table.size()),
                                       seeds.size(), elements, element_offset, dtype_named(state), dtype_named(output), buffers,
                                       seeds.data(), indices.data());
}

}  // namespace

void bind_step(py::module_& m) {
  PYBIND11_NUMPY_DTYPE(df::Row, g, p, q, r, lo, hi, a, b, d, s, c, log_s_a, log_s_b, known_y, known_z, e_x, e_m, e_0, f, reduce_0,
                       reduce_1, reduce, write, learned_s, calls_network);
  m.attr("ROW") = py::dtype::of<df::Row>();

  py::class_<df::Stepper>(m, "Stepper", "The step bound to the buffers of one sampling run. The buffers must outlive it.")
      .def(py::init(&make_stepper), py::arg("kernel"), py::arg("rows"), py::kw_only(), py::arg("elements"),
           py::arg("element_offset"), py::arg("state_dtype"), py::arg("output_dtype"), py::arg("x"), py::arg("out"),
           py::arg("outputs"), py::arg("output_stride"), py::arg("output_count"), py::arg("variance_offset"), py::arg("registers"),
           py::arg("register_count"), py::arg("y"), py::arg("mask"), py::arg("seeds"), py::arg("indices"))
      .def("run", &df::Stepper::run, py::arg("row"), py::arg("noise_row"), py::call_guard<py::gil_scoped_release>(),
           "Apply one row to every sample. Return the first bad sample, or -1.")
      .def(
          "run_each",
          [](df::Stepper& self, const Numbers& rows, const Indices& noise_rows, const std::optional<Numbers>& outputs) {
            check_per_sample(rows.size(), self.samples(), "rows");
            check_per_sample(noise_rows.size(), self.samples(), "noise_rows");
            if (outputs && outputs->size() != self.samples() * df::kMaxOutputs)
              throw std::invalid_argument("outputs must have three entries per sample");
            py::gil_scoped_release release;
            return self.run_each(rows.data(), noise_rows.data(), outputs ? outputs->data() : nullptr);
          },
          py::arg("rows"), py::arg("noise_rows"), py::arg("outputs") = py::none(),
          "Apply to each sample its own row (negative: none), with the outputs of those numbers. Return the first bad sample, or "
          "-1.")
      .def(
          "seed",
          [](df::Stepper& self, const Seeds& seeds, const Indices& indices) {
            check_per_sample(seeds.size(), self.samples(), "seeds");
            check_per_sample(indices.size(), self.samples(), "indices");
            self.seed(seeds.data(), indices.data());
          },
          py::arg("seeds"), py::arg("indices"), "Set the noise keys.")
      .def("bad_samples", &df::Stepper::bad_samples, "Samples whose model output held NaN or Inf in the last run.");

  m.def(
      "normals",
      [](const std::string& kernel, uintptr_t out, int64_t elements, uint64_t element_offset, const Seeds& seeds,
         const Indices& indices, uint32_t row, uint32_t stream, float scale) {
        check_keys(seeds, indices);
        const df::Kernel& k = df::require_kernel(kernel.c_str());
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
          throw std::invalid_argument("coefficients must be (4, samples): alpha, sigma, target_x0, target_z");
        const df::Kernel& k = df::require_kernel(kernel.c_str());
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
      "Run the forward process on float32 memory: write x_t and, if its address is not 0, the target.");

  m.def(
      "philox",
      [](const std::string& kernel, uint64_t seed, uint64_t first, uint32_t row, uint32_t index, uint32_t stream,
         int64_t counters) {
        py::array_t<uint32_t> out({counters, int64_t{4}});
        df::require_kernel(kernel.c_str()).philox(seed, first, row, index, stream, counters, out.mutable_data());
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
  m.def("num_threads", &df::num_threads, "The number of threads that a call of the compiled core may use.");
  m.def("set_num_threads", &df::set_num_threads, py::arg("threads"));
  m.attr("NOISE_VERSION") = df::kNoiseVersion;
}

// A network that runs, on NumPy arrays.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/network.h"
#include "network/estimate.h"
#include "step/cpu/kernels.h"
#include "threads/pool.h"

namespace py = pybind11;

namespace {

using df::bindings::PreparedRows;
using df::network::Network;
using df::network::Precision;
using df::network::RowHandle;

using Floats = py::array_t<float, py::array::c_style>;
using Words = py::array_t<int64_t, py::array::c_style>;

const df::network::Kernels& kernels_of(const std::string& kernel) {
  df::require_kernel(kernel == "scalar_plain" ? "scalar" : kernel.c_str());
  const df::network::Kernels* kernels = df::network::find_kernels(kernel.c_str());
  if (kernels == nullptr) throw std::invalid_argument("this build has no network kernels for '" + kernel + "'");
  return *kernels;
}

std::span<const int64_t> span_of(const Words& words) { return {words.data(), static_cast<size_t>(words.size())}; }

Precision precision_of(const std::string& name) {
  if (name == "float32") return Precision::kFloat32;
  if (name == "float32-fast") return Precision::kFloat32Fast;
  throw std::invalid_argument("precision is '" + name + "'; the core has float32 and float32-fast");
}

// Items of the sequence, each as long as the network needs it.
df::network::ConstantSource source_of(const py::sequence& constants) {
  const auto get = [constants = constants.ptr()](size_t number) {
    const py::gil_scoped_acquire acquire;
    const py::object item = py::reinterpret_borrow<py::sequence>(constants)[number];
    const auto release = [](const Floats* array) {
      const py::gil_scoped_acquire locked;
      delete array;
    };
    const std::shared_ptr<const Floats> array(new Floats(item.cast<Floats>()), release);
    return df::network::GivenConstant{{array->data(), static_cast<size_t>(array->size())}, array};
  };
  return {constants.size(), get};
}

std::unique_ptr<Network> load(const std::string& kernel, const Words& words, const py::sequence& constants,
                              const std::string& precision, const std::vector<int64_t>& exact) {
  const df::network::Kernels& kernels = kernels_of(kernel);
  const df::network::ConstantSource source = source_of(constants);
  const Precision computed = precision_of(precision);
  py::gil_scoped_release release;
  return std::make_unique<Network>(span_of(words), source, kernels, computed, exact);
}

// Each convolution of a program by its index, and its algorithm.
std::vector<std::pair<int64_t, const char*>> algorithms(const Words& words, const std::string& precision) {
  constexpr const char* kNames[] = {"direct", "F(2,3)", "F(4,3)"};
  const Precision computed = precision_of(precision);
  const df::network::Program program = df::network::decode(span_of(words));
  std::vector<std::pair<int64_t, const char*>> found;
  for (size_t i = 0; i < program.operations.size(); ++i)
    if (std::holds_alternative<df::network::Convolution>(program.operations[i].kind))
      found.emplace_back(static_cast<int64_t>(i), kNames[static_cast<int>(convolution_algorithm(program.operations[i], computed))]);
  return found;
}

// Weights, activations and workspace.
std::tuple<int64_t, int64_t, int64_t> estimate(const std::string& kernel, const Words& words, const std::string& precision) {
  const df::network::Kernels& kernels = kernels_of(kernel);
  const Precision computed = precision_of(precision);
  py::gil_scoped_release release;
  const auto bytes = df::network::estimate_memory(df::network::decode(span_of(words)), kernels, computed);
  return {bytes.weights, bytes.activations, bytes.workspace};
}

int64_t rows_of(const Floats& array, int64_t size, const char* name) {
  if (array.size() % size != 0 || array.size() == 0)
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(array.size()) + " elements; it must be rows of " +
                                std::to_string(size));
  return array.size() / size;
}

PreparedRows prepare_times(Network& network, const Floats& times) {
  const int64_t count = rows_of(times, network.input_size(1), "the times");
  py::gil_scoped_release release;
  return {network.prepare_times(times.data(), count)};
}

PreparedRows prepare_conditions(Network& network, const std::vector<Floats>& conditions, int64_t count) {
  if (conditions.size() + 2 != network.inputs())
    throw std::invalid_argument("the network takes " + std::to_string(network.inputs() - 2) + " conditioning inputs");
  if (count < 1) throw std::invalid_argument("count must be at least 1");
  std::vector<const float*> data;
  for (size_t i = 0; i < conditions.size(); ++i) {
    if (rows_of(conditions[i], network.input_size(2 + i), "a conditioning input") != count)
      throw std::invalid_argument("a conditioning input must have " + std::to_string(count) + " rows");
    data.push_back(conditions[i].data());
  }
  py::gil_scoped_release release;
  return {network.prepare_conditions(data.data(), count)};
}

// One handle per sample: as given, or one for all.
std::vector<RowHandle> for_batch(const PreparedRows& rows, int64_t batch, const char* name) {
  if (rows.rows.size() == 1) return std::vector<RowHandle>(static_cast<size_t>(batch), rows.rows[0]);
  if (static_cast<int64_t>(rows.rows.size()) != batch)
    throw std::invalid_argument(std::string(name) + " must have one row, or one per sample");
  return rows.rows;
}

void run_rows(Network& network, const Floats& x, py::array_t<float, py::array::c_style>& y, const PreparedRows& times,
              const PreparedRows& conditions, int threads) {
  const int64_t batch = rows_of(x, network.input_size(0), "x");
  if (y.size() != batch * network.output_size())
    throw std::invalid_argument("y must have " + std::to_string(network.output_size()) + " elements per sample");
  const std::vector<RowHandle> t = for_batch(times, batch, "times");
  const std::vector<RowHandle> c = for_batch(conditions, batch, "conditions");
  float* out = y.mutable_data();
  const int use = threads < 1 ? df::num_threads() : threads;
  py::gil_scoped_release release;
  network.run(x.data(), nullptr, out, t.data(), c.data(), batch, use);
}

}  // namespace

void bind_network(py::module_& m) {
  m.def("network_memory", &estimate, py::arg("kernel"), py::arg("words"), py::arg("precision"),
        "Bytes that a network will take: weights, activations of one sample, workspace of one thread.");
  m.def("network_algorithms", &algorithms, py::arg("words"), py::arg("precision"),
        "The convolutions of a program by index, each with its algorithm: direct, F(2,3) or F(4,3).");

  py::class_<PreparedRows>(m, "PreparedRows", "What a network prepared for some times or conditions.")
      .def("__len__", [](const PreparedRows& rows) { return rows.rows.size(); });

  py::class_<Network>(m, "Network", "A network that runs on one instruction set.")
      .def(
          py::init(&load), py::arg("kernel"), py::arg("words"), py::arg("constants"), py::arg("precision") = "float32",
          py::arg("exact") = std::vector<int64_t>(),
          "Load a program: its words, and its initializers and folded constants in the order of their buffers, float32. An item of "
          "`constants` is asked for at most once, when it is packed, and let go when it is not needed any more. The operations in "
          "`exact`, by index, compute as in float32 whatever the precision.")
      .def_property_readonly("row_bytes", &Network::row_bytes, "Bytes of the activations of one sample.")
      .def_property_readonly("output_size", &Network::output_size, "Elements of the output of one sample.")
      .def_property_readonly("kernel", [](const Network& network) { return network.kernels().name; })
      .def("prepare_times", &prepare_times, py::arg("times"), "Compute what depends on each time alone.")
      .def("prepare_conditions", &prepare_conditions, py::arg("conditions"), py::arg("count"),
           "Compute what depends on each condition alone. Takes one array of `count` rows per conditioning input.")
      .def("run", &run_rows, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("times"), py::arg("conditions"),
           py::arg("threads") = 0,
           "Evaluate the network at x into y, sample i at row i of the times and of the conditions; a single row is for all.");
}

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

#include "network/estimate.h"
#include "network/network.h"
#include "step/cpu/kernels.h"
#include "threads/pool.h"

namespace py = pybind11;

namespace {

using df::network::Network;
using df::network::RowHandle;

using Floats = py::array_t<float, py::array::c_style>;
using Words = py::array_t<int64_t, py::array::c_style>;

// Rows prepared by a network, in order.
struct PreparedRows {
  std::vector<RowHandle> rows;
};

const df::network::Kernels& kernels_of(const std::string& kernel) {
  df::require_kernel(kernel == "scalar_plain" ? "scalar" : kernel.c_str());
  const df::network::Kernels* kernels = df::network::find_kernels(kernel.c_str());
  if (kernels == nullptr) throw std::invalid_argument("this build has no network kernels for '" + kernel + "'");
  return *kernels;
}

std::span<const int64_t> span_of(const Words& words) { return {words.data(), static_cast<size_t>(words.size())}; }

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

std::unique_ptr<Network> load(const std::string& kernel, const Words& words, const py::sequence& constants) {
  const df::network::Kernels& kernels = kernels_of(kernel);
  const df::network::ConstantSource source = source_of(constants);
  py::gil_scoped_release release;
  return std::make_unique<Network>(span_of(words), source, kernels);
}

// Weights, activations and workspace.
std::tuple<int64_t, int64_t, int64_t> estimate(const std::string& kernel, const Words& words) {
  const df::network::Kernels& kernels = kernels_of(kernel);
  py::gil_scoped_release release;
  const auto bytes = df::network::estimate_memory(df::network::decode(span_of(words)), kernels, df::network::Precision::kFloat32);
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

PreparedRows prepare_conditions(Network& network, const std::vector<Floats>& conditions) {
  if (conditions.size() + 2 != network.inputs())
    throw std::invalid_argument("the network takes " + std::to_string(network.inputs() - 2) + " conditioning inputs");
  int64_t count = 1;
  std::vector<const float*> data;
  for (size_t i = 0; i < conditions.size(); ++i) {
    const int64_t rows = rows_of(conditions[i], network.input_size(2 + i), "a conditioning input");
    if (i > 0 && rows != count) throw std::invalid_argument("the conditioning inputs have different numbers of rows");
    count = rows;
    data.push_back(conditions[i].data());
  }
  py::gil_scoped_release release;
  return {network.prepare_conditions(data.data(), count)};
}

// One handle per sample: given, one for all, or none for a network without conditioning.
std::vector<RowHandle> for_batch(const PreparedRows& rows, const std::vector<int64_t>& which, int64_t batch, const char* name) {
  std::vector<RowHandle> out(static_cast<size_t>(batch));
  if (static_cast<int64_t>(which.size()) != batch)
    throw std::invalid_argument(std::string(name) + " must have one entry per sample");
  for (size_t i = 0; i < which.size(); ++i) {
    if (which[i] < 0 || which[i] >= static_cast<int64_t>(rows.rows.size()))
      throw std::out_of_range(std::string(name) + " has a row that was not prepared");
    out[i] = rows.rows[static_cast<size_t>(which[i])];
  }
  return out;
}

void run_rows(Network& network, const Floats& x, py::array_t<float, py::array::c_style>& y, const PreparedRows& times,
              const std::vector<int64_t>& time_row, const PreparedRows& conditions, const std::vector<int64_t>& condition_row,
              int threads) {
  const int64_t batch = rows_of(x, network.input_size(0), "x");
  if (y.size() != batch * network.output_size())
    throw std::invalid_argument("y must have " + std::to_string(network.output_size()) + " elements per sample");
  const std::vector<RowHandle> t = for_batch(times, time_row, batch, "time_row");
  const std::vector<RowHandle> c = for_batch(conditions, condition_row, batch, "condition_row");
  float* out = y.mutable_data();
  const int use = threads < 1 ? df::num_threads() : threads;
  py::gil_scoped_release release;
  network.run(x.data(), nullptr, out, t.data(), c.data(), batch, use);
}

}  // namespace

void bind_network(py::module_& m) {
  m.def("network_memory", &estimate, py::arg("kernel"), py::arg("words"),
        "Bytes that a network will take: weights, activations of one sample, workspace of one thread.");

  py::class_<PreparedRows>(m, "PreparedRows", "What a network prepared for some times or conditions.")
      .def("__len__", [](const PreparedRows& rows) { return rows.rows.size(); });

  py::class_<Network>(m, "Network", "A network that runs on one instruction set.")
      .def(
          py::init(&load), py::arg("kernel"), py::arg("words"), py::arg("constants"),
          "Load a program: its words, and its initializers and folded constants in the order of their buffers, float32. An item of "
          "`constants` is asked for at most once, when it is packed, and let go when it is not needed any more.")
      .def_property_readonly("row_bytes", &Network::row_bytes, "Bytes of the activations of one sample.")
      .def_property_readonly("output_size", &Network::output_size, "Elements of the output of one sample.")
      .def_property_readonly("kernel", [](const Network& network) { return network.kernels().name; })
      .def("prepare_times", &prepare_times, py::arg("times"), "Compute what depends on each time alone.")
      .def("prepare_conditions", &prepare_conditions, py::arg("conditions"),
           "Compute what depends on each condition alone. Takes one array per conditioning input; without any, one row.")
      .def("run", &run_rows, py::arg("x").noconvert(), py::arg("y").noconvert(), py::arg("times"), py::arg("time_row"),
           py::arg("conditions"), py::arg("condition_row"), py::arg("threads") = 0,
           "Evaluate the network at x into y, sample i at row time_row[i] of the times and condition_row[i] of the conditions.");
}

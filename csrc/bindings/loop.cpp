// The loop: samples in flight on a network of the core.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arguments.h"
#include "bindings/network.h"
#include "loop/slots.h"

namespace py = pybind11;
using namespace df::bindings;

namespace {

using df::loop::Plan;
using Core = df::loop::Slots;
using Times = py::array_t<float, py::array::c_style>;

std::shared_ptr<Plan> make_plan(const py::buffer& rows, const Times& times, int registers) {
  const py::buffer_info info = rows.request();
  const auto table = rows_of(info);
  if (times.ndim() != 1 || times.size() != static_cast<py::ssize_t>(table.size()))
    throw std::invalid_argument("times must have one entry per row");
  return std::make_shared<Plan>(Plan{{table.begin(), table.end()}, {times.data(), times.data() + times.size()}, registers});
}

const char* name_of(Core::Result result) {
  switch (result) {
    case Core::Result::kAdvanced: return "advanced";
    case Core::Result::kDone: return "done";
    case Core::Result::kNotFinite: return "not_finite";
    case Core::Result::kStopped: return "stopped";
  }
  return "";
}

// Runs Python's signal handlers. The GIL is taken while no lock of the core is held.
void handle_signals(df::Stop& stop) {
  const py::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0) stop.request();  // the handler's exception is raised when the call returns
}

bool on_main_thread() {
  return py::module_::import("threading").attr("main_thread")().attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
}

class Slots {
 public:
  Slots(py::object network, const std::string& kernel, int64_t capacity, int threads)
      : network_(std::move(network)),
        slots_(network_.cast<df::network::Network&>(), df::require_kernel(kernel.c_str()), at_least_one(capacity), threads) {}

  // The slots, for one call.
  Core& use(int64_t slot = 0) {
    if (slot < 0 || slot >= slots_.capacity()) throw std::out_of_range("there is no slot " + std::to_string(slot));
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_ != nullptr) throw std::runtime_error("the slots are in use by another thread");
    return slots_;
  }

  void admit(int64_t first, const std::shared_ptr<Plan>& plan, const Seeds& seeds, const Indices& indices,
             const std::vector<const PreparedRows*>& conditions, bool known) {
    check_keys(seeds, indices);
    const int64_t count = seeds.size();
    Core& slots = use(first);
    if (count > slots.capacity() - first) throw std::out_of_range("there are not that many slots");
    if (conditions.size() > static_cast<size_t>(df::kMaxOutputs)) throw std::invalid_argument("at most three outputs are allowed");
    for (const PreparedRows* rows : conditions)
      if (rows == nullptr || static_cast<int64_t>(rows->rows.size()) != count)
        throw std::invalid_argument("conditions must have one entry per sample");
    for (int64_t i = 0; i < count; ++i) {
      df::loop::Request request{plan, seeds.data()[i], indices.data()[i], {}, known};
      for (size_t j = 0; j < conditions.size(); ++j) request.conditions[j] = conditions[j]->rows[static_cast<size_t>(i)];
      slots.admit(first + i, request);
    }
  }

  const char* call(Core::Result (Core::*run)(df::Stop&)) {
    Core& slots = use();
    df::Stop stop(on_main_thread() ? &handle_signals : nullptr);
    const Turn turn(*this, stop);
    Core::Result result;
    {
      const py::gil_scoped_release release;
      result = (slots.*run)(stop);
    }
    if (PyErr_Occurred() != nullptr) throw py::error_already_set();
    return name_of(result);
  }

  void stop() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (stop_ != nullptr) stop_->request();
  }

 private:
  // Marks the slots as in use.
  class Turn {
   public:
    Turn(Slots& slots, df::Stop& stop) : slots_(slots) { set(&stop); }
    ~Turn() { set(nullptr); }
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    void set(df::Stop* stop) {
      const std::lock_guard<std::mutex> lock(slots_.mutex_);
      slots_.stop_ = stop;
    }
    Slots& slots_;
  };

  static int64_t at_least_one(int64_t capacity) {
    if (capacity < 1) throw std::invalid_argument("capacity must be at least 1");
    return capacity;
  }

  py::object network_;  // kept alive
  Core slots_;
  std::mutex mutex_;          // of stop_, which is held for moments only
  df::Stop* stop_ = nullptr;  // of the call that runs
};

py::array_t<float> view(const py::object& self, float* data) {
  const Core& slots = self.cast<Slots&>().use();
  return py::array_t<float>({slots.capacity(), slots.elements()}, data, self);
}

}  // namespace

void bind_loop(py::module_& m) {
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan", "The rows of a plan and their times, as the loop runs them.")
      .def(py::init(&make_plan), py::arg("rows"), py::arg("times"), py::arg("registers"));

  py::class_<Slots>(m, "Slots", "Samples in flight on a network. One thread at a time may use them.")
      .def(py::init<py::object, const std::string&, int64_t, int>(), py::arg("network"), py::arg("kernel"), py::arg("capacity"),
           py::arg("threads") = 0)
      .def_property_readonly(
          "state", [](const py::object& self) { return view(self, self.cast<Slots&>().use().state()); },
          "The state, (capacity, elements): a view.")
      .def_property_readonly(
          "known", [](const py::object& self) { return view(self, self.cast<Slots&>().use().known()); },
          "The data of the known region, (capacity, elements): a view.")
      .def_property_readonly(
          "mask", [](const py::object& self) { return view(self, self.cast<Slots&>().use().mask()); },
          "Where the data is known, (capacity, elements): a view.")
      .def(
          "register_view",
          [](const py::object& self, int number) { return view(self, self.cast<Slots&>().use().register_data(number)); },
          py::arg("number"), "A register of the plans that are admitted, (capacity, elements): a view.")
      .def("admit", &Slots::admit, py::arg("first"), py::arg("plan"), py::arg("seeds"), py::arg("indices"), py::arg("conditions"),
           py::arg("known"),
           "Fill consecutive slots with samples that follow a plan. conditions has, for each network output, one prepared row per "
           "sample; the starts are written to state.")
      .def(
          "retire", [](Slots& self, int64_t slot) { self.use(slot).retire(slot); }, py::arg("slot"), "Free a slot.")
      .def(
          "at", [](Slots& self, int64_t slot) { return self.use(slot).at(slot); }, py::arg("slot"),
          "The number of the slot's next row.")
      .def(
          "done", [](Slots& self, int64_t slot) { return self.use(slot).done(slot); }, py::arg("slot"),
          "Whether the slot has passed the last row of its plan, or is free.")
      .def(
          "row", [](Slots& self) { return self.call(&Core::row); },
          "Advance by one row the slots whose row calls no network, or if there are none, all. Return 'advanced', 'done', "
          "'not_finite' or 'stopped'.")
      .def(
          "tick", [](Slots& self) { return self.call(&Core::tick); }, "Advance up to the next call of the network.")
      .def(
          "run", [](Slots& self) { return self.call(&Core::run); }, "Advance until every slot is done, or something else ends it.")
      .def("stop", &Slots::stop, "From another thread: stop the call that runs, if there is one.")
      .def_property_readonly(
          "bad",
          [](Slots& self) {
            std::vector<std::pair<int64_t, int64_t>> bad;
            for (const Core::Bad& b : self.use().bad()) bad.emplace_back(b.slot, b.row);
            return bad;
          },
          "After 'not_finite': (slot, row) of the samples for which the network returned NaN or Inf.");
}

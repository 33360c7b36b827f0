#include "schedule/schedule.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace py = pybind11;

namespace {

using Array = py::array_t<double, py::array::c_style | py::array::forcecast>;

py::array_t<double> to_array(const std::vector<double>& values) {
  return py::array_t<double>(static_cast<py::ssize_t>(values.size()), values.data());
}

std::vector<double> to_vector(const Array& values) { return {values.data(), values.data() + values.size()}; }

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const df::ScheduleError& error) {
    py::set_error(py::module_::import("diffuse_fast.errors").attr("ArgumentError"), error.what());
  }
}

}  // namespace

void bind_schedule(py::module_& module) {
  using df::Schedule;
  py::register_local_exception_translator(&translate);

  const auto count = py::arg("num_train_timesteps");
  const auto start = py::arg("beta_start"), end = py::arg("beta_end");
  module.def(
      "linear_betas", [](int64_t n, double a, double b) { return to_array(df::linear_betas(n, a, b)); }, count, start, end,
      "betas evenly from beta_start to beta_end, float64 (num_train_timesteps,).");
  module.def(
      "scaled_linear_betas", [](int64_t n, double a, double b) { return to_array(df::scaled_linear_betas(n, a, b)); }, count, start,
      end, "betas whose square roots are even, float64 (num_train_timesteps,).");
  module.def(
      "cosine_betas", [](int64_t n, double s, double max) { return to_array(df::cosine_betas(n, s, max)); }, count, py::arg("s"),
      py::arg("max_beta"), "betas of the cosine schedule, float64 (num_train_timesteps,).");
  module.def(
      "sigmoid_betas", [](int64_t n, double a, double b) { return to_array(df::sigmoid_betas(n, a, b)); }, count, start, end,
      "betas along a sigmoid over [-6, 6], float64 (num_train_timesteps,).");

  py::class_<Schedule>(module, "Schedule", "The tables and marginals of a noise schedule (csrc/schedule/schedule.h).")
      .def_static(
          "from_betas", [](const Array& betas) { return Schedule::from_betas(to_vector(betas)); }, py::arg("betas"))
      .def_static(
          "from_alphas_cumprod", [](const Array& values) { return Schedule::from_alphas_cumprod(to_vector(values)); },
          py::arg("alphas_cumprod"))
      .def("rescaled_zero_terminal_snr", &Schedule::rescaled_zero_terminal_snr)
      .def(
          "with_interpolation",
          [](const Schedule& s, int index) { return s.with_interpolation(static_cast<df::Interpolation>(index)); },
          py::arg("index"), "The same tables; index: 0 log(alpha) is linear between integers, 1 log(sigma/alpha), 2 sigma/alpha.")
      .def_property_readonly("num_train_timesteps", &Schedule::num_train_timesteps)
      .def_property_readonly("betas", [](const Schedule& s) { return to_array(s.betas()); })
      .def_property_readonly("alphas", [](const Schedule& s) { return to_array(s.alphas()); })
      .def_property_readonly("alphas_cumprod", [](const Schedule& s) { return to_array(s.alphas_cumprod()); })
      .def_property_readonly("alphas_cumprod_prev", [](const Schedule& s) { return to_array(s.alphas_cumprod_prev()); })
      .def_property_readonly("snr", [](const Schedule& s) { return to_array(s.snr()); })
      .def_property_readonly("posterior_mean_coef_x0", [](const Schedule& s) { return to_array(s.posterior_mean_coef_x0()); })
      .def_property_readonly("posterior_mean_coef_xt", [](const Schedule& s) { return to_array(s.posterior_mean_coef_xt()); })
      .def_property_readonly("posterior_variance", [](const Schedule& s) { return to_array(s.posterior_variance()); })
      .def("log_alpha", py::vectorize(&Schedule::log_alpha), py::arg("t"), "log(alpha), elementwise.")
      .def("alpha", py::vectorize(&Schedule::alpha), py::arg("t"), "alpha at fractional timesteps, elementwise.")
      .def("sigma", py::vectorize(&Schedule::sigma), py::arg("t"), "sigma at fractional timesteps, elementwise.")
      .def("log_snr", py::vectorize(&Schedule::log_snr), py::arg("t"), "log(alpha^2/sigma^2), elementwise.")
      .def("timestep_at_log_snr", py::vectorize(&Schedule::timestep_at_log_snr), py::arg("log_snr"),
           "The fractional timestep at which log_snr(t) has the value, elementwise.");
}

#include "schedule/schedule.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <numbers>
#include <sstream>
#include <string>
#include <utility>

namespace df {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

template <class... Parts>
[[noreturn]] void fail(const Parts&... parts) {
  std::ostringstream message;
  message.precision(17);
  (message << ... << parts);
  throw ScheduleError(message.str());
}

void check_count(int64_t num_train_timesteps) {
  if (num_train_timesteps < 1 || num_train_timesteps > kMaxTrainTimesteps)
    fail("num_train_timesteps is ", num_train_timesteps, "; it must be from 1 to ", kMaxTrainTimesteps, ".");
}

void check_range(int64_t num_train_timesteps, double beta_start, double beta_end) {
  check_count(num_train_timesteps);
  if (!(beta_start > 0.0 && beta_start < 1.0)) fail("beta_start is ", beta_start, "; it must be between 0 and 1.");
  if (!(beta_end > 0.0 && beta_end < 1.0)) fail("beta_end is ", beta_end, "; it must be between 0 and 1.");
}

std::vector<double> linspace(double first, double last, int64_t count) {
  std::vector<double> values(count, first);
  for (int64_t i = 1; i < count; ++i) values[i] = first + (last - first) * (static_cast<double>(i) / (count - 1));
  if (count > 1) values.back() = last;
  return values;
}

// sigma^2 and log-SNR of L = log(alpha^2).
double variance(double log_alpha_squared) { return -std::expm1(log_alpha_squared); }
double log_snr_of(double log_alpha_squared) { return log_alpha_squared - std::log(variance(log_alpha_squared)); }
// The inverse: L = -log(1 + exp(-log_snr)), without overflow.
double log_alpha_squared_of(double log_snr) {
  return log_snr > 0.0 ? -std::log1p(std::exp(-log_snr)) : log_snr - std::log1p(std::exp(log_snr));
}

// The quantity that is interpolated, as a function of L, and its inverse.
double interpolated(Interpolation kind, double log_alpha_squared) {
  if (kind == Interpolation::kLogAlpha) return log_alpha_squared;
  const double log_sigma = -log_snr_of(log_alpha_squared) / 2.0;
  return kind == Interpolation::kLogSigma ? log_sigma : std::exp(log_sigma);
}
double log_alpha_squared_at(Interpolation kind, double value) {
  if (kind == Interpolation::kLogAlpha) return value;
  return log_alpha_squared_of(-2.0 * (kind == Interpolation::kLogSigma ? value : std::log(value)));
}

}  // namespace

// ---- betas ----------------------------------------------------------------------------------------

std::vector<double> linear_betas(int64_t num_train_timesteps, double beta_start, double beta_end) {
  check_range(num_train_timesteps, beta_start, beta_end);
  return linspace(beta_start, beta_end, num_train_timesteps);
}

std::vector<double> scaled_linear_betas(int64_t num_train_timesteps, double beta_start, double beta_end) {
  check_range(num_train_timesteps, beta_start, beta_end);
  std::vector<double> betas = linspace(std::sqrt(beta_start), std::sqrt(beta_end), num_train_timesteps);
  for (double& beta : betas) beta *= beta;
  return betas;
}

std::vector<double> cosine_betas(int64_t num_train_timesteps, double s, double max_beta) {
  check_count(num_train_timesteps);
  if (!(s >= 0.0 && s < kInfinity)) fail("s is ", s, "; it must be finite and not negative.");
  if (!(max_beta > 0.0 && max_beta <= 1.0)) fail("max_beta is ", max_beta, "; it must be above 0 and at most 1.");
  // With w(u) = (1 - u)/(1 + s) * pi/2, f(u) = sin^2(w(u)), and 1 - sin^2(w2)/sin^2(w1) = sin(w1 - w2) sin(w1 + w2)/sin^2(w1):
  // no difference of close numbers at either end.
  const double unit = std::numbers::pi / 2.0 / (1.0 + s) / static_cast<double>(num_train_timesteps);
  std::vector<double> betas(num_train_timesteps);
  for (int64_t t = 0; t < num_train_timesteps; ++t) {
    const double left = static_cast<double>(num_train_timesteps - t);
    const double w1 = std::sin(unit * left);
    betas[t] = std::min(std::sin(unit) * std::sin(unit * (2.0 * left - 1.0)) / (w1 * w1), max_beta);
  }
  return betas;
}

std::vector<double> sigmoid_betas(int64_t num_train_timesteps, double beta_start, double beta_end) {
  check_range(num_train_timesteps, beta_start, beta_end);
  std::vector<double> betas = linspace(-6.0, 6.0, num_train_timesteps);
  for (double& beta : betas) beta = beta_start + (beta_end - beta_start) / (1.0 + std::exp(-beta));
  return betas;
}

// ---- construction ---------------------------------------------------------------------------------

Schedule::Schedule(std::vector<double> betas, std::vector<double> alphas_cumprod, std::vector<double> log_alphas_cumprod)
    : betas_(std::move(betas)), alphas_cumprod_(std::move(alphas_cumprod)), log_alphas_cumprod_(std::move(log_alphas_cumprod)) {}

Schedule Schedule::from_betas(std::vector<double> betas) {
  const int64_t count = static_cast<int64_t>(betas.size());
  check_count(count);
  std::vector<double> log_cumprod(count), cumprod(count);
  double sum = 0.0, lost = 0.0;  // Kahan summation: the rounding of a thousand additions would show in sigma near t = 0
  for (int64_t t = 0; t < count; ++t) {
    const bool last = t == count - 1 && t > 0;
    if (!(betas[t] > 0.0 && (betas[t] < 1.0 || (last && betas[t] == 1.0))))
      fail("betas[", t, "] is ", betas[t], "; every beta must be between 0 and 1 (the last of several may be 1).");
    if (betas[t] == 1.0) {
      sum = -kInfinity;
    } else {
      const double term = std::log1p(-betas[t]) - lost;
      const double next = sum + term;
      lost = (next - sum) - term;
      sum = next;
    }
    log_cumprod[t] = sum;
    cumprod[t] = std::exp(sum);
  }
  return Schedule(std::move(betas), std::move(cumprod), std::move(log_cumprod));
}

Schedule Schedule::from_alphas_cumprod(std::vector<double> alphas_cumprod) {
  const int64_t count = static_cast<int64_t>(alphas_cumprod.size());
  check_count(count);
  std::vector<double> log_cumprod(count), betas(count);
  for (int64_t t = 0; t < count; ++t) {
    const double value = alphas_cumprod[t], before = t == 0 ? 1.0 : alphas_cumprod[t - 1];
    const bool last = t == count - 1 && t > 0;
    if (!(value < before && (value > 0.0 || (last && value == 0.0))))
      fail("alphas_cumprod[", t, "] is ", value, " after ", before,
           "; the values must be strictly decreasing, below 1 and above 0 (the last of several may be 0).");
    log_cumprod[t] = std::log(value);
    betas[t] = (before - value) / before;  // before - value is exact where they are close
  }
  return Schedule(std::move(betas), std::move(alphas_cumprod), std::move(log_cumprod));
}

Schedule Schedule::rescaled_zero_terminal_snr() const {
  const int64_t count = num_train_timesteps();
  if (count < 2) fail("rescale_zero_terminal_snr needs at least 2 timesteps; the schedule has ", count, ".");
  if (log_alphas_cumprod_.back() == -kInfinity) return *this;
  const double first = log_alphas_cumprod_.front() / 2.0, final = log_alphas_cumprod_.back() / 2.0;
  std::vector<double> log_cumprod(count), cumprod(count), betas(count);
  for (int64_t t = 0; t < count; ++t) {
    // alpha' = (alpha - alpha_T) * alpha_0 / (alpha_0 - alpha_T), in the form without cancellation.
    const double here = log_alphas_cumprod_[t] / 2.0;
    const double fallen = std::expm1(here - first) / std::expm1(final - first);  // (alpha_0 - alpha)/(alpha_0 - alpha_T)
    const double log_left =
        fallen < 0.5 ? std::log1p(-fallen) : std::log(std::expm1(here - final)) - std::log(std::expm1(first - final));
    log_cumprod[t] = 2.0 * (first + log_left);
    cumprod[t] = std::exp(log_cumprod[t]);
    betas[t] = variance(t == 0 ? log_cumprod[0] : log_cumprod[t] - log_cumprod[t - 1]);
  }
  return Schedule(std::move(betas), std::move(cumprod), std::move(log_cumprod)).with_interpolation(interpolation_);
}

Schedule Schedule::with_interpolation(Interpolation interpolation) const {
  Schedule out = *this;
  out.interpolation_ = interpolation;
  return out;
}

// ---- tables ---------------------------------------------------------------------------------------

std::vector<double> Schedule::alphas() const {
  std::vector<double> out(betas_.size());
  for (size_t t = 0; t < out.size(); ++t) out[t] = 1.0 - betas_[t];
  return out;
}

std::vector<double> Schedule::alphas_cumprod_prev() const {
  std::vector<double> out(betas_.size(), 1.0);
  std::copy(alphas_cumprod_.begin(), alphas_cumprod_.end() - 1, out.begin() + 1);
  return out;
}

std::vector<double> Schedule::snr() const {
  std::vector<double> out(betas_.size());
  for (size_t t = 0; t < out.size(); ++t) out[t] = alphas_cumprod_[t] / variance(log_alphas_cumprod_[t]);
  return out;
}

std::vector<double> Schedule::posterior_mean_coef_x0() const {
  std::vector<double> out(betas_.size());
  for (size_t t = 0; t < out.size(); ++t) {
    const double alpha_prev = t == 0 ? 1.0 : std::sqrt(alphas_cumprod_[t - 1]);
    out[t] = alpha_prev * betas_[t] / variance(log_alphas_cumprod_[t]);
  }
  return out;
}

std::vector<double> Schedule::posterior_mean_coef_xt() const {
  std::vector<double> out(betas_.size(), 0.0);
  for (size_t t = 1; t < out.size(); ++t)
    out[t] = std::sqrt(1.0 - betas_[t]) * variance(log_alphas_cumprod_[t - 1]) / variance(log_alphas_cumprod_[t]);
  return out;
}

std::vector<double> Schedule::posterior_variance() const {
  std::vector<double> out(betas_.size(), 0.0);
  for (size_t t = 1; t < out.size(); ++t)
    out[t] = betas_[t] * variance(log_alphas_cumprod_[t - 1]) / variance(log_alphas_cumprod_[t]);
  return out;
}

// ---- marginals ------------------------------------------------------------------------------------

double Schedule::log_alphas_cumprod(double t) const {
  const double last = static_cast<double>(betas_.size() - 1);
  if (!(t >= 0.0 && t <= last)) fail("timestep is ", t, "; it must be from 0 to ", last, ".");
  const double below = std::floor(t), weight = t - below;
  const size_t i = static_cast<size_t>(below);
  if (weight == 0.0) return log_alphas_cumprod_[i];  // also for the last timestep; avoids 0 * inf
  const double before = interpolated(interpolation_, log_alphas_cumprod_[i]);
  const double after = interpolated(interpolation_, log_alphas_cumprod_[i + 1]);
  return log_alpha_squared_at(interpolation_, before + weight * (after - before));
}

double Schedule::log_alpha(double t) const { return log_alphas_cumprod(t) / 2.0; }

double Schedule::alpha(double t) const { return std::exp(log_alpha(t)); }

double Schedule::sigma(double t) const { return std::sqrt(variance(log_alphas_cumprod(t))); }

double Schedule::log_snr(double t) const { return log_snr_of(log_alphas_cumprod(t)); }

double Schedule::timestep_at_log_snr(double value) const {
  const std::vector<double>& table = log_alphas_cumprod_;
  const size_t last = table.size() - 1;
  if (value == -kInfinity && table[last] == -kInfinity) return static_cast<double>(last);
  const size_t low = table[last] == -kInfinity ? last - 1 : last;
  // The values of log_snr() at the ends must be accepted in spite of rounding.
  const double highest = log_snr_of(table.front()), lowest = log_snr_of(table[low]);
  const double slack = 1e-12 * (1.0 + std::max(std::fabs(highest), std::fabs(lowest)));
  if (!(value >= lowest - slack && value <= highest + slack))
    fail("log_snr is ", value, "; this schedule has ", lowest, " to ", highest,
         low == last ? "." : " and -inf at its last timestep.");
  const double target = log_alpha_squared_of(value);
  if (target >= table.front()) return 0.0;
  if (target <= table[low]) return static_cast<double>(low);
  const auto above = std::upper_bound(table.begin(), table.begin() + low, target, std::greater<>());
  const size_t i = static_cast<size_t>(above - table.begin());  // table[i - 1] >= target > table[i]
  const double before = interpolated(interpolation_, table[i - 1]), after = interpolated(interpolation_, table[i]);
  return static_cast<double>(i - 1) + (interpolated(interpolation_, target) - before) / (after - before);
}

}  // namespace df

// The noise schedule of a discrete variance-preserving diffusion, in float64.
//
//   q(x_t | x_0) = N(alpha(t) x_0, sigma(t)^2 I),   alpha(t)^2 = alphas_cumprod[t],   alpha^2 + sigma^2 = 1
//
// Timesteps are 0-based: t = 0 is the cleanest, t = T - 1 the noisiest. Between integers log(alpha) is linear, unless an
// Interpolation is chosen.
//
// Everything is derived from L[t] = log(alphas_cumprod[t]), not from alphas_cumprod itself: near t = 0 the product is close
// to 1, where 1 - alphas_cumprod[t] has few correct digits and sigma^2 = -expm1(L) has all.

#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

namespace df {

inline constexpr int64_t kMaxTrainTimesteps = 1'000'000;

// An invalid argument; the message names it.
class ScheduleError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// betas[t] = beta_start .. beta_end, evenly.   (Ho et al. 2020, section 4)
std::vector<double> linear_betas(int64_t num_train_timesteps, double beta_start, double beta_end);

// sqrt(betas[t]) = sqrt(beta_start) .. sqrt(beta_end), evenly.   (the code of Rombach et al. 2022)
std::vector<double> scaled_linear_betas(int64_t num_train_timesteps, double beta_start, double beta_end);

// betas[t] = min(1 - f((t + 1)/T) / f(t/T), max_beta),  f(u) = cos^2((u + s)/(1 + s) * pi/2).   (Nichol & Dhariwal 2021, eq. 17)
std::vector<double> cosine_betas(int64_t num_train_timesteps, double s, double max_beta);

// betas[t] = beta_start + (beta_end - beta_start) * sigmoid(u),  u = -6 .. 6, evenly.   (the code of Xu et al. 2022, GeoDiff)
std::vector<double> sigmoid_betas(int64_t num_train_timesteps, double beta_start, double beta_end);

// The quantity that is linear between integer timesteps. The last two match other libraries.
enum class Interpolation {
  kLogAlpha,  // log(alpha)
  kLogSigma,  // log(sigma/alpha): k-diffusion
  kSigma,     // sigma/alpha: diffusers, from timestep to noise level
};

class Schedule {
 public:
  // Each in (0, 1); the last of several may be 1 (zero terminal SNR).
  static Schedule from_betas(std::vector<double> betas);
  // Strictly decreasing in (0, 1); the last of several may be 0 (zero terminal SNR).
  static Schedule from_alphas_cumprod(std::vector<double> alphas_cumprod);
  // alpha shifted and scaled so that the last is 0 and the first is unchanged.   (Lin et al. 2023, Algorithm 1)
  Schedule rescaled_zero_terminal_snr() const;
  Schedule with_interpolation(Interpolation) const;

  int64_t num_train_timesteps() const { return static_cast<int64_t>(betas_.size()); }

  // Tables over the integer timesteps.
  const std::vector<double>& betas() const { return betas_; }
  const std::vector<double>& alphas_cumprod() const { return alphas_cumprod_; }
  std::vector<double> alphas() const;
  std::vector<double> alphas_cumprod_prev() const;
  std::vector<double> snr() const;
  // q(x_{t-1} | x_t, x_0) = N(coef_x0 x_0 + coef_xt x_t, variance I).   (Ho et al. 2020, eq. 7)
  std::vector<double> posterior_mean_coef_x0() const;
  std::vector<double> posterior_mean_coef_xt() const;
  std::vector<double> posterior_variance() const;

  // Marginals at any t in [0, T - 1].
  double log_alpha(double t) const;
  double alpha(double t) const;
  double sigma(double t) const;
  double log_snr(double t) const;  // log(alpha^2 / sigma^2)
  // The t with log_snr(t) = value.
  double timestep_at_log_snr(double value) const;

 private:
  Schedule(std::vector<double> betas, std::vector<double> alphas_cumprod, std::vector<double> log_alphas_cumprod);
  double log_alphas_cumprod(double t) const;

  std::vector<double> betas_;
  std::vector<double> alphas_cumprod_;
  std::vector<double> log_alphas_cumprod_;
  Interpolation interpolation_ = Interpolation::kLogAlpha;
};

}  // namespace df

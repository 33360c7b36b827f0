// The schedule math against its definitions in long double, its inverses, and its errors.
#include <cmath>
#include <limits>

#include "check.h"
#include "schedule/schedule.h"

using df::Schedule;
using df::ScheduleError;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool near(double value, double expected, double tolerance = 1e-13) {
  return std::fabs(value - expected) <= tolerance * std::max(1e-300, std::fabs(expected));
}

}  // namespace

TEST(schedule_betas) {
  for (const auto& betas : {df::linear_betas(1000, 1e-4, 0.02), df::scaled_linear_betas(1000, 1e-4, 0.02)}) {
    CHECK(betas.size() == 1000 && near(betas.front(), 1e-4) && near(betas.back(), 0.02));
    for (size_t t = 1; t < betas.size(); ++t) CHECK(betas[t] > betas[t - 1]);
  }
  const auto cosine = df::cosine_betas(50, 0.008, 0.999);
  for (int t = 0; t < 50; ++t) {
    const auto f = [](long double u) {
      const long double c = std::cos((u + 0.008L) / 1.008L * 1.570796326794896619231321691639751442L);
      return c * c;
    };
    const long double beta = std::min(0.999L, 1.0L - f((t + 1) / 50.0L) / f(t / 50.0L));
    CHECK(near(cosine[static_cast<size_t>(t)], static_cast<double>(beta), 1e-11));
  }
  const auto sigmoid = df::sigmoid_betas(3, 0.1, 0.3);
  CHECK(near(sigmoid[1], 0.2) && near(sigmoid[0] + sigmoid[2], 0.4));
  CHECK(df::linear_betas(1, 0.1, 0.3).size() == 1 && df::sigmoid_betas(1, 0.1, 0.3).size() == 1);
}

TEST(schedule_tables) {
  const auto betas = df::linear_betas(1000, 1e-4, 0.02);
  const Schedule schedule = Schedule::from_betas(betas);
  long double product = 1.0L, before = 1.0L;
  const auto prev = schedule.alphas_cumprod_prev(), snr = schedule.snr(), variance = schedule.posterior_variance();
  const auto coef_x0 = schedule.posterior_mean_coef_x0(), coef_xt = schedule.posterior_mean_coef_xt(), alphas = schedule.alphas();
  for (size_t t = 0; t < betas.size(); ++t) {
    const long double beta = betas[t];
    before = product;
    product *= 1.0L - beta;
    CHECK(near(schedule.alphas_cumprod()[t], static_cast<double>(product)));
    CHECK(near(prev[t], static_cast<double>(before)) && alphas[t] == 1.0 - betas[t]);
    CHECK(near(snr[t], static_cast<double>(product / (1.0L - product)), 1e-12));
    CHECK(near(variance[t], static_cast<double>(beta * (1.0L - before) / (1.0L - product)), 1e-11));
    CHECK(near(coef_x0[t], static_cast<double>(std::sqrt(before) * beta / (1.0L - product)), 1e-11));
    CHECK(near(coef_xt[t], static_cast<double>(std::sqrt(1.0L - beta) * (1.0L - before) / (1.0L - product)), 1e-11));
  }
  const Schedule again = Schedule::from_alphas_cumprod(schedule.alphas_cumprod());
  for (size_t t = 0; t < betas.size(); ++t) CHECK(near(again.betas()[t], betas[t], 1e-9));
}

TEST(schedule_marginals) {
  const Schedule one = Schedule::from_betas({0.25});
  CHECK(near(one.alpha(0.0), std::sqrt(0.75)) && near(one.sigma(0.0), 0.5) && one.timestep_at_log_snr(std::log(3.0)) == 0.0);
  for (const Schedule& schedule :
       {Schedule::from_betas(df::linear_betas(1000, 1e-4, 0.02)), Schedule::from_betas(df::cosine_betas(20, 0.008, 1.0)),
        Schedule::from_betas(df::linear_betas(1000, 1e-4, 0.02)).rescaled_zero_terminal_snr()}) {
    const double last = static_cast<double>(schedule.num_train_timesteps() - 1);
    for (double t = 0.0; t <= last; t += last / 57.0) {
      const double a = schedule.alpha(t), s = schedule.sigma(t);
      CHECK(near(a * a + s * s, 1.0));
      // With zero terminal SNR, no log-SNR lies between the last two timesteps: the inverse is the last.
      const double expected = schedule.log_snr(t) == -kInfinity ? last : t;
      CHECK(std::fabs(schedule.timestep_at_log_snr(schedule.log_snr(t)) - expected) < 1e-8 * (1.0 + last));
    }
  }
  const Schedule zero = Schedule::from_betas(df::linear_betas(1000, 1e-4, 0.02)).rescaled_zero_terminal_snr();
  CHECK(zero.alpha(999.0) == 0.0 && zero.sigma(999.0) == 1.0 && zero.log_snr(999.0) == -kInfinity);
  CHECK(zero.timestep_at_log_snr(-kInfinity) == 999.0 && zero.betas().back() == 1.0);
  CHECK(near(zero.alpha(0.0), Schedule::from_betas(df::linear_betas(1000, 1e-4, 0.02)).alpha(0.0)));
  CHECK(zero.rescaled_zero_terminal_snr().betas() == zero.betas());
}

TEST(schedule_refusals) {
  CHECK_THROWS(df::linear_betas(0, 0.1, 0.2), ScheduleError, "num_train_timesteps is 0");
  CHECK_THROWS(df::linear_betas(-1, 0.1, 0.2), ScheduleError, "num_train_timesteps is -1");
  CHECK_THROWS(df::linear_betas(df::kMaxTrainTimesteps + 1, 0.1, 0.2), ScheduleError, "num_train_timesteps");
  CHECK_THROWS(df::scaled_linear_betas(10, 0.0, 0.2), ScheduleError, "beta_start is 0");
  CHECK_THROWS(df::sigmoid_betas(10, 0.1, 1.0), ScheduleError, "beta_end is 1");
  CHECK_THROWS(df::linear_betas(10, kNaN, 0.2), ScheduleError, "beta_start is nan");
  CHECK_THROWS(df::cosine_betas(10, -1.0, 0.999), ScheduleError, "s is -1");
  CHECK_THROWS(df::cosine_betas(10, kInfinity, 0.999), ScheduleError, "s is inf");
  CHECK_THROWS(df::cosine_betas(10, 0.008, 1.5), ScheduleError, "max_beta is 1.5");
  CHECK_THROWS(Schedule::from_betas({}), ScheduleError, "num_train_timesteps is 0");
  CHECK_THROWS(Schedule::from_betas({0.1, 1.0, 0.1}), ScheduleError, "betas[1] is 1");
  CHECK_THROWS(Schedule::from_betas({1.0}), ScheduleError, "betas[0] is 1");
  CHECK_THROWS(Schedule::from_betas({0.1, kNaN}), ScheduleError, "betas[1] is nan");
  CHECK_THROWS(Schedule::from_alphas_cumprod({0.5, 0.5}), ScheduleError, "alphas_cumprod[1] is 0.5");
  CHECK_THROWS(Schedule::from_alphas_cumprod({1.0}), ScheduleError, "alphas_cumprod[0] is 1");
  CHECK_THROWS(Schedule::from_alphas_cumprod({0.0}), ScheduleError, "alphas_cumprod[0] is 0");
  CHECK_THROWS(Schedule::from_betas({0.1}).rescaled_zero_terminal_snr(), ScheduleError, "at least 2 timesteps");
  const Schedule schedule = Schedule::from_betas({0.1, 0.2});
  for (const double t : {-0.001, 1.001, kNaN, kInfinity}) CHECK_THROWS(schedule.alpha(t), ScheduleError, "timestep is");
  for (const double value : {1e9, -1e9, kNaN, kInfinity, -kInfinity})
    CHECK_THROWS(schedule.timestep_at_log_snr(value), ScheduleError, "log_snr is");
}

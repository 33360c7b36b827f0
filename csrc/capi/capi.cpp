// The C ABI: converts arguments and errors, nothing else.
#include "capi/diffuse_fast.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "compiled/model.h"
#include "platform/file.h"

using df::compiled::Model;

struct df_stop : df::Stop {};

struct df_model {
  df_model(const df::compiled::Source& source, const df::Kernel& kernel, const df::network::Kernels& kernels)
      : model(source, kernel, kernels) {
    const df::compiled::Description& d = model.description();
    const auto [low, high] = d.value_range.value_or(std::pair(0.0, 0.0));
    info = {d.name.c_str(),
            d.about.c_str(),
            d.shape.data(),
            d.elements,
            static_cast<int32_t>(d.shape.size()),
            static_cast<int32_t>(d.inputs.size()),
            d.steps,
            d.value_range.has_value(),
            low,
            high,
            d.guidance_scale};
    for (const df::compiled::Input& input : d.inputs)
      inputs.push_back({input.name.c_str(), input.shape.data(), input.elements, input.classes,
                        static_cast<size_t>(input.elements) * size_of(input.type), input.null.value_or(0.0),
                        static_cast<int32_t>(input.shape.size()), static_cast<int32_t>(input.type), input.null.has_value()});
  }

  Model model;
  df_info info;
  std::vector<df_input> inputs;
};

namespace {

struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Memory of the thread, so that an error can be reported when there is no other.
thread_local char last_error[1024] = "";

df_status fail(df_status status, const char* message) {
  std::snprintf(last_error, sizeof last_error, "%s", message);
  return status;
}

// Runs a function, and turns what it throws into a status and a message.
template <class Fn>
df_status guarded(Fn&& fn) {
  try {
    return fn();
  } catch (const df::compiled::FileError& error) {
    return fail(DF_BAD_FILE, error.what());
  } catch (const std::invalid_argument& error) {
    return fail(DF_BAD_ARGUMENT, error.what());
  } catch (const std::system_error& error) {
    return fail(DF_CANNOT_READ, error.what());
  } catch (const std::bad_alloc&) {
    return fail(DF_NO_MEMORY, "there is not enough memory");
  } catch (const std::length_error&) {
    return fail(DF_NO_MEMORY, "there is not enough memory");
  } catch (const Unavailable& error) {
    return fail(DF_UNAVAILABLE, error.what());
  } catch (const std::exception& error) {
    return fail(DF_FAILED, error.what());
  } catch (...) {
    return fail(DF_FAILED, "an unknown error");
  }
}

const df::Kernel& chosen_kernel() {
  const char* forced = std::getenv("DIFFUSE_FAST_KERNEL");
  if (forced != nullptr && *forced != '\0') {
    const df::Kernel* kernel = df::find_kernel(forced);
    const char* why = kernel == nullptr ? "this library does not have it" : kernel->unavailable();
    if (why != nullptr) throw Unavailable("DIFFUSE_FAST_KERNEL is '" + std::string(forced) + "': " + why);
    return *kernel;
  }
  int count = 0;
  const df::Kernel* const* all = df::kernels(count);
  return **std::find_if(all, all + count, [](const df::Kernel* kernel) { return kernel->unavailable() == nullptr; });
}

df_status open_source(const df::compiled::Source& source, df_model** model) {
  const df::Kernel& kernel = chosen_kernel();
  *model = new df_model(source, kernel, *df::network::find_kernels(kernel.name));
  return DF_OK;
}

void require(bool condition, const char* what) {
  if (!condition) throw std::invalid_argument(what);
}

df_status draw(df_model& model, const df_request& request, float* samples) {
  require(request.size == sizeof(df_request), "the size of the request is not that of this library's df_request");
  require(request.count >= 1, "count is below 1");
  require(request.seeds == nullptr || (request.seed == 0 && request.first_index == 0),
          "with seeds, each sample is its seed's index 0: leave seed and first_index at 0");
  require(request.count <= (int64_t{1} << 32) - request.first_index, "first_index + count is beyond 2**32");
  require(request.count <= std::numeric_limits<int64_t>::max() / 64 / model.info.elements, "count is too large");
  require(request.threads >= 0, "threads is negative");
  require(request.value_count == 0 || request.values != nullptr, "values is NULL");

  const auto count = static_cast<size_t>(request.count);
  std::vector<uint64_t> seeds(count, request.seed);
  std::vector<uint32_t> indices(count, 0);
  if (request.seeds != nullptr) {
    std::copy_n(request.seeds, count, seeds.begin());
  } else {
    for (size_t i = 0; i < count; ++i) indices[i] = request.first_index + static_cast<uint32_t>(i);
  }
  std::vector<df::compiled::Value> values;
  for (size_t i = 0; i < request.value_count; ++i) {
    const df_value& value = request.values[i];
    require(value.name != nullptr, "the name of a value is NULL");
    values.push_back({value.name, value.data, value.bytes});
  }
  df::Stop none;
  const df::compiled::Outcome outcome =
      model.model.sample({seeds, indices, values, request.threads}, samples, request.stop == nullptr ? none : *request.stop);
  switch (outcome.kind) {
    case df::compiled::Outcome::kDone: return DF_OK;
    case df::compiled::Outcome::kStopped: return fail(DF_STOPPED, "the samples were stopped");
    case df::compiled::Outcome::kNotFinite: break;
  }
  return fail(DF_NOT_FINITE, ("the network returned NaN or Inf at row " + std::to_string(outcome.row) + " for sample " +
                              std::to_string(outcome.sample))
                                 .c_str());
}

}  // namespace

const char* df_version(void) { return DF_VERSION; }

const char* df_instruction_set(void) {
  const char* name = nullptr;
  guarded([&] {
    name = chosen_kernel().name;
    return DF_OK;
  });
  return name;
}

const char* df_last_error(void) { return last_error; }

df_status df_open(const char* path, df_model** model) {
  return guarded([&] {
    require(model != nullptr, "model is NULL");
    *model = nullptr;
    require(path != nullptr, "path is NULL");
    const df::File file(path);
    const auto read = [&](uint64_t offset, void* to, size_t bytes) { file.read(offset, to, bytes); };
    return open_source({file.size(), read}, model);
  });
}

df_status df_open_memory(const void* bytes, size_t size, df_model** model) {
  return guarded([&] {
    require(model != nullptr, "model is NULL");
    *model = nullptr;
    require(bytes != nullptr, "bytes is NULL");
    const auto read = [&](uint64_t offset, void* to, size_t count) {
      if (count > 0) std::memcpy(to, static_cast<const char*>(bytes) + offset, count);
    };
    return open_source({size, read}, model);
  });
}

void df_close(df_model* model) { delete model; }

const df_info* df_describe(const df_model* model) { return model == nullptr ? nullptr : &model->info; }

const df_input* df_input_at(const df_model* model, int32_t input) {
  if (model == nullptr || input < 0 || input >= model->info.inputs) return nullptr;
  return &model->inputs[static_cast<size_t>(input)];
}

df_status df_sample(df_model* model, const df_request* request, float* samples) {
  return guarded([&] {
    require(model != nullptr, "model is NULL");
    require(request != nullptr, "request is NULL");
    require(samples != nullptr, "samples is NULL");
    return draw(*model, *request, samples);
  });
}

df_stop* df_stop_new(void) { return new (std::nothrow) df_stop; }

void df_stop_request(df_stop* stop) {
  if (stop != nullptr) stop->request();
}

void df_stop_free(df_stop* stop) { delete stop; }

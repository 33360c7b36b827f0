// Stands in for the CUDA step in builds without it.
#include "step/kernels.h"

namespace df {

bool cuda_available() { return false; }
const char* cuda_unavailable_reason() { return "this build has no CUDA kernels"; }

}  // namespace df

// The operations of one instruction set: this source is compiled once for each.
#include "network/operations/attention_run.h"
#include "network/operations/convolution_run.h"
#include "network/operations/gather_run.h"
#include "network/operations/map_run.h"
#include "network/operations/pool_run.h"
#include "network/operations/product_run.h"
#include "network/operations/reduce_run.h"
#include "network/operations/resize_run.h"
#include "network/operations/softmax_run.h"

namespace df::network {
namespace {

void apply(Unary function, float parameter, float* values, int64_t count) { run_unary(function, parameter, values, values, count); }

}  // namespace

extern const Kernels DF_PASTE(operations_, DF_ISA);
const Kernels DF_PASTE(operations_, DF_ISA) = {DF_STRING(DF_ISA), run_map,     run_convolution, run_convolution,
                                               run_attention,     run_product, run_softmax,     run_reduce,
                                               run_pool,          run_resize,  run_gather,      apply};

}  // namespace df::network

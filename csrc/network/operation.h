// What an operation of a running network is: how it is prepared, where its rows are, and how it is called.
//
// An operation is prepared once, then loaded: it packs its constants (ordinary code: operations/*.cpp). It is run by a function
// that is compiled once per instruction set (operations/*_run.h, products/). Such functions use no container and no template of the
// standard library that the linker could share between instruction sets: they read tables that were prepared for them.

#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "network/floats.h"
#include "network/products/convolution.h"
#include "network/program.h"

namespace df::network {

// ---- rows ---------------------------------------------------------------------------------------

// Where the rows of buffers are. The buffers of one level lie in one block of memory per row.
enum Slot : int { kTimeRow, kConditionRow, kPairRow, kSampleRow, kInputRow, kOutputRow, kSlots };

struct Place {
  const float* fixed = nullptr;  // a constant: every row is here
  int slot = kSampleRow;         // else: in the block of this slot
  int64_t offset = 0;            // at this element
};

// The rows that one call computes.
struct Rows {
  int64_t count = 0;
  const Place* places = nullptr;     // by buffer
  float* const* slots[kSlots] = {};  // by slot, then by row; the input's rows are read only
  // Threads for one row, if it is alone: helper h below threads - 1 has its scratch at helpers + h * helper_size.
  int threads = 1;
  float* helpers = nullptr;
  int64_t helper_size = 0;
  const char** error = nullptr;  // set to a message by an operation that cannot compute a row

  const float* read(int64_t buffer, int64_t row) const {
    const Place& place = places[buffer];
    return place.fixed != nullptr ? place.fixed : slots[place.slot][row] + place.offset;
  }
  float* write(int64_t buffer, int64_t row) const { return slots[places[buffer].slot][row] + places[buffer].offset; }
};

// Floats in a row of scratch: whole vectors of every instruction set.
constexpr int64_t round_up(int64_t floats) { return (floats + 15) / 16 * 16; }

// ---- views --------------------------------------------------------------------------------------

// Offsets along some dimensions of a view: uniform, or from a table.
struct Steps {
  int64_t count = 1;
  int64_t stride = 0;          // where the table is empty
  std::vector<int32_t> table;  // shared by nobody; empty if uniform
  int64_t at(int64_t i) const { return table.empty() ? i * stride : table[static_cast<size_t>(i)]; }
};

// A view split into points and one inner dimension, along which vectors lie. Element (p, i) is at offset + points.at(p) +
// inner.at(i).
struct Access {
  int64_t buffer = 0, offset = 0;
  Steps points;  // all dimensions but the inner one, row-major
  Steps inner;
  bool contiguous() const { return inner.table.empty() && (inner.stride == 1 || inner.count == 1); }
  bool repeated() const { return inner.table.empty() && inner.stride == 0; }
};

// Splits a view at the inner dimension; `inner` == rank (or a rank of 0) gives an inner dimension of size 1.
Access access(const View& view, int inner);

// Offsets along one dimension, without the view's offset.
Steps steps(const Dim& dim);

// The elements of a constant view, row-major: where they are, if they lie so, else in `storage`.
std::span<const float> dense(const View& view, const float* row, std::vector<float>& storage);

// ---- stages -------------------------------------------------------------------------------------

// A stage with its tables. A norm takes along what usually follows it: a scale and a shift per channel, and an activation.
struct PreparedStage {
  Stage::Type type = Stage::kUnary;
  Unary unary = Unary::kAbs;
  Binary binary = Binary::kAdd;
  float number = 0;
  Access operand;

  // How the moments of a norm vary: with the inner index alone, with the point alone, or with both.
  enum Form : int { kByChannel, kByPoint, kGeneral };
  Form form = kGeneral;
  NormKind norm = NormKind::kStandard;
  double epsilon = 0;
  int64_t moments = 1, moment_size = 1;  // how many, and of how many elements each
  Steps point_moment, inner_moment;      // element (p, i) has moment point_moment.at(p) + inner_moment.at(i)
  int64_t table = 0, table_size = 0;     // its mean, factor and offset in the row's moments: (x - mean) * factor + offset
  bool scaled = false, shifted = false, activated = false;
  Access scale, shift;
};

// The stages of an operation over the elements of one view (prologue: inputs[0], epilogue: the output), and the view itself.
// stages.h has the functions that run them.
struct Stages {
  Access view;
  std::vector<PreparedStage> list;
  int64_t points = 1, inner = 1;
  int64_t moments = 0;  // floats for the moments of one row
  int64_t work = 0;     // floats of scratch while moments are computed
};

// Points whose sums are taken in float32, before they are added to a sum in float64.
constexpr int64_t kTilePoints = 64;

Stages prepare_stages(const std::vector<Stage>& stages, const View& view, int inner);

// ---- operations ---------------------------------------------------------------------------------

struct Context;
struct Prepared;
using Run = void (*)(const Prepared& operation, const Rows& rows, float* scratch);

// An operation ready to run. Kinds derive from it and add their tables and packed weights.
struct Prepared {
  Prepared();
  virtual ~Prepared();
  Run run = nullptr;
  virtual int64_t scratch(int64_t rows) const = 0;  // floats that run() needs, aligned to 64 bytes
  virtual int64_t weights() const { return 0; }     // floats that load() allocates
  // Reads the constants that the operation packs. Called once, when they are at their places.
  virtual void load(const Context& context, const Operation& operation);
};

// Rows in one call, at most: tables of pointers to them are on the stack.
constexpr int64_t kMostRows = 64;

enum class Precision : int { kFloat32, kFloat32Fast };

struct Kernels;

// What preparing and loading an operation may look at. Constants have places only in load().
struct Context {
  const Program& program;
  const std::vector<Place>& places;
  const Kernels& kernels;
  Precision precision;
  Arena* weights = nullptr;  // for what is packed

  const float* constant(const View& view) const { return places[static_cast<size_t>(view.buffer)].fixed; }
};

// An operation ready to load. Throws std::invalid_argument for what cannot be run.
std::unique_ptr<Prepared> prepare(const Context& context, const Operation& operation);

// The algorithm of a convolution.
ConvolutionAlgorithm convolution_algorithm(const Operation& operation, Precision precision);

// One per kind (operations/).
std::unique_ptr<Prepared> prepare_map(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_convolution(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_linear(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_attention(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_product(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_softmax(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_reduce(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_pool(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_resize(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_gather(const Context& context, const Operation& operation);

// ---- instruction sets ---------------------------------------------------------------------------

// The functions of one instruction set. `name` is that of the step's kernel (step/cpu/kernels.h), or scalar_fma.
struct Kernels {
  const char* name;
  Run map, convolution, linear, attention, product, softmax, reduce, pool, resize, gather;
  void (*apply)(Unary function, float parameter, float* values, int64_t count);  // for tests
};

// The functions for the step's kernel of this name, or null. For scalar, those with the instruction FMA where the processor has it;
// those without are scalar_plain.
const Kernels* find_kernels(const char* name);

}  // namespace df::network

// What an operation of a running network is: how it is prepared, where its rows are, and how it is called.
//
// An operation is prepared once, when the network is loaded (ordinary code: operations/*.cpp), and run by a function that is
// compiled once per instruction set (operations/*_run.cpp, products/). Such functions use no container and no template of the
// standard library that the linker could share between instruction sets: they read tables that were prepared for them.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

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
  int threads = 1;                   // that the call may use (threads/pool.h)
  const char** error = nullptr;      // set to a message by an operation that cannot compute a row

  const float* read(int64_t buffer, int64_t row) const {
    const Place& place = places[buffer];
    return place.fixed != nullptr ? place.fixed : slots[place.slot][row] + place.offset;
  }
  float* write(int64_t buffer, int64_t row) const { return slots[places[buffer].slot][row] + places[buffer].offset; }
};

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
  bool contiguous() const { return inner.table.empty() && inner.stride == 1; }  // one load per vector
  bool repeated() const { return inner.table.empty() && inner.stride == 0; }    // one value for all
};

// Splits a view at the inner dimension; `inner` == rank (or a rank of 0) gives an inner dimension of size 1.
Access access(const View& view, int inner);

// Offsets along one dimension, without the view's offset.
Steps steps(const Dim& dim);

// The elements of a constant view, row-major.
std::vector<float> dense(const View& view, const float* row);

// ---- stages -------------------------------------------------------------------------------------

struct PreparedStage {
  Stage::Type type;
  Unary unary;
  Binary binary;
  float number;
  Access operand;    // kOperand
  bool per_channel;  // kOperand: the same for all points

  // kNorm: moment number of element (p, i) is point_moment.at(p) + inner_moment.at(i).
  NormKind norm;
  double epsilon;
  int64_t moments;
  int64_t moment_size;  // elements in each
  Steps point_moment, inner_moment;
};

// The stages of an operation over the elements of one view (prologue: inputs[0], epilogue: the output) and the view itself.
// stages.h has the functions that run them: prepare_prologue (norms of one row), read_points and write_points.
struct Stages {
  Access view;
  std::vector<PreparedStage> list;
  int64_t points = 1, inner = 1;
  int64_t scratch = 0;  // floats that prepare_prologue needs per row
};

// ---- operations ---------------------------------------------------------------------------------

struct Prepared;
using Run = void (*)(const Prepared& operation, const Rows& rows, float* scratch);

// An operation ready to run. Kinds derive from it and add their tables and packed weights.
struct Prepared {
  Prepared();
  virtual ~Prepared();
  Run run = nullptr;
  int64_t scratch = 0;          // floats, aligned to 64 bytes, whatever the number of rows ...
  int64_t scratch_per_row = 0;  // ... plus these for each row
};

enum class Precision : int { kFloat32, kFloat32Fast };

struct Kernels;

// What preparing an operation may look at. Constants that it reads have been computed.
struct Context {
  const Program& program;
  const std::vector<Place>& places;
  const Kernels& kernels;
  Precision precision;

  const float* constant(const View& view) const { return places[static_cast<size_t>(view.buffer)].fixed; }
};

Stages prepare_stages(const std::vector<Stage>& stages, const View& view, int inner);

// One per kind. They throw std::invalid_argument for what cannot be run.
using Prepare = std::unique_ptr<Prepared> (*)(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare(const Context& context, const Operation& operation);

// The fast products (products/). Null: the shape is not theirs, and the simple form in operations/ runs. They set Prepared::run to
// a function of context.kernels.
std::unique_ptr<Prepared> prepare_fast_convolution(const Context& context, const Operation& operation);
std::unique_ptr<Prepared> prepare_fast_linear(const Context& context, const Operation& operation);

// ---- instruction sets ---------------------------------------------------------------------------

struct ProductKernels;  // products/products.h: the functions of products/ and the shape of their blocks

// The functions of one instruction set. `name` is that of the step's kernel (step/cpu/kernels.h).
struct Kernels {
  const char* name;
  Run map, convolution, linear, attention, product, softmax, reduce, pool, resize, gather;
  const ProductKernels* products;
};

// The functions of the instruction set with this name, or null.
const Kernels* find_kernels(const char* name);

}  // namespace df::network

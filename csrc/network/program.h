// A decoded program: the C++ form of diffuse_fast/program/program.py, whose docstrings say what each operation computes.
//
// decode() reads the words of encoding.py and checks everything that later code relies on, so a Program that exists is safe to run:
// no view leaves its buffer, shapes fit, nothing is read before it is written or written twice, and levels only rise.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace df::network {

// What a value depends on; a bit set. Everything with kSample is computed once per sample.
enum Level : int { kConstant = 0, kTime = 1, kCondition = 2, kPair = 3, kSample = 4 };

inline int stage_of(int level) { return level & kSample ? kSample : level; }

enum class Source : int { kMemory, kInitializer, kValues };

struct Buffer {
  int64_t size = 0;
  int level = kSample;
  Source source = Source::kMemory;
};

struct Atom {
  int64_t size, stride;
};
using Dim = std::vector<Atom>;

struct View {
  int64_t buffer = 0, offset = 0;
  std::vector<Dim> dims;

  int rank() const { return static_cast<int>(dims.size()); }
  int64_t size(int dim) const;
  std::vector<int64_t> shape() const;
  int64_t elements() const;
};

// In the order of the tables UNARY, BINARY, NORMS and of REDUCTIONS in encoding.py.
// clang-format off
enum class Unary : int {
  kAbs, kCeil, kCos, kElu, kErf, kExp, kFloor, kGelu, kGeluTanh, kHardSigmoid, kLeakyRelu, kLog, kMish, kNegate, kReciprocal, kRelu,
  kRound, kRsqrt, kSigmoid, kSilu, kSin, kSoftplus, kSqrt, kTanh, kCount
};
enum class Binary : int {
  kAdd, kSubtract, kReverseSubtract, kMultiply, kDivide, kReverseDivide, kPower, kMaximum, kMinimum, kCount
};
// clang-format on
enum class NormKind : int { kStandard, kRms, kL2, kCount };
enum class Reduction : int { kSum, kMean, kMax, kMin, kCount };

struct Stage {
  enum Type : int { kUnary, kNumber, kOperand, kNorm };
  Type type = kUnary;
  Unary unary = Unary::kAbs;     // kUnary
  Binary binary = Binary::kAdd;  // kNumber, kOperand
  double number = 0;             // the parameter, the number, or epsilon
  View operand;                  // kOperand
  NormKind norm = NormKind::kStandard;
  int64_t groups = 1;
  std::vector<int> axes;
};

struct Map {};
struct Convolution {
  std::vector<int64_t> strides, pads, dilations;  // pads: before and after per spatial dimension
  int64_t groups = 1;
  bool transposed = false;
};
struct Linear {
  int64_t parts = 1;
};
struct Attention {
  double scale = 1;
  bool causal = false;
  double softcap = 0;
};
struct Product {};
struct Softmax {
  int axis = 0;
};
struct Reduce {
  Reduction function = Reduction::kSum;
  std::vector<int> axes;
};
struct Pool {
  Reduction function = Reduction::kMean;
  std::vector<int64_t> kernel, strides, pads;
  bool count_padding = false;
};
struct Resize {
  int axis = 0;
};
struct Gather {};

using Kind = std::variant<Map, Convolution, Linear, Attention, Product, Softmax, Reduce, Pool, Resize, Gather>;
constexpr const char* kKindNames[] = {"Map",     "Convolution", "Linear", "Attention", "Product",
                                      "Softmax", "Reduce",      "Pool",   "Resize",    "Gather"};

struct Operation {
  Kind kind;
  std::vector<View> inputs;
  View output;
  std::vector<Stage> prologue, epilogue;
};

struct Program {
  std::vector<Buffer> buffers;
  std::vector<int64_t> inputs;  // buffers: the sample, the time, then the conditioning
  View output;
  std::vector<Operation> operations;
};

// Throws std::invalid_argument, with the operation's number and the reason, for words that are not a valid program.
Program decode(std::span<const int64_t> words);

}  // namespace df::network

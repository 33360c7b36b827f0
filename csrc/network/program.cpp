#include "network/program.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <stdexcept>

namespace df::network {
namespace {

constexpr int64_t kMagic = 0x444650524f47;
constexpr int64_t kVersion = 1;
constexpr int64_t kMostElements = (int64_t{1} << 31) - 1;  // of a buffer or a view: offsets fit 32 bits
constexpr int64_t kMostOperations = 100'000;
constexpr int64_t kMostRank = 16;
// The elements that the check of partly written buffers may visit, so that hostile words cannot keep it busy.
constexpr int64_t kMostVisits = int64_t{1} << 30;

[[noreturn]] void fail(const std::string& what) { throw std::invalid_argument("the program is not valid: " + what + "."); }

void require(bool condition, const char* what) {
  if (!condition) fail(what);
}

std::string number(int64_t n) { return std::to_string(n); }

// ---- words --------------------------------------------------------------------------------------

class Reader {
 public:
  explicit Reader(std::span<const int64_t> words) : words_(words) {}

  int64_t next() {
    require(at_ < words_.size(), "it ends too early");
    return words_[at_++];
  }
  int64_t next(int64_t least, int64_t most, const char* what) {
    const int64_t value = next();
    if (value < least || value > most)
      fail(std::string(what) + " is " + number(value) + " and must be from " + number(least) + " to " + number(most));
    return value;
  }
  double real(const char* what) {
    const double value = std::bit_cast<double>(next());
    if (!std::isfinite(value)) fail(std::string(what) + " is not finite");
    return value;
  }
  double any_real() { return std::bit_cast<double>(next()); }
  bool flag(const char* what) { return next(0, 1, what) == 1; }
  // A length. Every item has at least one word, so the words left bound what is allocated.
  size_t length(const char* what, int64_t words_per_item = 1) {
    return static_cast<size_t>(next(0, static_cast<int64_t>(words_.size() - at_) / words_per_item, what));
  }
  std::vector<int64_t> list(int64_t least, int64_t most, const char* what, size_t numbers_per_item = 1) {
    std::vector<int64_t> out(length(what, static_cast<int64_t>(numbers_per_item)) * numbers_per_item);
    for (int64_t& item : out) item = next(least, most, what);
    return out;
  }
  // Distinct axes; rising, but for the first `free` of them.
  std::vector<int> axes(size_t free = 0) {
    std::vector<int> out;
    for (const int64_t axis : list(0, kMostRank, "an axis")) {
      require(out.size() <= free || axis > out.back(), "axes must rise");
      require(std::find(out.begin(), out.end(), static_cast<int>(axis)) == out.end(), "an axis occurs twice");
      out.push_back(static_cast<int>(axis));
    }
    return out;
  }
  void end() { require(at_ == words_.size(), "words follow its end"); }

 private:
  std::span<const int64_t> words_;
  size_t at_ = 0;
};

View read_view(Reader& r, const std::vector<Buffer>& buffers) {
  View view;
  view.buffer = r.next(0, static_cast<int64_t>(buffers.size()) - 1, "the buffer of a view");
  const int64_t size = buffers[static_cast<size_t>(view.buffer)].size;
  view.offset = r.next(0, size - 1, "the offset of a view");
  view.dims.resize(r.length("the rank of a view"));
  require(view.rank() <= kMostRank, "a view has too many dimensions");
  int64_t last = view.offset, elements = 1;
  for (Dim& dim : view.dims) {
    dim.resize(r.length("the atoms of a dimension", 2));
    for (Atom& atom : dim) {
      atom.size = r.next(1, kMostElements, "the size of an atom");
      atom.stride = r.next(0, kMostElements, "the stride of an atom");
      require(!__builtin_mul_overflow(elements, atom.size, &elements) && elements <= kMostElements, "a view is too large");
      last += (atom.size - 1) * atom.stride;  // below 2^62: both factors are below 2^31
      require(last < size, "a view leaves its buffer");
    }
  }
  return view;
}

Stage read_stage(Reader& r, const std::vector<Buffer>& buffers) {
  Stage stage;
  stage.type = static_cast<Stage::Type>(r.next(0, 3, "the type of a stage"));
  switch (stage.type) {
    case Stage::kUnary:
      stage.unary = static_cast<Unary>(r.next(0, static_cast<int>(Unary::kCount) - 1, "a function"));
      stage.number = r.real("the parameter of a function");
      break;
    case Stage::kNumber:
      stage.binary = static_cast<Binary>(r.next(0, static_cast<int>(Binary::kCount) - 1, "a function"));
      stage.number = r.any_real();
      break;
    case Stage::kOperand:
      stage.binary = static_cast<Binary>(r.next(0, static_cast<int>(Binary::kCount) - 1, "a function"));
      stage.operand = read_view(r, buffers);
      break;
    case Stage::kNorm:
      stage.norm = static_cast<NormKind>(r.next(0, static_cast<int>(NormKind::kCount) - 1, "the kind of a norm"));
      stage.groups = r.next(1, kMostElements, "the groups of a norm");
      stage.number = r.real("the epsilon of a norm");
      require(stage.number >= 0, "the epsilon of a norm is negative");
      stage.axes = r.axes(1);
      require(!stage.axes.empty(), "a norm has no axes");
      break;
  }
  return stage;
}

Kind read_kind(Reader& r) {
  switch (r.next(0, static_cast<int64_t>(std::variant_size_v<Kind>) - 1, "a kind")) {
    case 0: return Map{};
    case 1: {
      Convolution c;
      c.strides = r.list(1, kMostElements, "a stride");
      c.pads = r.list(0, kMostElements, "padding", 2);
      c.dilations = r.list(1, kMostElements, "a dilation");
      c.groups = r.next(1, kMostElements, "the groups of a convolution");
      c.transposed = r.flag("transposed");
      return c;
    }
    case 2: return Linear{r.next(1, 1024, "the parts of a Linear")};
    case 3: {
      Attention a;
      a.scale = r.real("the scale of an Attention");
      a.causal = r.flag("causal");
      a.softcap = r.real("the softcap of an Attention");
      return a;
    }
    case 4: return Product{};
    case 5: return Softmax{static_cast<int>(r.next(0, kMostRank, "the axis of a Softmax"))};
    case 6: {
      Reduce reduce;
      reduce.function = static_cast<Reduction>(r.next(0, static_cast<int>(Reduction::kCount) - 1, "a reduction"));
      reduce.axes = r.axes();
      return reduce;
    }
    case 7: {
      Pool pool;
      pool.function = static_cast<Reduction>(r.next(1, 2, "the function of a Pool"));
      pool.kernel = r.list(1, kMostElements, "a kernel");
      pool.strides = r.list(1, kMostElements, "a stride");
      pool.pads = r.list(0, kMostElements, "padding", 2);
      pool.count_padding = r.flag("count_padding");
      return pool;
    }
    case 8: return Resize{static_cast<int>(r.next(0, kMostRank, "the axis of a Resize"))};
    default: return Gather{};
  }
}

// ---- shapes -------------------------------------------------------------------------------------

using Shape = std::vector<int64_t>;

Shape head(const Shape& shape, size_t without) {
  require(shape.size() >= without, "an input has too few dimensions");
  return {shape.begin(), shape.end() - static_cast<std::ptrdiff_t>(without)};
}

class Checker {
 public:
  Checker(const Program& program, const Operation& op) : program_(program), op_(op), out_(op.output.shape()) {
    for (const View& view : op.inputs) in_.push_back(view.shape());
  }

  void check() {
    std::visit([this](const auto& kind) { check(kind); }, op_.kind);
    const bool takes_prologue = std::holds_alternative<Map>(op_.kind) || std::holds_alternative<Convolution>(op_.kind) ||
                                std::holds_alternative<Linear>(op_.kind) || std::holds_alternative<Pool>(op_.kind) ||
                                std::holds_alternative<Softmax>(op_.kind) || std::holds_alternative<Reduce>(op_.kind);
    require(takes_prologue || op_.prologue.empty(), "this kind has no prologue");
    require(!std::holds_alternative<Map>(op_.kind) || op_.epilogue.empty(), "a Map has no epilogue");
    check_stages(op_.prologue, in_.at(0), true);
    check_stages(op_.epilogue, out_, false);
  }

 private:
  void inputs(size_t least, size_t most) { require(in_.size() >= least && in_.size() <= most, "the number of inputs is wrong"); }

  // Packed while the network is loaded.
  void constants_from(size_t first) {
    for (size_t i = first; i < op_.inputs.size(); ++i)
      require(program_.buffers[static_cast<size_t>(op_.inputs[i].buffer)].level == kConstant, "a weight is not constant");
  }

  static void check_stages(const std::vector<Stage>& stages, const Shape& shape, bool norms) {
    for (const Stage& stage : stages) {
      if (stage.type == Stage::kOperand) require(stage.operand.shape() == shape, "the operand of a stage has another shape");
      if (stage.type != Stage::kNorm) continue;
      require(norms, "a norm is in an epilogue");
      for (const int axis : stage.axes) require(axis < static_cast<int>(shape.size()), "an axis of a norm does not exist");
      require(shape[static_cast<size_t>(stage.axes[0])] % stage.groups == 0, "the groups of a norm do not divide its first axis");
    }
  }

  void check(const Map&) {
    inputs(1, 1);
    require(in_[0] == out_, "the output has another shape than the input");
  }

  void check(const Convolution& c) {
    inputs(2, 3);
    constants_from(1);
    const size_t spatial = c.strides.size();
    require(spatial == 1 || spatial == 2, "a convolution has one or two spatial dimensions");
    require(c.pads.size() == 2 * spatial && c.dilations.size() == spatial, "attributes of a convolution have different lengths");
    const Shape &x = in_[0], &w = in_[1];
    require(x.size() == spatial + 1 && w.size() == spatial + 2 && out_.size() == spatial + 1, "a convolution has a wrong rank");
    require(x[0] % c.groups == 0 && out_[0] % c.groups == 0, "the groups of a convolution do not divide its channels");
    const int64_t from = x[0] / c.groups, to = out_[0] / c.groups;
    require(c.transposed ? w[0] == x[0] && w[1] == to : w[0] == out_[0] && w[1] == from,
            "a convolution's weight has a wrong shape");
    if (in_.size() == 3) require(in_[2] == Shape{out_[0]}, "a convolution's bias has a wrong shape");
    for (size_t d = 0; d < spatial; ++d) {
      // Below 2^62: all are below 2^31.
      const int64_t reach = (w[d + 2] - 1) * c.dilations[d] + 1;
      require(reach <= kMostElements, "a convolution's kernel is too large");
      if (c.transposed) continue;  // any part of the full output
      const int64_t padded = x[d + 1] + c.pads[2 * d] + c.pads[2 * d + 1];
      require(reach <= padded && out_[d + 1] == (padded - reach) / c.strides[d] + 1, "a convolution's output has a wrong size");
    }
  }

  void check(const Linear& linear) {
    const auto parts = static_cast<size_t>(linear.parts);
    require(in_.size() == 1 + parts || in_.size() == 1 + 2 * parts, "the number of inputs is wrong");
    constants_from(1);
    require(!in_[0].empty() && !out_.empty(), "a Linear has no dimensions");
    int64_t columns = 0;
    for (size_t i = 0; i < parts; ++i) {
      require(in_[1 + i].size() == 2 && in_[1 + i][1] == in_[0].back(), "a Linear's weight has a wrong shape");
      columns += in_[1 + i][0];
      if (in_.size() > 1 + parts) require(in_[1 + parts + i] == Shape{in_[1 + i][0]}, "a Linear's bias has a wrong shape");
    }
    require(head(in_[0], 1) == head(out_, 1) && out_.back() == columns, "a Linear's output has a wrong shape");
  }

  void check(const Attention&) {
    inputs(3, 4);
    const Shape &q = in_[0], &k = in_[1], &v = in_[2];
    const Shape lead = head(q, 2);
    require(lead == head(k, 2) && lead == head(v, 2) && lead == head(out_, 2), "an Attention's inputs have different dimensions");
    const auto row = [](const Shape& s) { return s[s.size() - 2]; };
    require(q.back() == k.back() && row(k) == row(v) && row(out_) == row(q) && out_.back() == v.back(),
            "an Attention's shapes do not fit");
    if (in_.size() == 4)
      require(head(in_[3], 2) == lead && row(in_[3]) == row(q) && in_[3].back() == row(k), "an Attention's mask has a wrong shape");
  }

  void check(const Product&) {
    inputs(2, 2);
    const Shape &a = in_[0], &b = in_[1];
    require(head(a, 2) == head(b, 2) && head(a, 2) == head(out_, 2), "a Product's inputs have different dimensions");
    const auto row = [](const Shape& s) { return s[s.size() - 2]; };
    require(a.back() == row(b) && row(out_) == row(a) && out_.back() == b.back(), "a Product's shapes do not fit");
  }

  void check(const Softmax& softmax) {
    inputs(1, 1);
    require(in_[0] == out_ && softmax.axis < static_cast<int>(out_.size()), "a Softmax's shapes do not fit");
  }

  void check(const Reduce& reduce) {
    inputs(1, 1);
    require(!reduce.axes.empty() && reduce.axes.back() < static_cast<int>(in_[0].size()), "an axis of a Reduce does not exist");
    Shape expected = in_[0];
    for (const int axis : reduce.axes) expected[static_cast<size_t>(axis)] = 1;
    require(out_ == expected, "a Reduce's output has a wrong shape");
  }

  void check(const Pool& pool) {
    inputs(1, 1);
    const size_t spatial = pool.kernel.size();
    require(spatial >= 1 && pool.strides.size() == spatial && pool.pads.size() == 2 * spatial,
            "attributes of a Pool have different lengths");
    require(in_[0].size() == spatial + 1 && out_.size() == spatial + 1 && in_[0][0] == out_[0], "a Pool has a wrong rank");
    for (size_t d = 0; d < spatial; ++d) {
      const int64_t before = pool.pads[2 * d], after = pool.pads[2 * d + 1];
      require(before < pool.kernel[d] && after < pool.kernel[d], "a Pool's padding is not less than its kernel");
      require((out_[d + 1] - 1) * pool.strides[d] + pool.kernel[d] <= in_[0][d + 1] + before + after,
              "a Pool's output is too large");
    }
  }

  void check(const Resize& resize) {
    inputs(4, 4);
    constants_from(1);
    require(in_[0].size() == out_.size() && resize.axis < static_cast<int>(out_.size()), "a Resize has a wrong rank");
    const auto axis = static_cast<size_t>(resize.axis);
    for (size_t d = 0; d < out_.size(); ++d) require(d == axis || in_[0][d] == out_[d], "a Resize changes another dimension");
    for (size_t i = 1; i < 4; ++i) require(in_[i] == Shape{out_[axis]}, "a table of a Resize has a wrong length");
  }

  void check(const Gather&) {
    inputs(2, 2);
    require(!in_[0].empty(), "a Gather's table has no dimensions");
    Shape expected = in_[1];
    expected.insert(expected.end(), in_[0].begin() + 1, in_[0].end());
    require(out_ == expected, "a Gather's output has a wrong shape");
  }

  const Program& program_;
  const Operation& op_;
  std::vector<Shape> in_;
  const Shape out_;
};

// ---- what is written and read -------------------------------------------------------------------

// Which elements of each buffer are written.
class Written {
 public:
  explicit Written(const std::vector<Buffer>& buffers) : buffers_(buffers), whole_(buffers.size(), false), parts_(buffers.size()) {}

  void fill(int64_t buffer) { whole_[static_cast<size_t>(buffer)] = true; }

  void write(const View& view) {
    const auto at = static_cast<size_t>(view.buffer);
    require(!whole_[at], "an output is written a second time");
    const std::vector<Atom> atoms = distinct(view);
    int64_t reach = 0;
    for (const Atom& atom : atoms) {
      require(atom.stride > reach, "an output view reaches an element twice");
      reach += (atom.size - 1) * atom.stride;
    }
    if (view.elements() == buffers_[at].size && parts_[at].empty()) {
      whole_[at] = true;
      return;
    }
    std::vector<bool>& bits = parts_[at];
    if (bits.empty()) {
      visit(buffers_[at].size);
      bits.assign(static_cast<size_t>(buffers_[at].size), false);
    }
    each(view.offset, atoms, [&](size_t i) {
      require(!bits[i], "an output is written a second time");
      bits[i] = true;
    });
  }

  void read(const View& view) {
    const auto at = static_cast<size_t>(view.buffer);
    if (whole_[at]) return;
    const std::vector<bool>& bits = parts_[at];
    require(!bits.empty(), "a value is read before it is written");
    each(view.offset, distinct(view), [&](size_t i) { require(bits[i], "a value is read before it is written"); });
  }

 private:
  // The atoms without repeats, innermost first.
  static std::vector<Atom> distinct(const View& view) {
    std::vector<Atom> atoms;
    for (const Dim& dim : view.dims)
      for (const Atom& atom : dim)
        if (atom.size > 1) atoms.push_back(atom);
    std::sort(atoms.begin(), atoms.end(), [](const Atom& a, const Atom& b) { return a.stride < b.stride; });
    return atoms;
  }

  void visit(int64_t elements) {
    visits_ += elements;
    require(visits_ <= kMostVisits, "its partly written buffers are too large");
  }

  template <class Fn>
  void each(int64_t offset, std::vector<Atom> atoms, Fn&& fn) {
    std::erase_if(atoms, [](const Atom& atom) { return atom.stride == 0; });
    int64_t elements = 1;
    for (const Atom& atom : atoms) elements *= atom.size;
    visit(elements);
    std::vector<int64_t> index(atoms.size(), 0);
    int64_t at = offset;
    for (int64_t i = 0; i < elements; ++i) {
      fn(static_cast<size_t>(at));
      for (size_t d = 0; d < atoms.size(); ++d) {
        at += atoms[d].stride;
        if (++index[d] < atoms[d].size) break;
        at -= atoms[d].size * atoms[d].stride;
        index[d] = 0;
      }
    }
  }

  const std::vector<Buffer>& buffers_;
  std::vector<bool> whole_;
  std::vector<std::vector<bool>> parts_;
  int64_t visits_ = 0;
};

void check_operation(const Program& program, const Operation& op, Written& written) {
  const Buffer& target = program.buffers[static_cast<size_t>(op.output.buffer)];
  require(target.source == Source::kMemory, "an operation writes a constant");
  require(std::find(program.inputs.begin(), program.inputs.end(), op.output.buffer) == program.inputs.end(),
          "an operation writes an input");
  const int level = stage_of(target.level);
  const auto read = [&](const View& view) {
    const int from = stage_of(program.buffers[static_cast<size_t>(view.buffer)].level);
    require(level == kSample || (from & ~level) == 0, "an operation reads a value that is computed later");
    written.read(view);
  };
  Checker(program, op).check();
  for (const View& view : op.inputs) read(view);
  for (const auto* stages : {&op.prologue, &op.epilogue})
    for (const Stage& stage : *stages)
      if (stage.type == Stage::kOperand) read(stage.operand);
  written.write(op.output);
}

bool is_whole(const View& view, int64_t size) {
  if (view.offset != 0 || view.elements() != size) return false;
  int64_t stride = size;
  for (const Dim& dim : view.dims)
    for (const Atom& atom : dim) {
      if (atom.size == 1) continue;
      if (stride % atom.size != 0 || (stride /= atom.size) != atom.stride) return false;
    }
  return true;
}

}  // namespace

int64_t View::size(int dim) const {
  int64_t size = 1;
  for (const Atom& atom : dims[static_cast<size_t>(dim)]) size *= atom.size;
  return size;
}

std::vector<int64_t> View::shape() const {
  std::vector<int64_t> out;
  for (int d = 0; d < rank(); ++d) out.push_back(size(d));
  return out;
}

int64_t View::elements() const {
  int64_t n = 1;
  for (int d = 0; d < rank(); ++d) n *= size(d);
  return n;
}

Program decode(std::span<const int64_t> words) {
  Reader r(words);
  require(r.next() == kMagic, "it does not begin as a program does");
  if (const int64_t version = r.next(); version != kVersion)
    fail("its version is " + number(version) + ", and this build runs version " + number(kVersion));

  Program program;
  program.buffers.resize(r.length("the number of buffers", 3));
  require(!program.buffers.empty(), "it has no buffers");
  for (Buffer& buffer : program.buffers) {
    buffer.size = r.next(1, kMostElements, "the size of a buffer");
    buffer.level = static_cast<int>(r.next(0, 7, "the level of a buffer"));
    buffer.source = static_cast<Source>(r.next(0, 2, "the source of a buffer"));
    require(buffer.source == Source::kMemory || buffer.level == kConstant, "a constant has a level");
  }

  Written written(program.buffers);
  for (size_t i = 0; i < program.buffers.size(); ++i)
    if (program.buffers[i].source != Source::kMemory) written.fill(static_cast<int64_t>(i));
  program.inputs = r.list(0, static_cast<int64_t>(program.buffers.size()) - 1, "an input");
  require(program.inputs.size() >= 2, "it does not take a sample and a time");
  for (size_t i = 0; i < program.inputs.size(); ++i) {
    const auto buffer = program.inputs[i];
    require(std::count(program.inputs.begin(), program.inputs.end(), buffer) == 1, "two inputs are one buffer");
    require(program.buffers[static_cast<size_t>(buffer)].source == Source::kMemory, "an input is a constant");
    require(program.buffers[static_cast<size_t>(buffer)].level == (i == 0   ? kSample
                                                                   : i == 1 ? kTime
                                                                            : kCondition),
            "an input has a wrong level");
    written.fill(buffer);
  }
  program.output = read_view(r, program.buffers);
  const Buffer& output = program.buffers[static_cast<size_t>(program.output.buffer)];
  require(is_whole(program.output, output.size), "its output is not a whole buffer");
  require(stage_of(output.level) == kSample && output.source == Source::kMemory && program.output.buffer != program.inputs[0],
          "its output is not computed for each sample");

  program.operations.resize(r.length("the number of operations", 5));
  require(static_cast<int64_t>(program.operations.size()) <= kMostOperations, "it has too many operations");
  for (size_t i = 0; i < program.operations.size(); ++i) {
    Operation& op = program.operations[i];
    try {
      op.kind = read_kind(r);
      op.inputs.resize(r.length("the number of inputs", 3));
      require(!op.inputs.empty(), "an operation has no inputs");
      for (View& view : op.inputs) view = read_view(r, program.buffers);
      op.output = read_view(r, program.buffers);
      for (auto* stages : {&op.prologue, &op.epilogue}) {
        stages->resize(r.length("the number of stages", 3));
        for (Stage& stage : *stages) stage = read_stage(r, program.buffers);
      }
      check_operation(program, op, written);
    } catch (const std::invalid_argument& error) {
      throw std::invalid_argument("operation " + number(static_cast<int64_t>(i)) + " (" + kKindNames[op.kind.index()] +
                                  "): " + error.what());
    }
  }
  r.end();
  written.read(program.output);
  return program;
}

}  // namespace df::network

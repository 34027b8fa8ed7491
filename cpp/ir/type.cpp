#include "ir/type.h"

#include <algorithm>
#include <cctype>
#include <charconv>

#include "base/error.h"

namespace mw {

int64_t Type::elements() const {
  int64_t n = 1;
  for (const Dim& dim : dims) n *= dim.size;
  return n;
}

int Type::index_of(std::string_view name) const {
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i].name == name) return static_cast<int>(i);
  }
  return -1;
}

int64_t Type::size_of(std::string_view name) const {
  const int index = index_of(name);
  if (index < 0) {
    throw UserError("there is no dim '" + std::string(name) + "' in " + to_string(*this) + did_you_mean(std::string(name), dim_names()));
  }
  return dims[static_cast<size_t>(index)].size;
}

std::vector<std::string> Type::dim_names() const {
  std::vector<std::string> names;
  names.reserve(dims.size());
  for (const Dim& dim : dims) names.push_back(dim.name);
  return names;
}

std::vector<int64_t> Type::strides() const {
  std::vector<int64_t> strides(dims.size());
  int64_t step = 1;
  for (size_t i = dims.size(); i-- > 0;) {
    strides[i] = step;
    step *= dims[i].size;
  }
  return strides;
}

std::string to_string(const Type& type) {
  std::string text(dtype_name(type.dtype));
  text += '[';
  for (size_t i = 0; i < type.dims.size(); ++i) {
    if (i > 0) text += ", ";
    text += type.dims[i].name;
    text += '=';
    text += std::to_string(type.dims[i].size);
  }
  text += ']';
  return text;
}

Type parse_type(std::string_view text) {
  const auto wrong = [&](const std::string& why) {
    return UserError("'" + std::string(text) + "' is not a type: " + why + "; expected for example f32[batch=8, embed=64]");
  };
  const size_t open = text.find('[');
  if (open == std::string_view::npos || text.back() != ']') throw wrong("brackets are missing");
  Type type{parse_dtype(text.substr(0, open)), {}};
  std::string_view rest = text.substr(open + 1, text.size() - open - 2);
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    std::string_view item = rest.substr(0, comma);
    rest.remove_prefix(std::min(comma + 1, rest.size()));
    while (!item.empty() && item.front() == ' ') item.remove_prefix(1);
    const size_t equal = item.find('=');
    if (equal == std::string_view::npos) throw wrong("a dim is name=size");
    Dim dim{std::string(item.substr(0, equal)), 0};
    const auto in_name = [](unsigned char c) { return std::isalnum(c) || c == '_'; };
    if (dim.name.empty() || !std::all_of(dim.name.begin(), dim.name.end(), in_name)) throw wrong("'" + dim.name + "' is not a dim name");
    const std::string_view size = item.substr(equal + 1);
    const auto [end, error] = std::from_chars(size.data(), size.data() + size.size(), dim.size);
    if (error != std::errc() || end != size.data() + size.size()) throw wrong("'" + std::string(size) + "' is not a size");
    type.dims.push_back(std::move(dim));
  }
  check_dims(type.dims);
  return type;
}

std::vector<Dim> without(const Type& type, const std::vector<std::string>& names) {
  std::vector<Dim> rest;
  for (const Dim& dim : type.dims) {
    if (std::find(names.begin(), names.end(), dim.name) == names.end()) rest.push_back(dim);
  }
  return rest;
}

void check_dims(const std::vector<Dim>& dims) {
  constexpr size_t kMostDims = 32;
  constexpr int64_t kMostElements = int64_t{1} << 48;
  if (dims.size() > kMostDims)
    throw UserError("a type of " + std::to_string(dims.size()) + " dims; expected at most " + std::to_string(kMostDims));
  int64_t elements = 1;
  for (size_t i = 0; i < dims.size(); ++i) {
    if (dims[i].size > kMostElements / elements) throw UserError(to_string(Type{DType::kF32, dims}) + " has more than 2^48 elements");
    elements *= std::max<int64_t>(dims[i].size, 1);
    if (dims[i].size < 0) throw UserError("dim '" + dims[i].name + "' has the negative size " + std::to_string(dims[i].size));
    for (size_t j = i + 1; j < dims.size(); ++j) {
      if (dims[i].name == dims[j].name) throw UserError("dim '" + dims[i].name + "' stands twice in " + to_string(Type{DType::kF32, dims}));
    }
  }
}

}  // namespace mw

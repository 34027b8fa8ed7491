#include "mesh/mesh.h"

#include "base/error.h"

namespace mw {
namespace {

size_t axis_index(std::string_view axis) {
  const std::vector<std::string>& names = Mesh::axis_names();
  for (size_t i = 0; i < names.size(); ++i) {
    if (names[i] == axis) return i;
  }
  throw UserError("there is no mesh axis '" + std::string(axis) + "'" + did_you_mean(std::string(axis), names) +
                  "; the axes are data, stage, fsdp, expert, context, tensor");
}

}  // namespace

const std::vector<std::string>& Mesh::axis_names() {
  static const std::vector<std::string> names{"data", "stage", "fsdp", "expert", "context", "tensor"};
  return names;
}

Mesh::Mesh(const std::vector<std::pair<std::string, int64_t>>& sizes) : sizes_(axis_names().size(), 1) {
  for (const auto& [axis, size] : sizes) {
    if (size < 1) throw UserError("mesh axis '" + axis + "' has size " + std::to_string(size) + "; expected at least 1");
    sizes_[axis_index(axis)] = size;
  }
}

int64_t Mesh::size() const {
  int64_t n = 1;
  for (const int64_t size : sizes_) n *= size;
  return n;
}

int64_t Mesh::size_of(std::string_view axis) const { return sizes_[axis_index(axis)]; }

int64_t Mesh::coordinate(int64_t rank, std::string_view axis) const {
  const size_t index = axis_index(axis);
  for (size_t i = sizes_.size(); i-- > index + 1;) rank /= sizes_[i];
  return rank % sizes_[index];
}

std::string Mesh::to_string() const {
  std::string text;
  for (size_t i = 0; i < sizes_.size(); ++i) {
    if (sizes_[i] > 1) text += (text.empty() ? "" : " ") + axis_names()[i] + "=" + std::to_string(sizes_[i]);
  }
  return text.empty() ? "one rank" : text;
}

bool is_zigzag(std::string_view dim, std::string_view axis) { return axis == "context" && (dim == "seq" || dim == "kv_seq"); }

}  // namespace mw

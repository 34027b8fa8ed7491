#include "checkpoint/layout.h"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "base/error.h"

namespace mw {
namespace {

int64_t header_bound(const TensorSpec& tensor) {  // never less than its JSON: every byte of a name may become \u00NN
  return 128 + 6 * static_cast<int64_t>(tensor.name.size()) + 21 * static_cast<int64_t>(tensor.shape.size());
}

void append_files(const TensorGroup& group, int64_t max_bytes, std::vector<PlannedFile>& files) {
  const size_t first = files.size();
  int64_t file_bytes = 0;
  for (const TensorSpec& tensor : group.tensors) {
    const int64_t bytes = tensor.num_bytes() + header_bound(tensor);
    if (files.size() == first || file_bytes + bytes > max_bytes) {
      files.push_back({.path = {}, .stem = group.stem, .tensors = {}});
      file_bytes = 128;  // length field, metadata, padding
    }
    files.back().tensors.push_back(tensor);
    file_bytes += bytes;
  }
  for (size_t i = first; i < files.size(); ++i) {
    char number[64];
    std::snprintf(number, sizeof number, "-%05zu-of-%05zu.safetensors", i - first + 1, files.size() - first);
    files[i].path = group.stem + number;
    files[i].tensors = in_file_order(std::move(files[i].tensors));
  }
}

}  // namespace

int64_t PlannedFile::num_bytes() const {
  int64_t bytes = 0;
  for (const TensorSpec& tensor : tensors) bytes += tensor.num_bytes();
  return bytes;
}

std::vector<PlannedFile> assign_files(std::span<const TensorGroup> groups, int64_t max_bytes, int num_writers) {
  MW_CHECK(num_writers > 0, num_writers);
  std::vector<PlannedFile> files;
  for (const TensorGroup& group : groups) append_files(group, max_bytes, files);
  std::vector<size_t> order(files.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return files[a].num_bytes() > files[b].num_bytes(); });
  std::vector<int64_t> load(static_cast<size_t>(num_writers));
  for (const size_t i : order) {  // the largest file goes to the writer with the least so far
    const auto least = std::min_element(load.begin(), load.end());
    *least += files[i].num_bytes();
    files[i].writer = static_cast<int>(least - load.begin());
  }
  return files;
}

}  // namespace mw

#include "checkpoint/gguf_files.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "base/printable.h"

namespace mw {
namespace {

// "-00001-of-00003.gguf", number counted from 1.
std::string part_suffix(int64_t number, int64_t count) {
  std::array<char, 64> text;
  std::snprintf(text.data(), text.size(), "-%05lld-of-%05lld.gguf", static_cast<long long>(number), static_cast<long long>(count));
  return text.data();
}

int64_t num_parts(const GgufFile& file) {
  constexpr int64_t kMaxParts = 10000;
  const int64_t count = file.header().integer_if_any("split.count").value_or(1);
  if (count < 0 || count > kMaxParts) {
    throw UserError(
        concat_text(printable(file.path(), 1000), ": claims to be one of ", count, " parts; at most ", kMaxParts, " are allowed"));
  }
  return std::max<int64_t>(count, 1);
}

}  // namespace

GgufFiles GgufFiles::open(const std::string& path) {
  GgufFile first = GgufFile::open(path);
  const int64_t count = num_parts(first);
  if (count == 1) return of(std::move(first));
  const int64_t number = first.header().integer("split.no");
  const std::string suffix = part_suffix(1, count);
  if (number != 0 || !path.ends_with(suffix)) {
    throw UserError(concat_text(printable(path, 1000), ": is part ", number + 1, " of ", count,
                                "; expected the first one, whose name ends in ", suffix));
  }
  GgufFiles opened;
  opened.files_.push_back(std::move(first));
  for (int64_t next = 2; next <= count; ++next) {
    const std::string part = path.substr(0, path.size() - suffix.size()) + part_suffix(next, count);
    opened.files_.push_back(GgufFile::open(part));
    const GgufHeader& header = opened.files_.back().header();
    if (header.integer("split.no") != next - 1 || header.integer("split.count") != count) {
      throw UserError(concat_text(printable(part, 1000), ": expected part ", next, " of ", count, ", found number ",
                                  header.integer("split.no"), " (counted from 0) of ", header.integer("split.count")));
    }
  }
  opened.add_tensors();
  return opened;
}

GgufFiles GgufFiles::of(GgufFile file) {
  if (const int64_t count = num_parts(file); count != 1)
    throw UserError(concat_text(printable(file.path(), 1000), ": is one of ", count, " parts; expected a whole file"));
  GgufFiles opened;
  opened.files_.push_back(std::move(file));
  opened.add_tensors();
  return opened;
}

void GgufFiles::add_tensors() {
  for (const GgufFile& file : files_) {
    for (const GgufTensor& tensor : file.header().tensors) {
      if (!tensors_.emplace(tensor.name, GgufPlace{&file, &tensor}).second)
        throw UserError(printable(file.path(), 1000) + ": tensor " + in_quotes(tensor.name) + " is in another part too");
    }
  }
}

const GgufTensor* GgufFiles::find(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second.tensor;
}

std::vector<float> GgufFiles::values(const std::string& name) const {
  const GgufPlace& place = tensors_.at(name);
  std::vector<float> all(static_cast<size_t>(num_elements(place.tensor->shape)));
  TouchedPages pages(place.file->mapping());
  place.file->decode(*place.tensor, 0, static_cast<int64_t>(all.size()), all.data(), pages);
  return all;
}

}  // namespace mw

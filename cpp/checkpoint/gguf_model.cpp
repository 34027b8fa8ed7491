#include "checkpoint/gguf_model.h"

#include <deque>
#include <utility>

#include "base/error.h"
#include "base/printable.h"

namespace mw {

GgufModel::GgufModel(GgufFiles files) : files_(std::move(files)), tensors_(map_gguf_tensors(files_)) {
  for (const auto& [name, tensor] : tensors_) names_.push_back(name);
}

const GgufMapped& GgufModel::mapped(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) {
    throw UserError(printable(path(), 1000) + ": has no tensor for " + in_quotes(name) +
                    (name.size() < 200 && names_.size() < 5000 ? did_you_mean(name, names_) : ""));
  }
  return found->second;
}

TensorInfo GgufModel::info(const std::string& name) const {
  const GgufMapped& tensor = mapped(name);
  const GgufEncoding& encoding = *tensor.parts[0].tensor->encoding;
  return {tensor.seen.shape, std::string(encoding.name), encoding.dtype.value_or(DType::kBF16)};
}

void GgufModel::read(const std::string& name, const Slice& slice, DType as, void* to) const {
  const GgufMapped& tensor = mapped(name);
  if (tensor.is_as_stored && tensor.parts[0].tensor->encoding->dtype)
    return tensor.parts[0].file->copy(*tensor.parts[0].tensor, slice, as, to);
  std::deque<TouchedPages> pages;
  for (const GgufPlace& part : tensor.parts) pages.emplace_back(part.file->mapping());
  read_rearranged(name, tensor.seen, slice, as, to, [&](size_t part, int64_t first, int64_t count, float* values) {
    tensor.parts[part].file->decode(*tensor.parts[part].tensor, first, count, values, pages[part]);
  });
}

}  // namespace mw

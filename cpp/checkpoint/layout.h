// Which tensor stands in which file, and which rank writes that file. A pure function of the tensors: every mesh, and every rank of
// it, finds the same files, so checkpoints are the same bytes whoever writes them.
//
//   const auto files = assign_files(std::vector<TensorGroup>{{"model", weights}, {"trainer/state", moments}}, kMaxFileBytes, num_ranks);
//   files[0].path   // "model-00001-of-00002.safetensors"
#pragma once
#include <span>
#include <string>
#include <vector>

#include "checkpoint/safetensors_writer.h"

namespace mw {

inline constexpr int64_t kMaxFileBytes = 5'000'000'000;

struct TensorGroup {
  std::string stem;  // "model": model-0000i-of-0000n.safetensors and model.safetensors.index.json; may begin with a subfolder
  std::vector<TensorSpec> tensors;
};

struct PlannedFile {
  std::string path;  // inside the checkpoint folder
  std::string stem;
  std::vector<TensorSpec> tensors;  // in file order
  int writer = 0;                   // the one rank that writes it

  int64_t num_bytes() const;  // of the tensors
};

// Tensors fill files in the given order; a file has at most `max_bytes`, header included, unless one tensor alone needs more.
// Writers get about the same number of bytes. A group without tensors has no files.
std::vector<PlannedFile> assign_files(std::span<const TensorGroup> groups, int64_t max_bytes, int num_writers);

}  // namespace mw

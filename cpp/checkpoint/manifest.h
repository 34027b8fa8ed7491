// manifest.json: sizes and checksums of every file of a checkpoint, written last. A folder without a manifest that fits its files
// is not a checkpoint.
//
//   if (const auto problem = problem_with("runs/a/step-00000100")) skip(*problem);   // "model-00001-of-00001.safetensors: ..."
#pragma once
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/file_writer.h"

namespace mw {

inline constexpr char kManifestName[] = "manifest.json";

using FileDigests = std::map<std::string, FileDigest>;  // path inside the checkpoint folder -> digest

std::string manifest_text(const FileDigests& files);
FileDigests parse_manifest(std::string_view text, std::string_view what);  // strict; UserError
FileDigests read_manifest(const std::string& folder);

// True for a relative path without '..', '.' or empty parts: it cannot leave the folder it is joined to.
bool stays_inside(std::string_view path);

enum class Verify { kSizes, kChecksums };

// Why this folder is not a whole checkpoint, naming the file; nothing when it is one. Never throws for what is in the folder.
std::optional<std::string> problem_with(const std::string& folder, Verify verify = Verify::kChecksums);

}  // namespace mw

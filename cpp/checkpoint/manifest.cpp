#include "checkpoint/manifest.h"

#include <sys/stat.h>

#include <cerrno>
#include <charconv>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"
#include "base/printable.h"
#include "checkpoint/digest_json.h"

namespace mw {
namespace {

constexpr int64_t kMaxManifestBytes = 64 << 20;
constexpr char kFormat[] = "meshwright-checkpoint";

}  // namespace

bool stays_inside(std::string_view path) {
  if (path.empty() || path.find('\0') != std::string_view::npos) return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return true;
}

nlohmann::ordered_json digests_to_json(const FileDigests& files) {
  nlohmann::ordered_json value = nlohmann::ordered_json::object();
  for (const auto& [path, digest] : files) value[path] = {{"bytes", digest.bytes}, {"xxh64", hex16(digest.xxh64)}};
  return value;
}

FileDigests digests_from_json(const nlohmann::json& value, const std::string& where) {
  if (!value.is_object()) throw UserError(where + ": expected an object (file -> bytes and xxh64), found " + value.type_name());
  FileDigests files;
  for (const auto& [path, entry] : value.items()) {
    const std::string what = where + ", file " + in_quotes(path);
    if (!stays_inside(path)) throw UserError(what + ": expected a path inside the folder");
    if (!entry.is_object() || entry.size() != 2 || !entry.contains("bytes") || !entry.contains("xxh64") ||
        !entry["bytes"].is_number_unsigned() || !entry["xxh64"].is_string()) {
      throw UserError(what + ": expected {\"bytes\": whole number, \"xxh64\": 16 hexadecimal digits}");
    }
    const std::string& text = entry["xxh64"].get_ref<const std::string&>();
    FileDigest digest;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), digest.xxh64, 16);
    if (text.size() != 16 || error != std::errc() || hex16(digest.xxh64) != text) {
      throw UserError(what + ": xxh64 should be 16 lower-case hexadecimal digits, found " + in_quotes(text));
    }
    const uint64_t bytes = entry["bytes"].get<uint64_t>();
    if (bytes > uint64_t{1} << 62) throw UserError(concat_text(what, ": ", bytes, " bytes is not the size of a file"));
    digest.bytes = static_cast<int64_t>(bytes);
    files[path] = digest;
  }
  return files;
}

std::string manifest_text(const FileDigests& files) {
  nlohmann::ordered_json manifest;
  manifest["format"] = kFormat;
  manifest["version"] = 1;
  manifest["files"] = digests_to_json(files);
  return manifest.dump(2) + "\n";
}

FileDigests parse_manifest(std::string_view text, std::string_view what) {
  const nlohmann::json manifest = parse_json_strict(text, what);
  const std::string name = printable(what, 1000);
  if (!manifest.is_object() || manifest.value("format", nlohmann::json()) != kFormat) {
    throw UserError(name + ": expected an object whose 'format' is '" + kFormat + "'");
  }
  if (manifest.value("version", nlohmann::json()) != 1) throw UserError(name + ": expected version 1; a newer Meshwright may read it");
  if (manifest.size() != 3 || !manifest.contains("files")) throw UserError(name + ": expected the keys 'format', 'version' and 'files'");
  return digests_from_json(manifest["files"], name);
}

FileDigests read_manifest(const std::string& folder) {
  const std::string path = folder + "/" + kManifestName;
  return parse_manifest(read_file(path, kMaxManifestBytes), path);
}

std::optional<std::string> problem_with(const std::string& folder, Verify verify) {
  try {
    for (const auto& [path, expected] : read_manifest(folder)) {
      const std::string full = folder + "/" + path;
      struct stat status{};
      if (::stat(full.c_str(), &status) != 0) return system_problem(full, "open", errno);
      if (!S_ISREG(status.st_mode)) return printable(full, 1000) + ": expected a regular file";
      if (status.st_size != expected.bytes) {
        return concat_text(printable(full, 1000), ": has ", status.st_size, " bytes, the manifest says ", expected.bytes);
      }
      if (verify == Verify::kSizes) continue;
      const FileDigest found = digest_of_file(full);
      if (found != expected) {
        return concat_text(printable(full, 1000), ": its checksum is ", hex16(found.xxh64), ", the manifest says ", hex16(expected.xxh64));
      }
    }
  } catch (const UserError& e) {
    return e.what();
  }
  return std::nullopt;
}

}  // namespace mw

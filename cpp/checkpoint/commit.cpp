#include "checkpoint/commit.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>

#include "base/error.h"
#include "base/file.h"
#include "base/file_writer.h"
#include "base/printable.h"
#include "checkpoint/manifest.h"

namespace mw {
namespace {

namespace fs = std::filesystem;

// An entry that is not part of the checkpoint in `folder` ("" when all are, or the folder is empty): replacing it would lose that file.
std::string foreign_entry(const std::string& folder) {
  std::error_code error;
  FileDigests known;
  try {
    known = read_manifest(folder);
  } catch (const UserError&) {  // none, or broken: then every file is foreign
  }
  for (auto entry = fs::recursive_directory_iterator(folder, error); !error && entry != fs::recursive_directory_iterator();
       entry.increment(error)) {
    if (entry->is_directory(error) && !entry->is_symlink(error)) continue;
    const std::string path = fs::path(entry->path()).lexically_relative(folder).string();
    if (!known.contains(path) && !(path == kManifestName && !known.empty())) return path;
  }
  if (error) throw UserError(system_problem(folder, "list this folder", error.value()));
  return "";
}

void rename_or_throw(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) throw UserError(system_problem(from, "rename to " + printable(to, 1000), errno));
}

std::string fresh_suffix() {
  static std::atomic<int> counter{0};
  return concat_text('.', ::getpid(), '.', counter++);
}

// Makes the entries of the folder and of every folder in it durable.
void sync_tree(const std::string& folder) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_directory()) sync_folder(entry.path().string());
  }
  sync_folder(folder);
}

}  // namespace

int try_lock_folder(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) return -1;
  // A file system without locks says ENOLCK or EOPNOTSUPP: go on as if it were ours.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor);
    return -1;
  }
  return descriptor;
}

PendingFolder::PendingFolder(const std::string& final_path) {
  fs::path target = fs::absolute(final_path).lexically_normal();
  if (target.filename().empty()) target = target.parent_path();  // "runs/a/"
  final_path_ = target.string();
  parent_ = target.parent_path().string();
  name_ = target.filename().string();
  if (name_.empty()) throw UserError(printable(final_path, 1000) + ": cannot be the folder of a checkpoint");
  std::error_code error;
  const bool had_parent = fs::exists(parent_, error);
  make_folders(parent_);
  if (!had_parent) sync_folder(fs::path(parent_).parent_path().string());
  if (fs::exists(final_path_, error)) {
    if (!fs::is_directory(final_path_, error))
      throw UserError(printable(final_path_, 1000) + ": expected a folder or nothing there, found a file");
    const std::string foreign = foreign_entry(final_path_);
    if (!foreign.empty()) {
      throw UserError(printable(final_path_, 1000) + ": holds " + in_quotes(foreign) +
                      ", which is not part of a checkpoint of ours; save to another folder or move it away");
    }
  }
  path_ = parent_ + "/" + kSavingPrefix + name_ + fresh_suffix();
  fs::remove_all(path_, error);  // of a dead process with our number
  make_folder(path_);
  lock_ = try_lock_folder(path_);
}

PendingFolder::~PendingFolder() {
  std::error_code ignored;  // what cannot be removed now is a leftover for later
  if (!committed_) fs::remove_all(path_, ignored);
  if (lock_ >= 0) ::close(lock_);
}

void PendingFolder::commit() {
  sync_tree(path_);
  if (::rename(path_.c_str(), final_path_.c_str()) != 0) {
    if (errno != ENOTEMPTY && errno != EEXIST) throw UserError(system_problem(path_, "rename to " + printable(final_path_, 1000), errno));
    if (::renameat2(AT_FDCWD, path_.c_str(), AT_FDCWD, final_path_.c_str(), RENAME_EXCHANGE) != 0) {
      const std::string aside = parent_ + "/" + kReplacedPrefix + name_;
      remove_folder(aside);
      rename_or_throw(final_path_, aside);
      rename_or_throw(path_, final_path_);
      path_ = aside;
    }
    committed_ = true;
    sync_folder(parent_);
    remove_folder(path_);  // the one that was replaced
    return;
  }
  committed_ = true;
  sync_folder(parent_);
}

void remove_folder(const std::string& path) {
  std::error_code error;
  if (!fs::exists(fs::symlink_status(path, error))) return;
  const fs::path from(path);
  const std::string name = from.filename().string();
  const std::string doomed =
      (from.parent_path() /
       (kRemovingPrefix + name.substr(name.starts_with(kRemovingPrefix) ? sizeof kRemovingPrefix - 1 : 0) + fresh_suffix()))
          .string();
  rename_or_throw(path, doomed);
  fs::remove_all(doomed, error);
  if (error) throw UserError(system_problem(doomed, "remove this folder", error.value()));
}

}  // namespace mw

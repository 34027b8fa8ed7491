// The folder side of a save: a temporary folder beside the final one, and one rename that makes it the checkpoint.
//
//   PendingFolder pending("runs/a/step-00000100");      // runs/a/.saving-step-00000100.4711.0
//   write files under pending.path();  write its manifest;
//   pending.commit();                                   // fsyncs the folders, renames, fsyncs the parent
//
// Without commit() the temporary folder is removed. After a kill it stays; remove_leftovers (checkpoints.h) clears it: a lock that
// the kernel drops with the process tells dead from living ones.
#pragma once
#include <string>
#include <vector>

namespace mw {

// Names of folders that are not checkpoints yet, or no more.
inline constexpr char kSavingPrefix[] = ".saving-";      // being written
inline constexpr char kRemovingPrefix[] = ".removing-";  // being deleted
inline constexpr char kReplacedPrefix[] = ".replaced-";  // moved aside while its successor takes its name (".replaced-NAME")

class PendingFolder {
 public:
  // Makes the parents of `final_path` too. UserError where `final_path` is a file or a folder that holds anything but a checkpoint
  // of ours: only that is ever replaced.
  explicit PendingFolder(const std::string& final_path);
  PendingFolder(const PendingFolder&) = delete;
  PendingFolder& operator=(const PendingFolder&) = delete;
  ~PendingFolder();

  const std::string& path() const { return path_; }
  const std::string& parent() const { return parent_; }
  void commit();

 private:
  std::string final_path_, parent_, name_, path_;
  int lock_ = -1;
  bool committed_ = false;
};

// Renames the folder to a name that is no checkpoint's, then removes it: a kill in between leaves no half folder under its name.
void remove_folder(const std::string& path);

// A lock on a folder, held until the descriptor is closed or the process ends; -1 when another process holds it.
int try_lock_folder(const std::string& path);

}  // namespace mw

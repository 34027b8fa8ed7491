#include "exec/engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <iterator>
#include <span>
#include <sstream>

#include "base/error.h"
#include "base/thread_pool.h"
#include "base/xxhash64.h"
#include "comm/agreement.h"
#include "comm/threads.h"
#include "exec/collect.h"
#include "exec/shards.h"

namespace mw {
namespace {

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

// This rank's part of the batch fields that a piece reads, of one microbatch, where they do not lie there yet. `staged`: by buffer, the
// last microbatch (they come in ascending order).
bool stage_inputs(const Plan& plan, RankMemory& memory, const Mesh& mesh, int64_t rank, const RunRow& row, int64_t microbatches,
                  const std::map<std::string, WholeArray>& inputs, std::vector<int32_t>& staged) {
  bool any = false;
  const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
  for (const ProgramInput& input : piece.program.inputs) {
    const Placement& place = piece.places[static_cast<size_t>(input.value)];
    if (input.kind != InputKind::kInput || place.region != Region::kCarried) continue;
    const Buffer& buffer = plan.carried[static_cast<size_t>(place.buffer)];
    int32_t& last = staged[static_cast<size_t>(place.buffer)];
    if (row.microbatch <= last) continue;
    last = row.microbatch;
    any = true;
    std::vector<int64_t> origin(buffer.global_type.dims.size(), 0);
    if (!origin.empty()) origin[0] = row.microbatch * buffer.global_type.dims[0].size;
    std::byte* to = memory.carried.data() + buffer.offset_of(row.microbatch);
    copy_shard(buffer.global_type, buffer.layout, mesh, rank, origin, Block::whole(whole_batch(buffer, microbatches)),
               static_cast<const std::byte*>(inputs.at(buffer.name).data), to);
  }
  return any;
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
  const Group world = everyone(comm);
  const auto most = static_cast<float>(mine.most);
  const SeenLoad in{most, mine.too_many ? most : 0.0f};
  SeenLoad out;
  comm.all_reduce(world, DType::kF32, ReduceKind::kMax, &in, &out, 2);
  return out;
}

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

std::map<std::string, LoadedPlan::SharedResult> results_over_stages(const std::vector<Plan>& stages) {
  std::map<std::string, LoadedPlan::SharedResult> results;
  for (int64_t stage = 0; stage < std::ssize(stages); ++stage) {
    for (const Piece& piece : stages[static_cast<size_t>(stage)].pieces) {
      if (piece.name == "update") continue;  // works on what all stages have summed
      for (const ProgramOutput& output : piece.program.outputs) {
        if (output.kind != OutputKind::kResult) continue;
        const Type& type = piece.program.type(output.value);
        results.try_emplace(output.name, type, stage, std::vector<std::byte>(static_cast<size_t>(type.bytes())));
      }
    }
  }
  return results;
}

// How long the rows of a rank took, and how long it waited for letters meanwhile.
struct Waiting {
  double began = now(), waited = 0;
};

}  // namespace

TooManyExpertRows::TooManyExpertRows(const ExpertRowsPlanned& planned, double load)
    : std::runtime_error("a rank has " + std::to_string(load) + " times the mean of " + std::to_string(planned.mean) +
                         " rows of experts; the plan has room for " + std::to_string(planned.bound)),
      load(load) {}

Engine::Engine(EngineOptions options) : options_(std::move(options)), world_(std::move(options_.world)) {
  const int64_t ranks = options_.mesh.size();
  if (ranks == 1) world_ = nullptr;
  if (world_ && world_->size() != ranks) {
    throw UserError(concat_text("the mesh (", options_.mesh.to_string(), ") has ", ranks, " ranks, but mpirun started ", world_->size(),
                                "; expected as many"));
  }
  if (!world_) world_ = std::make_shared<ThreadWorld>(ranks);
  if (world_->is_shared()) {
    const int64_t each = options_.threads > 0 ? options_.threads / ranks : world_->processors_per_rank();
    options_.threads = static_cast<int>(std::max<int64_t>(1, each) * std::ssize(world_->local_ranks()));
  }
  if (options_.threads <= 0) options_.threads = usable_processors();
  for (size_t r = 0; r < world_->local_ranks().size(); ++r) {
    memory_.push_back(std::make_unique<RankMemory>());
    pools_.push_back(std::make_unique<ThreadPool>(threads_per_rank()));
  }
}

Engine::~Engine() = default;

int Engine::threads_per_rank() const { return std::max(1, options_.threads / static_cast<int>(world_->local_ranks().size())); }

size_t Engine::place_of(int64_t rank) const {
  const std::vector<int64_t>& local = world_->local_ranks();
  const auto found = std::find(local.begin(), local.end(), rank);
  if (found != local.end()) return static_cast<size_t>(found - local.begin());
  if (rank < 0 || rank >= options_.mesh.size())
    throw UserError(concat_text("rank is ", rank, "; expected 0 to ", options_.mesh.size() - 1));
  throw UserError(concat_text("rank ", rank, " is in another process; this one has rank ", local[0]));
}

cpu::KernelEnvironment Engine::environment() const { return {.isa = chosen_isa(), .threads = threads_per_rank()}; }

std::unique_ptr<LoadedPlan> Engine::load(Plan plan) {
  std::vector<Plan> stages;
  stages.push_back(std::move(plan));
  return load(std::move(stages));
}

std::unique_ptr<LoadedPlan> Engine::load(std::vector<Plan> stages) {
  MW_CHECK(std::ssize(stages) == num_stages(), stages.size(), " stages on a mesh that has ", num_stages());
  auto loaded = std::make_unique<LoadedPlan>();
  loaded->number = ++num_loaded_;
  if (world_->is_shared()) check_same_program(stages[static_cast<size_t>(stage_of(first_rank()))]);
  loaded->stages = std::move(stages);
  loaded->mailed.resize(memory_.size());
  for (int64_t stage = 0; stage < num_stages(); ++stage) {
    const Plan& plan = loaded->plan_of(stage);
    if (plan.expert_rows.bound > loaded->expert_rows.bound) loaded->expert_rows = plan.expert_rows;
    for (const Buffer& buffer : plan.results) {
      if (!find_buffer(loaded->results, buffer.name)) loaded->results.push_back(buffer);
    }
  }
  if (num_stages() > 1) {
    loaded->mail = StageMail(loaded->stages);
    loaded->over_stages = results_over_stages(loaded->stages);
  }
  for (const int64_t r : world_->local_ranks()) {
    RankMemory& rank_memory = memory(r);
    const Plan& plan = loaded->plan_of(stage_of(r));
    rank_memory.reserve(plan);
    loaded->ranks.push_back(std::make_unique<cpu::Executor>(plan, rank_memory, options_.mesh, world_->rank(r), environment()));
  }
  for (int64_t stage = 0; stage < num_stages(); ++stage) remember_kept(loaded->plan_of(stage).kept, stage);
  return loaded;
}

void Engine::check_same_program(const Plan& plan) const {
  Communicator& comm = world_->rank(first_rank());
  std::vector<GroupPart> parts;
  for (const std::string& axis : Mesh::axis_names()) {
    if (axis != "stage" && options_.mesh.size_of(axis) > 1) parts.push_back({axis, 1, options_.mesh.size_of(axis)});
  }
  std::map<std::string, std::string> facts;
  for (const Piece& piece : plan.pieces) {
    std::string text = piece.program.to_text();
    for (const int32_t finish : piece.finish) text += " " + std::to_string(finish);
    facts["program '" + piece.name + (piece.variant.empty() ? "" : " " + piece.variant) + "'"] =
        hex16(xxhash64(std::as_bytes(std::span(text))));
  }
  check_agreement(comm, make_group(options_.mesh, comm.rank(), parts), facts, "the ranks of a stage would run different programs:");
}

void Engine::check_same_inputs(const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars) const {
  std::map<std::string, std::string> facts;
  for (const auto& [name, array] : inputs) {
    const std::span bytes(static_cast<const std::byte*>(array.data), static_cast<size_t>(array.type.bytes()));
    facts["batch field '" + name + "'"] = to_string(array.type) + " with hash " + hex16(xxhash64(bytes));
  }
  for (const auto& [name, value] : scalars) {
    std::ostringstream text;
    text << std::hexfloat << value;
    facts["scalar '" + name + "'"] = text.str();
  }
  Communicator& comm = world_->rank(first_rank());
  check_agreement(comm, everyone(comm), facts, "every rank gives the whole batch of a step, the same on all of them, but they differ:");
}

void Engine::run(LoadedPlan& loaded, const std::map<std::string, WholeArray>& inputs, const std::map<std::string, double>& scalars,
                 const RowHook& before_row) {
  const int64_t microbatches = count_microbatches(loaded.stages[0]);
  const bool pipelined = loaded.stages.size() > 1;
  begin_timelines(loaded);
  for (const Plan& plan : loaded.stages) check_inputs(plan, inputs, microbatches);
  if (world_->is_shared()) check_same_inputs(inputs, scalars);
  for (const int64_t rank : world_->local_ranks()) write_scalars(loaded.plan_of(stage_of(rank)), memory(rank), scalars);
  loaded.mailed.assign(memory_.size(), {});
  SeenLoad seen;
  world_->run([&](Communicator& comm) {
    const size_t r = place_of(comm.rank());
    const Plan& plan = loaded.plan_of(stage_of(comm.rank()));
    const Group stages = same_rank_of_stages(comm.rank());
    std::vector<int32_t> staged(plan.carried.size(), -1);
    Waiting waiting;
    loaded.ranks[r]->begin_run();
    Timeline* const timeline = loaded.ranks[r]->timeline;
    const auto mark = [&](SliceKind kind) {
      if (timeline) timeline->mark(kind, -1, kind == SliceKind::kAgree ? Timeline::kShort : 0);
    };
    mark(SliceKind::kBegin);
    // Whether all rows of experts had room: everyone gets the same answer.
    const auto all_had_room = [&] {
      if (loaded.expert_rows.bound == 0) return true;
      const SeenLoad load = largest_load(comm, loaded.ranks[r]->expert_load());
      if (r == 0) seen = load;
      mark(SliceKind::kAgree);
      return load.too_many == 0;
    };
    const auto share_results = [&] {
      if (!pipelined) return;
      share_over_stages(loaded, comm, waiting.began, waiting.waited);
      mark(SliceKind::kShare);
    };
    bool asked = false;
    for (int32_t row_number = 0; row_number < std::ssize(plan.order); ++row_number) {
      const RunRow& row = plan.order[static_cast<size_t>(row_number)];
      const Piece& piece = plan.pieces[static_cast<size_t>(row.piece)];
      if (piece.name == "update") {
        asked = true;
        if (!all_had_room()) return;
        share_results();
      }
      if (before_row && (!pipelined || piece.name == "update")) {  // one that says no stops everyone
        float stop = r == 0 && !before_row(row, piece) ? 1.0f : 0.0f;
        comm.all_reduce(everyone(comm), DType::kF32, ReduceKind::kMax, &stop, &stop, 1);
        mark(SliceKind::kAgree);
        if (stop != 0) return;
      }
      if (timeline) timeline->row = row_number;
      if (stage_inputs(plan, *memory_[r], options_.mesh, comm.rank(), row, microbatches, inputs, staged)) mark(SliceKind::kInputs);
      if (!piece.receives.empty()) {
        const double before = now();
        loaded.mail.receive(comm, stages, plan, row, *memory_[r]);
        waiting.waited += now() - before;
        mark(SliceKind::kReceive);
      }
      loaded.ranks[r]->run(row.piece, row.microbatch, *pools_[r]);
      if (!piece.sends.empty()) {
        loaded.mail.send(comm, stages, plan, row, *memory_[r], loaded.mailed[r]);
        mark(SliceKind::kSend);
      }
      if (timeline) timeline->row = -1;
    }
    if (asked || !all_had_room()) return;
    share_results();
  });
  for (Timeline& timeline : loaded.timelines) timeline.mark(SliceKind::kEnd);
  loaded.expert_load = static_cast<double>(seen.most);
  if (seen.too_many > 0) throw TooManyExpertRows(loaded.expert_rows, static_cast<double>(seen.too_many));
}

void Engine::begin_timelines(LoadedPlan& loaded) const {
  loaded.timelines.resize(recording_ ? loaded.ranks.size() : 0);
  for (size_t r = 0; r < loaded.ranks.size(); ++r) {
    cpu::Executor& executor = *loaded.ranks[r];
    executor.timeline = recording_ ? &loaded.timelines[r] : nullptr;
    if (!recording_) continue;
    size_t most = 8;
    for (const RunRow& row : loaded.plan_of(stage_of(world_->local_ranks()[r])).order) most += 3 * executor.steps(row.piece).size() + 8;
    executor.timeline->begin(most);
  }
}

void Engine::observe(LoadedPlan& loaded, OpObserver observer) {
  for (size_t r = 0; r < loaded.ranks.size(); ++r) {
    if (!observer) {
      loaded.ranks[r]->observer = nullptr;
      continue;
    }
    loaded.ranks[r]->observer = [observer, rank = world_->local_ranks()[r]](
                                    const Program& program, const Op& op, const cpu::KernelRun& run) { observer(rank, program, op, run); };
  }
}

Group Engine::same_rank_of_stages(int64_t rank) const { return make_group(options_.mesh, rank, {{"stage", 1, num_stages()}}); }

// Then the time that all ranks take together is known too: those whose stage is done wait here.
void Engine::share_over_stages(LoadedPlan& loaded, Communicator& comm, double began, double waited) const {
  const size_t r = place_of(comm.rank());
  const Plan& plan = loaded.plan_of(stage_of(comm.rank()));
  const Group stages = same_rank_of_stages(comm.rank());
  const double before = now();
  std::vector<std::byte> mine, all;
  for (auto& [name, result] : loaded.over_stages) {
    const auto bytes = static_cast<int64_t>(result.values.size());
    mine.assign(result.values.size(), std::byte{0});
    if (const Buffer* buffer = find_buffer(plan.results, name))
      std::memcpy(mine.data(), memory_[r]->results.data() + buffer->offset, result.values.size());
    if (result.type.dtype == DType::kF32) {
      comm.all_reduce(stages, DType::kF32, ReduceKind::kSum, mine.data(), mine.data(), result.type.elements());
      if (r == 0) std::copy(mine.begin(), mine.end(), result.values.begin());
    } else {
      all.resize(mine.size() * static_cast<size_t>(num_stages()));
      comm.all_gather(stages, mine.data(), all.data(), bytes);
      if (r == 0) std::copy_n(all.begin() + result.first * bytes, bytes, result.values.begin());
    }
  }
  waited += now() - before;
  auto share = static_cast<float>(waited / (now() - began));
  comm.all_reduce(everyone(comm), DType::kF32, ReduceKind::kSum, &share, &share, 1);
  if (r == 0) loaded.bubble = static_cast<double>(share) / static_cast<double>(comm.size());
}

void Engine::ensure_kept(const std::vector<Buffer>& buffers, int64_t stage) {
  for (const int64_t rank : world_->local_ranks()) {
    if (stage == kEveryStage || stage_of(rank) == stage) memory(rank).kept.ensure(buffers);
  }
  for (int64_t s = 0; s < num_stages(); ++s) {
    if (stage == kEveryStage || s == stage) remember_kept(buffers, s);
  }
}

void Engine::remember_kept(const std::vector<Buffer>& buffers, int64_t stage) {
  for (const Buffer& buffer : buffers) kept_.emplace(buffer.name, KeptPlace{buffer, {}}).first->second.stages.insert(stage);
}

const Engine::KeptPlace& Engine::kept_place(const std::string& name) const {
  if (const auto at = kept_.find(name); at != kept_.end()) return at->second;
  std::vector<std::string> names;
  for (const auto& [known, place] : kept_) names.push_back(known);
  throw UserError("there is no kept buffer '" + name + "'" + did_you_mean(name, names));
}

void Engine::forget_kept(const std::string& prefix) {
  std::erase_if(kept_, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  for (const auto& memory : memory_) memory->kept.erase_prefix(prefix);
}

Block Engine::shard(const Buffer& buffer, int64_t rank) const {
  return {buffer.type, shard_start(buffer.global_type, buffer.layout, options_.mesh, rank)};
}

void Engine::write_kept(const std::string& name, const Block& block, const void* data) {
  const KeptPlace& place = kept_place(name);
  for (const int64_t r : world_->local_ranks()) {
    if (!place.stages.contains(stage_of(r))) continue;
    const KeptStore::Entry& entry = memory(r).kept.get(name);
    copy_shared(block, static_cast<const std::byte*>(data), shard(entry.buffer, r), entry.data);
  }
}

void Engine::read_kept(const std::string& name, const Block& block, void* data, int64_t receiver) const {
  auto* to = static_cast<std::byte*>(data);
  const KeptPlace& place = kept_place(name);
  const std::byte* mine = nullptr;  // of the first rank
  for (const int64_t r : world_->local_ranks()) {
    if (!place.stages.contains(stage_of(r))) continue;
    const KeptStore::Entry& entry = memory_[place_of(r)]->kept.get(name);
    copy_shared(shard(entry.buffer, r), entry.data, block, to);
    if (r == first_rank()) mine = entry.data;
  }
  if (!world_->is_shared()) return;
  std::vector<std::optional<Block>> shards;
  for (int64_t r = 0; r < options_.mesh.size(); ++r) {
    shards.push_back(place.stages.contains(stage_of(r)) ? std::optional(shard(place.buffer, r)) : std::nullopt);
  }
  collect_block(world_->rank(first_rank()), shards, mine, block, to, receiver);
}

const Type& Engine::result_type(const LoadedPlan& loaded, const std::string& name) const {
  const Buffer* buffer = find_buffer(loaded.results, name);
  if (!buffer) {
    std::vector<std::string> names;
    for (const Buffer& b : loaded.results) names.push_back(b.name);
    throw UserError("there is no result '" + name + "'" + did_you_mean(name, names));
  }
  return buffer->type;
}

const std::byte* Engine::result(const LoadedPlan& loaded, const std::string& name) const {
  result_type(loaded, name);
  if (const auto shared = loaded.over_stages.find(name); shared != loaded.over_stages.end()) return shared->second.values.data();
  const Buffer* buffer = find_buffer(loaded.plan_of(stage_of(first_rank())).results, name);
  MW_CHECK(buffer, "stage ", stage_of(first_rank()), " has no result '", name, "'");
  return memory_[0]->results.data() + buffer->offset;
}

double Engine::scalar(const LoadedPlan& loaded, const std::string& name) const {
  return load_element(result_type(loaded, name).dtype, result(loaded, name), 0);
}

}  // namespace mw

// One rank of UCC, over what UCX's variables let it use. Ranks gather their addresses by files in the folder that they
// share. Variants: none makes a request for each call, "persistent" one for the buffers of prepare(), posted again and
// again.
//
// UCC never sleeps nor yields: who drives it decides. More ranks than cores yield whenever a look moved nothing to its
// end.
#include <fmt/format.h>
#include <sched.h>
#include <ucc/api/ucc.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "bench/peers/serve.h"
#include "transports/base/cores.h"

namespace gradrail {

namespace {

Result<ucc_datatype_t> datatype_of(Type type) {
  switch (type) {
    case Type::i8: return UCC_DT_INT8;
    case Type::u8: return UCC_DT_UINT8;
    case Type::i32: return UCC_DT_INT32;
    case Type::u32: return UCC_DT_UINT32;
    case Type::i64: return UCC_DT_INT64;
    case Type::u64: return UCC_DT_UINT64;
    case Type::f16: return UCC_DT_FLOAT16;
    case Type::bf16: return UCC_DT_BFLOAT16;
    case Type::f32: return UCC_DT_FLOAT32;
    case Type::f64: return UCC_DT_FLOAT64;
    default: return fail(Code::unsupported, fmt::format("UCC has no type {}", to_string(type)));
  }
}

Result<ucc_reduction_op_t> operation_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return UCC_OP_SUM;
    case ReduceOp::prod: return UCC_OP_PROD;
    case ReduceOp::min: return UCC_OP_MIN;
    case ReduceOp::max: return UCC_OP_MAX;
    case ReduceOp::avg: return UCC_OP_AVG;
    default: return fail(Code::unsupported, fmt::format("UCC has no operation {}", to_string(op)));
  }
}

Result<ucc_coll_type_t> collective_of(const Call& call) {
  switch (call.collective) {
    case Collective::allreduce: return UCC_COLL_TYPE_ALLREDUCE;
    case Collective::all_gather: return UCC_COLL_TYPE_ALLGATHER;
    case Collective::broadcast: return UCC_COLL_TYPE_BCAST;
    case Collective::reduce: return UCC_COLL_TYPE_REDUCE;
    case Collective::gather: return UCC_COLL_TYPE_GATHER;
    case Collective::scatter: return UCC_COLL_TYPE_SCATTER;
    case Collective::all_to_all: return UCC_COLL_TYPE_ALLTOALL;
    case Collective::reduce_scatter:
      if (!call.in_place) return UCC_COLL_TYPE_REDUCE_SCATTER;
      return fail(Code::unsupported, "UCC's reduce-scatter in place has buffers of its own kind; compare out of place");
    default: return fail(Code::unsupported, fmt::format("UCC has no {}", to_string(call.collective)));
  }
}

Result<void> checked(ucc_status_t status, std::string_view what) {
  if (status >= UCC_OK) return {};
  const bool unsupported = status == UCC_ERR_NOT_SUPPORTED || status == UCC_ERR_NOT_IMPLEMENTED;
  return fail(unsupported ? Code::unsupported : Code::system, fmt::format("{}: {}", what, ucc_status_string(status)));
}

// Everyone's bytes by way of files: the n-th gathering of a rank meets the n-th of the others.
class FileGather {
 public:
  FileGather(std::string folder, int rank, int ranks) : folder_(std::move(folder)), rank_(rank), ranks_(ranks) {}

  [[nodiscard]] ucc_oob_coll_t interface() {
    ucc_oob_coll_t oob{};
    oob.allgather = &start;
    oob.req_test = &test;
    oob.req_free = &end;
    oob.coll_info = this;
    oob.n_oob_eps = static_cast<std::uint32_t>(ranks_);
    oob.oob_ep = static_cast<std::uint32_t>(rank_);
    return oob;
  }

 private:
  struct Request {
    const FileGather& gather;
    int number;
    char* into;
    std::size_t bytes;
  };
  [[nodiscard]] std::string path(int number, int rank) const {
    return fmt::format("{}/gather-{}-{}", folder_, number, rank);
  }

  static ucc_status_t start(void* from, void* into, std::size_t bytes, void* self, void** request) {
    auto& gather = *static_cast<FileGather*>(self);
    const int number = gather.next_++;
    const std::string mine = gather.path(number, gather.rank_);
    std::ofstream out(mine + ".new", std::ios::binary);
    out.write(static_cast<const char*>(from), static_cast<std::streamsize>(bytes));
    out.close();
    std::error_code error;
    std::filesystem::rename(mine + ".new", mine, error);
    if (!out || error) return UCC_ERR_NO_RESOURCE;
    *request = new Request{gather, number, static_cast<char*>(into), bytes};
    return UCC_OK;
  }
  static ucc_status_t test(void* request) {
    const auto& [gather, number, into, bytes] = *static_cast<Request*>(request);
    for (int rank = 0; rank < gather.ranks_; ++rank) {
      std::ifstream in(gather.path(number, rank), std::ios::binary);
      if (!in) {
        ::sched_yield();
        return UCC_INPROGRESS;
      }
      in.read(into + static_cast<std::size_t>(rank) * bytes, static_cast<std::streamsize>(bytes));
      if (!in) return UCC_ERR_NO_MESSAGE;
    }
    return UCC_OK;
  }
  static ucc_status_t end(void* request) {
    delete static_cast<Request*>(request);
    return UCC_OK;
  }

  std::string folder_;
  int rank_;
  int ranks_;
  int next_ = 0;
};

class Ucc : public PeerLibrary {
 public:
  explicit Ucc(const RunnerArguments& arguments)
      : gather_(arguments.folder, arguments.rank, arguments.ranks),
        rank_(arguments.rank),
        ranks_(arguments.ranks),
        crowded_(arguments.ranks > static_cast<int>(usable_cores().size()) && arguments.core < 0),
        persistent_(arguments.variant == "persistent") {}
  ~Ucc() override {
    forget();
    if (team_ != nullptr)
      while (ucc_team_destroy(team_) == UCC_INPROGRESS) ucc_context_progress(context_);
    if (context_ != nullptr) ucc_context_destroy(context_);
    if (library_ != nullptr) ucc_finalize(library_);
  }

  Result<void> open() {
    ucc_lib_config_h library_config = nullptr;
    GRADRAIL_TRY(checked(ucc_lib_config_read(nullptr, nullptr, &library_config), "reading UCC's settings"));
    ucc_lib_params_t library{};
    library.mask = UCC_LIB_PARAM_FIELD_THREAD_MODE;
    library.thread_mode = UCC_THREAD_SINGLE;
    const auto made = ucc_init(&library, library_config, &library_);
    ucc_lib_config_release(library_config);
    GRADRAIL_TRY(checked(made, "starting UCC"));

    ucc_context_config_h context_config = nullptr;
    GRADRAIL_TRY(checked(ucc_context_config_read(library_, nullptr, &context_config), "reading UCC's settings"));
    ucc_context_params_t context{};
    context.mask = UCC_CONTEXT_PARAM_FIELD_OOB;
    context.oob = gather_.interface();
    const auto opened = ucc_context_create(library_, &context, context_config, &context_);
    ucc_context_config_release(context_config);
    GRADRAIL_TRY(checked(opened, "making a context"));

    ucc_team_params_t team{};
    team.mask = UCC_TEAM_PARAM_FIELD_EP | UCC_TEAM_PARAM_FIELD_EP_RANGE | UCC_TEAM_PARAM_FIELD_OOB;
    team.oob = gather_.interface();
    team.ep = static_cast<std::uint64_t>(rank_);
    team.ep_range = UCC_COLLECTIVE_EP_RANGE_CONTIG;
    GRADRAIL_TRY(checked(ucc_team_create_post(&context_, 1, &team, &team_), "making a team"));
    ucc_status_t joined = UCC_INPROGRESS;
    while ((joined = ucc_team_create_test(team_)) == UCC_INPROGRESS) {
      ucc_context_progress(context_);
      ::sched_yield();
    }
    return checked(joined, "making a team");
  }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return ranks_; }
  [[nodiscard]] std::string version() const override { return fmt::format("UCC {}", ucc_get_version_string()); }
  [[nodiscard]] bool takes_other_buffers() const override { return !persistent_; }

  Result<void> prepare(const Call& call) override {
    args_ = {};
    GRADRAIL_ASSIGN(args_.coll_type, collective_of(call));
    GRADRAIL_ASSIGN(type_, datatype_of(call.type));
    args_.mask = UCC_COLL_ARGS_FIELD_FLAGS;
    args_.root = static_cast<std::uint64_t>(call.root);
    if (reduces(call.collective)) {
      GRADRAIL_ASSIGN(args_.op, operation_of(call.op));
    }
    // A broadcast has one buffer; out of place, the root's own copy is made in run().
    if (call.in_place && call.collective != Collective::broadcast) args_.flags |= UCC_COLL_ARGS_FLAG_IN_PLACE;
    if (persistent_) args_.flags |= UCC_COLL_ARGS_FLAG_PERSISTENT;
    place(call);
    if (persistent_) return checked(ucc_collective_init(&args_, &request_, team_), "making a request");
    return {};
  }

  Result<void> run(const Call& call) override {
    if (call.collective == Collective::broadcast && !call.in_place && rank_ == call.root)
      std::memcpy(call.out.data(), call.in.data(), call.count * size_of(call.type));
    if (persistent_) return finish(request_);
    place(call);
    return once(args_);
  }

  Result<void> barrier() override {
    ucc_coll_args_t args{};
    args.coll_type = UCC_COLL_TYPE_BARRIER;
    return once(args);
  }

  void forget() override {
    if (request_ != nullptr) ucc_collective_finalize(request_);
    request_ = nullptr;
  }

 private:
  // Elements of one rank's block where there are blocks, of the data otherwise.
  void place(const Call& call) {
    const auto fill = [&](ucc_coll_buffer_info_t& info, const MemoryView& view, bool all) {
      info.buffer = view.data();
      info.count = call.count * (all ? static_cast<std::uint64_t>(ranks_) : 1);
      info.datatype = type_;
      info.mem_type = UCC_MEMORY_TYPE_HOST;
    };
    const Collective what = call.collective;
    fill(args_.src.info, what == Collective::broadcast ? call.out : call.in,
         what == Collective::reduce_scatter || what == Collective::scatter || what == Collective::all_to_all);
    fill(args_.dst.info, call.out,
         what == Collective::all_gather || what == Collective::gather || what == Collective::all_to_all);
  }

  Result<void> once(ucc_coll_args_t& args) {
    ucc_coll_req_h request = nullptr;
    GRADRAIL_TRY(checked(ucc_collective_init(&args, &request, team_), "making a request"));
    auto done = finish(request);
    if (auto freed = checked(ucc_collective_finalize(request), "ending a request"); !freed && done) return freed;
    return done;
  }

  Result<void> finish(ucc_coll_req_h request) {
    GRADRAIL_TRY(checked(ucc_collective_post(request), "posting a request"));
    ucc_status_t status = UCC_INPROGRESS;
    while ((status = ucc_collective_test(request)) == UCC_INPROGRESS) {
      ucc_context_progress(context_);
      if (crowded_) ::sched_yield();
    }
    return checked(status, "running a collective");
  }

  FileGather gather_;
  int rank_;
  int ranks_;
  bool crowded_;
  bool persistent_;
  ucc_lib_h library_ = nullptr;
  ucc_context_h context_ = nullptr;
  ucc_team_h team_ = nullptr;
  ucc_coll_args_t args_{};
  ucc_datatype_t type_ = UCC_DT_FLOAT32;
  ucc_coll_req_h request_ = nullptr;
};

}  // namespace

}  // namespace gradrail

int main(int argc, char** argv) {
  return gradrail::serve(
      "gradrail-peer-ucc", argc, argv,
      [](const gradrail::RunnerArguments& arguments) -> gradrail::Result<std::unique_ptr<gradrail::PeerLibrary>> {
        auto library = std::make_unique<gradrail::Ucc>(arguments);
        GRADRAIL_TRY(library->open());
        return library;
      });
}

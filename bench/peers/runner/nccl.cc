// One rank of NCCL, on a GPU of its own: data lies in device memory, is brought there before a check and back after it,
// and an operation is over when its stream is. Ranks meet through a file in the driver's folder.
#include <cuda_runtime.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <nccl.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>

#include "bench/measure/buffers.h"
#include "bench/peers/serve.h"
#include "transports/base/fd.h"

namespace gradrail {

namespace {

constexpr Seconds k_meet{60};

Result<void> checked(cudaError_t code, std::string_view what) {
  if (code == cudaSuccess) return {};
  return fail(Code::system, fmt::format("{}: {}", what, cudaGetErrorString(code)));
}
Result<void> checked(ncclResult_t code, std::string_view what) {
  if (code == ncclSuccess) return {};
  return fail(Code::system, fmt::format("{}: {}", what, ncclGetErrorString(code)));
}

Result<ncclDataType_t> datatype_of(Type type) {
  switch (type) {
    case Type::i8: return ncclInt8;
    case Type::u8: return ncclUint8;
    case Type::i32: return ncclInt32;
    case Type::u32: return ncclUint32;
    case Type::i64: return ncclInt64;
    case Type::u64: return ncclUint64;
    case Type::f16: return ncclFloat16;
    case Type::bf16: return ncclBfloat16;
    case Type::f32: return ncclFloat32;
    case Type::f64: return ncclFloat64;
  }
  return fail(Code::unsupported, "NCCL has no such type");
}

ncclRedOp_t operation_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return ncclSum;
    case ReduceOp::prod: return ncclProd;
    case ReduceOp::min: return ncclMin;
    case ReduceOp::max: return ncclMax;
    case ReduceOp::avg: return ncclAvg;
  }
  return ncclSum;
}

// Rank 0's word for the others: whole when it has its name.
Result<ncclUniqueId> meet(const RunnerArguments& arguments) {
  ncclUniqueId id{};
  const std::string path = arguments.folder + "/nccl-id";
  if (arguments.rank == 0) {
    GRADRAIL_TRY(checked(ncclGetUniqueId(&id), "starting NCCL"));
    const std::string draft = path + ".new";
    const Fd fd(::open(draft.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    if (!fd || ::write(fd.get(), &id, sizeof id) != static_cast<ssize_t>(sizeof id) ||
        std::rename(draft.c_str(), path.c_str()) != 0)
      return fail_errno("leaving NCCL's address for other ranks", errno);
    return id;
  }
  for (const auto deadline = Deadline::after(k_meet); !deadline.passed();
       std::this_thread::sleep_for(std::chrono::milliseconds(5))) {
    const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd && ::read(fd.get(), &id, sizeof id) == static_cast<ssize_t>(sizeof id)) return id;
  }
  return fail(Code::timed_out, "rank 0 did not say where NCCL's ranks meet", 0);
}

class Nccl : public PeerLibrary {
 public:
  Nccl(int rank, int ranks) : rank_(rank), ranks_(ranks) {}
  ~Nccl() override {
    forget();
    if (communicator_ != nullptr) ncclCommDestroy(communicator_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
    if (word_ != nullptr) cudaFree(word_);
  }

  Result<void> open(const RunnerArguments& arguments) {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0)
      return fail(Code::unavailable, "NCCL needs a GPU a rank, and there is none here");
    if (devices < ranks_)
      return fail(Code::unavailable, fmt::format("NCCL needs a GPU a rank: {} ranks, {} GPUs", ranks_, devices));
    GRADRAIL_TRY(checked(cudaSetDevice(rank_), "taking a GPU"));
    GRADRAIL_TRY(checked(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "making a stream"));
    GRADRAIL_TRY(checked(cudaMalloc(&word_, sizeof(float)), "taking device memory"));
    GRADRAIL_ASSIGN(const ncclUniqueId id, meet(arguments));
    return checked(ncclCommInitRank(&communicator_, ranks_, id, rank_), "connecting NCCL's ranks");
  }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return ranks_; }
  [[nodiscard]] std::string version() const override {
    int version = 0;
    ncclGetVersion(&version);
    return fmt::format("NCCL {}.{}.{}", version / 10000, version / 100 % 100, version % 100);
  }
  [[nodiscard]] bool takes_other_buffers() const override { return false; }

  Result<void> prepare(const Call& call) override {
    switch (call.collective) {
      case Collective::allreduce:
      case Collective::reduce_scatter:
      case Collective::all_gather:
      case Collective::broadcast:
      case Collective::reduce: break;
      default: return fail(Code::unsupported, fmt::format("NCCL has no {} of its own", to_string(call.collective)));
    }
    GRADRAIL_ASSIGN(type_, datatype_of(call.type));
    op_ = operation_of(call.op);
    const auto in = Buffers::in_bytes(call, rank_, ranks_);
    const auto out = Buffers::out_bytes(call, rank_, ranks_);
    const auto block = call.count * size_of(call.type);
    const auto mine = static_cast<std::size_t>(rank_) * block;
    // In place, the smaller of the two is one block of the larger, as on the host.
    GRADRAIL_TRY(checked(cudaMalloc(&memory_[0], std::max<std::size_t>({in, out, 1})), "taking device memory"));
    in_ = memory_[0];
    out_ = memory_[0];
    if (!call.in_place)
      GRADRAIL_TRY(checked(cudaMalloc(&memory_[1], std::max<std::size_t>(out, 1)), "taking device memory"));
    if (!call.in_place) out_ = memory_[1];
    if (call.in_place && is_blocked(call.collective) && in < out) in_ = static_cast<char*>(in_) + mine;
    if (call.in_place && is_blocked(call.collective) && out < in) out_ = static_cast<char*>(out_) + mine;
    return {};
  }
  Result<void> load(const Call& call, std::size_t bytes) override {
    return bytes == 0 ? Result<void>()
                      : checked(cudaMemcpy(in_, call.in.data(), bytes, cudaMemcpyHostToDevice), "copying to the GPU");
  }
  Result<void> store(const Call& call, std::size_t bytes) override {
    return bytes == 0
               ? Result<void>()
               : checked(cudaMemcpy(call.out.data(), out_, bytes, cudaMemcpyDeviceToHost), "copying from the GPU");
  }
  Result<void> run(const Call& call) override {
    GRADRAIL_TRY(checked(start(call), to_string(call.collective)));
    return checked(cudaStreamSynchronize(stream_), "waiting for the GPU");
  }
  Result<void> barrier() override {
    GRADRAIL_TRY(checked(ncclAllReduce(word_, word_, 1, ncclFloat32, ncclSum, communicator_, stream_), "a barrier"));
    return checked(cudaStreamSynchronize(stream_), "waiting for the GPU");
  }
  void forget() override {
    for (void*& memory : memory_) {
      if (memory != nullptr) cudaFree(memory);
      memory = nullptr;
    }
  }

 private:
  ncclResult_t start(const Call& call) {
    switch (call.collective) {
      case Collective::allreduce: return ncclAllReduce(in_, out_, call.count, type_, op_, communicator_, stream_);
      case Collective::reduce_scatter:
        return ncclReduceScatter(in_, out_, call.count, type_, op_, communicator_, stream_);
      case Collective::all_gather: return ncclAllGather(in_, out_, call.count, type_, communicator_, stream_);
      case Collective::broadcast: return ncclBroadcast(in_, out_, call.count, type_, call.root, communicator_, stream_);
      case Collective::reduce: return ncclReduce(in_, out_, call.count, type_, op_, call.root, communicator_, stream_);
      default: return ncclInvalidUsage;
    }
  }

  int rank_;
  int ranks_;
  ncclComm_t communicator_ = nullptr;
  cudaStream_t stream_ = nullptr;
  void* word_ = nullptr;
  void* memory_[2] = {nullptr, nullptr};
  void* in_ = nullptr;
  void* out_ = nullptr;
  ncclDataType_t type_ = ncclFloat32;
  ncclRedOp_t op_ = ncclSum;
};

}  // namespace

}  // namespace gradrail

int main(int argc, char** argv) {
  return gradrail::serve(
      "gradrail-peer-nccl", argc, argv,
      [](const gradrail::RunnerArguments& arguments) -> gradrail::Result<std::unique_ptr<gradrail::PeerLibrary>> {
        auto library = std::make_unique<gradrail::Nccl>(arguments.rank, arguments.ranks);
        GRADRAIL_TRY(library->open(arguments));
        return library;
      });
}

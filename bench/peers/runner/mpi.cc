// One rank of an MPI library. Compiled once against each MPI that is found: two of them cannot live in one process.
#define OMPI_SKIP_MPICXX 1  // the C functions only
#define MPICH_SKIP_MPICXX 1
#include <fmt/format.h>
#include <mpi.h>

#include <array>
#include <climits>
#include <cstring>
#include <string>

#include "bench/peers/serve.h"

namespace gradrail {

namespace {

Result<MPI_Datatype> datatype_of(Type type) {
  switch (type) {
    case Type::i8: return MPI_INT8_T;
    case Type::u8: return MPI_UINT8_T;
    case Type::i32: return MPI_INT32_T;
    case Type::u32: return MPI_UINT32_T;
    case Type::i64: return MPI_INT64_T;
    case Type::u64: return MPI_UINT64_T;
    case Type::f32: return MPI_FLOAT;
    case Type::f64: return MPI_DOUBLE;
    default: return fail(Code::unsupported, fmt::format("MPI has no type {}", to_string(type)));
  }
}

Result<MPI_Op> operation_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return MPI_SUM;
    case ReduceOp::prod: return MPI_PROD;
    case ReduceOp::min: return MPI_MIN;
    case ReduceOp::max: return MPI_MAX;
    default: return fail(Code::unsupported, fmt::format("MPI has no operation {}", to_string(op)));
  }
}

class Mpi : public PeerLibrary {
 public:
  Mpi(int* argc, char*** argv) {
    MPI_Init(argc, argv);
    // Failures come back as codes, and become sentences here.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
  }
  ~Mpi() override { MPI_Finalize(); }

  [[nodiscard]] int rank() const override { return rank_; }
  [[nodiscard]] int ranks() const override { return ranks_; }
  [[nodiscard]] std::string version() const override {
    std::array<char, MPI_MAX_LIBRARY_VERSION_STRING> text{};
    int length = 0;
    MPI_Get_library_version(text.data(), &length);
    std::string version(text.data(), static_cast<std::size_t>(length));
    for (char& c : version)
      if (c == '\t') c = ' ';
    return version.substr(0, version.find_first_of(",\n"));
  }

  Result<void> prepare(const Call& call) override {
    GRADRAIL_ASSIGN(type_, datatype_of(call.type));
    if (reduces(call.collective)) {
      GRADRAIL_ASSIGN(op_, operation_of(call.op));
    }
    if (call.count > INT_MAX) return fail(Code::unsupported, "MPI counts elements in an int, and these are more");
    if (call.collective == Collective::send_recv && call.in_place)
      return fail(Code::unsupported, "MPI exchanges in place only by way of a copy");
    // MPI leaves the result at the beginning of the whole data, gradrail where the block belongs.
    if (call.collective == Collective::reduce_scatter && call.in_place)
      return fail(Code::unsupported, "MPI's reduce-scatter in place leaves its block elsewhere; compare out of place");
    count_ = static_cast<int>(call.count);
    return {};
  }

  Result<void> run(const Call& call) override {
    const int code = start(call);
    if (code == MPI_SUCCESS) return {};
    return failure(code);
  }

  Result<void> barrier() override {
    const int code = MPI_Barrier(MPI_COMM_WORLD);
    if (code == MPI_SUCCESS) return {};
    return failure(code);
  }

 private:
  static tl::unexpected<Error> failure(int code) {
    std::array<char, MPI_MAX_ERROR_STRING> text{};
    int length = 0;
    MPI_Error_string(code, text.data(), &length);
    return fail(Code::system, std::string(text.data(), static_cast<std::size_t>(length)));
  }

  int start(const Call& call) {
    void* const in = call.in.data();
    void* const out = call.out.data();
    void* const from = call.in_place ? MPI_IN_PLACE : in;
    const bool root = rank_ == call.root;
    const MPI_Comm world = MPI_COMM_WORLD;
    switch (call.collective) {
      case Collective::allreduce: return MPI_Allreduce(from, out, count_, type_, op_, world);
      case Collective::reduce_scatter: return MPI_Reduce_scatter_block(in, out, count_, type_, op_, world);
      case Collective::all_gather: return MPI_Allgather(from, count_, type_, out, count_, type_, world);
      case Collective::broadcast:
        // MPI has one buffer; out of place, the root's own copy is the caller's affair, as it is in MPI programs.
        if (!call.in_place && root) std::memcpy(out, in, call.count * size_of(call.type));
        return MPI_Bcast(out, count_, type_, call.root, world);
      case Collective::reduce: return MPI_Reduce(root ? from : in, out, count_, type_, op_, call.root, world);
      case Collective::all_to_all: return MPI_Alltoall(from, count_, type_, out, count_, type_, world);
      case Collective::gather: return MPI_Gather(root ? from : in, count_, type_, out, count_, type_, call.root, world);
      case Collective::scatter:
        return MPI_Scatter(in, count_, type_, root ? (call.in_place ? MPI_IN_PLACE : out) : out, count_, type_,
                           call.root, world);
      case Collective::send_recv:
        return MPI_Sendrecv(in, count_, type_, (rank_ + 1) % ranks_, 0, out, count_, type_,
                            (rank_ + ranks_ - 1) % ranks_, 0, world, MPI_STATUS_IGNORE);
    }
    return MPI_ERR_OP;
  }

  int rank_ = 0;
  int ranks_ = 1;
  int count_ = 0;
  MPI_Datatype type_ = MPI_BYTE;
  MPI_Op op_ = MPI_SUM;
};

}  // namespace

}  // namespace gradrail

int main(int argc, char** argv) {
  return gradrail::serve(
      GRADRAIL_PEER_NAME, argc, argv,
      [&](const gradrail::RunnerArguments&) -> gradrail::Result<std::unique_ptr<gradrail::PeerLibrary>> {
        return std::make_unique<gradrail::Mpi>(&argc, &argv);
      });
}

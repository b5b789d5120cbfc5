// One rank of Gloo, over TCP: on the loopback, or the interface that hosts share. Variants name the allreduce: "ring"
// and "bcube" are those that gloo::allreduce() offers, "ring_chunked" and "halving_doubling" the algorithm objects of
// its older interface, which are made for one buffer, in place. With ",sync" behind it the older ones read their
// sockets themselves, busily, instead of waiting for Gloo's thread.
#include <fmt/format.h>
#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/allreduce_halving_doubling.h>
#include <gloo/allreduce_ring_chunked.h>
#include <gloo/alltoall.h>
#include <gloo/barrier_all_to_all.h>
#include <gloo/broadcast.h>
#include <gloo/config.h>
#include <gloo/gather.h>
#include <gloo/math.h>
#include <gloo/reduce.h>
#include <gloo/rendezvous/context.h>
#include <gloo/rendezvous/file_store.h>
#include <gloo/scatter.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/types.h>

#include <cstring>
#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "bench/peers/serve.h"

namespace gradrail {

namespace {

// The driver is who loses patience.
constexpr std::chrono::minutes k_patience{30};

using Operation = std::function<void(const Call&)>;

// Gloo throws; we do not.
template <class Work>
Result<void> guarded(Work work) {
  try {
    work();
    return {};
  } catch (const std::exception& error) {
    return fail(Code::system, error.what());
  }
}

template <class T>
using Reduction = void (*)(void*, const void*, const void*, std::size_t);

template <class T>
Reduction<T> reduction_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return &::gloo::sum<T>;
    case ReduceOp::prod: return &::gloo::product<T>;
    case ReduceOp::min: return &::gloo::min<T>;
    case ReduceOp::max: return &::gloo::max<T>;
    default: return nullptr;
  }
}

template <class T>
const ::gloo::ReductionFunction<T>* old_reduction_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return ::gloo::ReductionFunction<T>::sum;
    case ReduceOp::prod: return ::gloo::ReductionFunction<T>::product;
    case ReduceOp::min: return ::gloo::ReductionFunction<T>::min;
    case ReduceOp::max: return ::gloo::ReductionFunction<T>::max;
    default: return nullptr;
  }
}

class Gloo : public PeerLibrary {
 public:
  explicit Gloo(const RunnerArguments& arguments) : algorithm_(arguments.variant) {
    constexpr std::string_view k_sync = ",sync";
    if (algorithm_.ends_with(k_sync)) {
      algorithm_.resize(algorithm_.size() - k_sync.size());
      sync_ = true;
    }
    ::gloo::transport::tcp::attr attributes;
    attributes.iface = arguments.interface;
    if (arguments.interface.empty()) attributes.hostname = "127.0.0.1";
    auto device = ::gloo::transport::tcp::CreateDevice(attributes);
    ::gloo::rendezvous::FileStore store(arguments.folder);
    auto context = std::make_shared<::gloo::rendezvous::Context>(arguments.rank, arguments.ranks);
    context->setTimeout(k_patience);
    context->connectFullMesh(store, device);
    context_ = context;
    if (sync_)
      for (int peer = 0; peer < ranks(); ++peer)
        if (peer != rank()) context_->getPair(peer)->setSync(true, /*busyPoll=*/true);
    barrier_ = std::make_unique<::gloo::BarrierAllToAll>(context_);
  }

  [[nodiscard]] int rank() const override { return context_->rank; }
  [[nodiscard]] int ranks() const override { return context_->size; }
  [[nodiscard]] std::string version() const override {
    return fmt::format("Gloo {}.{}.{}", GLOO_VERSION_MAJOR, GLOO_VERSION_MINOR, GLOO_VERSION_PATCH);
  }
  [[nodiscard]] bool takes_other_buffers() const override { return !is_old(); }

  Result<void> prepare(const Call& call) override {
    Result<void> made;
    const auto thrown = guarded([&] { made = make(call); });
    return thrown ? made : thrown;
  }
  Result<void> run(const Call& call) override {
    return guarded([&] { operation_(call); });
  }
  Result<void> barrier() override {
    return guarded([&] { barrier_->run(); });
  }
  void forget() override { operation_ = nullptr; }

 private:
  [[nodiscard]] bool is_old() const { return algorithm_ == "ring_chunked" || algorithm_ == "halving_doubling"; }

  Result<void> make(const Call& call) {
    switch (call.type) {
      case Type::i8: return make_typed<std::int8_t>(call);
      case Type::u8: return make_typed<std::uint8_t>(call);
      case Type::i32: return make_typed<std::int32_t>(call);
      case Type::i64: return make_typed<std::int64_t>(call);
      case Type::u64: return make_typed<std::uint64_t>(call);
      case Type::f16: return make_typed<::gloo::float16>(call);
      case Type::f32: return make_typed<float>(call);
      case Type::f64: return make_typed<double>(call);
      default: return fail(Code::unsupported, fmt::format("Gloo has no type {}", to_string(call.type)));
    }
  }

  template <class T>
  Result<void> make_typed(const Call& made_for) {
    const std::size_t count = made_for.count;
    const std::size_t all = count * static_cast<std::size_t>(ranks());
    const Reduction<T> reduce = reduction_of<T>(made_for.op);
    if (reduces(made_for.collective) && reduce == nullptr)
      return fail(Code::unsupported, fmt::format("Gloo has no operation {}", to_string(made_for.op)));
    if (is_old() && made_for.collective != Collective::allreduce)
      return fail(Code::unsupported, "this is an algorithm for allreduce");
    const auto in = [](const Call& call) { return reinterpret_cast<T*>(call.in.data()); };
    const auto out = [](const Call& call) { return reinterpret_cast<T*>(call.out.data()); };
    switch (made_for.collective) {
      case Collective::allreduce:
        if (is_old()) return make_old<T>(made_for);
        operation_ = [=, this](const Call& call) {
          ::gloo::AllreduceOptions options(context_);
          options.setAlgorithm(algorithm_ == "bcube" ? ::gloo::AllreduceOptions::Algorithm::BCUBE
                                                     : ::gloo::AllreduceOptions::Algorithm::RING);
          if (!call.in_place) options.setInput(in(call), count);
          options.setOutput(out(call), count);
          options.setReduceFunction(reduce);
          ::gloo::allreduce(options);
        };
        return {};
      case Collective::all_gather:
        operation_ = [=, this](const Call& call) {
          ::gloo::AllgatherOptions options(context_);
          if (!call.in_place) options.setInput(in(call), count);
          options.setOutput(out(call), all);
          ::gloo::allgather(options);
        };
        return {};
      case Collective::broadcast:
        operation_ = [=, this](const Call& call) {
          ::gloo::BroadcastOptions options(context_);
          options.setRoot(call.root);
          if (!call.in_place && rank() == call.root) options.setInput(in(call), count);
          options.setOutput(out(call), count);
          ::gloo::broadcast(options);
        };
        return {};
      case Collective::reduce:
        // It reduces in the output buffer, on every rank.
        scratch_.resize(rank() == made_for.root ? 0 : count * sizeof(T));
        operation_ = [=, this](const Call& call) {
          ::gloo::ReduceOptions options(context_);
          options.setRoot(call.root);
          const bool root = rank() == call.root;
          if (!root || !call.in_place) options.setInput(in(call), count);
          options.setOutput(root ? out(call) : reinterpret_cast<T*>(scratch_.data()), count);
          options.setReduceFunction(reduce);
          ::gloo::reduce(options);
        };
        return {};
      case Collective::all_to_all:
        if (made_for.in_place) return fail(Code::unsupported, "Gloo's all-to-all does not work in place");
        operation_ = [=, this](const Call& call) {
          ::gloo::AlltoallOptions options(context_);
          options.setInput(in(call), all);
          options.setOutput(out(call), all);
          ::gloo::alltoall(options);
        };
        return {};
      case Collective::gather:
        operation_ = [=, this](const Call& call) {
          ::gloo::GatherOptions options(context_);
          options.setRoot(call.root);
          options.setInput(in(call), count);
          if (rank() == call.root) options.setOutput(out(call), all);
          ::gloo::gather(options);
        };
        return {};
      case Collective::scatter:
        operation_ = [=, this](const Call& call) {
          ::gloo::ScatterOptions options(context_);
          options.setRoot(call.root);
          if (rank() == call.root) {
            std::vector<T*> blocks;
            for (int peer = 0; peer < ranks(); ++peer)
              blocks.push_back(in(call) + static_cast<std::size_t>(peer) * count);
            options.setInputs(blocks, count);
          }
          options.setOutput(out(call), count);
          ::gloo::scatter(options);
        };
        return {};
      default: return fail(Code::unsupported, fmt::format("Gloo has no {}", to_string(made_for.collective)));
    }
  }

  template <class T>
  Result<void> make_old(const Call& call) {
    const auto* const reduction = old_reduction_of<T>(call.op);
    const std::vector<T*> buffers{reinterpret_cast<T*>(call.out.data())};
    const int count = static_cast<int>(call.count);
    std::shared_ptr<::gloo::Algorithm> algorithm;
    if (algorithm_ == "ring_chunked")
      algorithm = std::make_shared<::gloo::AllreduceRingChunked<T>>(context_, buffers, count, reduction);
    else
      algorithm = std::make_shared<::gloo::AllreduceHalvingDoubling<T>>(context_, buffers, count, reduction);
    operation_ = [algorithm](const Call& now) {
      if (!now.in_place) std::memcpy(now.out.data(), now.in.data(), now.count * sizeof(T));
      algorithm->run();
    };
    return {};
  }

  std::string algorithm_;
  bool sync_ = false;
  std::shared_ptr<::gloo::Context> context_;
  std::unique_ptr<::gloo::BarrierAllToAll> barrier_;
  std::vector<std::byte> scratch_;
  Operation operation_;
};

}  // namespace

}  // namespace gradrail

int main(int argc, char** argv) {
  return gradrail::serve(
      "gradrail-peer-gloo", argc, argv,
      [](const gradrail::RunnerArguments& arguments) -> gradrail::Result<std::unique_ptr<gradrail::PeerLibrary>> {
        std::unique_ptr<gradrail::PeerLibrary> library;
        if (auto opened = gradrail::guarded([&] { library = std::make_unique<gradrail::Gloo>(arguments); }); !opened)
          return tl::unexpected<gradrail::Error>(std::move(opened).error());
        return library;
      });
}

// The codec of any block format: a header, then the blocks. What a format's own file says is only its line in the
// table, and where it comes from.
#pragma once

#include <string>

#include "collectives/compress/blocks.h"
#include "collectives/compress/codec.h"
#include "collectives/compress/message.h"

namespace gradrail {

class BlockCodec : public Codec {
 public:
  // `parameter` stands in each message's header, and a message with another one is refused.
  BlockCodec(std::string name, CodecId id, std::uint32_t parameter, const BlockFormat& format);

  [[nodiscard]] std::string name() const override { return name_; }
  [[nodiscard]] CodecTraits traits() const override;
  [[nodiscard]] std::size_t max_bytes(std::size_t count) const override {
    return k_message_header_bytes + format_.bytes(count);
  }
  [[nodiscard]] Result<Encoded> encode(std::span<const float> from, std::span<std::byte> to,
                                       const Origin& origin) override;
  [[nodiscard]] Result<Encoded> encode_feedback(std::span<const float> from, std::span<float> residual,
                                                std::span<std::byte> to, const Origin& origin) override;

 private:
  // Behind the kernels: the header, and what encode() says.
  Encoded close(std::size_t count, std::span<std::byte> to, bool non_finite) const;
  [[nodiscard]] Result<void> apply(std::span<const std::byte> message, std::span<float> to, Apply how) const override;

  std::string name_;
  CodecId id_;
  std::uint32_t parameter_;
  BlockFormat format_;
  BlockKernels kernels_;
};

}  // namespace gradrail

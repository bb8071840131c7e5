// Checksums of files and fingerprints of content (XXH3, 128 bits, printed as 32 hex digits).
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace ee::base {

// Feeds bytes piece by piece. Equal bytes in equal order give equal digests on every machine.
class Hasher {
 public:
  Hasher();
  ~Hasher();

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text.data(), text.size()))); }
  std::string digest() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string hash_bytes(std::span<const std::byte> bytes);

}  // namespace ee::base

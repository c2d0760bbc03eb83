#include <algorithm>
#include <array>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/runtime/error.hpp>

#include "codecs/registry.hpp"
#include "kernels/float_mode.hpp"
#include "rules/arguments.hpp"

namespace holdfast {
namespace {

codecs::Sections sections(codecs::Entry const& entry, std::span<std::byte const> payload, std::uint64_t elements) {
  return {payload.data(), payload.data() + entry.scales_bytes(elements)};
}

}  // namespace

Codec Codec::parse(std::string_view text) {
  auto call = rules::parse_call(text);
  std::vector<std::string> names;
  for (auto const& entry : codecs::registry()) {
    if (entry.name == call.name || entry.short_name == call.name) {
      rules::Arguments(std::move(call), {}).finish();
      return Codec(entry);
    }
    names.push_back(entry.short_name);
  }
  throw Error(Errc::bad_argument, "unknown codec '" + call.name + "'; did you mean '" +
                                      rules::nearest_name(call.name, names) +
                                      "'? Codecs: " + rules::list_of_names(names));
}

std::optional<Codec> Codec::with_id(std::uint8_t id) {
  for (auto const& entry : codecs::registry())
    if (entry.id == id) return Codec(entry);
  return std::nullopt;
}

std::vector<CodecDescription> Codec::all() {
  std::vector<CodecDescription> descriptions;
  for (auto const& entry : codecs::registry())
    descriptions.push_back(
        {entry.name, entry.short_name, entry.id, entry.block_elements, Codec(entry).bits_per_element(), entry.summary});
  return descriptions;
}

std::string const& Codec::text() const {
  return entry_->name;
}

std::uint8_t Codec::id() const {
  return entry_->id;
}

double Codec::bits_per_element() const {
  return static_cast<double>(entry_->code_bits) +
         8.0 * static_cast<double>(entry_->scale_bytes) / static_cast<double>(entry_->block_elements);
}

std::uint64_t Codec::payload_bytes(std::uint64_t elements) const {
  return entry_->scales_bytes(elements) + entry_->codes_bytes(elements);
}

Codec::Encoded Codec::encode(std::span<float const> values, std::span<std::byte> payload) const {
  if (payload.size() != payload_bytes(values.size()))
    throw Error(Errc::bad_argument, entry_->name + ": a payload of " + std::to_string(payload.size()) + " bytes for " +
                                        std::to_string(values.size()) + " elements, which take " +
                                        std::to_string(payload_bytes(values.size())));
  kernels::IeeeFloatMode const mode;
  bool const flagged = entry_->encode(values.data(), values.size(), payload.data(),
                                      payload.data() + entry_->scales_bytes(values.size()));
  return flagged ? Encoded::flagged : Encoded::finite;
}

Outcome<void> Codec::check(std::span<std::byte const> payload, std::uint64_t elements) const {
  if (payload.size() != payload_bytes(elements))
    return fail(Errc::corrupt_message, "codec " + entry_->name + ": " + std::to_string(payload.size()) +
                                           " bytes where " + std::to_string(elements) + " elements take " +
                                           std::to_string(payload_bytes(elements)));
  auto const fault = entry_->find_fault(sections(*entry_, payload, elements), elements);
  if (!fault.empty()) return fail(Errc::corrupt_message, "codec " + entry_->name + ": " + fault);
  return {};
}

Outcome<void> Codec::decode(std::span<std::byte const> payload, std::span<float> out) const {
  if (auto checked = check(payload, out.size()); !checked) return checked;
  kernels::IeeeFloatMode const mode;
  entry_->decode(sections(*entry_, payload, out.size()), out.size(), out.data());
  return {};
}

Outcome<void> Codec::accumulate(std::span<std::byte const> payload, float coefficient, std::span<float> sum) const {
  if (auto checked = check(payload, sum.size()); !checked) return checked;
  kernels::IeeeFloatMode const mode;
  entry_->accumulate(sections(*entry_, payload, sum.size()), sum.size(), coefficient, sum.data());
  return {};
}

}  // namespace holdfast

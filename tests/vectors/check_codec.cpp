#include <bit>
#include <string>

#include <holdfast/collectives/codec.hpp>
#include <holdfast/runtime/error.hpp>

#include "floats.hpp"
#include "readers.hpp"

namespace holdfast::vectors {
namespace {

struct CodecCase {
  std::string codec;
  std::string name;
  std::vector<float> in;
  std::vector<std::byte> encoded;
  bool is_flagged = false;
  std::vector<float> out;
};

/// A payload as it came over the wire.
struct WireCase {
  std::string codec;
  std::vector<std::byte> encoded;
  std::size_t elements = 0;
  bool is_fault = false;
  std::vector<float> out;
};

/// Decodes into memory whose contents would show.
std::string check_decode(Codec const& codec, std::vector<std::byte> const& payload,
                         std::vector<float> const& expected) {
  std::vector<float> out(expected.size(), 12345.0F);
  if (auto const decoded = codec.decode(payload, out); !decoded) return "refused: " + decoded.error().detail;
  if (auto const differs = difference(out, expected); !differs.empty()) return "decoded: " + differs;
  if (!codec.is_identity())
    for (std::size_t i = 0; i < out.size(); ++i)
      if (std::bit_cast<std::uint32_t>(out[i]) == 0x80000000U) return "decoded -0 at element " + std::to_string(i);
  std::vector<float> sum(expected.size(), 0.0F);
  if (!codec.accumulate(payload, 1.0F, sum)) return "refused by accumulate";
  for (std::size_t i = 0; i < sum.size(); ++i) out[i] = 0.0F + out[i];
  if (auto const differs = difference(sum, out); !differs.empty()) return "accumulated: " + differs;
  return {};
}

std::string check_refusal(Codec const& codec, std::vector<std::byte> const& payload, std::size_t elements) {
  std::vector<float> out(elements, 12345.0F);
  auto const untouched = out;
  if (codec.decode(payload, out) || codec.accumulate(payload, 1.0F, out)) return "decoded where it must refuse";
  return difference(out, untouched).empty() ? "" : "wrote values of a payload that it refused";
}

std::string explain(CodecCase const& given) {
  auto const codec = Codec::parse(given.codec);
  std::vector<std::byte> payload(codec.payload_bytes(given.in.size()), std::byte{0xA5});
  if (payload.size() != given.encoded.size())
    return "a payload of " + std::to_string(payload.size()) + " bytes, expected " +
           std::to_string(given.encoded.size());
  bool const is_flagged = codec.encode(given.in, payload) == Codec::Encoded::flagged;
  if (is_flagged != given.is_flagged) return is_flagged ? "flagged finite values" : "did not flag";
  if (auto const differs = difference(payload, given.encoded); !differs.empty()) return "encoded: " + differs;
  if (is_flagged) return check_refusal(codec, payload, given.in.size());
  if (auto const wrong = check_decode(codec, payload, given.out); !wrong.empty()) return wrong;
  // Rounding up to 2^120 cannot be undone, and the code book of int2 is made anew.
  if (given.name == "just_below_2^120" || codec.needs_error_feedback()) return {};
  if (codec.encode(given.out, payload) != Codec::Encoded::finite) return "flagged its own decoded values";
  if (auto const differs = difference(payload, given.encoded); !differs.empty()) return "encoded again: " + differs;
  return {};
}

std::string explain(WireCase const& given) {
  auto const codec = Codec::parse(given.codec);
  return given.is_fault ? check_refusal(codec, given.encoded, given.elements)
                        : check_decode(codec, given.encoded, given.out);
}

template <class Given>
Case make_case(std::string id, Given given) {
  return {std::move(id), [given = std::move(given)] {
            std::string why;
            try {
              why = explain(given);
            } catch (Error const& error) {
              why = error.what();
            }
            return why.empty() ? Result{} : failed(why);
          }};
}

std::vector<float> read_values(Node const& node, std::size_t elements) {
  auto values = node.floats();
  if (values.size() != elements) node.malformed("has not n values");
  return values;
}

}  // namespace

std::vector<Case> read_codec_cases(Node const& root) {
  std::vector<Case> cases;
  auto const codecs = root.at("codecs");
  if (!codecs.json.is_object()) codecs.malformed("expected an object");
  for (auto const& [name, sections] : codecs.json.items()) {
    Node const codec{sections, codecs.place + "." + name};
    auto const list = codec.at("cases");
    for (std::size_t i = 0; i < list.size_of_list(); ++i) {
      auto const node = list.at(i);
      auto const elements = static_cast<std::size_t>(node.at("n").whole());
      CodecCase given{name,
                      node.at("name").text(),
                      read_values(node.at("in"), elements),
                      node.at("encoded").bytes(),
                      node.at("flagged").truth(),
                      {}};
      if (!given.is_flagged) given.out = read_values(node.at("out"), elements);
      auto id = name + "/" + given.name;
      cases.push_back(make_case(std::move(id), std::move(given)));
    }
    if (!codec.has("wire")) continue;
    auto const wire = codec.at("wire");
    for (std::size_t i = 0; i < wire.size_of_list(); ++i) {
      auto const node = wire.at(i);
      WireCase given{name,
                     node.at("encoded").bytes(),
                     static_cast<std::size_t>(node.at("n").whole(1 << 24)),
                     node.at("fault").truth(),
                     {}};
      if (!given.is_fault) given.out = read_values(node.at("out"), given.elements);
      cases.push_back(make_case(name + "/wire/" + node.at("name").text(), std::move(given)));
    }
  }
  return cases;
}

}  // namespace holdfast::vectors

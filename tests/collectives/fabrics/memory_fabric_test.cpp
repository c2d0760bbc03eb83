#include "fabrics/memory/memory_fabric.hpp"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sys/mman.h>

/// A member of shared memory that lies about where its data is: nothing outside of its memory is touched, and it is
/// named.
namespace holdfast::fabrics {
namespace {

constexpr std::size_t kArenaBytes = std::size_t{1} << 20;
constexpr std::size_t kShardBytes = 8'192;

/// Pages between pages that nobody may touch.
class Fenced {
 public:
  explicit Fenced(std::size_t bytes) : bytes_(bytes) {
    base_ = static_cast<std::byte*>(
        ::mmap(nullptr, bytes + 2 * kFence, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    ::mprotect(base_ + kFence, bytes, PROT_READ | PROT_WRITE);
  }
  ~Fenced() { ::munmap(base_, bytes_ + 2 * kFence); }
  Fenced(Fenced const&) = delete;
  Fenced& operator=(Fenced const&) = delete;
  [[nodiscard]] std::byte* data() const { return base_ + kFence; }

 private:
  static constexpr std::size_t kFence = std::size_t{1} << 20;
  std::size_t bytes_;
  std::byte* base_;
};

struct MemberMemory {
  Fenced control{(sizeof(Control) + 4'095) / 4'096 * 4'096};
  Fenced contributions{kArenaBytes};
  Fenced results{kArenaBytes};
  [[nodiscard]] Control& words() const { return *reinterpret_cast<Control*>(control.data()); }
};

class LyingMember : public ::testing::Test {
 protected:
  static constexpr int kHonest = 0;
  static constexpr int kLiar = 1;

  LyingMember() {
    for (int rank = 0; rank < 2; ++rank) {
      std::vector<PeerMemory> peers;
      for (auto const& peer : memory_)
        peers.push_back({&peer.words(), peer.contributions.data(), peer.results.data(), kArenaBytes, nullptr});
      auto const& own = memory_[static_cast<std::size_t>(rank)];
      fabrics_.push_back(
          std::make_unique<MemoryFabric>("memory", rank, std::move(peers),
                                         std::make_shared<MemoryArena>(nullptr, own.contributions.data(), kArenaBytes),
                                         std::make_shared<MemoryArena>(nullptr, own.results.data(), kArenaBytes),
                                         [this](int suspect, std::string const& evidence) {
                                           suspicions_.push_back(std::to_string(suspect) + ": " + evidence);
                                         }));
      exchanges_.push_back(open(rank));
    }
  }

  std::unique_ptr<Exchange> open(int rank) {
    auto& fabric = *fabrics_[static_cast<std::size_t>(rank)];
    auto* const contribution = fabric.arena(ArenaUse::contribution)->allocate(2 * kShardBytes);
    auto* const result = fabric.arena(ArenaUse::result)->allocate(2 * kShardBytes);
    return fabric.open({0, 0}, {}, contribution, result);
  }
  [[nodiscard]] Slot& slot_of_liar() const { return memory_[kLiar].words().streams[0].slots[0]; }
  [[nodiscard]] Exchange& honest() const { return *exchanges_[kHonest]; }
  void start() const {
    ExchangePlan plan;
    plan.scatter = plan.gather = {{0, kShardBytes}, {kShardBytes, kShardBytes}};
    plan.contributes = {true, true};
    honest().start(plan);
  }

  MemberMemory memory_[2];
  std::vector<std::unique_ptr<MemoryFabric>> fabrics_;
  std::vector<std::unique_ptr<Exchange>> exchanges_;
  std::vector<std::string> suspicions_;
};

TEST_F(LyingMember, with_sound_words_is_believed) {
  start();
  EXPECT_TRUE(honest().row_arrived(kLiar, kShardBytes));
  EXPECT_EQ(honest().destinations().size(), 2U);
  EXPECT_TRUE(suspicions_.empty());
}

class LyingOffset : public LyingMember, public ::testing::WithParamInterface<std::uint64_t> {};

TEST_P(LyingOffset, of_a_row_is_suspected_and_the_row_never_read) {
  slot_of_liar().contribution_offset = GetParam();
  start();
  EXPECT_FALSE(honest().row_arrived(kLiar, kShardBytes));
  EXPECT_EQ(suspicions_, std::vector<std::string>{"1: rank 1 points outside of its shared memory"});
}

TEST_P(LyingOffset, of_a_result_is_suspected_and_nothing_written_there) {
  slot_of_liar().result_offset = GetParam();
  start();
  EXPECT_EQ(honest().destinations().size(), 1U);
  EXPECT_EQ(suspicions_, std::vector<std::string>{"1: rank 1 points outside of its shared memory"});
}

TEST_P(LyingOffset, of_a_small_message_is_suspected_and_the_message_never_read) {
  auto const small = fabrics_[kHonest]->open_small({0, 0});
  auto& slot = memory_[kLiar].words().streams[0].small_slots[0];
  slot.is_inline = 0;
  slot.bytes = kShardBytes;
  slot.offset = GetParam();
  slot.posted.store(1);
  EXPECT_FALSE(small->arrived(kLiar));
  EXPECT_EQ(suspicions_, std::vector<std::string>{"1: rank 1 points outside of its shared memory"});
}

INSTANTIATE_TEST_SUITE_P(Outside, LyingOffset,
                         ::testing::Values(kArenaBytes, kArenaBytes - 4'096, ~std::uint64_t{0} - 4'095, 64));

TEST_F(LyingMember, that_changes_its_words_later_changes_nothing) {
  start();
  auto const* const row = honest().row(kLiar);
  slot_of_liar().contribution_offset = kArenaBytes;
  EXPECT_EQ(honest().row(kLiar), row);
  auto const small = fabrics_[kHonest]->open_small({0, 0});
  auto& slot = memory_[kLiar].words().streams[0].small_slots[0];
  slot.bytes = 16;
  slot.posted.store(1);
  ASSERT_TRUE(small->arrived(kLiar));
  slot.bytes = ~0U;
  EXPECT_EQ(small->bytes(kLiar).size(), 16U);
}

TEST_F(LyingMember, whose_inline_message_is_longer_than_its_slot_is_cut) {
  auto const small = fabrics_[kHonest]->open_small({0, 0});
  auto& slot = memory_[kLiar].words().streams[0].small_slots[0];
  slot.is_inline = 1;
  slot.bytes = ~0U;
  slot.posted.store(1);
  ASSERT_TRUE(small->arrived(kLiar));
  EXPECT_EQ(small->bytes(kLiar).size(), SmallSlot::kInlineBytes);
}

}  // namespace
}  // namespace holdfast::fabrics

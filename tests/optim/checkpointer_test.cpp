#include <csignal>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <string>

#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <holdfast/collectives/communicator.hpp>
#include <holdfast/optim/checkpointer.hpp>
#include <holdfast/optim/training_state.hpp>
#include <holdfast/runtime/checkpoint.hpp>
#include <holdfast/runtime/error.hpp>

#include "members.hpp"

namespace holdfast {
namespace {

namespace fs = std::filesystem;
using test::Mlp;

class Checkpoints : public testing::Test {
 protected:
  Checkpoints() {
    std::string name = (fs::temp_directory_path() / "holdfast-checkpointer-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path = name;
  }
  ~Checkpoints() override {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  [[nodiscard]] CheckpointerOptions options(std::uint64_t every = 0) const {
    return CheckpointerOptions().folder(path.string()).every(every).on_signals(false).listen_every(1);
  }
  fs::path path;
};

// One member of a data-parallel program with checkpoints.
struct Trainer {
  Group group;
  Mlp model;
  torch::optim::AdamW adamw;
  DataParallel parallel;
  std::uint64_t step = 0;
  TrainingState state;
  Checkpointer checkpointer;

  Trainer(Group const& of, CheckpointerOptions const& options, std::int64_t hidden = 16)
      : group(of),
        model(1, hidden),
        adamw(model->parameters(), torch::optim::AdamWOptions(0.01)),
        parallel(of, model, DataParallelOptions().worker_momentum(0.5)),
        checkpointer(of, registered(), options) {}

  StateRegistry& registered() {
    state.add_model(model).add_optimizer(adamw).add_counter("step", step).add(parallel);
    return state.registry();
  }
  void train() {
    adamw.zero_grad();
    test::loss_of(model, test::make_batch(50 * step + static_cast<std::uint64_t>(group.rank()))).backward();
    auto const outcome = parallel.step(adamw);
    if (!outcome) throw std::runtime_error(outcome.error().message());
    ++step;
  }
  CheckpointBoundary boundary() {
    auto const outcome = checkpointer.step(step);
    if (!outcome) throw std::runtime_error(outcome.error().message());
    return *outcome;
  }
  void save() {
    auto const saved = checkpointer.save(step);
    if (!saved) throw std::runtime_error(saved.error().message());
  }
  std::optional<std::uint64_t> resume() {
    auto const from = checkpointer.resume();
    if (!from) throw std::runtime_error(from.error().message());
    return *from;
  }
};

std::set<std::string> names_in(fs::path const& folder) {
  std::set<std::string> names;
  for (auto const& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename().string());
  return names;
}

void damage(fs::path const& file) {
  std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
  bytes.seekg(-1, std::ios::end);
  char const last = static_cast<char>(bytes.get());
  bytes.seekp(-1, std::ios::end);
  bytes.put(static_cast<char>(last ^ 1));
}

TEST_F(Checkpoints, going_on_from_one_is_the_same_as_never_having_stopped) {
  for (int const shards : {1, 2}) {
    std::vector<StateSnapshot> whole(3), resumed(3);
    test::run_members(3, [&](Group group) {
      Trainer trainer(group, options().shards(shards));
      EXPECT_EQ(trainer.resume(), std::nullopt);
      for (int i = 0; i < 3; ++i) trainer.train();
      trainer.save();
      for (int i = 0; i < 3; ++i) trainer.train();
      whole[static_cast<std::size_t>(group.rank())] = trainer.state.registry().snapshot();
    });
    EXPECT_EQ(names_in(path / "step-00000003").size(), static_cast<std::size_t>(shards) + 4);
    test::run_members(3, [&](Group group) {
      Trainer trainer(group, options().shards(shards));
      EXPECT_EQ(trainer.resume(), 3U);
      EXPECT_EQ(trainer.step, 3U);
      for (int i = 0; i < 3; ++i) trainer.train();
      resumed[static_cast<std::size_t>(group.rank())] = trainer.state.registry().snapshot();
    });
    EXPECT_EQ(whole, resumed);
    fs::remove_all(path / "step-00000003");
  }
}

TEST_F(Checkpoints, another_number_of_members_goes_on_with_what_is_shared) {
  test::run_members(3, [&](Group group) {
    Trainer trainer(group, options());
    for (int i = 0; i < 2; ++i) trainer.train();
    trainer.save();
  });
  for (int const members : {1, 2, 4}) {
    std::vector<Digest> digests(static_cast<std::size_t>(members));
    test::run_members(members, [&](Group group) {
      Trainer trainer(group, options());
      EXPECT_EQ(trainer.resume(), 2U);
      auto const own = trainer.state.registry().snapshot(Sharing::own);
      bool const has_momentum =
          std::any_of(own[0].bytes.begin(), own[0].bytes.end(), [](std::byte b) { return b != std::byte{0}; });
      EXPECT_EQ(has_momentum, group.rank() < 3) << own[0].name;
      trainer.train();
      digests[static_cast<std::size_t>(group.rank())] = trainer.state.registry().digest();
    });
    for (auto const& digest : digests) EXPECT_EQ(digest, digests[0]);
  }
}

TEST_F(Checkpoints, come_every_so_many_steps_and_the_newest_stay) {
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options(4).keep(2));
    std::set<std::uint64_t> durable;
    while (trainer.step < 15) {
      trainer.train();
      auto const boundary = trainer.boundary();
      EXPECT_EQ(boundary.is_saving, trainer.step % 4 == 0) << trainer.step;
      EXPECT_FALSE(boundary.must_end);
      if (boundary.durable) durable.insert(*boundary.durable);
      // Disks may be slow; a step of a real program is not over before they are.
      if (trainer.step % 4 == 3 && !durable.contains(trainer.step - 3) && trainer.step > 3) trainer.save();
    }
    trainer.save();
  });
  auto const steps = CheckpointFolder(path).steps();
  EXPECT_EQ(steps.size(), 2U);
  EXPECT_EQ(steps.front(), 15U);
}

TEST_F(Checkpoints, one_that_is_due_while_another_is_written_is_left_out_by_all) {
  std::vector<std::vector<bool>> saving(3);
  test::run_members(3, [&](Group group) {
    Trainer trainer(group, options(1));
    for (int i = 0; i < 12; ++i) {
      trainer.train();
      saving[static_cast<std::size_t>(group.rank())].push_back(trainer.boundary().is_saving);
    }
    trainer.save();
  });
  EXPECT_TRUE(saving[0][0]);
  EXPECT_FALSE(saving[0][1]) << "the first one has no name before the others said that they wrote theirs";
  EXPECT_EQ(saving[1], saving[0]);
  EXPECT_EQ(saving[2], saving[0]);
  EXPECT_EQ(CheckpointFolder(path).steps().front(), 12U);
}

TEST_F(Checkpoints, one_members_request_counts_for_all) {
  std::vector<std::uint64_t> ended(3);
  test::run_members(3, [&](Group group) {
    Trainer trainer(group, options());
    while (trainer.step < 100) {
      trainer.train();
      if (group.rank() == 1 && trainer.step == 2) trainer.checkpointer.request_save();
      if (group.rank() == 2 && trainer.step == 7) trainer.checkpointer.request_end();
      auto const boundary = trainer.boundary();
      EXPECT_EQ(boundary.is_saving, trainer.step == 2 || trainer.step == 7) << trainer.step;
      if (boundary.must_end) break;
    }
    ended[static_cast<std::size_t>(group.rank())] = trainer.step;
  });
  EXPECT_EQ(ended, (std::vector<std::uint64_t>{7, 7, 7}));
  EXPECT_EQ(CheckpointFolder(path).steps(), (std::vector<std::uint64_t>{7, 2}));
}

TEST_F(Checkpoints, signals_are_requests_and_are_what_they_were_afterwards) {
  auto const before = std::signal(SIGUSR1, SIG_IGN);
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options().on_signals(true));
    while (trainer.step < 100) {
      trainer.train();
      if (group.rank() == 0 && trainer.step == 2) std::raise(SIGUSR1);
      if (group.rank() == 0 && trainer.step == 5) std::raise(SIGTERM);
      // The process is both members, which take notice one after the other.
      if (trainer.boundary().must_end) break;
    }
    EXPECT_GE(trainer.step, 5U);
    EXPECT_LE(trainer.step, 6U);
  });
  EXPECT_EQ(std::signal(SIGUSR1, before), SIG_IGN);
  EXPECT_GE(CheckpointFolder(path).steps().size(), 2U);
}

TEST_F(Checkpoints, a_damaged_one_is_replaced_by_the_one_before) {
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options().keep(3));
    for (int i = 0; i < 3; ++i) {
      trainer.train();
      trainer.save();
    }
  });
  // The own file of rank 1: rank 0 by itself would not notice.
  damage(path / "step-00000003" / "member-00001.safetensors");
  fs::remove(path / "step-00000002" / "manifest.json");
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options());
    EXPECT_EQ(trainer.resume(), 1U);
  });
  damage(path / "step-00000001" / "replicated-00000.safetensors");
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options());
    auto const from = trainer.checkpointer.resume();
    ASSERT_FALSE(from) << "never silently from the start";
    EXPECT_EQ(from.error().code, Errc::corrupt_message);
    EXPECT_NE(from.error().message().find(path.string()), std::string::npos);
  });
}

TEST_F(Checkpoints, another_model_is_refused_with_the_part_that_differs) {
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options());
    trainer.train();
    trainer.save();
  });
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options(), 17);
    auto const from = trainer.checkpointer.resume();
    ASSERT_FALSE(from);
    EXPECT_EQ(from.error().code, Errc::mismatch);
    EXPECT_NE(from.error().detail.find("first.bias"), std::string::npos) << from.error().detail;
  });
}

TEST_F(Checkpoints, what_cannot_be_written_is_said_and_training_goes_on) {
  std::ofstream(path / "file") << "no folder";
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options().folder((path / "file").string()));
    trainer.train();
    auto const saved = trainer.checkpointer.save(trainer.step);
    ASSERT_FALSE(saved);
    EXPECT_EQ(saved.error().code, Errc::environment);
    EXPECT_NE(saved.error().detail.find("cannot make"), std::string::npos) << saved.error().detail;
    trainer.train();
    if (group.rank() == 0) trainer.checkpointer.request_end();
    auto const boundary = trainer.checkpointer.step(trainer.step);
    ASSERT_FALSE(boundary) << "75 would promise a checkpoint";
    EXPECT_EQ(boundary.error().code, Errc::environment);
  });
}

TEST_F(Checkpoints, members_that_differ_save_nothing) {
  test::run_members(2, [&](Group group) {
    Trainer trainer(group, options());
    trainer.train();
    if (group.rank() == 1) {
      torch::NoGradGuard const no_grad;
      trainer.model->first->bias[0] += 1;
    }
    auto const saved = trainer.checkpointer.save(trainer.step);
    ASSERT_FALSE(saved);
    EXPECT_NE(saved.error().detail.find("another replicated state"), std::string::npos) << saved.error().detail;
  });
  EXPECT_TRUE(CheckpointFolder(path).steps().empty());
}

TEST_F(Checkpoints, a_parked_member_saves_alone_and_asks_to_be_started_again) {
  Config config;
  auto group = Group::join(config);
  Trainer trainer(group, options());
  trainer.train();
  (void)trainer.boundary();
  Failure parked;
  parked.code = Errc::parked;
  EXPECT_EQ(trainer.checkpointer.give_up(parked), kRequeueExitCode);
  EXPECT_EQ(CheckpointFolder(path).steps(), std::vector<std::uint64_t>{1});
  Failure lost;
  lost.code = Errc::member_lost;
  EXPECT_EQ(trainer.checkpointer.give_up(lost), 1);
  Trainer again(group, options());
  EXPECT_EQ(again.resume(), 1U);
  EXPECT_EQ(again.state.registry().digest(), trainer.state.registry().digest());
}

TEST_F(Checkpoints, refuses_options_that_cannot_be) {
  auto group = Group::join(Config{});
  StateRegistry state;
  EXPECT_THROW(Checkpointer(group, state, options().folder("")), Error);
  EXPECT_THROW(Checkpointer(group, state, options().keep(0)), Error);
  EXPECT_THROW(Checkpointer(group, state, options().shards(0)), Error);
}

}  // namespace
}  // namespace holdfast

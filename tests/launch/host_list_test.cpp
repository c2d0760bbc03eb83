#include "host_list.hpp"

#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <holdfast/runtime/error.hpp>

#include "local_ranks.hpp"
#include "usage.hpp"

namespace holdfast::launch::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename Act>
std::string refusal(Act const& act) {
  try {
    act();
  } catch (std::exception const& error) {
    return error.what();
  }
  return "nothing was refused";
}

TEST(HostList, reads_names_and_numbers) {
  EXPECT_THAT(parse_hosts("--hosts", "h0:2,h1,[fd00::1]:3,10.0.0.1:4"),
              ElementsAre(HostSlots{"h0", 2}, HostSlots{"h1", 1}, HostSlots{"fd00::1", 3}, HostSlots{"10.0.0.1", 4}));
}

TEST(HostList, names_what_is_no_host) {
  for (auto const* const text : {"", "h0,,h1", "h0:", "h0:0", "h0:two", ":2", "-oProxyCommand=x", "[fd00::1", "a b"})
    EXPECT_THAT(refusal([&] { (void)parse_hosts("--hosts", text); }), HasSubstr("--hosts")) << text;
}

TEST(HostList, reads_hostfiles_of_mpirun) {
  TemporaryFolder const folder;
  auto const file = folder.path() / "hosts";
  std::ofstream(file) << "# two of them\nh0 slots=2\n\n  h1:3  # large\nh2\n";
  EXPECT_THAT(read_hostfile(file), ElementsAre(HostSlots{"h0", 2}, HostSlots{"h1", 3}, HostSlots{"h2", 1}));
  std::ofstream(file) << "h0 slots=2\nh1 max_slots=3\n";
  EXPECT_THAT(refusal([&] { (void)read_hostfile(file); }), HasSubstr("line 2: 'max_slots=3'"));
  std::ofstream(file) << "# none\n";
  EXPECT_THAT(refusal([&] { (void)read_hostfile(file); }), HasSubstr("names no host"));
  EXPECT_THAT(refusal([&] { (void)read_hostfile(folder.path() / "missing"); }), HasSubstr("missing"));
}

TEST(HostList, fills_an_agent_template) {
  EXPECT_THAT(agent_words("ssh -p 22 {host}", "h1"), ElementsAre("ssh", "-p", "22", "h1"));
  EXPECT_THAT(agent_words("ssh", "h1"), ElementsAre("ssh", "h1"));
  EXPECT_THAT(agent_words("docker exec -i 'my {host}' env A=\"b c\" x\\ y", "h1"),
              ElementsAre("docker", "exec", "-i", "my h1", "env", "A=b c", "x y"));
  EXPECT_THAT(refusal([] { (void)agent_words("ssh '{host}", "h1"); }), HasSubstr("open quote"));
  EXPECT_THAT(refusal([] { (void)agent_words("  ", "h1"); }), HasSubstr("--agent"));
}

}  // namespace
}  // namespace holdfast::launch::test

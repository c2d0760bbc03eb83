#pragma once

#include <cstdint>

namespace holdfast {

enum class Errc : int;
enum class MemberId : std::uint64_t;
enum class ViewId : std::uint64_t;
enum class StreamId : std::uint32_t;

class Deadline;
class Error;
class EventLog;
class Group;
class Rounds;
class StateRegistry;
struct Config;
struct Digest;
struct Failure;
struct Member;
struct RoundId;
struct View;

}  // namespace holdfast

#pragma once

namespace holdfast {

class Bucket;
class Communicator;
class ConstBuffer;
class MutableBuffer;
class Round;
class Rule;
class Work;
struct Reduction;
enum class ReduceOp : unsigned char;

}  // namespace holdfast

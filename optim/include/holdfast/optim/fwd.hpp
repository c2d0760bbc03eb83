#pragma once

namespace holdfast {

class DataParallel;
class DistributedSampler;
class ModelTensors;
class WorkerMomentum;
struct DataParallelOptions;
enum class MomentumConvention : unsigned char;

}  // namespace holdfast

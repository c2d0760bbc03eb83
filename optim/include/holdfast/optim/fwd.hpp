#pragma once

namespace holdfast {

class DataParallel;
class DistributedSampler;
class ModelTensors;
class StreamingDiLoCo;
class WorkerMomentum;
struct DataParallelOptions;
struct StreamingDiLoCoOptions;
enum class MomentumConvention : unsigned char;

}  // namespace holdfast

#pragma once

namespace holdfast {

class Checkpointer;
class DataParallel;
class DistributedSampler;
class ModelTensors;
class StreamingDiLoCo;
class TrainingState;
class WorkerMomentum;
struct CheckpointerOptions;
struct DataParallelOptions;
struct StreamingDiLoCoOptions;
enum class MomentumConvention : unsigned char;

}  // namespace holdfast

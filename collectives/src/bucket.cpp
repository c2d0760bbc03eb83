#include <holdfast/collectives/bucket.hpp>

#include "bucket_impl.hpp"

namespace holdfast {

Bucket::Bucket() = default;
Bucket::Bucket(Bucket&&) noexcept = default;
Bucket& Bucket::operator=(Bucket&&) noexcept = default;
Bucket::~Bucket() = default;
Bucket::Bucket(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

std::size_t Bucket::elements() const {
  return impl_ ? impl_->elements : 0;
}
DType Bucket::dtype() const {
  return impl_ ? impl_->dtype : DType::float32;
}
MutableBuffer Bucket::contribution() const {
  return impl_ ? MutableBuffer(impl_->contribution.data(), impl_->elements, impl_->dtype) : MutableBuffer();
}
MutableBuffer Bucket::result() const {
  if (!impl_) return {};
  auto const current = impl_->current.load(std::memory_order_acquire);
  return {impl_->results[current].data(), impl_->elements, impl_->dtype};
}

}  // namespace holdfast

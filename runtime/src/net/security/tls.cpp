#include "tls.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <string_view>
#include <utility>

#include <asio/error.hpp>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <sys/socket.h>

#include <holdfast/runtime/error.hpp>

namespace holdfast::net::security {
namespace {

// The one suite: its hash is that of the shared key, and every processor of the last decade computes it in hardware.
constexpr char const* kSuite = "TLS_AES_128_GCM_SHA256";
constexpr std::array<unsigned char, 2> kSuiteNumber{0x13, 0x01};
constexpr std::string_view kIdentity = "holdfast";
constexpr std::string_view kBindingLabel = "EXPORTER-holdfast";

struct Free {
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(SSL* session) const { SSL_free(session); }
  void operator()(BIO_METHOD* method) const { BIO_meth_free(method); }
};

std::string last_reason() {
  char const* const reason = ERR_reason_error_string(ERR_peek_last_error());
  return reason != nullptr ? reason : "no reason given";
}

// --- a socket that raises no SIGPIPE, which OpenSSL's own does -----------------------------------------------------

int socket_of(BIO* bio) {
  return static_cast<int>(reinterpret_cast<std::intptr_t>(BIO_get_data(bio)));
}

int take_result(BIO* bio, ssize_t result, std::size_t* moved, int retry) {
  BIO_clear_retry_flags(bio);
  if (result > 0) {
    *moved = static_cast<std::size_t>(result);
    return 1;
  }
  if (result < 0 && (errno == EAGAIN || errno == EINTR)) BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
  return 0;
}

int write_socket(BIO* bio, char const* data, std::size_t bytes, std::size_t* written) {
  return take_result(bio, ::send(socket_of(bio), data, bytes, MSG_NOSIGNAL), written, BIO_FLAGS_WRITE);
}

int read_socket(BIO* bio, char* data, std::size_t bytes, std::size_t* read) {
  auto const result = ::recv(socket_of(bio), data, bytes, 0);
  if (result == 0) BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
  return take_result(bio, result, read, BIO_FLAGS_READ);
}

long control_socket(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_FLUSH) return 1;
  if (command == BIO_CTRL_EOF) return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  return 0;
}

BIO_METHOD* socket_method() {
  static std::unique_ptr<BIO_METHOD, Free> const method = [] {
    std::unique_ptr<BIO_METHOD, Free> made(BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "socket"));
    BIO_meth_set_write_ex(made.get(), write_socket);
    BIO_meth_set_read_ex(made.get(), read_socket);
    BIO_meth_set_ctrl(made.get(), control_socket);
    return made;
  }();
  return method.get();
}

// --- the key that both sides know ----------------------------------------------------------------------------------

SSL_SESSION* session_of(SSL* ssl) {
  auto const* const key = static_cast<Key const*>(SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl)));
  SSL_SESSION* const session = SSL_SESSION_new();
  SSL_CIPHER const* const suite = SSL_CIPHER_find(ssl, kSuiteNumber.data());
  auto const* const context = reinterpret_cast<unsigned char const*>(kIdentity.data());
  if (session != nullptr && suite != nullptr &&
      SSL_SESSION_set1_id_context(session, context, static_cast<unsigned>(kIdentity.size())) == 1 &&
      SSL_SESSION_set1_master_key(session, reinterpret_cast<unsigned char const*>(key->data()), key->size()) == 1 &&
      SSL_SESSION_set_cipher(session, suite) == 1 && SSL_SESSION_set_protocol_version(session, TLS1_3_VERSION) == 1)
    return session;
  SSL_SESSION_free(session);
  return nullptr;
}

int find_key(SSL* ssl, unsigned char const* identity, std::size_t bytes, SSL_SESSION** session) {
  bool const is_ours = std::string_view(reinterpret_cast<char const*>(identity), bytes) == kIdentity;
  *session = is_ours ? session_of(ssl) : nullptr;
  return 1;
}

int offer_key(SSL* ssl, EVP_MD const*, unsigned char const** identity, std::size_t* bytes, SSL_SESSION** session) {
  *identity = reinterpret_cast<unsigned char const*>(kIdentity.data());
  *bytes = kIdentity.size();
  *session = session_of(ssl);
  return *session != nullptr ? 1 : 0;
}

}  // namespace

struct TlsContext::Impl {
  std::unique_ptr<SSL_CTX, Free> context{SSL_CTX_new(TLS_method())};
  Key key{};
  bool has_shared_key = false;

  Impl() {
    if (!context || SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(context.get(), kSuite) != 1)
      throw Error(Errc::environment, "OpenSSL has no TLS 1.3 with " + std::string(kSuite));
    SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
    // OpenSSL treats a shared key as a session taken up again, and those have to belong to somebody.
    SSL_CTX_set_session_id_context(context.get(), reinterpret_cast<unsigned char const*>(kIdentity.data()),
                                   static_cast<unsigned>(kIdentity.size()));
    SSL_CTX_set_num_tickets(context.get(), 0);
    SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
    // Messages tell their length, so a connection that ends early shows as an unfinished message.
    SSL_CTX_set_options(context.get(), SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context.get(), 1);
  }
};

TlsContext::TlsContext(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
TlsContext::~TlsContext() = default;

std::shared_ptr<TlsContext> TlsContext::with_shared_key(Key const& key) {
  auto impl = std::make_unique<Impl>();
  impl->key = key;
  impl->has_shared_key = true;
  SSL_CTX_set_app_data(impl->context.get(), &impl->key);
  SSL_CTX_set_psk_find_session_callback(impl->context.get(), find_key);
  SSL_CTX_set_psk_use_session_callback(impl->context.get(), offer_key);
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

std::shared_ptr<TlsContext> TlsContext::with_certificates(std::string const& certificate, std::string const& key,
                                                          std::string const& authority) {
  auto impl = std::make_unique<Impl>();
  auto* const context = impl->context.get();
  auto const check = [](int result, char const* name, std::string const& path) {
    if (result != 1)
      throw Error(Errc::bad_config, std::string(name) + " = \"" + path + "\" cannot be used: " + last_reason() +
                                        "; it must be in PEM form");
  };
  ERR_clear_error();
  check(SSL_CTX_use_certificate_chain_file(context, certificate.c_str()), "tls_certificate", certificate);
  check(SSL_CTX_use_PrivateKey_file(context, key.c_str(), SSL_FILETYPE_PEM), "tls_key", key);
  check(SSL_CTX_check_private_key(context), "tls_key", key);
  check(SSL_CTX_load_verify_locations(context, authority.c_str(), nullptr), "tls_ca", authority);
  return std::shared_ptr<TlsContext>(new TlsContext(std::move(impl)));
}

struct TlsSession::Impl {
  std::shared_ptr<TlsContext> context;
  std::unique_ptr<SSL, Free> ssl;
};

TlsSession::TlsSession(std::shared_ptr<TlsContext> context, Role role, int socket) : impl_(std::make_unique<Impl>()) {
  impl_->ssl.reset(SSL_new(context->impl_->context.get()));
  impl_->context = std::move(context);
  BIO* const bio = BIO_new(socket_method());
  if (!impl_->ssl || bio == nullptr) throw Error(Errc::environment, "OpenSSL cannot make a TLS session");
  BIO_set_data(bio, reinterpret_cast<void*>(static_cast<std::intptr_t>(socket)));
  BIO_set_init(bio, 1);
  SSL_set_bio(impl_->ssl.get(), bio, bio);
  if (role == Role::caller) {
    SSL_set_connect_state(impl_->ssl.get());
  } else {
    SSL_set_accept_state(impl_->ssl.get());
  }
}

TlsSession::~TlsSession() = default;

Outcome<TlsSession::Wait> TlsSession::advance() {
  ERR_clear_error();
  int const result = SSL_do_handshake(impl_->ssl.get());
  switch (SSL_get_error(impl_->ssl.get(), result)) {
    case SSL_ERROR_NONE:
      break;
    case SSL_ERROR_WANT_READ:
      return Wait::to_read;
    case SSL_ERROR_WANT_WRITE:
      return Wait::to_write;
    case SSL_ERROR_SSL:
      return fail(Errc::corrupt_message,
                  "no TLS that this job accepts (" + last_reason() + "); every member needs the same tls settings");
    default:
      return fail(Errc::member_lost,
                  "the connection was closed during the TLS handshake; the other side may have other tls settings");
  }
  bool const is_shared_key = SSL_session_reused(impl_->ssl.get()) == 1;
  if (is_shared_key != impl_->context->impl_->has_shared_key)
    return fail(Errc::corrupt_message, "TLS without the key of this job");
  return Wait::nothing;
}

Hash TlsSession::binding() const {
  Hash binding;
  if (SSL_export_keying_material(impl_->ssl.get(), reinterpret_cast<unsigned char*>(binding.data()), binding.size(),
                                 kBindingLabel.data(), kBindingLabel.size(), nullptr, 0, 0) != 1)
    throw Error(Errc::environment, "OpenSSL cannot export keying material");
  return binding;
}

std::size_t TlsSession::read_some(std::span<std::byte> bytes, std::error_code& error) {
  error = {};
  if (bytes.empty()) return 0;
  ERR_clear_error();
  std::size_t read = 0;
  int const result = SSL_read_ex(impl_->ssl.get(), bytes.data(), bytes.size(), &read);
  if (result == 1) return read;
  switch (SSL_get_error(impl_->ssl.get(), result)) {
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE:
      error = asio::error::would_block;
      break;
    case SSL_ERROR_ZERO_RETURN:
      error = asio::error::eof;
      break;
    case SSL_ERROR_SSL:
      error = std::make_error_code(std::errc::protocol_error);
      break;
    default:
      error = asio::error::connection_reset;
  }
  return 0;
}

std::size_t TlsSession::write_some(std::span<std::byte const> bytes, std::error_code& error) {
  error = {};
  if (bytes.empty()) return 0;
  ERR_clear_error();
  std::size_t written = 0;
  int const result = SSL_write_ex(impl_->ssl.get(), bytes.data(), bytes.size(), &written);
  if (result == 1) return written;
  int const code = SSL_get_error(impl_->ssl.get(), result);
  bool const would_block = code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE;
  error = would_block ? std::error_code(asio::error::would_block) : std::error_code(asio::error::connection_reset);
  return 0;
}

bool TlsSession::has_pending() const {
  return SSL_has_pending(impl_->ssl.get()) == 1;
}

}  // namespace holdfast::net::security

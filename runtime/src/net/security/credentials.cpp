#include "credentials.hpp"

#include <fstream>
#include <iterator>
#include <memory>

#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <sys/stat.h>

#include <holdfast/runtime/error.hpp>
#include <holdfast/runtime/log.hpp>

#include "tls.hpp"

namespace holdfast::net::security {
namespace {

constexpr std::size_t kMostSecretBytes = 4'096;

std::string read_secret(std::string const& path) {
  std::ifstream file(path, std::ios::binary);
  std::string secret(kMostSecretBytes + 1, '\0');
  file.read(secret.data(), static_cast<std::streamsize>(secret.size()));
  secret.resize(static_cast<std::size_t>(file.gcount()));
  if (!file.is_open() || file.bad() || secret.size() > kMostSecretBytes)
    throw Error(Errc::bad_config, "job_secret_file = \"" + path + "\" cannot be read, or holds more than " +
                                      std::to_string(kMostSecretBytes) + " bytes (HOLDFAST_JOB_SECRET_FILE)");
  // Editors and `echo` end a file with a newline that nobody means.
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_IRGRP | S_IROTH)) != 0)
    log_warning("the job secret in " + path + " can be read by other users of this host; chmod 600 it");
  return secret;
}

}  // namespace

Key derive_key(std::string_view secret, std::string_view use) {
  struct Free {
    void operator()(EVP_KDF* kdf) const { EVP_KDF_free(kdf); }
    void operator()(EVP_KDF_CTX* context) const { EVP_KDF_CTX_free(context); }
  };
  std::unique_ptr<EVP_KDF, Free> const kdf(EVP_KDF_fetch(nullptr, "HKDF", nullptr));
  std::unique_ptr<EVP_KDF_CTX, Free> const context(kdf ? EVP_KDF_CTX_new(kdf.get()) : nullptr);
  auto const octets = [](char const* name, std::string_view text) {
    return OSSL_PARAM_construct_octet_string(name, const_cast<char*>(text.data()), text.size());
  };
  std::string digest = "SHA256";
  OSSL_PARAM const parameters[] = {OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest.data(), 0),
                                   octets(OSSL_KDF_PARAM_KEY, secret), octets(OSSL_KDF_PARAM_SALT, "holdfast"),
                                   octets(OSSL_KDF_PARAM_INFO, use), OSSL_PARAM_construct_end()};
  Key key;
  if (!context ||
      EVP_KDF_derive(context.get(), reinterpret_cast<unsigned char*>(key.data()), key.size(), parameters) <= 0)
    throw Error(Errc::environment, "OpenSSL cannot derive keys by HKDF with SHA-256");
  return key;
}

Hash sha256(std::string_view text) {
  Hash hash;
  unsigned int bytes = 0;
  if (EVP_Digest(text.data(), text.size(), reinterpret_cast<unsigned char*>(hash.data()), &bytes, EVP_sha256(),
                 nullptr) != 1)
    throw Error(Errc::environment, "OpenSSL cannot compute SHA-256");
  return hash;
}

Config with_secret_read(Config config) {
  if (config.job_secret_file.empty()) return config;
  config.job_secret = read_secret(config.job_secret_file);
  config.job_secret_file.clear();
  config.validate();
  if (config.job_secret.empty()) throw Error(Errc::bad_config, "the file that job_secret_file names is empty");
  return config;
}

Credentials credentials_of(Config const& given) {
  auto const config = with_secret_read(given);
  Credentials credentials;
  credentials.job = sha256(config.job_id);
  if (!config.job_secret.empty()) credentials.authentication_key = derive_key(config.job_secret, "authentication");
  if (config.tls == "on")
    credentials.tls = config.tls_certificate.empty()
                          ? TlsContext::with_shared_key(derive_key(config.job_secret, "tls of job " + config.job_id))
                          : TlsContext::with_certificates(config.tls_certificate, config.tls_key, config.tls_ca);
  return credentials;
}

std::string kind_of_security(Config const& config) {
  bool const has_secret = !config.job_secret.empty() || !config.job_secret_file.empty();
  std::string kind = has_secret ? "secret" : "";
  if (config.tls == "on")
    kind += std::string(has_secret ? "+" : "") + (config.tls_certificate.empty() ? "tls" : "certificates");
  return kind.empty() ? "none" : kind;
}

}  // namespace holdfast::net::security

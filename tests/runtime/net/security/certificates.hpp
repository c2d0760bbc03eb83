#pragma once

#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/// Certificates for tests: an authority and members that it vouches for, made anew each time.
namespace holdfast::testing {

struct FreeKey {
  void operator()(EVP_PKEY* key) const { EVP_PKEY_free(key); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(std::FILE* file) const { std::fclose(file); }
};

struct Identity {
  std::unique_ptr<EVP_PKEY, FreeKey> key;
  std::unique_ptr<X509, FreeKey> certificate;
};

inline Identity make_identity(std::string const& name, Identity const* authority) {
  Identity made;
  made.key.reset(EVP_EC_gen("P-256"));
  made.certificate.reset(X509_new());
  X509* const certificate = made.certificate.get();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set(X509_get_serialNumber(certificate), static_cast<long>(std::hash<std::string>{}(name)&0xFFFFFF));
  X509_gmtime_adj(X509_getm_notBefore(certificate), -3600);
  X509_gmtime_adj(X509_getm_notAfter(certificate), 3600);
  X509_set_pubkey(certificate, made.key.get());
  auto const* const text = reinterpret_cast<unsigned char const*>(name.c_str());
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC, text, -1, -1, 0);
  X509_set_issuer_name(certificate,
                       X509_get_subject_name(authority != nullptr ? authority->certificate.get() : certificate));
  if (authority == nullptr) {
    X509_EXTENSION* const extension = X509V3_EXT_conf_nid(nullptr, nullptr, NID_basic_constraints, "critical,CA:TRUE");
    X509_add_ext(certificate, extension, -1);
    X509_EXTENSION_free(extension);
  }
  if (X509_sign(certificate, authority != nullptr ? authority->key.get() : made.key.get(), EVP_sha256()) == 0)
    throw std::runtime_error("cannot sign a certificate");
  return made;
}

inline std::string write_certificate(std::filesystem::path const& path, Identity const& identity) {
  std::unique_ptr<std::FILE, FreeKey> const file(std::fopen(path.c_str(), "w"));
  PEM_write_X509(file.get(), identity.certificate.get());
  return path;
}

inline std::string write_key(std::filesystem::path const& path, Identity const& identity) {
  std::unique_ptr<std::FILE, FreeKey> const file(std::fopen(path.c_str(), "w"));
  PEM_write_PrivateKey(file.get(), identity.key.get(), nullptr, nullptr, 0, nullptr, nullptr);
  return path;
}

}  // namespace holdfast::testing
